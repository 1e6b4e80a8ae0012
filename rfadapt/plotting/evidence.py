"""What an adapter found for each account of the shift."""

from __future__ import annotations

from textwrap import fill

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._drawing import MOVED, TARGET, new_or_given_axes, tidy


class EvidenceDisplay:
    """What `transport="auto"` found for each account of the shift, and which one it took.

    A row for each account, the simplest first, with a bar as long as the discrepancy that it leaves: filled where it
    explains the shift, hatched where it does not, blue for the account that was taken. Beside it stand the share of
    the source rows that its weights leave (effective sample size) and, where it was refined by the target's classes,
    its score.

    Parameters
    ----------
    evidence : list of dict
        As in `evidence_`, the simplest first.
    chosen : str
        Name of what moves the rows, as in `chosen_`.
    reason : str, default=""
        Why it was taken, as in `reason_`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`.
    bars_ : matplotlib BarContainer
        In the order of `evidence`.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt import DomainAdapter
    >>> from rfadapt.plotting import EvidenceDisplay
    >>> X = np.random.default_rng(0).gamma(2.0, size=(400, 2))
    >>> adapter = DomainAdapter("auto", random_state=0).fit(X[:200], X_target=X[200:] + 3)
    >>> display = EvidenceDisplay.from_estimator(adapter)
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['nothing', 'importance weights', 'affine']
    """

    def __init__(self, evidence, chosen, reason=""):
        self.evidence, self.chosen, self.reason = evidence, chosen, reason

    @classmethod
    def from_estimator(cls, adapter, *, ax=None):
        """Draw the evidence of a fitted adapter.

        Parameters
        ----------
        adapter : AdaptedClassifier, AdaptedRegressor or DomainAdapter
            Fitted, with `transport="auto"`.
        ax : matplotlib Axes, optional
            Where to draw; a new figure otherwise.

        Returns
        -------
        display : EvidenceDisplay

        Raises
        ------
        NotFittedError
            If the adapter is not fitted.
        ValueError
            If nothing was weighed in fitting it.
        """
        check_is_fitted(adapter)
        if not getattr(adapter, "evidence_", None):
            raise ValueError(
                f"There is no evidence to draw: nothing was weighed in fitting {adapter!r}. Fit AdaptedClassifier, "
                'AdaptedRegressor or DomainAdapter with transport="auto" and with rows of the target.'
            )
        return cls(adapter.evidence_, adapter.chosen_, getattr(adapter, "reason_", "")).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure otherwise. It should be about 7 inches wide.

        Returns
        -------
        self : EvidenceDisplay
        """
        (axis,) = new_or_given_axes(None if ax is None else [ax], 1)
        n = len(self.evidence)
        if ax is None:
            axis.figure.set_size_inches(7.6, 1.5 + 0.55 * n)
        places = np.arange(n)
        left = np.array([entry["discrepancy"] for entry in self.evidence])
        self.bars_ = axis.barh(places, left, height=0.6)
        for bar, entry in zip(self.bars_, self.evidence):
            colour = MOVED if entry["taken"] else TARGET
            bar.set(edgecolor=colour, facecolor=colour if entry["explains"] else "none", linewidth=1.2)
            bar.set_hatch(None if entry["explains"] else "///")
        for place, value in zip(places, left):
            axis.annotate(
                f"{value:.3f}", (max(value, 0), place), xytext=(5, 0), textcoords="offset points", va="center"
            )
        longest = max(left.max(), 0) or 1.0
        axis.set_xlim(min(left.min(), 0), 1.25 * longest)  # room for the number after the bar
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_ylim(n - 0.4, -0.6)
        axis.set_yticks(places, [entry["name"] for entry in self.evidence])
        for place, label, entry in zip(places, axis.get_yticklabels(), self.evidence):
            if entry["taken"]:
                label.set(color=MOVED, fontweight="bold")
                axis.axhspan(place - 0.45, place + 0.45, color=MOVED, alpha=0.12, linewidth=0, zorder=0)
        beside = axis.secondary_yaxis("right")
        beside.set_yticks(places, [_words(entry) for entry in self.evidence])
        beside.tick_params(length=0, labelsize="small")
        beside.spines["right"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("discrepancy left")
        title = f"{self.chosen}: {self.reason}" if self.reason else self.chosen
        axis.set_title(fill(title, 56), loc="left", fontsize="medium")
        tidy(axis)
        axis.spines["left"].set_visible(False)
        self.ax_, self.figure_ = axis, axis.figure
        return self


def _words(entry):
    """Two lines on an account: whether it explains the shift; its effective sample size and score."""
    share = entry["effective_sample_size"]
    share = f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"
    score = "" if entry["score"] is None else f", score {entry['score']:.2f}"
    return f"{'explains' if entry['explains'] else 'does not explain'} the shift\n{share} of rows left{score}"
