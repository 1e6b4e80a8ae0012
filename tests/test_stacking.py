"""Potentials shrunk towards the affine map: the mean that they become, and how far held-out rows let them go."""

import numpy as np
import pytest
import torch
from conftest import quick_flow
from test_mean_potential import bent_potential, points

from rfadapt import RectifiedFlowTransport
from rfadapt._stacking import Stack
from rfadapt.metrics import l2_uvp
from rfadapt.velocity import PotentialVelocity


@pytest.fixture(scope="module")
def bent():
    return bent_potential(0)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_a_shrunk_potential_is_the_mean_with_the_affine_one(bent, share):
    affine, shrunk, z = bent_potential(0).make_affine(), bent.shrunk(share), points()
    # The quadratic part of the affine one is where a potential starts, which `make_affine` leaves as it is.
    with torch.no_grad():
        affine.constant.zero_()
        affine.factor.copy_(torch.linalg.cholesky((1 - bent.min_curvature) * bent.curvature))
    for name in ("map", "value", "curvatures"):
        one, other = (getattr(potential.frozen(), name)(z) for potential in (bent, affine))
        torch.testing.assert_close(getattr(shrunk.frozen(), name)(z), share * one + (1 - share) * other)


def test_the_metric_of_a_shrunk_potential_is_that_of_its_mean_curvature(bent):
    for share in (0.3, 1.0):
        potential = bent_potential(0)
        potential.calibrate(points())
        shrunk = potential.shrunk(share)
        metric = shrunk.modes / shrunk.stretches @ shrunk.modes.T
        shrunk.calibrate(points())
        torch.testing.assert_close(metric, shrunk.modes / shrunk.stretches @ shrunk.modes.T, rtol=1e-3, atol=1e-4)


class Held:
    """Held-out terms of made-up potentials: a loss of (share - best)^2 scaled by `unit`, with noise of a given size."""

    def __init__(self, best, noise, seed, unit=1.0, strays=False):
        self.draws = torch.randn(2, 50, generator=torch.Generator().manual_seed(seed))
        self.best, self.noise, self.unit, self.strays = best, noise, unit, strays

    def __call__(self, potential):
        loss = self.unit * (potential.share - self.best) ** 2 + potential.share * self.noise * self.draws
        energy = torch.full((50,), float(potential.share if self.strays else 0))
        return (loss[0], loss[1]), (energy, energy)


class MadeUp:
    def __init__(self, share):
        self.share = share

    def shrunk(self, share):
        return MadeUp(share)


def stacked(*held):
    stack = Stack()
    for monitor in held:
        stack.add(MadeUp(1.0), MadeUp(0.0), monitor)
    return [potential.share for potential in stack.shrunk()]


def test_the_share_with_the_lowest_loss_is_taken():
    assert stacked(Held(0.5, 0.0, 0)) == [0.5]
    assert stacked(Held(2.0, 0.0, 0)) == [1.0]
    assert stacked(Held(-0.1, 0.0, 0)) == []
    # One for all: (1 + 0.4) / 2, though one of them would go further and the other less far.
    assert stacked(Held(1.0, 0.0, 0), Held(0.4, 0.0, 1)) == [0.7, 0.7]


def test_several_show_what_one_alone_does_not():
    # The gain is 0.15 a row, the standard error of the mean of 50 rows 1.2 / sqrt(50) = 0.17 a domain.
    held = [Held(0.5, 1.2, seed, unit=0.3) for seed in range(40)]
    alone = [bool(stacked(monitor)) for monitor in held]
    assert 0 < sum(alone) < 36
    assert stacked(*held)


def test_nothing_is_taken_that_leads_away_from_the_target():
    assert stacked(Held(0.5, 0.0, 0)) and not stacked(Held(0.5, 0.0, 0, strays=True))


def task(n, n_features=10):
    """Rows of ten clumps, others moved by the gradient of a convex function, new rows, and where that moves these."""
    rng = np.random.default_rng(0)
    centers, weight = rng.normal(size=(10, n_features)), rng.normal(size=(4, n_features)) / np.sqrt(n_features)
    X0, X1, X = (centers[rng.integers(10, size=k)] + 0.5 * rng.normal(size=(k, n_features)) for k in (n, n, 4000))
    moved = [0.8 * rows + 2 * np.tanh(2 * rows @ weight.T) @ weight for rows in (X1, X)]
    return X0, moved[0], X, moved[1]


def test_of_few_rows_more_is_learned_than_by_a_single_potential():
    X0, X1, X, T = task(500)
    several, one = (
        RectifiedFlowTransport(scaling="common", n_estimators=n, random_state=0, device="cpu").fit(X0, X1)
        for n in ("auto", 1)
    )
    assert len(several.velocity_.learned.potentials) == 4
    errors = [l2_uvp(flow.transform(X), T, T.var(0).sum()) for flow in (several, one)]
    assert errors[0] < 0.8 * errors[1], errors


def test_between_two_samples_of_one_domain_nothing_is_learned():
    X = np.random.default_rng(0).normal(size=(800, 3))
    flow = quick_flow(n_estimators="auto", rotation=False).fit(X[:400], X[400:])
    (potential,) = flow.velocity_.learned.potentials
    assert flow.n_iter_ == 4 * 200
    x, start = torch.from_numpy(X[:200]).float(), torch.zeros(200)
    affine = PotentialVelocity(potential.shrunk(0.0))(x, start)
    torch.testing.assert_close(PotentialVelocity(potential)(x, start), affine)
