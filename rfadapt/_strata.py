"""Stratified batches: a row from every small region of a sample."""

from __future__ import annotations

import math

import torch
from torch import nn

# Steps of the power method, from the row farthest from the mean: a direction that separates is enough.
_POWER_STEPS = 3
# Entries of a stretch that a row is drawn from, at least.
_SHORTEST = 2


def in_order_of_place(x: torch.Tensor, n_strata: int) -> torch.Tensor:
    """An order of rows whose stretches are regions, down to 1 / `n_strata` of the rows.

    Rows are halved across their first principal direction, again and again, all parts at once.

    Parameters
    ----------
    x : Tensor of shape (n, n_features)
    n_strata : int

    Returns
    -------
    order : Tensor of shape (n,)
        Positions in `x`, on the CPU.
    """
    n, n_halvings = len(x), math.ceil(math.log2(min(len(x), n_strata)))
    # Some rows come twice, so that all parts have the same length.
    length = -(-n // 2**n_halvings)
    order = torch.arange(length * 2**n_halvings, device=x.device)
    for level in range(n_halvings):
        order = order.view(2**level, -1)
        # Not x[order % n], which takes several times as long.
        rows = x.index_select(0, order.flatten() % n).view(*order.shape, -1)
        rows = rows - rows.mean(1, keepdim=True)
        farthest = rows.square().sum(2).argmax(1)
        direction = rows[torch.arange(len(rows), device=x.device), farthest].unsqueeze(2)
        for _ in range(_POWER_STEPS):
            direction = nn.functional.normalize(rows.mT @ (rows @ direction), dim=1)
        order = order.gather(1, (rows @ direction).squeeze(2).argsort(1))
    return order[order < n].cpu()


def drawn_across(order: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """`n` draws from an order, one from each of as many equal stretches; every entry is equally likely.

    Where the stretches would be shorter than two entries, draws are independent: batches of all of few rows would be
    learned by heart.
    """
    if len(order) < _SHORTEST * n:
        return order[torch.randint(len(order), (n,), generator=generator)]
    places = (torch.arange(n) + torch.rand(n, generator=generator)) * (len(order) / n)
    return order[places.long().clamp_max(len(order) - 1)]
