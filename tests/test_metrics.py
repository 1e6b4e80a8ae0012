"""Metrics against closed forms, brute force, SciPy and POT."""

import math

import numpy as np
import ot
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse, stats
from scipy.spatial.distance import cdist
from sklearn.dummy import DummyClassifier

from rfadapt import metrics

TWO_SAMPLES = [
    metrics.energy_distance,
    metrics.maximum_mean_discrepancy,
    metrics.sliced_wasserstein,
    metrics.domain_auc,
]
CONTAINERS = [np.ndarray.tolist, pd.DataFrame, pl.DataFrame, torch.from_numpy, sparse.csr_matrix, np.float32]
SAME_ROWS = [metrics.transport_cost, metrics.round_trip_error, metrics.l2_uvp]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def blocks_of_seven(monkeypatch):
    monkeypatch.setattr("rfadapt.metrics.discrepancy._BLOCK_ROWS", 7)


def test_energy_distance_equals_the_double_loop(rng, blocks_of_seven):
    X, Y = rng.normal(size=(23, 3)), rng.normal(size=(30, 3)) + 0.5

    def mean_distance(A, B):
        return np.mean([np.linalg.norm(a - b) for a in A for b in B])

    expected = 2 * mean_distance(X, Y) - mean_distance(X, X) - mean_distance(Y, Y)
    assert metrics.energy_distance(X, Y) == pytest.approx(expected, rel=1e-10)


def normal_quantiles(n):
    """A sample of the standard normal distribution without its noise."""
    return stats.norm.ppf((np.arange(n) + 0.5) / n)[:, None]


def test_energy_distance_of_gaussians():
    shift = 2.0
    # E|X - Y| is the mean of a folded normal distribution with variance 2.
    within = 2 / math.sqrt(math.pi)
    between = within * math.exp(-(shift**2) / 4) + shift * (1 - 2 * stats.norm.cdf(-shift / math.sqrt(2)))
    distance = metrics.energy_distance(normal_quantiles(1000), normal_quantiles(1500) + shift)
    assert distance == pytest.approx(2 * between - 2 * within, rel=0.002)


def test_energy_distance_is_the_square_of_scipys(rng):
    X, Y = rng.normal(size=200), rng.exponential(size=150)
    expected = stats.energy_distance(X, Y) ** 2
    assert metrics.energy_distance(X[:, None], Y[:, None]) == pytest.approx(expected, rel=1e-9)


def test_energy_distance_between_samples_of_one_distribution_is_its_floor(rng):
    d, n, m = 30, 300, 200
    distance = metrics.energy_distance(rng.normal(size=(n, d)), rng.normal(size=(m, d)))
    within = 2 * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    assert distance == pytest.approx((1 / n + 1 / m) * within, rel=0.1)


def test_distances_do_not_lose_digits_far_from_the_origin(rng):
    X, Y = rng.normal(size=(60, 4)), rng.normal(size=(50, 4)) + 0.1
    for metric in (metrics.energy_distance, metrics.maximum_mean_discrepancy):
        assert metric(X + 1e7, Y + 1e7) == pytest.approx(metric(X, Y), rel=1e-5)


def test_mmd_equals_its_definition(rng, blocks_of_seven):
    X, Y = rng.normal(size=(25, 3)), rng.normal(size=(31, 3)) + 1

    def mean_kernel(A, B):
        return np.exp(-cdist(A, B, "sqeuclidean") / (2 * 1.7**2)).mean()

    expected = math.sqrt(mean_kernel(X, X) + mean_kernel(Y, Y) - 2 * mean_kernel(X, Y))
    assert metrics.maximum_mean_discrepancy(X, Y, bandwidth=1.7) == pytest.approx(expected, rel=1e-10)


def test_mmd_of_gaussians():
    # With bandwidth 1, E k(X, Y) = exp(-shift^2 / 6) / sqrt(3).
    expected = math.sqrt(2 / math.sqrt(3) * (1 - math.exp(-(1.5**2) / 6)))
    X, Y = normal_quantiles(1000), normal_quantiles(1500) + 1.5
    mmd = metrics.maximum_mean_discrepancy(X, Y, bandwidth=1.0)
    assert mmd == pytest.approx(expected, rel=0.002)


def test_mmd_takes_the_median_distance_of_the_pooled_rows(rng):
    X, Y = rng.normal(size=(31, 2)), rng.normal(size=(20, 2)) * 3
    distances = cdist(np.r_[X, Y], np.r_[X, Y])[np.triu_indices(51, k=1)]  # an odd number of pairs
    expected = metrics.maximum_mean_discrepancy(X, Y, bandwidth=np.median(distances))
    assert metrics.maximum_mean_discrepancy(X, Y) == pytest.approx(expected, rel=1e-9)


def test_mmd_bandwidth_survives_duplicated_rows():
    X, Y = np.zeros((20, 1)), np.r_[np.zeros((5, 1)), np.ones((1, 1))]
    # Most distances are 0, the others 1, so 1 is the bandwidth.
    expected = metrics.maximum_mean_discrepancy(X, Y, bandwidth=1.0)
    assert metrics.maximum_mean_discrepancy(X, Y) == expected > 0
    assert metrics.maximum_mean_discrepancy(X, X) == 0


@pytest.mark.parametrize("sizes", [(40, 40), (40, 60), (37, 53)])
def test_sliced_wasserstein_equals_pot(rng, sizes, monkeypatch):
    monkeypatch.setattr("rfadapt.metrics.discrepancy._SORTED_TOGETHER", 1000)
    X, Y = rng.normal(size=(sizes[0], 5)), rng.exponential(size=(sizes[1], 5))
    expected = ot.sliced_wasserstein_distance(X, Y, n_projections=50, seed=3)
    distance = metrics.sliced_wasserstein(X, Y, n_projections=50, random_state=3)
    assert distance == pytest.approx(expected, rel=1e-9)


def test_sliced_wasserstein_in_one_dimension_is_wasserstein(rng):
    X, Y = rng.normal(size=30), rng.normal(size=47) * 2
    expected = math.sqrt(ot.emd2_1d(X, Y, metric="sqeuclidean"))
    distance = metrics.sliced_wasserstein(X[:, None], Y[:, None], n_projections=2)
    assert distance == pytest.approx(expected, rel=1e-9)


def test_sliced_wasserstein_of_a_shift(rng):
    X, shift = rng.normal(size=(50, 3)), np.array([3.0, 0.0, 4.0])
    distance = metrics.sliced_wasserstein(X, X + shift, n_projections=20000, random_state=0)
    assert distance == pytest.approx(5 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("metric", TWO_SAMPLES[:3])
def test_distances_are_zero_for_equal_samples_and_symmetric(rng, metric):
    X, Y = rng.normal(size=(40, 3)), rng.normal(size=(50, 3)) + 1
    assert metric(X, X, random_state=0) == pytest.approx(0, abs=1e-7)
    assert metric(X, np.repeat(X, 3, axis=0), random_state=0) == pytest.approx(0, abs=1e-7)
    assert metric(X, Y, random_state=0) == pytest.approx(metric(Y, X, random_state=0), rel=1e-9)
    assert metric(X, Y, random_state=0) > 0.1


def test_domain_auc_of_a_shift_is_the_best_possible(rng):
    X, Y = rng.normal(size=(2000, 1)), rng.normal(size=(1500, 1)) + 1
    expected = stats.norm.cdf(1 / math.sqrt(2))
    assert metrics.domain_auc(X, Y, random_state=0) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("change", ["scale", "correlation", "shape"])
def test_domain_auc_sees_more_than_means(rng, change):
    X = rng.normal(size=(800, 2))
    Y = {
        "scale": 2 * rng.normal(size=(800, 2)),
        "correlation": rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], size=800),
        "shape": rng.choice([-0.98, 0.98], size=(800, 2)) + 0.2 * rng.normal(size=(800, 2)),
    }[change]
    assert metrics.domain_auc(X, Y, random_state=0) > 0.65


def test_domain_auc_of_one_distribution_is_a_half(rng):
    X, Y = rng.normal(size=(1500, 3)), rng.normal(size=(1000, 3))
    assert metrics.domain_auc(X, Y, random_state=0) == pytest.approx(0.5, abs=0.05)


def test_domain_auc_of_equal_samples_is_a_half(rng):
    X = rng.normal(size=(60, 3))
    assert metrics.domain_auc(X, X[::-1], random_state=0) == 0.5
    assert metrics.domain_auc(np.ones((9, 1)), np.ones((7, 1))) == 0.5
    # Without pairing equal rows, nearly all of these are remembered with the wrong domain.
    assert metrics.domain_auc(X, X[:50], random_state=0) == pytest.approx(0.5, abs=0.1)


def test_domain_auc_of_discrete_data(rng):
    # Every value is in both samples, so what is left to see are the frequencies.
    X, Y = (rng.random((1500, 1)) < 0.3) * 1.0, (rng.random((1500, 1)) < 0.7) * 1.0
    assert metrics.domain_auc(X, Y, random_state=0) == pytest.approx(0.7, abs=0.03)


def test_domain_auc_is_not_decided_by_rounding(rng):
    X, Y = np.round(3 * rng.normal(size=(800, 6))), 3 * rng.normal(size=(800, 6))
    assert metrics.domain_auc(X, Y, random_state=0) < 0.65


def test_domain_auc_with_few_rows_and_another_classifier(rng):
    X = rng.normal(size=(2, 3))
    assert metrics.domain_auc(X, X + 100, random_state=0) == 1.0
    assert metrics.domain_auc(X, X + 100, estimator=DummyClassifier(), random_state=0) == 0.5


def test_straightness_of_straight_and_bent_lines():
    times = torch.linspace(0, 1, 4)
    start, end = torch.zeros(2, 3), torch.tensor([[1.0, 2, 3], [0, 0, 1]])
    straight = torch.stack([start + t * (end - start) for t in times])
    assert metrics.straightness(straight) == pytest.approx(0, abs=1e-12)
    # Straight, but all of the way is walked in the first half: the velocity is 2 or 0 where it should be 1.
    assert metrics.straightness(np.array([0.0, 2.0, 2.0]).reshape(3, 1, 1)) == 4.0
    assert metrics.straightness(np.array([0.0, 2.0, 2.0]).reshape(3, 1, 1), [0.0, 0.25, 1.0]) == 12.0


def test_straightness_of_a_quarter_circle():
    def S(n_times):
        angle = np.linspace(0, np.pi / 2, n_times)
        return metrics.straightness(np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None, :])

    exact = (np.pi / 2) ** 2 - 2  # squared speed minus squared chord
    assert S(5) < S(9) < S(101) < exact
    assert S(101) == pytest.approx(exact, rel=1e-3)


def test_straightness_backwards_is_the_same(rng):
    trajectory, times = rng.normal(size=(5, 4, 2)), np.array([0, 0.1, 0.5, 0.7, 1])
    S = metrics.straightness(trajectory, torch.from_numpy(times))
    assert metrics.straightness(trajectory[::-1], times[::-1]) == pytest.approx(S)


@pytest.mark.parametrize(
    ("trajectory", "times", "message"),
    [
        (np.zeros((3, 2)), None, "n_times, n_samples, n_features"),
        (np.zeros((1, 2, 2)), None, "at least 2"),
        (np.zeros((3, 2, 2)), [0, 1], r"times must have shape \(3,\)"),
        (np.zeros((3, 2, 2)), [0, 1, 1], "strictly increasing"),
        (np.zeros((3, 2, 2)), [0, 1, 0], "strictly increasing"),
        (np.full((3, 2, 2), np.nan), None, "NaN or infinity"),
    ],
)
def test_straightness_refuses(trajectory, times, message):
    with pytest.raises(ValueError, match=message):
        metrics.straightness(trajectory, times)


def test_errors_of_maps(rng):
    X = rng.normal(size=(5000, 4)) * 3 + 7
    assert metrics.transport_cost(X, X + [1, 2, 0, 2]) == pytest.approx(9)
    assert metrics.round_trip_error(X, X) == 0
    # Noise of a hundredth of the spread, whatever the origin and the unit.
    assert metrics.round_trip_error(X, X + 0.03 * rng.normal(size=X.shape)) == pytest.approx(0.01, rel=0.05)
    assert metrics.l2_uvp(np.broadcast_to(X.mean(axis=0), X.shape), X) == pytest.approx(100)
    assert metrics.l2_uvp(X + [6, 0, 0, 0], X, variance=36.0) == pytest.approx(100)
    assert metrics.l2_uvp(X + [6, 0, 0, 0], X) == pytest.approx(100, rel=0.05)
    assert metrics.round_trip_error(X[:1], X[:1] + 1) == math.inf


@pytest.mark.parametrize("metric", TWO_SAMPLES[:2] + TWO_SAMPLES[3:])
def test_subsampling_is_drawn_from_random_state(rng, metric):
    X, Y = rng.normal(size=(300, 2)), rng.normal(size=(200, 2)) + 0.3
    values = [metric(X, Y, max_samples=50, random_state=seed) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert metric(X, Y, max_samples=300, random_state=0) == metric(X, Y, max_samples=None, random_state=0)
    with pytest.raises(ValueError, match="max_samples must be at least 1"):
        metric(X, Y, max_samples=0)


@pytest.mark.parametrize("metric", TWO_SAMPLES)
def test_two_sample_metrics_take_any_container(rng, metric):
    X, Y = rng.integers(0, 4, size=(30, 3)), rng.integers(1, 5, size=(30, 3))
    expected = metric(X, Y, random_state=0)
    for wrap in CONTAINERS:
        assert metric(wrap(X), wrap(Y), random_state=0) == expected
        assert metric(wrap(X), Y, random_state=0) == expected


@pytest.mark.parametrize("metric", SAME_ROWS)
def test_metrics_of_maps_take_any_container(rng, metric):
    X, Y = rng.integers(0, 4, size=(30, 3)), rng.integers(1, 5, size=(30, 3))
    for wrap in CONTAINERS:
        assert metric(wrap(X), wrap(Y)) == metric(X, Y)


@pytest.mark.parametrize("metric", TWO_SAMPLES + SAME_ROWS)
def test_metrics_refuse_bad_input(metric):
    X = np.ones((4, 2))
    bad = X.copy()
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="nan in column 1"):
        metric(X, bad)
    with pytest.raises(ValueError, match=r"n_samples, n_features.*got \(4,\)"):
        metric(X, X[:, 0])
    with pytest.raises(ValueError, match=r"got \(0, 2\)"):
        metric(X[:0], X)
    with pytest.raises(ValueError, match="same"):
        metric(X, X[:, :1])
    with pytest.raises(ValueError, match="real numbers"):
        metric(X, X.astype(str))


def test_metrics_refuse_bad_options():
    X = np.ones((4, 2))
    with pytest.raises(ValueError, match='bandwidth must be "median"'):
        metrics.maximum_mean_discrepancy(X, X, bandwidth="mean")
    with pytest.raises(ValueError, match="bandwidth must be"):
        metrics.maximum_mean_discrepancy(X, X, bandwidth=0.0)
    with pytest.raises(ValueError, match="n_projections"):
        metrics.sliced_wasserstein(X, X, n_projections=0)
    with pytest.raises(ValueError, match="at least 2 rows"):
        metrics.domain_auc(X[:1], X)
    with pytest.raises(ValueError, match="variance must be positive"):
        metrics.l2_uvp(X, X, variance=0)
