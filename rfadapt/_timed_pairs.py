"""Pairs with the times at which training looks at them: anywhere on the way, or where a solver stops."""

from __future__ import annotations

import torch


def _stratified(n, generator):
    """Times that cover [0, 1] evenly in every batch: less noise than independent draws, the same mean."""
    return (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n


def _evenly(n, generator):
    return (torch.arange(n) + 0.5) / n


class AnyTime:
    """Pairs of a coupling, at times that cover [0, 1].

    Parameters
    ----------
    pairs : object with `sample(n, generator) -> (x0, x1)`
    """

    def __init__(self, pairs):
        self._pairs = pairs

    def sample(self, n, generator, places=_stratified):
        """Tensors x0 and x1 of shape (n, n_features), and t of shape (n,)."""
        x0, x1 = self._pairs.sample(n, generator)
        return x0, x1, places(len(x0), generator).to(x0.device, non_blocking=True)

    def fixed(self, n):
        """The same pairs at the same evenly spaced times whenever it is called."""
        return self.sample(n, torch.Generator().manual_seed(0), _evenly)


class MatchedPairs:
    """What a flow itself makes of rows: where they are at the times of a grid. Each interval has pairs of its own.

    A row's pair in an interval is the one whose path goes through where the row is at both its ends. A field that tells
    of this pair all over the interval makes the flow *first-order* there, so that one step along the path crosses it.
    With a single interval these are the pairs of reflow.

    Parameters
    ----------
    states : Tensor of shape (n_times, n_rows, n_features)
        Where the rows are at the times of the grid.
    grid : Tensor of shape (n_times,)
        Increasing or decreasing times.
    path : Path
    at_starts : bool
        Whether the pairs are looked at only where an interval begins, as a solver does; else anywhere in it.

    References
    ----------
    Wang et al., "Rectified Diffusion: Straightness Is Not Your Need in Rectified Flow", 2024; with times at the starts:
    Nguyen, Nguyen, Nguyen, "Bellman Optimal Stepsize Straightening of Flow-Matching Models", ICLR 2024.
    """

    def __init__(self, states, grid, path, *, at_starts):
        self._states, self._path, self._at_starts = states, path, at_starts
        self._grid = grid.to(states)

    def sample(self, n, generator, places=_stratified):
        """Tensors x0 and x1 of shape (n, n_features), and t of shape (n,)."""
        n_times, n_rows, _ = self._states.shape
        row = torch.randint(n_rows, (n,), generator=generator)
        # Evenly over the intervals, with as many rows in each.
        place = (n_times - 1) * places(n, generator)
        interval = place.long().clamp_max(n_times - 2)
        share = place - interval
        device = self._states.device
        row, interval, share = (value.to(device, non_blocking=True) for value in (row, interval, share))
        start, end = self._grid[interval], self._grid[interval + 1]
        here, there = self._states[interval, row], self._states[interval + 1, row]
        x0, x1 = self._path.endpoints_between(here, there, start, end)
        # A start is looked at from within its interval, as solvers do.
        return x0, x1, torch.nextafter(start, end) if self._at_starts else torch.lerp(start, end, share)

    def fixed(self, n):
        """The same pairs at the same evenly spaced times whenever it is called."""
        return self.sample(n, torch.Generator().manual_seed(0), _evenly)
