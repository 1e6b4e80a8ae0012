"""Before and after."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_random_state

from ._drawing import (
    MOVED,
    SOURCE,
    TARGET,
    legend_above,
    new_or_given_axes,
    principal_plane,
    same_limits,
    some_rows,
    tidy,
)

_DOMAIN_NAMES = ("domain 0", "domain 1")


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
        X0, X1 = some_rows(X0, "X0", max_points, rng), some_rows(X1, "X1", max_points, rng)
        plane, axis_names = principal_plane(X1.data)
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
        axes = new_or_given_axes(ax, 2)
        panels = (
            ("before", self.before, self.domain_names[0], SOURCE),
            ("after", self.after, f"{self.domain_names[0]}, moved", MOVED),
        )
        for axis, (title, moved, label, colour) in zip(axes, panels):
            self._draw(axis, moved, label, colour)
            axis.set_title(title, loc="left")
            tidy(axis)
            legend_above(axis)
        everything = np.concatenate([self.before, self.after, self.target])
        for axis in axes:
            same_limits(axis, everything)
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
