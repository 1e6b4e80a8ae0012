"""What few evaluations of the field cost."""

from __future__ import annotations

import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..metrics import l2_uvp
from ._drawing import new_or_given_axes, some_rows, tidy

_MARKERS = "os^Dv<>P"


class FewStepDisplay:
    """Error of flows against the evaluations of the field for each row, one line per method.

    The error is the mean squared distance from where a flow ends with few evaluations to where the same flow ends with
    many, or to where rows should go, in percent of the variance there.

    Parameters
    ----------
    errors : dict of {str: dict of {int: float}}
        By the name of the method and the number of evaluations.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from rfadapt import RectifiedFlowTransport
    >>> from rfadapt.datasets import make_gaussian_shift
    >>> from rfadapt.plotting import FewStepDisplay
    >>> data = make_gaussian_shift(200, 2, random_state=0)
    >>> flow = RectifiedFlowTransport("independent", schedule="bellman", max_iter=50, random_state=0)
    >>> flow = flow.fit(data.X0, data.X1)
    >>> display = FewStepDisplay.from_estimator(flow, data.X0, n_evaluations=[1, 2, 4])
    >>> {name: list(line) for name, line in display.errors.items()}
    {'uniform': [1, 2, 4], 'bellman': [1, 2, 4]}
    """

    def __init__(self, errors):
        self.errors = errors

    @classmethod
    def from_estimator(
        cls, flow, X, *, X_moved=None, n_evaluations=(1, 2, 3, 4, 6, 8, 16), max_samples=2000, random_state=0, ax=None
    ):
        """Move rows with few evaluations and with many, and draw how far apart they end.

        Parameters
        ----------
        flow : RectifiedFlowTransport or dict of {str: RectifiedFlowTransport}
            Fitted flows. Of each there is a line for steps of one evaluation on the uniform grid; one for Bellman's
            grid, where it was fitted with `schedule="bellman"`; and a point for its students, where it has any.
        X : array-like of shape (n_samples, n_features)
            Rows of domain 0, best some that the flows have not seen.
        X_moved : array-like of shape (n_samples, n_features), optional
            Where they should go, where that is known. By default it is where each flow takes them with many steps.
        n_evaluations : sequence of int
            Numbers of evaluations.
        max_samples : int, default=2000
            Rows that are moved at most.
        random_state : int, default=0
            Which rows, if there are more.
        ax : matplotlib Axes, optional
            Where to draw; a new figure otherwise.

        Returns
        -------
        display : FewStepDisplay
        """
        flows = flow if isinstance(flow, dict) else {"": flow}
        if not n_evaluations or min(n_evaluations) < 1:
            raise ValueError(f"n_evaluations must hold numbers of at least 1; got {n_evaluations!r}.")
        rows = some_rows(X, "X", max_samples, np.random.RandomState(random_state)).numpy()
        expected = None
        if X_moved is not None:
            # The same draw, so that rows stay with their images.
            expected = some_rows(X_moved, "X_moved", max_samples, np.random.RandomState(random_state)).numpy()
        errors = {}
        for name, one in flows.items():
            check_is_fitted(one)
            for way, line in _lines(one, rows, expected, sorted(n_evaluations)).items():
                errors[f"{name}, {way}" if name else way] = line
        return cls(errors).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the lines, on logarithmic axes.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure otherwise.

        Returns
        -------
        self : FewStepDisplay
        """
        (axis,) = new_or_given_axes(ax, 1)
        ticks = sorted({n for line in self.errors.values() for n in line})
        for k, (name, line) in enumerate(self.errors.items()):
            # An error of exactly 0 has no place on a logarithmic axis; this is below any that rounding leaves.
            values = np.maximum(list(line.values()), 1e-12)
            axis.plot(list(line), values, marker=_MARKERS[k % len(_MARKERS)], label=name, clip_on=False)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(ticks, [str(n) for n in ticks])
        axis.minorticks_off()
        axis.set_xlabel("evaluations of the field for each row")
        axis.set_title("error, % of the variance", loc="left")
        axis.legend(frameon=False)
        tidy(axis)
        self.ax_, self.figure_ = axis, axis.figure
        return self


def _lines(flow, X, expected, n_evaluations):
    """{way: {evaluations: error}} of one flow."""
    plain = {"distill": False, "straighten": False, "schedule": "uniform", "n_steps": None}

    def moved(**params):
        return copy.copy(flow).set_params(**{**plain, **params}).transform(X)

    exact = moved(solver="rk4", n_steps=32) if expected is None else expected

    def line(schedule):
        return {n: l2_uvp(moved(solver="ddim", n_steps=n, schedule=schedule), exact) for n in n_evaluations}

    lines = {"uniform": line("uniform")}
    if flow.step_costs_ is not None:
        lines["bellman"] = line("bellman")
    if flow.distillation_ is not None:
        n_steps = len(flow.distillation_["grid"]) - 1
        way = "distilled" if flow.distill else "straightened"
        lines[way] = {n_steps: l2_uvp(flow.transform(X), exact)}
    return lines
