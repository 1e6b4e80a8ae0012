"""Stratified batches: a row from every small region of a sample."""

from __future__ import annotations

import torch
from torch import nn

# Steps of the power method, from the row farthest from the mean: a direction that separates is enough.
_POWER_STEPS = 3
# Entries of a stretch that a row is drawn from, at least.
_SHORTEST = 2


def in_order_of_place(x: torch.Tensor, n_strata: int) -> torch.Tensor:
    """An order of rows whose stretches are regions, down to 1 / `n_strata` of the rows.

    Rows are halved across their first principal direction, again and again.

    Parameters
    ----------
    x : Tensor of shape (n, n_features)
    n_strata : int

    Returns
    -------
    order : Tensor of shape (n,)
        Positions in `x`, on the CPU.
    """
    x = x.cpu()

    def halved(index):
        if len(index) * n_strata <= max(len(x), n_strata):
            return [index]
        rows = x[index] - x[index].mean(0)
        direction = rows[rows.square().sum(1).argmax()]
        for _ in range(_POWER_STEPS):
            direction = nn.functional.normalize((rows @ direction) @ rows, dim=0)
        index, middle = index[(rows @ direction).argsort()], len(index) // 2
        return halved(index[:middle]) + halved(index[middle:])

    return torch.cat(halved(torch.arange(len(x))))


def drawn_across(order: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """`n` draws from an order, one from each of as many equal stretches; every entry is equally likely.

    Where the stretches would be shorter than two entries, draws are independent: batches of all of few rows would be
    learned by heart.
    """
    if len(order) < _SHORTEST * n:
        return order[torch.randint(len(order), (n,), generator=generator)]
    places = (torch.arange(n) + torch.rand(n, generator=generator)) * (len(order) / n)
    return order[places.long().clamp_max(len(order) - 1)]
