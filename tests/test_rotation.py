"""The rotation between two domains: found where their shapes tell it, refused where nothing does."""

import pickle

import numpy as np
import pytest
import torch

from rfadapt import RectifiedFlowTransport
from rfadapt.baselines import AffineTransport
from rfadapt.datasets import load_drifted_digits
from rfadapt.rotation import LinearProblem, evidence_for_rotation, fit_rotation, is_turned, power
from rfadapt.velocity.affine import gaussian_map


def turn(degrees):
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def three_clumps(rng, n, n_features=2):
    corners = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
    x = 0.2 * rng.normal(size=(n, n_features))
    x[:, :2] += corners[rng.randint(3, size=n)]
    return x - x.mean(axis=0)


def problem(x0, x1):
    return LinearProblem(x0, x1, np.cov(x0.T), np.cov(x1.T))


@pytest.fixture
def rng():
    return np.random.RandomState(0)


def test_a_turn_is_found_on_rows_that_are_no_pairs(rng):
    x0, x1 = three_clumps(rng, 400), three_clumps(rng, 300) @ turn(25).T
    Q = fit_rotation(problem(x0, x1), rng)
    assert np.allclose(Q, turn(25), atol=0.05)
    assert is_turned(problem(x0, x1), rng)


def test_a_turn_within_a_plane_of_many_features_leaves_the_others_alone(rng):
    x0, x1 = three_clumps(rng, 500, 6), three_clumps(rng, 500, 6)
    x1[:, :2] = x1[:, :2] @ turn(25).T
    Q = fit_rotation(problem(x0, x1), rng)
    assert np.linalg.det(Q) == pytest.approx(1)
    assert np.allclose(Q @ Q.T, np.eye(6), atol=1e-8)
    turned = x0 @ Q.T
    moved = turned @ gaussian_map(*(torch.tensor(np.cov(x.T)) for x in (turned, x1))).numpy().T
    right = np.c_[x0[:, :2] @ turn(25).T, x0[:, 2:]]
    assert ((moved - right)[:, :2] ** 2).mean() < 0.05 * (right[:, :2] ** 2).mean()  # unturned: 0.19


def test_a_mirror_image_is_found_on_rows_that_are_no_pairs(rng):
    corners = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -3.0]])
    x = 0.2 * rng.normal(size=(700, 2)) + corners[rng.choice(3, size=700, p=[0.5, 0.3, 0.2])]
    mirror = turn(20) @ np.diag([1.0, -1.0])
    x0, x1 = x[:400] - x[:400].mean(axis=0), (x[400:] - x[400:].mean(axis=0)) @ mirror.T
    Q = fit_rotation(problem(x0, x1), rng, mirrored=True)
    assert np.allclose(Q, mirror, atol=0.1)


@pytest.mark.parametrize("n_features", [1, 2, 10])
def test_gaussian_samples_show_no_turn(rng, n_features):
    scale = np.linspace(0.5, 2, n_features)
    samples = (rng.normal(size=(300, n_features)), rng.normal(size=(400, n_features)) * scale)
    one, other = (x - x.mean(axis=0) for x in samples)
    covariances = (np.atleast_2d(np.cov(x.T)) for x in (one, other))
    assert not is_turned(LinearProblem(one, other, *covariances), rng)


def test_stretched_clumps_show_no_turn(rng):
    x0, x1 = three_clumps(rng, 400), three_clumps(rng, 400) * [1.5, 0.8]
    assert not is_turned(problem(x0, x1), rng)


def test_evidence_grows_with_the_rows(rng):
    few, many = (
        evidence_for_rotation(problem(three_clumps(rng, n), three_clumps(rng, n) @ turn(25).T), rng)
        for n in (40, 400)
    )
    assert many > few > 0


def test_powers_of_a_rotation():
    Q = np.eye(4)
    Q[:2, :2], Q[2:, 2:] = turn(30), turn(-100)
    half = power(Q, 0.5)
    assert np.allclose(half @ half, Q)
    assert np.allclose(half[:2, :2], turn(15)) and np.allclose(half[2:, 2:], turn(-50))
    assert np.allclose(power(Q, 0.0), np.eye(4)) and np.allclose(power(Q, 1.0), Q)
    assert np.allclose(power(np.eye(3), 0.3), np.eye(3))


@pytest.fixture
def turned_clumps(rng):
    x0 = three_clumps(rng, 300)
    return x0 + 5, three_clumps(rng, 300) @ turn(40).T - 1


def test_a_flow_that_is_told_to_turn_does_and_comes_back(turned_clumps, tmp_path):
    X0, X1 = turned_clumps
    flow = RectifiedFlowTransport(scaling="common", rotation=True, max_iter=100, random_state=0).fit(X0, X1)
    moved = flow.transform(X0)
    right = (X0 - X0.mean(axis=0)) @ turn(40).T + X1.mean(axis=0)
    assert ((moved - right) ** 2).sum(1).mean() < 0.02 * X1.var(axis=0).sum()
    assert np.allclose(flow.inverse_transform(moved), X0, atol=1e-3)
    trajectory = flow.trajectory(X0, 5)
    assert np.allclose(trajectory[0], X0) and np.allclose(trajectory[-1], moved, atol=1e-5)
    # On the way the cloud turns instead of shrinking, as it would along straight lines.
    assert trajectory[2].var(axis=0).sum() == pytest.approx(X0.var(axis=0).sum(), rel=0.1)
    cost, error = (flow.history_[0][name] for name in ("transport_cost", "transport_cost_standard_error"))
    assert cost == pytest.approx(((moved - X0) ** 2).sum(1).mean(), abs=4 * error)
    flow.save(tmp_path / "flow")
    for copy in (RectifiedFlowTransport.load(tmp_path / "flow"), pickle.loads(pickle.dumps(flow))):
        assert np.array_equal(copy.transform(X0), moved)
    again = flow.set_params(warm_start=True).fit(X0, X1)
    assert again.geometry_.rotation is not None


def test_a_flow_that_sees_more_than_an_affine_map_does_not_turn(rng):
    # An optimal map that no affine one comes near, and rows enough to show it.
    x0 = rng.normal(size=(1000, 2))
    x1 = rng.normal(size=(1000, 2))
    x1 += 2 * np.sign(x1)
    flow = RectifiedFlowTransport(scaling="common", max_iter=500, random_state=0).fit(x0, x1)
    assert flow.geometry_.rotation is None


def test_few_rows_of_a_turned_sensor_turn_the_flow():
    data = load_drifted_digits(random_state=0)
    X_drifted = data.X1[:450]
    settings = {"scaling": "common", "max_iter": 300, "random_state": 0}
    flow = RectifiedFlowTransport(**settings).fit(X_drifted, data.X0)
    straight = RectifiedFlowTransport(**settings, rotation=False).fit(X_drifted, data.X0)
    assert flow.geometry_.rotation is not None and straight.geometry_.rotation is None
    clean = load_drifted_digits(blur=0, gain=1, offset=0, rotation=0, random_state=0)
    assert np.array_equal(clean.y1, data.y1)
    errors = [
        ((transport.transform(data.X1[450:]) - clean.X1[450:]) ** 2).sum(1).mean()
        for transport in (flow, straight, AffineTransport().fit(X_drifted, data.X0))
    ]
    assert errors[0] < 0.8 * min(errors[1:])


def test_a_flow_without_time_to_learn_does_not_turn():
    data = load_drifted_digits(random_state=0)
    flow = RectifiedFlowTransport(scaling="common", max_time=0.01, random_state=0).fit(data.X1[:450], data.X0)
    assert flow.geometry_.rotation is None
