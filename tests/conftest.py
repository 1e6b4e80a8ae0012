"""What many tests share: small data, quick flows, and two fitted ones for the tests that only look at them."""

import math

import numpy as np
import pytest
import torch

from rfadapt import RectifiedFlowTransport

NOTHING_LEARNED = {"max_iter": 1, "learning_rate": 1e-12}
# A regressed field starts at zero, so that nothing but the affine map is left.
AFFINE = {"velocity": "gradient", **NOTHING_LEARNED}


def relative_error(moved, expected):
    return math.sqrt(((moved - expected) ** 2).sum() / ((expected - expected.mean(0)) ** 2).sum())


class SmallNet(torch.nn.Module):
    """A velocity field of the user's own, with the argument order v(x, t)."""

    def __init__(self, n_features):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(n_features + 1, 16), torch.nn.SiLU(), torch.nn.Linear(16, n_features)
        )

    def forward(self, x, t):
        return self.layers(torch.cat([x, t[:, None]], dim=1))


def make_clouds(n0=600, n1=480, seed=0):
    """One Gaussian cloud, and one of two clumps, which no affine map makes of it."""
    rng = np.random.default_rng(seed)
    X0 = rng.normal(size=(n0, 2)) * [1.0, 0.5] + [1.0, -2.0]
    clump = np.where(rng.random(n1) < 0.5, -6.0, 6.0)
    X1 = np.column_stack([clump + 1.6 * rng.normal(size=n1), rng.normal(size=n1) + 3])
    return X0, X1


def shifted_classes(n=200, seed=0):
    """X, y, X_target, y_target: two classes, and the same elsewhere, stretched: an affine map undoes it."""
    rng = np.random.default_rng(seed)
    y, y_target = np.arange(2 * n) % 2, np.arange(n) % 2
    X, X_target = (rng.normal(size=(len(labels), 2)) + np.outer(5 * labels, [1, 0.5]) for labels in (y, y_target))
    return X, y, 2 * X_target + [10, -4], y_target


def quick_flow(**params):
    """A flow that fits in a fraction of a second."""
    quick = {"coupling": "ot", "max_iter": 200, "batch_size": 128, "width": 32, "n_jobs": 1, "device": "cpu",
             "n_estimators": 1, "random_state": 0}
    return RectifiedFlowTransport(**{**quick, **params})


@pytest.fixture(scope="session")
def clouds():
    """X0 and X1, of different sizes, read-only."""
    clouds = make_clouds()
    for X in clouds:
        X.flags.writeable = False
    return clouds


@pytest.fixture(scope="session")
def fitted(clouds):
    """A fitted flow, to look at; a test that changes something takes a copy."""
    return quick_flow().fit(*clouds)


@pytest.fixture(scope="session")
def regressed(clouds):
    """A fitted flow whose velocity was regressed on pairs, so that its paths are bent."""
    return quick_flow(velocity="gradient", learning_rate=0.02).fit(*clouds)
