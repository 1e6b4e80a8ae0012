"""Pictures of a fitted transport, as scikit-learn's displays: `Display.from_estimator(...)`, then `plot`.

matplotlib is imported when something is drawn, not before.
"""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils import check_random_state

from ._validation import Samples, check_samples

#: Colours of domain 0, of moved rows and of domain 1; told apart also by those who see colours differently.
SOURCE, MOVED, TARGET = "#d1632a", "#2f6fb3", "#9aa3ad"

_DOMAIN_NAMES = ("domain 0", "domain 1")
_LABEL = {"ha": "center", "bbox": {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"}}


class TransportDisplay:
    """Domain 0 beside domain 1, before and after the transport.

    Shown in the two principal components of `X1`; data with one feature are shown as histograms.

    Parameters
    ----------
    before, after, target : ndarray of shape (n, 1) or (n, 2)
        Rows of domain 0, the same rows moved, and rows of domain 1, in the plane of the picture.
    axis_names : tuple of str
        Labels of its axes.
    domain_names : (str, str), default=("domain 0", "domain 1")
        What to call the domains in the legend.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        The two panels; set by `plot`.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from rfadapt.baselines import AffineTransport
    >>> from rfadapt.datasets import make_gaussian_shift
    >>> from rfadapt.plotting import TransportDisplay
    >>> data = make_gaussian_shift(200, 5, random_state=0)
    >>> transport = AffineTransport().fit(data.X0, data.X1)
    >>> display = TransportDisplay.from_estimator(transport, data.X0, data.X1)
    >>> [axes.get_title(loc="left") for axes in display.axes_]
    ['before', 'after']
    """

    def __init__(self, before, after, target, axis_names, domain_names=_DOMAIN_NAMES):
        self.before, self.after, self.target = before, after, target
        self.axis_names, self.domain_names = axis_names, domain_names

    @classmethod
    def from_estimator(
        cls, transport, X0, X1, *, domain_names=_DOMAIN_NAMES, max_points=1000, random_state=0, ax=None
    ):
        """Move `X0` by a fitted transport and draw it.

        Parameters
        ----------
        transport : BaseTransport
            A fitted transport.
        X0, X1 : array-like of shape (n0, n_features), (n1, n_features)
            Rows of the two domains, seen in `fit` or not.
        domain_names : (str, str), default=("domain 0", "domain 1")
            What to call the domains in the legend.
        max_points : int, default=1000
            Rows drawn of each at most, chosen by `random_state`.
        random_state : int, RandomState instance or None, default=0
            Chooses the rows.
        ax : sequence of two matplotlib Axes, optional
            Where to draw; a new figure otherwise.

        Returns
        -------
        display : TransportDisplay
        """
        rng = check_random_state(random_state)
        X0, X1 = _some_rows(X0, "X0", max_points, rng), _some_rows(X1, "X1", max_points, rng)
        plane, axis_names = _plane(X1.data)
        after = plane(np.asarray(transport.transform(X0)))
        return cls(plane(X0.data), after, plane(X1.data), axis_names, domain_names).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the two panels, on the same scale.

        Parameters
        ----------
        ax : sequence of two matplotlib Axes, optional
            Where to draw; a new figure otherwise.

        Returns
        -------
        self : TransportDisplay
        """
        axes = _axes(ax, 2)
        panels = (
            ("before", self.before, self.domain_names[0], SOURCE),
            ("after", self.after, f"{self.domain_names[0]}, moved", MOVED),
        )
        for axis, (title, moved, label, colour) in zip(axes, panels):
            self._draw(axis, moved, label, colour)
            axis.set_title(title, loc="left")
            _tidy(axis)
            _legend(axis)
        everything = np.concatenate([self.before, self.after, self.target])
        for axis in axes:
            _same_limits(axis, everything)
        self.axes_, self.figure_ = axes, axes[0].figure
        return self

    def _draw(self, axis, moved, label, colour):
        axis.set_xlabel(self.axis_names[0])
        if self.target.shape[1] == 1:
            bins = np.histogram_bin_edges(np.concatenate([self.before, self.after, self.target]), bins=40)
            axis.hist(self.target[:, 0], bins, color=TARGET, alpha=0.6, density=True, label=self.domain_names[1])
            axis.hist(moved[:, 0], bins, color=colour, histtype="step", density=True, label=label)
            axis.set_ylabel("density")
            return
        dots = {"s": 6, "alpha": 0.6, "linewidths": 0, "rasterized": True}
        axis.scatter(*self.target.T, color=TARGET, label=self.domain_names[1], **dots)
        axis.scatter(*moved.T, color=colour, label=label, **dots)
        axis.set_ylabel(self.axis_names[1])


class TrajectoryDisplay:
    """The paths on which a flow takes rows from domain 0 to domain 1.

    Shown in the two principal components of the starts and ends; data with one feature are shown over time.

    Parameters
    ----------
    paths : ndarray of shape (n_times, n, 1) or (n_times, n, 2)
        Positions at evenly spaced times from 0 to 1, in the plane of the picture.
    axis_names : tuple of str
        Labels of its axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from rfadapt import RectifiedFlowTransport
    >>> from rfadapt.datasets import make_gaussian_shift
    >>> from rfadapt.plotting import TrajectoryDisplay
    >>> data = make_gaussian_shift(200, 2, random_state=0)
    >>> flow = RectifiedFlowTransport(max_iter=50, random_state=0).fit(data.X0, data.X1)
    >>> display = TrajectoryDisplay.from_estimator(flow, data.X0, n_times=5, max_paths=30)
    >>> display.paths.shape
    (5, 30, 2)
    """

    def __init__(self, paths, axis_names):
        self.paths, self.axis_names = paths, axis_names

    @classmethod
    def from_estimator(cls, flow, X, *, n_times=25, max_paths=100, random_state=0, ax=None):
        """Follow rows of domain 0 through a fitted flow and draw their paths.

        Parameters
        ----------
        flow : RectifiedFlowTransport
            A fitted flow.
        X : array-like of shape (n_samples, n_features)
            Rows of domain 0.
        n_times : int, default=25
            Points of each path.
        max_paths : int, default=100
            Rows followed at most, chosen by `random_state`.
        random_state : int, RandomState instance or None, default=0
            Chooses the rows.
        ax : matplotlib Axes, optional
            Where to draw; a new figure otherwise.

        Returns
        -------
        display : TrajectoryDisplay
        """
        X = _some_rows(X, "X", max_paths, check_random_state(random_state))
        paths = flow.trajectory(X, n_times)
        plane, axis_names = _plane(np.concatenate([paths[0], paths[-1]]))
        return cls(np.stack([plane(points) for points in paths]), axis_names).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the paths, with a dot at each start and end.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure otherwise.

        Returns
        -------
        self : TrajectoryDisplay
        """
        from matplotlib.collections import LineCollection

        (axis,) = _axes(None if ax is None else [ax], 1)
        times = np.broadcast_to(np.linspace(0, 1, len(self.paths))[:, None, None], (*self.paths.shape[:2], 1))
        over_time = self.paths.shape[2] == 1
        paths = np.concatenate([times, self.paths], axis=2) if over_time else self.paths
        lines = LineCollection(paths.transpose(1, 0, 2), color="#5d6a77", linewidths=0.6, alpha=0.6)
        axis.add_collection(lines)
        axis.scatter(*paths[0].T, s=9, color=SOURCE, linewidths=0, label="start, t = 0", zorder=3)
        axis.scatter(*paths[-1].T, s=9, color=MOVED, linewidths=0, label="end, t = 1", zorder=3)
        axis.autoscale_view()
        axis.set_xlabel("time t" if over_time else self.axis_names[0])
        axis.set_ylabel(self.axis_names[0] if over_time else self.axis_names[1])
        _tidy(axis)
        _legend(axis)
        if not over_time:
            axis.set_aspect("equal", adjustable="datalim")
        self.ax_, self.figure_ = axis, axis.figure
        return self


class HistoryDisplay:
    """Transport cost and straightness after each round of reflow.

    Parameters
    ----------
    rounds : ndarray of shape (n_rounds,)
        0 for the first fit, then one a reflow.
    transport_cost, straightness : ndarray of shape (n_rounds,)
        As recorded in `history_`.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        The two panels; set by `plot`.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from rfadapt import RectifiedFlowTransport
    >>> from rfadapt.datasets import make_gaussian_shift
    >>> from rfadapt.plotting import HistoryDisplay
    >>> data = make_gaussian_shift(200, 2, random_state=0)
    >>> flow = RectifiedFlowTransport(n_reflow=1, max_iter=50, random_state=0).fit(data.X0, data.X1)
    >>> HistoryDisplay.from_estimator(flow).rounds
    array([0, 1])
    """

    def __init__(self, rounds, transport_cost, straightness):
        self.rounds, self.transport_cost, self.straightness = rounds, transport_cost, straightness

    @classmethod
    def from_estimator(cls, flow, *, ax=None):
        """Draw the history of a fitted flow.

        Parameters
        ----------
        flow : RectifiedFlowTransport
            A fitted flow.
        ax : sequence of two matplotlib Axes, optional
            Where to draw; a new figure otherwise.

        Returns
        -------
        display : HistoryDisplay
        """
        names = ("round", "transport_cost", "straightness")
        return cls(*(np.array([entry[name] for entry in flow.history_]) for name in names)).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the two panels, from zero up.

        Parameters
        ----------
        ax : sequence of two matplotlib Axes, optional
            Where to draw; a new figure otherwise.

        Returns
        -------
        self : HistoryDisplay
        """
        axes = _axes(ax, 2)
        titles = ("transport cost", "straightness (0: straight paths)")
        for axis, values, title in zip(axes, (self.transport_cost, self.straightness), titles):
            axis.plot(self.rounds, values, "o-", color=MOVED, clip_on=False)
            for x, y in zip(self.rounds, values):
                text = f"{y:.0f}" if abs(y) >= 1000 else f"{y:.3g}"
                axis.annotate(text, (x, y), xytext=(0, 9), textcoords="offset points", **_LABEL)
            axis.set_title(title, loc="left")
            axis.set_xticks(self.rounds, ["first fit", *(f"reflow {k}" for k in self.rounds[1:])])
            axis.set_xlim(self.rounds[0] - 0.5, self.rounds[-1] + 0.5)
            axis.set_ylim(0, 1.2 * values.max() if values.max() > 0 else 1.0)
            _tidy(axis)
        self.axes_, self.figure_ = axes, axes[0].figure
        return self


def _axes(ax, n):
    """The n axes given, or those of a new figure."""
    if ax is None:
        from matplotlib import pyplot as plt

        return list(plt.subplots(1, n, figsize=(4.8 * n, 4.2), layout="constrained", squeeze=False)[1][0])
    axes = list(np.ravel(ax))
    if len(axes) != n:
        raise ValueError(f"ax must hold {n} matplotlib Axes; got {len(axes)}.")
    return axes


def _some_rows(X, name, most, rng):
    """At most so many rows of any container, as validated samples that every transport takes."""
    X = check_samples(X, name)
    rows = np.sort(rng.choice(len(X), min(most, len(X)), replace=False))
    return Samples(X.rows(rows).cpu().numpy())


def _plane(points):
    """The map to at most two coordinates, and their names."""
    if points.shape[1] == 1:
        return lambda rows: rows, ("feature",)
    pca = PCA(n_components=2).fit(points)
    shares = pca.explained_variance_ratio_
    names = ("first", "second")
    return pca.transform, tuple(f"{n} principal component ({share:.0%})" for n, share in zip(names, shares))


def _same_limits(axis, points):
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.05 * np.maximum(high - low, np.finfo(float).eps)
    axis.set_xlim(low[0] - margin[0], high[0] + margin[0])
    if points.shape[1] == 2:
        axis.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _legend(axis):
    """Above the picture, where it covers nothing."""
    axis.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, markerscale=2, handletextpad=0.3,
        columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip


def _tidy(axis):
    axis.spines[["top", "right"]].set_visible(False)
