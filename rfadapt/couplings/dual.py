"""Optimal transport by its semi-dual: pairs made by the gradient of a fitted convex potential."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .._optimisation import Average, LearningRate
from .base import Coupling, IndexedPairs
from .potential import ConvexPotential

# Rows of each domain that take part, at most; enough for any potential of this size.
_MAX_ROWS = 131072
_CHECK_EVERY = 200
# Residual of the inverse map, relative to the spread of its argument, up to which a solution counts.
_SOLVED = 1e-3


@dataclass(frozen=True)
class DualCoupling(Coupling):
    r"""Optimal transport for the squared Euclidean cost, through Kantorovich's semi-dual,

    .. math:: \min_{\varphi\ \mathrm{convex}} \; E\,\varphi(X_0) + E\,\varphi^*(X_1), \qquad
              \varphi^*(y) = \max_x \; x \cdot y - \varphi(x),

    whose minimiser has the optimal map as its gradient (Brenier). Pairs are (x0, grad phi(x0)) for the rows of
    domain 0 and (grad phi^*(x1), x1) for those of domain 1.

    The potential is a sum of ridge functions (`ConvexPotential`). Every conjugate is solved for, starting from
    the last solution for the same row, so that nothing adversarial is trained. Where exact transport between
    samples pairs each row with whichever row happened to be drawn, the potential averages over all of them:
    the pairs carry far less noise. It needs smooth maps to be good; on few rows it stops early.

    Parameters
    ----------
    width : int or "auto", default="auto"
        Ridge functions. "auto" is 128 sqrt(n_features), between 64 and 1024, and at most a quarter of the rows.
    max_iter : int, default=6000
        Optimiser steps at most.
    batch_size : int, default=1024
        Rows of each domain in a step.
    learning_rate : float, default=0.4
        Peak step size of Adam, divided by sqrt(n_features).
    n_iter_no_change : int, default=5
        Checks (one every 200 steps) without a lower semi-dual on the tenth of the rows that is held out, after
        which the step size falls to zero over as long again.

    References
    ----------
    Taghvaei, Jalali, "2-Wasserstein Approximation via Restricted Convex Potentials", 2019.

    Makkuva et al., "Optimal transport mapping via input convex neural networks", ICML 2020.

    Amos, "On amortizing convex conjugates for optimal transport", ICLR 2023.

    Examples
    --------
    >>> from rfadapt import DualCoupling, RectifiedFlowTransport
    >>> flow = RectifiedFlowTransport(coupling=DualCoupling(width=256))
    """

    width: int | str = "auto"
    max_iter: int = 6000
    batch_size: int = 1024
    learning_rate: float = 0.4
    n_iter_no_change: int = 5

    def prepare(self, X0, X1, generator):
        index = [torch.randperm(len(X), generator=generator)[:_MAX_ROWS] for X in (X0, X1)]
        x0, x1 = X0.rows(index[0]), X1.rows(index[1])
        fit = _SemiDual(self, x0, x1, generator)
        fit.run()
        image = fit.forward(x0)
        origin, solved = fit.backward()
        return IndexedPairs(_Tensor(torch.cat([x0, origin[solved]])), _Tensor(torch.cat([image, x1[solved]])))

    def resolved_width(self, n_rows: int, n_features: int) -> int:
        """Number of ridge functions for a data set of this size."""
        if self.width != "auto":
            return self.width
        return max(64, int(min(1024, 128 * math.sqrt(n_features), n_rows / 4)) // 32 * 32)


class _SemiDual:
    """One fit of a potential to two samples, with a tenth of both held out to stop by."""

    def __init__(self, coupling, x0, x1, generator):
        self.coupling, self.generator = coupling, generator
        covariance0, covariance1 = (_covariance(x) for x in (x0, x1))
        self.potential = ConvexPotential(
            covariance0, covariance1, coupling.resolved_width(min(len(x0), len(x1)), x0.shape[1]), generator, x0.device
        )
        self.z0, self.q1 = x0 @ self.potential.whitening, x1 @ self.potential.unwhitening
        self.n_held = [len(x) // 10 if min(len(x0), len(x1)) >= 20 else 0 for x in (x0, x1)]
        # Where the conjugate of every row of domain 1 was last attained, and the step length that led there.
        self.solution = self.q1 @ self.potential.inverse_curvature
        self.step = torch.full((len(x1), 1), 0.7, device=x1.device)
        self.scale = float(self.q1.norm(dim=1).mean())

    def run(self):
        """Minimise the semi-dual; the potential ends at its best averaged parameters."""
        potential, coupling = self.potential, self.coupling
        optimizer = torch.optim.Adam(potential.parameters, betas=(0.9, 0.99))
        rate = LearningRate(coupling.learning_rate / math.sqrt(self.z0.shape[1]), coupling.max_iter)
        averaged = [value.clone() for value in potential.parameters]
        average = Average(potential.parameters, averaged, coupling.max_iter)
        lowest, best, stalled, iteration = math.inf, None, 0, 0
        while True:
            if iteration % _CHECK_EVERY == 0 or iteration == rate.last:
                value = self._held_out_value(averaged)
                if value < lowest:
                    lowest, best, stalled = value, [v.clone() for v in averaged], 0
                else:
                    stalled += 1
                if stalled >= coupling.n_iter_no_change:
                    rate.stop_soon(iteration)
            if iteration >= rate.last:
                break
            self._take_step(optimizer, rate(iteration))
            average.update(iteration)
            iteration += 1
        potential.parameters = best

    def _take_step(self, optimizer, rate):
        potential = self.potential
        for group in optimizer.param_groups:
            group["lr"] = rate
        index0 = self._draw(len(self.z0), self.n_held[0])
        index1 = self._draw(len(self.q1), self.n_held[1])
        at = potential.evaluator()
        z1, step, residual = at.solve(self.q1[index1], self.solution[index1], self.step[index1], 2)
        self.solution[index1], self.step[index1] = z1, step
        for value, gradient in zip(potential.parameters, potential.gradients(at, self.z0[index0], z1)):
            value.grad = gradient
        optimizer.step()

    def _draw(self, n, n_held):
        return torch.randint(n_held, n, (self.coupling.batch_size,), generator=self.generator).to(self.z0.device)

    def _held_out_value(self, parameters):
        """The semi-dual over the held-out rows (all rows where none are)."""
        trained, self.potential.parameters = self.potential.parameters, parameters
        at = self.potential.evaluator()
        held0, held1 = (slice(n or None) for n in self.n_held)
        q = self.q1[held1]
        z, self.step[held1], _ = at.solve(q, self.solution[held1], self.step[held1], 30)
        self.solution[held1] = z
        self.potential.parameters = trained
        return float(at.value(self.z0[held0]).mean() + ((z * q).sum(1) - at.value(z)).mean())

    def forward(self, x0):
        """The optimal map of rows of domain 0."""
        return self.potential.evaluator().map(x0 @ self.potential.whitening) @ self.potential.whitening

    def backward(self):
        """The inverse map of the rows of domain 1, and which of them were solved for."""
        at = self.potential.evaluator()
        z, _, residual = at.solve(self.q1, self.solution, self.step, 60)
        return z @ self.potential.whitening, residual < _SOLVED * self.scale


class _Tensor:
    """Rows that are a tensor already."""

    def __init__(self, values):
        self._values = values

    def __len__(self):
        return len(self._values)

    def rows(self, index):
        return self._values[index.to(self._values.device, non_blocking=True)]


def _covariance(x):
    x = x.double().cpu()
    covariance = x.T @ x / len(x)
    ridge = 1e-6 * covariance.diagonal().mean() + 1e-30
    return covariance + ridge * torch.eye(len(covariance), dtype=torch.float64)
