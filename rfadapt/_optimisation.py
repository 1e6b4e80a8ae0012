"""What every stochastic optimisation here shares: Adam, its step size over time, and the average of the weights."""

from __future__ import annotations

import math
import time

import torch

# Share of the iterations that the step size takes to fall to zero.
_FALL_SHARE = 0.7
_WARM_UP = 50
# Share of the planned steps that the averaged weights look back on.
_AVERAGED_SHARE = 0.02
# Steps after which the last one is foreseen anew where time is limited.
_FORESEE_EVERY = 10


class Adam:
    """Adam with decoupled weight decay, as `torch.optim.AdamW`.

    That one imports torch's compiler when it is first used, which takes longer than many a fit here, and takes more
    than a millisecond a step for a dozen small tensors.

    Parameters
    ----------
    groups : list of dict
        Each with `params`, a list of Tensor; `relative_rate`, which multiplies the step size; and, optionally,
        `weight_decay`.

    References
    ----------
    Kingma, Ba, "Adam: A method for stochastic optimization", ICLR 2015.

    Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    betas, epsilon = (0.9, 0.99), 1e-8

    def __init__(self, groups):
        self._entries = [
            (value, torch.zeros_like(value), torch.zeros_like(value), group)
            for group in groups
            for value in group["params"]
        ]
        self._n_steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move all parameters that have a gradient."""
        self._n_steps += 1
        values, means, squares, groups = zip(*(entry for entry in self._entries if entry[0].grad is not None))
        gradients = [value.grad for value in values]
        beta1, beta2 = self.betas
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, math.sqrt(1 - beta2**self._n_steps))
        torch._foreach_add_(roots, self.epsilon)
        moves = torch._foreach_div(means, roots)
        rates = [rate * group["relative_rate"] for group in groups]
        for value, own_rate, group in zip(values, rates, groups):
            if group.get("weight_decay"):
                value.mul_(1 - own_rate * group["weight_decay"])
        torch._foreach_mul_(moves, [-own_rate / (1 - beta1**self._n_steps) for own_rate in rates])
        torch._foreach_add_(values, moves)


class LearningRate:
    """Warm-up, a plateau, and a linear fall to zero that begins when told to, or in time to end at the last step.

    Parameters
    ----------
    peak : float
        Step size of the plateau.
    max_iter : int
        Iterations at most.
    max_time : float or None
        Seconds at most. Whether they end before the iterations do is foreseen by the pace so far.
    """

    def __init__(self, peak: float, max_iter: int, max_time: float | None = None):
        self.peak, self.last, self._most, self.max_time = peak, max_iter, max_iter, max_time
        self.is_constant, self._told = True, None
        self._start = time.perf_counter()

    @property
    def _fall_start(self):
        return self._told or max(1, math.ceil(self.last * (1 - _FALL_SHARE)))

    def foresee(self, iteration: int) -> None:
        """Set the last step by the time that is left, if time is limited."""
        if self.max_time is None or iteration % _FORESEE_EVERY:
            return
        elapsed = time.perf_counter() - self._start
        last = iteration + max(0, math.floor((self.max_time - elapsed) * iteration / elapsed))
        self.last = min(self._most, last)

    def begin_earlier(self, seconds: float) -> None:
        """Count `seconds` that were spent before, by a fit that is resumed."""
        self._start -= seconds

    def fall_now(self, iteration: int, useful: int) -> None:
        """Begin the fall; it takes as long as in a fit whose plateau was the `useful` iterations."""
        length = math.ceil(useful * _FALL_SHARE / (1 - _FALL_SHARE))
        self._told = iteration
        self.last = self._most = min(self.last, iteration + length)
        self.is_constant = False

    def __call__(self, iteration: int) -> float:
        fall_start = self._fall_start
        self.is_constant &= iteration < fall_start
        warm = min(1.0, (iteration + 1) / _WARM_UP)
        left = (self.last - iteration) / max(1, self.last - fall_start)
        return self.peak * warm * max(0.0, min(1.0, left))


class Average:
    """Exponential moving average of tensors, over the last two percent of the planned updates or so.

    Parameters
    ----------
    values : list of Tensor
        The tensors to follow.
    averages : list of Tensor
        Where the averages are kept; they begin as they are.
    """

    def __init__(self, values, averages):
        self.averages = averages
        self._values = [value.detach() for value in values]

    def update(self, iteration: int, last: int) -> None:
        decay = min(1 - 1 / max(10.0, _AVERAGED_SHARE * last), (1 + iteration) / (10 + iteration))
        torch._foreach_lerp_(self.averages, self._values, 1 - decay)
