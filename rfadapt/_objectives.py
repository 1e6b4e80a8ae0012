"""What training minimises: the regression on pairs, or Kantorovich's semi-dual."""

from __future__ import annotations

import math

import torch

from ._devices import replayed
from ._strata import drawn_across, in_order_of_place

# Rows of domain 1 whose conjugates are remembered, and of domain 0 that are in order, at most: enough for any
# potential, and bounds memory.
_MAX_ROWS = 131072
# The rows of domain 0 are put in order again after so many batches, and then whenever their number has doubled.
_ORDER_AFTER = 64
# Evaluations for the conjugates of a batch, and at most so many more for those with a residual above this share of the
# spread.
_EVALUATIONS = 2
_MORE_EVALUATIONS = 12
_CLOSE = 0.05
# On a GPU, which would have to tell the host how many are far, evaluations for all: no more errors in as many steps.
_EVALUATIONS_ON_GPU = 6
# Batches after which the metric in which conjugates are solved for follows the potential, and rows it is taken from.
_CALIBRATE_EVERY = 100
_CALIBRATION_ROWS = 64
# Batches grow in so many stages: the first is for the constant step size, the others are equal parts of its fall.
_STAGES = 4


class Regression:
    """The mean velocity of the pairs where they pass,

        min_v  E || dx_t - base(x_t, t) - v(x_t, t) ||^2,

    or, for another prediction form than the velocity, the same in x1 or x0: v is then a known factor of the time
    times the learned field, and errors are weighed by the time.

    Parameters
    ----------
    model : nn.Module
        The learned field.
    base : callable or None
        Fixed part of the velocity.
    pairs : object with `sample(n, generator) -> (x0, x1, t)` and `fixed(n) -> (x0, x1, t)`
        Pairs, and the times at which they are looked at: drawn, or always the same ones.
    path : Path
    prediction : Prediction
        What the learned field's output means.
    weighted : bool
        Whether errors are those of the prediction, else of the output itself: at t = 1 there is none of x1, and yet a
        step from there needs the output.
    batch_size : int
    generator : torch.Generator
        Source of all draws, on the CPU.
    bfloat16 : bool
        Whether the field's matrix products are taken in bfloat16.
    """

    max_restarts = 0

    def __init__(self, model, base, pairs, path, prediction, *, weighted, batch_size, generator, bfloat16):
        self.model, self.base, self.pairs, self.path, self.prediction = model, base, pairs, path, prediction
        self.weighted, self.batch_size, self.generator, self.bfloat16 = weighted, batch_size, generator, bfloat16

    def parameter_groups(self):
        return [{"params": list(self.model.parameters()), "relative_rate": 1.0}]

    def set_gradients(self, fallen):
        x_t, t, target, weight = self.regression(*self.pairs.sample(self.batch_size, self.generator))
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = (weight * (self.model(x_t, t).float() - target).square().sum(1)).mean()
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0 * math.sqrt(x_t.shape[1]))
        return loss.detach()

    @torch.no_grad()
    def regression(self, x0, x1, t):
        """Where the pairs are at time `t`, `t` itself, what the model should say there, and the weight of its error."""
        x_t, dx_t = self.path.sample(x0, x1, t)
        rest = dx_t if self.base is None else dx_t - self.base(x_t, t)
        scale = self.prediction.scale(t, self.path).unsqueeze(1)
        return x_t, t, rest / scale, self.prediction.weight(t, self.path) if self.weighted else torch.ones_like(t)

    def restart(self):
        pass

    def held_out(self, pairs, n):
        """A function of the model: the terms of its loss on `n` fixed pairs at fixed times."""
        x_t, t, target, weight = self.regression(*pairs.fixed(n))

        @torch.no_grad()
        def loss(model):
            return (weight * (model(x_t, t) - target).square().sum(1),)

        return loss


class SemiDual:
    r"""Kantorovich's semi-dual of optimal transport for the squared Euclidean cost,

    .. math:: \min_{\varphi\ \mathrm{convex}} \; E\,\varphi(X_0) + E\,\varphi^*(X_1), \qquad
              \varphi^*(y) = \max_x \; x \cdot y - \varphi(x),

    whose minimiser has the optimal map as its gradient (Brenier). Every conjugate is solved for, starting from
    the last solution for the same row: no second network, nothing adversarial.

    Of many rows, batches are stratified: each has one from every small region of either domain. The regions are those
    of the rows of domain 1, and of where the map takes those of domain 0. The two means that the gradient is the
    difference of then vary far less, where there are few features, than those of rows drawn independently.

    Of more rows than a batch has, the first batches have a quarter of its size: while the step size is large, as many
    more steps are worth more than less noise. They grow as it falls. (On a GPU they take as long, and do not.)

    Parameters
    ----------
    model : ConvexPotential
    rows0, rows1 : Rows
        Training rows of the two domains.
    batch_size : int
        Rows of each domain in the last batches.
    generator : torch.Generator
        Source of all draws, on the CPU.

    References
    ----------
    Taghvaei, Jalali, "2-Wasserstein Approximation via Restricted Convex Potentials", 2019.

    Makkuva et al., "Optimal transport mapping via input convex neural networks", ICML 2020.

    Amos, "On amortizing convex conjugates for optimal transport", ICLR 2023.

    Zhao, Zhang, "Accelerating minibatch stochastic gradient descent using stratified sampling", 2014.
    """

    max_restarts = 6

    def __init__(self, model, rows0, rows1, *, batch_size, generator):
        self.model, self.rows0 = model, rows0
        self.batch_size, self.generator = min(batch_size, max(len(rows0), len(rows1))), generator
        x1 = rows1.rows(self._some(len(rows1)))
        self.conjugates = _Conjugates(model, x1)
        grows = not x1.is_cuda and self.batch_size < min(len(rows0), len(rows1))
        self._stages = _STAGES if grows else 1
        self._order1 = in_order_of_place(x1, self.batch_size)
        self._begin()

    def parameter_groups(self):
        return self.model.parameter_groups()

    def set_gradients(self, fallen):
        if self._n_batches % _CALIBRATE_EVERY == 0:
            self.model.calibrate(self.conjugates.z[:_CALIBRATION_ROWS])
        if self._n_batches == self._order_at:
            self._set_order()
            self._order_at = max(_ORDER_AFTER, 2 * self._n_batches)
        self._n_batches += 1
        stage = 1 + math.ceil((self._stages - 1) * fallen)
        n = math.ceil(self.batch_size * stage / self._stages)
        index0, index1 = (drawn_across(order, n, self.generator) for order in (self._order0, self._order1))
        x0 = self.rows0.rows(index0)
        return self._gradients_at(x0, index1.to(x0.device, non_blocking=True))

    def _set_gradients_at(self, x0, index1):
        """The step itself: the same operations every time on a GPU, in the same places."""
        self._at.refresh()
        z1, residual = self.conjugates.improve(self._at, index1)
        self.model.set_gradients(self._at, x0 @ self.model.whitening, z1)
        # A map that runs away from the rows it should reach is caught here, before it overflows.
        mean = residual.mean()
        return mean.masked_fill(mean > self.conjugates.spread, math.inf)

    def _set_order(self):
        """Order the rows of domain 0, or as many others as before, by where the map takes them now."""
        chosen = self._some(len(self.rows0))
        z0 = self.rows0.rows(chosen) @ self.model.whitening
        moved = self.model.frozen().map(z0) @ self.model.whitening
        self._order0 = chosen[in_order_of_place(moved, self.batch_size)]

    def _some(self, n):
        if n <= _MAX_ROWS:
            return torch.arange(n)
        return torch.randperm(n, generator=self.generator)[:_MAX_ROWS]

    def restart(self):
        self.conjugates.forget(self.model)
        self._begin()

    def _begin(self):
        self._n_batches = self._order_at = 0
        self._at = self.model.frozen()  # one for all steps, as it keeps the memory that it computes in
        # What is recorded on a GPU holds on to the places of these conjugates.
        self._gradients_at = replayed(self._set_gradients_at, self.conjugates.z.device)

    def held_out(self, rows0, rows1):
        """A function of the potential: the terms of its semi-dual, over all of these rows."""
        z0, conjugates = rows0 @ self.model.whitening, _Conjugates(self.model, rows1)

        @torch.no_grad()
        def value(model):
            at = model.frozen()
            # A conjugate that is not attained is underestimated, which would praise a map that is hard to invert.
            z1 = conjugates.attain(at)
            return at.value(z0), (z1 * conjugates.q).sum(1) - at.value(z1)

        return value


class _Conjugates:
    """Where the conjugate of each row of domain 1 was last attained, and the step length that led there."""

    def __init__(self, potential, x1):
        self.q = x1 @ potential.unwhitening
        self.spread = self.q.norm(dim=1).mean()
        self.forget(potential)

    def __len__(self):
        return len(self.q)

    def forget(self, potential):
        """Start over from the solutions for the Gaussian map."""
        self.z = self.q @ potential.modes / potential.stretches @ potential.modes.T
        self.step = torch.ones(len(self.q), 1, device=self.q.device)

    @torch.no_grad()
    def attain(self, at):
        """Solutions for all rows, to the end."""
        self.z = at.solve_fully(self.q, self.q.new_ones(len(self.q), 1), self.z)
        return self.z

    @torch.no_grad()
    def improve(self, at, index):
        """Better solutions for the rows at `index`, with their residuals.

        A few rows left far out would be enough to steepen the map there without end, since training raises the
        potential wherever the solutions are.
        """
        # Not self.q[index], which takes several times as long.
        q, z, step = (values.index_select(0, index) for values in (self.q, self.z, self.step))
        descent = at.descent(q, z, step)
        at.advance(descent, _EVALUATIONS_ON_GPU if q.is_cuda else _EVALUATIONS)
        if not q.is_cuda:
            at.pursue(descent, _CLOSE * self.spread, _MORE_EVALUATIONS)
        left = descent.residual.norm(dim=1)
        # The last step of a row that is still far may have led it further astray.
        z = torch.where((left > _CLOSE * self.spread).unsqueeze(1), descent.seen, descent.z)
        self.z.index_copy_(0, index, z)
        self.step.index_copy_(0, index, descent.step)
        return z, left
