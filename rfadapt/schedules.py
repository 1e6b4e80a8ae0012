"""Time grids for the solvers: which times of [0, 1] a solver stops at."""

from __future__ import annotations

import torch


def uniform_time_grid(n_steps: int) -> torch.Tensor:
    """The times 0, 1/n, ..., 1, of shape (n_steps + 1,). Flip it to integrate backwards.

    Examples
    --------
    >>> from rfadapt.schedules import uniform_time_grid
    >>> uniform_time_grid(4).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return torch.linspace(0.0, 1.0, n_steps + 1, dtype=torch.float64)


SCHEDULES = {"uniform": uniform_time_grid}
