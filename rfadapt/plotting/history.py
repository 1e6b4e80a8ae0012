"""A flow round by round."""

from __future__ import annotations

import numpy as np

from ._drawing import MOVED, new_or_given_axes, tidy

_LABEL = {"ha": "center", "bbox": {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"}}


class HistoryDisplay:
    """Transport cost and straightness after each round: fits, reflows, and calls of `partial_fit`.

    Parameters
    ----------
    rounds : ndarray of shape (n_rounds,)
        0 for a fit on pairs or by a potential, k for the k-th reflow after it.
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
        axes = new_or_given_axes(ax, 2)
        places = np.arange(len(self.rounds))
        names = ["first fit", *(f"reflow {k}" if k else "further fit" for k in self.rounds[1:])]
        titles = ("transport cost", "straightness (0: straight paths)")
        for axis, values, title in zip(axes, (self.transport_cost, self.straightness), titles):
            axis.plot(places, values, "o-", color=MOVED, clip_on=False)
            for x, y in zip(places, values):
                text = f"{y:.0f}" if abs(y) >= 1000 else f"{y:.3g}"
                axis.annotate(text, (x, y), xytext=(0, 9), textcoords="offset points", **_LABEL)
            axis.set_title(title, loc="left")
            axis.set_xticks(places, names)
            axis.set_xlim(-0.5, places[-1] + 0.5)
            axis.set_ylim(0, 1.2 * values.max() if values.max() > 0 else 1.0)
            tidy(axis)
        self.axes_, self.figure_ = axes, axes[0].figure
        return self
