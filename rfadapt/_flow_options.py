"""What no single parameter of a flow shows to be wrong: parameters that do not go together, or with the last fit."""

from __future__ import annotations

from .predictions import PREDICTIONS
from .solvers import DDIM, Euler


def check_options(flow) -> None:
    """Refuse parameters of a RectifiedFlowTransport that do not go together.

    Raises
    ------
    ValueError
    """
    if flow.velocity == "potential" and not flow._asks_for_optimal_flow():
        raise ValueError(
            'velocity="potential" is the optimal flow itself, which goes with coupling="ot", path="linear", '
            f'prediction="v" and n_reflow=0; got coupling={flow.coupling!r}, path={flow.path!r}, '
            f'prediction={flow.prediction!r}, n_reflow={flow.n_reflow}. Take velocity="gradient" to regress a field on '
            "the pairs."
        )
    if isinstance(flow.coupling, type):
        raise ValueError(f"coupling must be an instance; got the class {flow.coupling.__name__}. Add parentheses.")
    for callback in flow.callbacks or ():
        if not callable(callback):
            raise ValueError(f"callbacks must hold callables f(state); got {callback!r}.")
    if flow.n_phases > 1 and flow.n_reflow == 0:
        raise ValueError(
            f"n_phases={flow.n_phases} says how reflow makes its pairs, but n_reflow is 0. Set one of them to 1."
        )
    _check_steps(flow)


def _check_steps(flow):
    first_order = flow.solver in ("auto", "euler", "ddim") or isinstance(flow.solver, (Euler, DDIM))
    if flow.distill and flow.straighten:
        raise ValueError(
            "distill=True is straightening to a single step, and straighten=True to the n_steps of the grid; take one."
        )
    if flow.distill and (flow.solver != "auto" or flow.n_steps is not None):
        raise ValueError(
            f'distill=True moves rows in one step and goes with solver="auto" and n_steps=None; got '
            f"solver={flow.solver!r}, n_steps={flow.n_steps}. Set distill=False to follow the flow."
        )
    if flow.straighten and (flow.solver != "auto" or flow.n_steps is None):
        raise ValueError(
            'straighten=True trains for the n_steps steps of a grid and goes with solver="auto" and a number of '
            f"n_steps; got solver={flow.solver!r}, n_steps={flow.n_steps}. For one step set distill=True."
        )
    if flow.straighten and flow._is_potential():
        raise ValueError(
            "straighten=True has nothing to do for the optimal flow, which is exact in one step. Set distill=True for "
            'an inverse in one step as well, or velocity="gradient" to regress a field.'
        )
    if flow.schedule == "bellman" and not first_order:
        raise ValueError(
            'schedule="bellman" is found for solvers of one evaluation a step: "auto", "euler" or "ddim"; got '
            f"solver={flow.solver!r}."
        )
    if flow.schedule == "uniform" and not flow.straighten and flow.solver == "auto" and flow.n_steps is not None:
        raise ValueError(
            f'n_steps={flow.n_steps} needs a named solver, for example solver="rk4"; "auto" finds its own.'
        )


def check_continued(flow, n_features: int) -> None:
    """Refuse to continue a fitted RectifiedFlowTransport that the data or its parameters do not go with any more.

    Raises
    ------
    ValueError
    """
    anew = "Call fit with warm_start=False to start anew."
    known = len(flow.geometry_.scale)
    if known != n_features:
        raise ValueError(f"The last fit, which is to be continued, was on {known} features; got {n_features}. {anew}")
    last = flow.velocity_
    if last.path != flow._path() or type(last.prediction) is not PREDICTIONS[flow.prediction]:
        raise ValueError(
            "The last fit, which is to be continued, had another path or prediction form; got "
            f"path={flow.path!r}, prediction={flow.prediction!r}. {anew}"
        )
    n_phases = last.n_phases
    if flow.n_phases not in (1, n_phases) and n_phases > 1:
        raise ValueError(
            f"The last fit, which is to be continued, has a field for each of {n_phases} phases; got "
            f"n_phases={flow.n_phases}. {anew}"
        )
    kind = type(last.at_end(0))
    if not flow._continues(kind):
        raise ValueError(
            f"The last fit, which is to be continued, has a field of the class {kind.__name__}; got "
            f"velocity={flow.velocity!r}. {anew}"
        )
