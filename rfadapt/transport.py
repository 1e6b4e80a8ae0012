"""RectifiedFlowTransport: the map between two samples as the flow of an ordinary differential equation."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from . import metrics
from ._devices import batch_rows
from ._flow_fit import FlowFit
from ._flow_map import device_of, flow_map
from ._flow_options import check_options
from ._flow_state import flow_state, restored
from ._rounds import run_rounds
from ._validation import check_labels, check_new_samples, check_samples, fitting
from .base import InvertibleTransport
from .couplings import COUPLINGS, OTCoupling, PairedCoupling
from .paths import PATHS, LinearPath, Path
from .predictions import PREDICTIONS
from .schedules import uniform_time_grid
from .solvers import SOLVERS, Solver
from .velocity import VELOCITIES, ConvexPotential, PotentialVelocity

_UNKNOWN_WIDTH = 512


class RectifiedFlowTransport(InvertibleTransport):
    r"""Learn a map between two unpaired samples as the flow of an ordinary differential equation.

    Rectified flow pairs the samples by a coupling, connects every pair by a path x_t and fits the mean
    velocity of the pairs that pass through a place,

    .. math:: v = \arg\min_v \int_0^1 E \| \dot x_t - v(x_t, t) \|^2 dt,

    and the map takes x0 to the end of dx = v(x, t) dt at t = 1. The flow moves the whole of domain 0 onto
    domain 1, it is invertible, and it applies to rows that were not in `fit`.

    Here the velocity starts from the exact one between Gaussians with the samples' means and (shrunk)
    covariances, and learns what that affine map cannot do. Each domain is centred on its own mean: the flow
    runs in the frame that moves from one mean to the other.

    Parameters
    ----------
    coupling : {"ot", "independent", "class_aware", "joint"} or object, default="ot"
        Who goes where: exact optimal transport on large blocks (`OTCoupling`), all with all, the classes of `y0` each
        with itself (`ClassAwareCoupling`), rows that are near in features and numeric labels (`JointCoupling`),
        `PairedCoupling` for known pairs, or an object of your own (see `rfadapt.couplings`).
    path : {"linear", "vp", "sub-vp", "trigonometric"} or Path, default="linear"
        How a pair moves in time; see `rfadapt.paths`.
    velocity : {"auto", "potential", "gradient", "mlp"} or callable, default="auto"
        The field. "potential" is the exact velocity of the optimal flow, whose convex potential is fitted by the
        semi-dual of optimal transport (`PotentialVelocity`); nothing is paired and nothing regressed. "gradient"
        (`GradientVelocity`, the gradient of a potential), "mlp" (`MLPVelocity`) and a factory
        `f(n_features) -> nn.Module` with `forward(x, t)`, t of shape (n,), are regressed on the coupling's pairs.
        "auto" is "potential" where the optimal flow is what is asked for, that is with `coupling="ot"`, the
        linear path and no reflow, and "gradient" elsewhere, also with an `OTCoupling` of your own.
    base : {"affine"} or None, default="affine"
        The fixed part of a regressed field: the optimal one between Gaussians, or nothing.
    prediction : {"v", "x1", "x0"}, default="v"
        What a regressed field is trained to tell, and so which errors count: the velocity, where a row ends, or where
        it began (the noise, where the source is noise); see `rfadapt.predictions`. Curved paths whose start is slow
        ("vp", "sub-vp") need "x1" for few steps.
    scaling : {"feature", "common"} or None, default="feature"
        The geometry of the transport cost. "feature" brings each feature to unit pooled standard deviation,
        for tables with mixed units; "common" divides all by one number, where Euclidean distance already
        means something (pixels, embeddings); None leaves the data as they are.
    rotation : {"auto"} or bool, default="auto"
        Whether domain 0 is turned before the flow starts, as a camera may be against another one. The optimal flow
        moves every row as little as it can and so never turns a cloud as a whole. True finds the turn that exact
        transport and Procrustes agree on (see `rfadapt.rotation`). "auto" does so for the optimal flow where the rows
        are too few to show it more than the affine map (training is then undone, see `validation_fraction`) within
        half of `max_time`, and takes the turn only if it brings held-out rows clearly closer to their target. False
        never turns.
    n_reflow : int, default=0
        Rounds of reflow: refit on the pairs that the flow itself makes, from both ends. Every round
        straightens the paths and lowers the transport cost, as far as the fit is exact. The path and the prediction
        form are kept: along a curved path, rows come to follow the path of one pair each (Rectified Diffusion).
    n_phases : int, default=1
        Intervals of time in each of which a reflow round makes one step exact, by pairs and a field of its own (phased
        Rectified Diffusion). With 1, that interval is all of [0, 1].
    distill : bool, default=False
        Train two students of the flow at the end of `fit`, one for each direction, that move rows in one step, at one
        evaluation of a field. It is worth it after a reflow; without one a step has too far to go. `distillation_`
        says what it costs, and there is a warning if a student's energy distance to the target is above that of the
        flow by more than 10 % and two standard errors. Set it to False to follow the flow again.
    straighten : bool, default=False
        Train such students for the `n_steps` steps of the time grid that `schedule` gives, instead of for one.
    solver : {"auto", "euler", "ddim", "midpoint", "heun", "rk4", "dopri5"} or Solver, default="auto"
        "auto" is the solver and the number of steps with the fewest evaluations that end within half a percent
        (root mean square, relative to the spread) of where many steps end; found at the end of `fit` and kept in
        `solver_` and `n_steps_`. Read at `transform`, as is `n_steps`; both may be changed after `fit`.
    n_steps : int, default=None
        Steps of a named solver from t = 0 to t = 1; None is 8. Not used by "dopri5", which chooses its own.
    schedule : {"uniform", "bellman"}, default="uniform"
        Time grid of the solver. "bellman" is the grid whose `n_steps` steps have the smallest sum of squared errors
        (`rfadapt.schedules.optimal_time_grid`), by costs found at the end of `fit`; the solver is then "euler", or
        "ddim" along curved paths, also with `solver="auto"`.
    width : int or "auto", default="auto"
        Members of the soft maxima ("potential"), ridge functions ("gradient") or hidden units ("mlp"). "auto" is 256
        sqrt(n_features), but at most 2048 (for "potential" 256, or 512 with `max_time` and at most 8 features), at
        most a quarter of the rows, and at least 64. "potential" rounds it up to a multiple of 8.
    n_estimators : int or "auto", default="auto"
        Potentials ("potential") that are trained one after the other, from other first weights and with other rows
        held out, and averaged: the mean of their maps errs less than they do, by what they owe to chance, and a row
        that is moved costs an evaluation of each. They are shrunk towards the affine map as far as that lowers the
        loss of the rows that were held out from each, taken together. "auto" is 1, but with `max_time` as many as there
        is time for, at most 8, and 2 to 4 where some rows are held out and the smaller sample has n_features^2 to 2048
        others. A continued fit goes on with those that it has.
    max_iter : int or "auto", default="auto"
        Optimiser steps per round, and of each potential. "auto" is 3000 for a regressed field. For a potential it is
        an eighth of the rows, as few rows are soon learned by heart, but at least 200, and without `max_time` at most
        1000.
    max_time : float or None, default=None
        Seconds of training per round at most. If fewer steps than `max_iter` fit in, the step size falls in time to
        end with them, and the result depends on the pace of the machine, also with a `random_state`.
    batch_size : int or "auto", default="auto"
        Pairs per step, or rows of each domain ("potential"). "auto" is 1024 pairs or 2048 rows. Of more rows than that,
        a potential's batches begin on a CPU with a quarter of it, and grow as the step size falls.
    learning_rate : float or "auto", default="auto"
        Peak step size of Adam. "auto" takes the velocity field's own `learning_rate`, else 1e-3.
    early_stopping : bool, default=True
        End a round when the loss on held-out rows has stopped falling. Weights are kept only if they bring the
        held-out rows no further from their target, in energy distance, than the affine start does, up to a standard
        error (in reflow rounds: whatever the energy distance), so that a map that overfits where few rows look is not
        praised by its loss, and if the loss or the energy distance is better than at the start by more than a
        standard error.
        Training then goes back to the best weights, and the step size falls to zero in as many steps as led to them;
        so it does, once, where half-way through the fall the loss is still higher than before the fall.
    validation_fraction : float, default=0.1
        Share of each sample that is held out to watch. The weights returned are the best by the rule above, or those at
        the end where the best are not better by more than a standard error. The start (the affine map, with a base)
        takes part, so that training is undone where it did not beat it. With fewer than 20 rows in a sample nothing is
        held out, and the affine map is the result. With 0 training goes on for `max_iter` steps.
    n_iter_no_change : int, default=8
        Checks, one every 100 steps, without a lower held-out loss after which progress counts as stopped.
    tol : float, default=1e-4
        Share by which the held-out loss must fall to count as lower.
    warm_start : bool, default=False
        Let `fit` continue from the weights of the last one, with its scaling and base.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is CUDA where there is one, else the CPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of the learned field's matrix products in training; "auto" is bfloat16 on a GPU that has it.
    n_jobs : int, default=None
        Threads that pair, for `coupling="ot"` of a regressed field: see `OTCoupling`.
    callbacks : list of callable, default=None
        Each is called with a `TrainingState` at every check, for example a `Checkpoint`; one that returns True ends
        the round.
    random_state : int, RandomState or None, default=None
        Same seed, same result.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    velocity_ : callable
        v(x, t) in the scaled, moving frame.
    solver_, n_steps_ : str, int
        What `solver="auto"` uses.
    step_costs_ : ndarray of shape (n_fine + 1, n_fine + 1) or None
        With `schedule="bellman"` and a regressed field: costs of single steps (`rfadapt.schedules.step_costs`).
    student_, inverse_student_ : callable or None
        With `distill` or `straighten`: the fields that `transform` and `inverse_transform` follow.
    distillation_ : dict or None
        Of the students: `grid`, their times; `teacher_energy_distance` of the flow's images and
        `student_energy_distance` of the student's to the target; `student_error`, the mean squared distance between
        the two, relative to the target's variance; the same with `inverse_` before; `n_iter` and `seconds`. In scaled
        units, over held-out rows where there are any.
    geometry_ : Geometry
        Means, scales and (`geometry_.rotation`, None if there is none) the turn of the two domains.
    history_ : list of dict
        One per round, those of calls of `partial_fit` appended: `round`, `n_iter`, `seconds`, and, over held-out
        rows where there are any, `transport_cost` (mean squared displacement, in squared units of the data) and its
        standard error, `straightness`, `first_orderness` and `one_step_error` (all relative to the target's variance,
        in scaled units), `energy_distance`. With several new potentials they are those of the first one's map, as the
        others have learned from the rows that it held out.
    n_iter_ : int
        Optimiser steps of all rounds.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)

    References
    ----------
    Liu, Gong, Liu, "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2022.

    Liu, "Rectified Flow: A Marginal Preserving Approach to Optimal Transport", 2022.

    Wang et al., "Rectified Diffusion: Straightness Is Not Your Need in Rectified Flow", 2024.

    Nguyen, Nguyen, Nguyen, "Bellman Optimal Stepsize Straightening of Flow-Matching Models", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt import RectifiedFlowTransport
    >>> rng = np.random.default_rng(0)
    >>> X0 = rng.normal(size=(400, 2))
    >>> X1 = rng.normal(size=(300, 2)) * [2.0, 0.5] + [3.0, 0.0]
    >>> flow = RectifiedFlowTransport(max_iter=100, random_state=0).fit(X0, X1)
    >>> moved = flow.transform(X0)
    >>> moved.shape
    (400, 2)
    >>> bool(np.allclose(flow.inverse_transform(moved), X0, atol=1e-2))
    True
    """

    _parameter_constraints = {
        "coupling": [StrOptions(set(COUPLINGS)), HasMethods(["prepare"])],
        "path": [StrOptions(set(PATHS)), Path],
        "velocity": [StrOptions({"auto", "potential", *VELOCITIES}), callable],
        "base": [StrOptions({"affine"}), None],
        "prediction": [StrOptions(set(PREDICTIONS))],
        "scaling": [StrOptions({"feature", "common"}), None],
        "rotation": [StrOptions({"auto"}), "boolean"],
        "n_reflow": [Interval(Integral, 0, None, closed="left")],
        "n_phases": [Interval(Integral, 1, None, closed="left")],
        "distill": ["boolean"],
        "straighten": ["boolean"],
        "solver": [StrOptions({"auto", *SOLVERS}), Solver],
        "n_steps": [Interval(Integral, 1, None, closed="left"), None],
        "schedule": [StrOptions({"uniform", "bellman"})],
        "width": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "n_estimators": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "n_jobs": [Integral, None],
        "callbacks": [list, tuple, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    _needed_to_load = ("velocity", "path", "solver")
    _strategies = {
        kind.__name__: kind
        for kind in (*PATHS.values(), *SOLVERS.values(), *COUPLINGS.values(), PairedCoupling)
    }

    def __init__(
        self,
        coupling="ot",
        path="linear",
        velocity="auto",
        *,
        base="affine",
        prediction="v",
        scaling="feature",
        rotation="auto",
        n_reflow=0,
        n_phases=1,
        distill=False,
        straighten=False,
        solver="auto",
        n_steps=None,
        schedule="uniform",
        width="auto",
        n_estimators="auto",
        max_iter="auto",
        max_time=None,
        batch_size="auto",
        learning_rate="auto",
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=8,
        tol=1e-4,
        warm_start=False,
        device="auto",
        precision="auto",
        n_jobs=None,
        callbacks=None,
        random_state=None,
        verbose=0,
    ):
        self.coupling = coupling
        self.path = path
        self.velocity = velocity
        self.base = base
        self.prediction = prediction
        self.scaling = scaling
        self.rotation = rotation
        self.n_reflow = n_reflow
        self.n_phases = n_phases
        self.distill = distill
        self.straighten = straighten
        self.solver = solver
        self.n_steps = n_steps
        self.schedule = schedule
        self.width = width
        self.n_estimators = n_estimators
        self.max_iter = max_iter
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def _fit(self, X0, X1, y0, y1):
        check_options(self)
        self._run(FlowFit(self, X0, X1, labels=(y0, y1), continues=self.warm_start))

    def partial_fit(self, X0, X1, *, y0=None, y1=None):
        """Go on training on further rows of the two domains, from the present weights.

        The first call fits as `fit` does. Later ones, also after `fit` or `load`, keep the means and scales, the base
        and the field that they find, and train the field for up to `max_iter` steps on the new rows alone. A share
        `validation_fraction` of the new rows is held out, and training is undone where it did not beat the present map
        on them. With fewer than 20 new rows of a domain nothing can be held out, and the map stays as it is (unless
        `early_stopping=False`). A fit that had too few rows to learn anything is not continued but made anew.

        Parameters
        ----------
        X0, X1 : array-like, sparse matrix, Tensor or map-style Dataset of shape (n0, n_features), (n1, n_features)
            New rows of the two domains, with the features of the first call.
        y0, y1 : array-like of shape (n0,), (n1,), optional
            Labels, as in `fit`.

        Returns
        -------
        self : object
            With the new rounds appended to `history_`, and their steps added to `n_iter_`.

        Raises
        ------
        ValueError
            If the rows do not go with the earlier ones, or `velocity` now asks for another field. The transport is
            then left as it was, also after any other failure.

        Examples
        --------
        >>> import numpy as np
        >>> from rfadapt import RectifiedFlowTransport
        >>> rng = np.random.default_rng(0)
        >>> flow = RectifiedFlowTransport(max_iter=100, random_state=0)
        >>> for _ in range(3):
        ...     flow = flow.partial_fit(rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 1)
        >>> len(flow.history_)
        3
        """
        if "velocity_" not in vars(self):
            return super().fit(X0, X1, y0=y0, y1=y1)
        X0, X1 = (check_new_samples(self, X, name) for X, name in ((X0, "X0"), (X1, "X1")))
        labels = check_labels(y0, len(X0), "y0"), check_labels(y1, len(X1), "y1")
        with fitting(self):
            self._validate_params()
            check_options(self)
            self._run(FlowFit(self, X0, X1, labels=labels, continues=True, earlier=self.history_))
        return self

    def _run(self, fit):
        # A module of the user's draws from torch's own generator (first weights, dropout): seeded here, and put back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(fit.generator.initial_seed())
            run_rounds(fit)

    def _transform(self, x):
        return flow_map(self).move(x)

    def _inverse_transform(self, x):
        return flow_map(self).move_back(x)

    def trajectory(self, X, n_times=11):
        """Positions of the rows on their way from domain 0 to domain 1.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of domain 0.
        n_times : int, default=11
            Number of evenly spaced times from 0 to 1, at least 2.

        Returns
        -------
        trajectory : ndarray or Tensor of shape (n_times, n_samples, n_features)
            The first entry is `X`, the last `transform(X)`.
        """
        check_is_fitted(self)
        if not isinstance(n_times, Integral) or n_times < 2:
            raise ValueError(f"n_times must be an integer of at least 2 (start and end); got {n_times!r}.")
        self._validate_params()
        X = check_new_samples(self, X)
        times, way = uniform_time_grid(n_times - 1), flow_map(self)
        trajectory = torch.cat([way.positions(x, times) for _, x in X.batches(self._batch_rows())], dim=1)
        return trajectory if X.is_tensor else trajectory.numpy()

    def score(self, X0, X1):
        """Minus the energy distance of `transform(X0)` to `X1`, over at most 4096 rows of each; higher is better."""
        check_is_fitted(self)
        moved, X1 = self.transform(X0), check_samples(X1, "X1", n_features=self.n_features_in_).numpy()
        moved = moved.cpu().numpy() if isinstance(moved, torch.Tensor) else np.asarray(moved)
        return -metrics.energy_distance(moved, X1, max_samples=4096, random_state=0)

    @property
    def n_evaluations_(self):
        """Evaluations of the field for each row that `transform` moves, as the parameters are now (of "dopri5": None).

        That of a step of a solver of your own is not known either.
        """
        check_is_fitted(self)
        way = flow_map(self)
        each = way.solver.evaluations
        return None if each is None else each * (len(way.grid) - 1)

    def _without_students(self):
        """This transport, set to follow the flow itself."""
        if self.straighten and self.solver == "auto" and self.schedule == "uniform":
            self.n_steps = None  # they were those of the students
        return self.set_params(distill=False, straighten=False)

    def _batch_rows(self):
        learned = self.velocity_.learned
        # A potential takes care itself of what is as wide as it is; a field of the user's own does not tell its width.
        width = 0 if isinstance(learned, PotentialVelocity) else getattr(learned, "width", _UNKNOWN_WIDTH)
        return batch_rows(self.n_features_in_, width, device_of(self.velocity_))

    def _path(self):
        return PATHS[self.path]() if isinstance(self.path, str) else self.path

    @property
    def _reads_numbers(self):
        return getattr(self._coupling(), "reads_labels", None) == "numbers"

    def _coupling(self):
        if self.coupling == "ot":
            return OTCoupling(n_jobs=self.n_jobs)
        return COUPLINGS[self.coupling]() if isinstance(self.coupling, str) else self.coupling

    def _asks_for_optimal_flow(self):
        pairs_are_free = self.coupling == "ot" and self.n_reflow == 0
        return pairs_are_free and isinstance(self._path(), LinearPath) and self.prediction == "v"

    def _is_potential(self):
        return self.velocity in ("auto", "potential") and self._asks_for_optimal_flow()

    def _continues(self, kind):
        """Whether the parameters ask for a field of this class; a factory's are not known before it is called."""
        if self._is_potential():
            return kind is PotentialVelocity
        if callable(self.velocity):
            return kind not in (PotentialVelocity, *VELOCITIES.values())
        return kind is VELOCITIES["gradient" if self.velocity == "auto" else self.velocity]

    def _planned_steps(self, n_rows):
        if self.max_iter != "auto":
            return self.max_iter
        if not self._is_potential():
            return 3000
        enough = max(200, n_rows // 8)
        return min(1000, enough) if self.max_time is None else enough

    def _batch_size(self):
        if self.batch_size != "auto":
            return self.batch_size
        return 2048 if self._is_potential() else 1024

    def _make_potential(self, covariance0, covariance1, n_rows, generator, varying):
        group = ConvexPotential.group_size
        # Where there is time, few features are worth more: errors fell by 4 % in 4 and 8 dimensions, and rose in 16.
        largest = 256 if self.max_time is None or len(covariance0) > 8 else 512
        width = -(-self._resolved_width(len(covariance0), n_rows, largest) // group) * group
        return ConvexPotential(covariance0, covariance1, width, generator, varying=varying)

    def _make_velocity(self, n_features, n_rows, generator):
        if not callable(self.velocity):
            kind = VELOCITIES["gradient" if self.velocity == "auto" else self.velocity]
            return kind(n_features, self._resolved_width(n_features, n_rows, 2048), generator=generator)
        module = self.velocity(n_features)
        if not isinstance(module, nn.Module):
            raise TypeError(
                "velocity must be a factory f(n_features) -> torch.nn.Module; the one given returned "
                f"{type(module).__name__}."
            )
        return module

    def _resolved_width(self, n_features, n_rows, largest):
        if self.width != "auto":
            return self.width
        return max(64, int(min(largest, 256 * math.sqrt(n_features), n_rows / 4)) // 64 * 64)

    def _get_state(self):
        return flow_state(self)

    def _set_state(self, tensors, values):
        prediction, fields = values.pop("prediction"), values.pop("fields")
        super()._set_state({}, values)
        vars(self).update(restored(self, tensors, prediction, fields))
