"""The paths of a flow."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_random_state

from ._drawing import MOVED, SOURCE, legend_above, new_or_given_axes, principal_plane, some_rows, tidy


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
        X = some_rows(X, "X", max_paths, check_random_state(random_state))
        paths = flow.trajectory(X, n_times)
        plane, axis_names = principal_plane(np.concatenate([paths[0], paths[-1]]))
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

        (axis,) = new_or_given_axes(None if ax is None else [ax], 1)
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
        tidy(axis)
        legend_above(axis)
        if not over_time:
            axis.set_aspect("equal", adjustable="datalim")
        self.ax_, self.figure_ = axis, axis.figure
        return self
