"""What the displays share: axes, colours, the plane of the picture."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from .._samples import Samples
from .._validation import check_samples

#: Colours of domain 0, of moved rows and of domain 1; told apart also by those who see colours differently.
SOURCE, MOVED, TARGET = "#d1632a", "#2f6fb3", "#9aa3ad"


def new_or_given_axes(ax, n):
    """The n axes given, or those of a new figure."""
    if ax is None:
        from matplotlib import pyplot as plt

        return list(plt.subplots(1, n, figsize=(4.8 * n, 4.2), layout="constrained", squeeze=False)[1][0])
    axes = list(np.ravel(ax))
    if len(axes) != n:
        raise ValueError(f"ax must hold {n} matplotlib Axes; got {len(axes)}.")
    return axes


def some_rows(X, name, most, rng):
    """At most so many rows of any container, as validated samples that every transport takes."""
    X = check_samples(X, name)
    rows = np.sort(rng.choice(len(X), min(most, len(X)), replace=False))
    return Samples(X.rows(rows).cpu().numpy())


def principal_plane(points):
    """The map to at most two coordinates, and their names."""
    if points.shape[1] == 1:
        return lambda rows: rows, ("feature",)
    pca = PCA(n_components=2).fit(points)
    shares = pca.explained_variance_ratio_
    names = ("first", "second")
    return pca.transform, tuple(f"{n} principal component ({share:.0%})" for n, share in zip(names, shares))


def same_limits(axis, points):
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.05 * np.maximum(high - low, np.finfo(float).eps)
    axis.set_xlim(low[0] - margin[0], high[0] + margin[0])
    if points.shape[1] == 2:
        axis.set_ylim(low[1] - margin[1], high[1] + margin[1])


def legend_above(axis):
    """Above the picture, where it covers nothing."""
    axis.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, markerscale=2, handletextpad=0.3,
        columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip


def tidy(axis):
    axis.spines[["top", "right"]].set_visible(False)
