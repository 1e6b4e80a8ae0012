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
    betas : tuple (beta1, beta2)
        Shares of the averages of the gradients and of their squares that a step keeps.

    References
    ----------
    Kingma, Ba, "Adam: A method for stochastic optimization", ICLR 2015.

    Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    epsilon = 1e-8

    def __init__(self, groups, betas=(0.9, 0.99)):
        self._groups, self.betas, self._n_steps = groups, betas, 0
        rates = [(group["relative_rate"], value) for group in groups for value in group["params"]]
        self._values = [value for _, value in rates]
        # One vector for all of them, as an operation on each of a dozen small tensors takes most of its time to begin.
        self._rates = torch.cat([torch.full_like(value, rate).flatten() for rate, value in rates])
        self._mean, self._square = torch.zeros_like(self._rates), torch.zeros_like(self._rates)
        self._sizes = [value.numel() for value in self._values]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move all parameters by their gradients."""
        self._n_steps += 1
        gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in self._values]
        gradient = torch.cat([value.flatten() for value in gradients])
        beta1, beta2 = self.betas
        self._mean.lerp_(gradient, 1 - beta1)
        self._square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (self._square / (1 - beta2**self._n_steps)).sqrt_().add_(self.epsilon)
        move = torch.div(self._mean, root, out=root).mul_(self._rates)
        for group in self._groups:
            if group.get("weight_decay"):
                torch._foreach_mul_(group["params"], 1 - rate * group["relative_rate"] * group["weight_decay"])
        moves = [part.view_as(value) for value, part in zip(self._values, move.split(self._sizes))]
        torch._foreach_add_(self._values, moves, alpha=-rate / (1 - beta1**self._n_steps))


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

    Attributes
    ----------
    kept_back : float
        Seconds of these that are left for what follows the last step.
    """

    def __init__(self, peak: float, max_iter: int, max_time: float | None = None):
        self.peak, self.last, self._most, self.max_time = peak, max_iter, max_iter, max_time
        self.is_constant, self._told, self.kept_back = True, None, 0.0
        self._start = time.perf_counter()

    @property
    def was_told(self) -> bool:
        """Whether the fall was begun from outside."""
        return self._told is not None

    @property
    def fall_start(self) -> int:
        """The iteration that the fall begins at, as far as can be foreseen."""
        return self._told or max(1, math.ceil(self.last * (1 - _FALL_SHARE)))

    def foresee(self, iteration: int) -> None:
        """Set the last step by the time that is left, if time is limited."""
        if self.max_time is None or iteration % _FORESEE_EVERY:
            return
        elapsed = time.perf_counter() - self._start
        left = self.max_time - elapsed - self.kept_back
        last = iteration + max(0, math.floor(left * iteration / elapsed))
        self.last = min(self._most, last)

    def begin_earlier(self, seconds: float) -> None:
        """Count `seconds` that were spent before, by a fit that is resumed."""
        self._start -= seconds

    def fall_now(self, iteration: int, useful: int) -> None:
        """Begin the fall; it takes as long as the `useful` iterations, after which more were of no use."""
        self._told = iteration
        self.last = self._most = min(self.last, iteration + useful)
        self.is_constant = False

    def fallen(self, iteration: int) -> float:
        """How much of the fall is over, from 0 to 1."""
        left = (self.last - iteration) / max(1, self.last - self.fall_start)
        return 1 - max(0.0, min(1.0, left))

    def __call__(self, iteration: int) -> float:
        self.is_constant &= iteration < self.fall_start
        warm = min(1.0, (iteration + 1) / _WARM_UP)
        return self.peak * warm * (1 - self.fallen(iteration))


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
