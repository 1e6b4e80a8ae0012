"""The flow as its users meet it: maps with known answers, and what transform and its relatives promise."""

import copy
import itertools

import numpy as np
import pytest
import torch
from conftest import AFFINE, NOTHING_LEARNED, make_clouds, quick_flow, relative_error
from scipy.special import softmax
from sklearn.base import clone

from rfadapt import OTCoupling, PairedCoupling, RectifiedFlowTransport
from rfadapt.baselines import AffineTransport
from rfadapt.datasets import make_gaussian_shift
from rfadapt.metrics import energy_distance, l2_uvp

SMALL_BLOCKS = OTCoupling(block_size=512, n_pairings=1, max_blocks=16, n_jobs=1)


@pytest.mark.parametrize(
    ("n_features", "params"),
    [(1, {}), (10, {}), (1, {"velocity": "gradient", "coupling": SMALL_BLOCKS})],
    ids=str,
)
def test_gaussians_with_a_known_map(n_features, params):
    data = make_gaussian_shift(30_000, n_features, random_state=1)
    # In "common" units, distance is Euclidean as in the closed form.
    flow = quick_flow(scaling="common", batch_size=1024, **params).fit(data.X0, data.X1)
    X = data.X0[:500]
    assert relative_error(flow.transform(X), data.optimal_map(X)) <= 0.02
    assert relative_error(flow.inverse_transform(data.optimal_map(X)), X) <= 0.02
    for solver in ("auto", "rk4"):
        flow.set_params(solver=solver)
        assert relative_error(flow.inverse_transform(flow.transform(X)), X) <= 1e-3


@pytest.mark.slow
def test_gaussians_with_a_known_map_at_the_defaults():
    data = make_gaussian_shift(40_000, 10, random_state=0)
    flow = RectifiedFlowTransport(scaling="common", random_state=0).fit(data.X0, data.X1)
    moved = flow.transform(data.X0)
    assert relative_error(moved, data.optimal_map(data.X0)) <= 0.02
    assert relative_error(flow.inverse_transform(moved), data.X0) <= 1e-3


@pytest.mark.parametrize("velocity", ["potential", "gradient"])
@pytest.mark.parametrize("seed", range(3))
def test_never_worse_than_the_affine_map_beyond_noise(velocity, seed):
    data = make_gaussian_shift((300, 250), 5, random_state=seed)
    fresh = np.random.default_rng(seed).multivariate_normal(data.mean0, data.covariance0, size=2000)
    targets = np.random.default_rng(seed + 10).multivariate_normal(data.mean1, data.covariance1, size=(2, 2000))
    floor = energy_distance(*targets)
    affine, flow = (
        energy_distance(transport.fit(data.X0, data.X1).transform(fresh), targets[0])
        for transport in (AffineTransport(), quick_flow(velocity=velocity))
    )
    assert flow <= 1.1 * affine + 2 * floor


def test_learns_what_the_affine_map_cannot_do(clouds, fitted, regressed):
    X0, X1 = make_clouds(2000, 2000, seed=1)
    affine = quick_flow(**AFFINE).fit(*clouds)
    for flow in (fitted, regressed):
        assert energy_distance(flow.transform(X0), X1) < 0.4 * energy_distance(affine.transform(X0), X1)


@pytest.mark.parametrize("velocity", ["potential", "gradient", "mlp"])
def test_without_training_the_flow_is_the_affine_map(velocity):
    # On few rows its covariances are shrunk, and those of the baseline are not.
    data = make_gaussian_shift(8000, 3, random_state=0)
    flow = quick_flow(velocity=velocity, coupling="ot", scaling="common", **NOTHING_LEARNED)
    flow.fit(data.X0, data.X1)
    affine = AffineTransport().fit(data.X0, data.X1)
    assert relative_error(flow.transform(data.X0), affine.transform(data.X0)) < 0.01


@pytest.mark.parametrize("velocity", ["potential", "gradient", "mlp"])
def test_training_that_does_not_help_is_undone(velocity):
    data = make_gaussian_shift(500, 3, random_state=0)
    wild = quick_flow(velocity=velocity, learning_rate=100.0, max_iter=100).fit(data.X0, data.X1)
    base = quick_flow(**AFFINE).fit(data.X0, data.X1)
    np.testing.assert_allclose(wild.transform(data.X0), base.transform(data.X0), atol=1e-4)


@pytest.mark.parametrize("params", [{}, {"solver": "rk4", "n_steps": 32}], ids=str)
def test_inverse_of_a_map_that_is_not_affine(params, clouds, fitted, regressed):
    X0, _ = clouds
    assert relative_error(regressed.inverse_transform(regressed.transform(X0)), X0) < 0.05
    fine = copy.copy(regressed if params else fitted).set_params(**params)
    assert relative_error(fine.inverse_transform(fine.transform(X0)), X0) < 1e-3


def test_paired_rows_are_learned_as_pairs():
    # A rotation of a round cloud: optimal transport would leave it where it is, only pairs can say so.
    X0 = np.random.default_rng(0).normal(size=(400, 2))
    X1 = X0 @ [[0.5, 0.75**0.5], [-(0.75**0.5), 0.5]]
    flow = quick_flow(coupling=PairedCoupling(), velocity="mlp", learning_rate=3e-3, max_iter=400)
    assert relative_error(flow.fit(X0, X1).transform(X0), X1) < 0.15


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_rows_move_alone_as_they_move_together(method, fitted):
    X = np.random.default_rng(5).normal(size=(9000, 2)) * 3
    move = getattr(fitted, method)
    together = move(X)
    for start, stop in [(0, 1), (17, 18), (4090, 4100), (0, 5000), (8999, 9000)]:
        np.testing.assert_allclose(move(X[start:stop]), together[start:stop], atol=1e-4)


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_out(method, fitted, clouds, tmp_path):
    X, _ = clouds
    expected = getattr(fitted, method)(X)
    file = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float64, X.shape)
    assert getattr(fitted, method)(X, out=file) is file
    file.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    tensor = torch.empty(X.shape, dtype=torch.float64)
    assert getattr(fitted, method)(X, out=tensor) is tensor
    np.testing.assert_array_equal(tensor, expected)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((3, 2)), ValueError, r"out must have shape \(600, 2\), like X; got \(3, 2\)"),
        (np.empty((600, 2), int), ValueError, "out must hold floating point numbers"),
        ([], TypeError, "out must be an ndarray or a Tensor; got list"),
    ],
)
def test_an_out_that_will_not_do(out, error, message, fitted, clouds):
    with pytest.raises(error, match=message):
        fitted.transform(clouds[0], out=out)


def test_dtype_is_kept(fitted, clouds):
    X, _ = clouds
    moved = fitted.transform(X)
    moved32 = fitted.transform(X.astype(np.float32))
    assert moved.dtype == np.float64 and moved32.dtype == np.float32
    np.testing.assert_allclose(moved32, moved, atol=1e-4)
    assert fitted.inverse_transform(torch.tensor(X).float()).dtype == torch.float32
    assert fitted.trajectory(X.astype(np.float32), 3).dtype == np.float32


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4", "dopri5"])
@pytest.mark.parametrize(("n_steps", "n_times"), list(itertools.product([1, 4, 7], [2, 5, 11])))
def test_trajectory_ends_where_transform_does(solver, n_steps, n_times, regressed, clouds):
    X = clouds[0][:50]
    flow = copy.copy(regressed).set_params(solver=solver, n_steps=n_steps)
    trajectory = flow.trajectory(X, n_times)
    assert trajectory.shape == (n_times, 50, 2)
    np.testing.assert_allclose(trajectory[0], X, atol=1e-5)
    np.testing.assert_allclose(trajectory[-1], flow.transform(X), atol=1e-2 if solver == "dopri5" else 1e-5)


def test_trajectory_passes_the_right_places():
    # Between Gaussians of one covariance every row moves at the speed of the means.
    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(500, 2))
    flow = quick_flow(**AFFINE).fit(X0, X0 + [8.0, 0.0])
    trajectory = flow.trajectory(torch.from_numpy(X0), n_times=5)
    assert isinstance(trajectory, torch.Tensor)
    for position, t in zip(trajectory, (0.0, 0.25, 0.5, 0.75, 1.0)):
        np.testing.assert_allclose(position, X0 + [8 * t, 0], atol=1e-4)


@pytest.mark.parametrize("n_times", [1, 0, 2.5, "two"])
def test_trajectory_needs_a_start_and_an_end(n_times, fitted, clouds):
    with pytest.raises(ValueError, match="n_times must be an integer of at least 2"):
        fitted.trajectory(clouds[0], n_times)


def test_score_is_higher_for_the_better_map(clouds, fitted):
    X0, X1 = make_clouds(1000, 900, seed=7)
    affine = quick_flow(**AFFINE).fit(*clouds)
    elsewhere = quick_flow(**AFFINE).fit(clouds[0], clouds[1] + 10)
    scores = [flow.score(X0, X1) for flow in (fitted, affine, elsewhere)]
    assert 0 > scores[0] > scores[1] > scores[2]
    assert scores[0] == pytest.approx(-energy_distance(fitted.transform(X0), X1), rel=1e-6)


def test_the_potential_flow_is_straight(fitted, clouds):
    X, _ = clouds
    moved = fitted.transform(X)
    assert (fitted.solver_, fitted.n_steps_) == ("euler", 1)
    for solver, n_steps in (("euler", 5), ("rk4", 3)):
        other = copy.copy(fitted).set_params(solver=solver, n_steps=n_steps)
        assert relative_error(other.transform(X), moved) < 1e-3
    for position, t in zip(fitted.trajectory(X, 5), (0, 0.25, 0.5, 0.75, 1)):
        assert relative_error(position, (1 - t) * X + t * moved) < 1e-3
    # The map is the gradient of a convex function: any two rows move so that their order along the line
    # between them is kept.
    steps, moves = X[1:] - X[:-1], moved[1:] - moved[:-1]
    assert ((steps * moves).sum(1) > -1e-6).all()


def test_auto_finds_enough_steps(regressed, clouds):
    X, _ = clouds
    exact = copy.copy(regressed).set_params(solver="rk4", n_steps=64).transform(X)
    assert relative_error(regressed.transform(X), exact) < 0.01
    one = copy.copy(regressed).set_params(solver="euler", n_steps=1).transform(X)
    assert relative_error(one, exact) > 0.01 and regressed.n_steps_ > 1


def test_auto_and_a_number_of_steps_contradict_each_other(fitted, clouds):
    with pytest.raises(ValueError, match='n_steps=4 needs a named solver, for example solver="rk4"'):
        copy.copy(fitted).set_params(n_steps=4).transform(clouds[0])


def test_solver_and_steps_are_read_at_transform(regressed, clouds):
    X = clouds[0]
    exact = copy.copy(regressed).set_params(solver="dopri5").transform(X)
    errors = [
        relative_error(copy.copy(regressed).set_params(solver=solver, n_steps=n_steps).transform(X), exact)
        for solver, n_steps in (("euler", 1), ("euler", 16), ("heun", 16), ("rk4", 16))
    ]
    assert errors[0] > errors[1] > errors[2] > errors[3] and errors[3] < 1e-3 < 0.02 < errors[0]


def test_labels_are_accepted_and_ignored(clouds):
    X0, X1 = clouds
    plain = quick_flow(max_iter=10).fit(X0, X1).transform(X0)
    labelled = quick_flow(max_iter=10).fit(X0, X1, y0=np.zeros(len(X0)), y1=["a"] * len(X1)).transform(X0)
    np.testing.assert_array_equal(plain, labelled)


def test_fit_transform_is_fit_and_transform(clouds):
    X0, X1 = clouds
    np.testing.assert_array_equal(
        quick_flow(max_iter=10).fit_transform(X0, X1), quick_flow(max_iter=10).fit(X0, X1).transform(X0)
    )


def test_fitted_flow_takes_no_gradients(fitted):
    assert not any(parameter.requires_grad for parameter in fitted.velocity_.parameters())
    moved = fitted.transform(torch.ones(3, 2, requires_grad=True))
    assert not moved.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_flow_on_the_gpu_answers_on_the_device_of_its_input(clouds, tmp_path):
    flow = quick_flow(device="cuda").fit(*clouds)
    moved = flow.transform(clouds[0])
    on_gpu = flow.transform(torch.tensor(clouds[0], device="cuda"))
    assert on_gpu.device.type == "cuda"
    np.testing.assert_allclose(on_gpu.cpu(), moved, atol=1e-3)
    flow.save(tmp_path / "model")
    on_cpu = RectifiedFlowTransport.load(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(on_cpu.transform(clouds[0]), moved, atol=1e-2)


def test_a_map_that_is_steep_between_two_clumps_is_inverted():
    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(600, 2))
    X1 = rng.normal(size=(500, 2)) + rng.choice([-4, 4], size=(500, 1))
    flow = RectifiedFlowTransport(max_iter=400, device="cpu", random_state=0).fit(X0, X1)
    moved = flow.transform(X0)
    assert relative_error(flow.inverse_transform(moved), X0) < 1e-3
    assert relative_error(flow.set_params(solver="rk4", n_steps=8).transform(X0), moved) < 1e-3


@pytest.mark.parametrize("n_estimators", [1, 2])
def test_what_the_inverse_finds_is_moved_back_by_a_steep_map(n_estimators):
    """What is left of the equation is small, but not what a map makes of it that parts neighbours."""
    rng = np.random.default_rng(0)
    clump = rng.choice([-12, 0, 12], size=(3000, 1))
    X0, X1 = rng.normal(size=(3000, 5)), 0.3 * rng.normal(size=(3000, 5)) + clump
    flow = RectifiedFlowTransport(
        max_iter=300, n_estimators=n_estimators, scaling=None, device="cpu", random_state=0
    ).fit(X0, X1)
    between = rng.uniform(-12, 12, size=(500, 1)) + 0.3 * rng.normal(size=(500, 5))
    back = flow.transform(flow.inverse_transform(between))
    assert np.abs(back - between).max() < 0.05


def test_a_target_of_tight_clumps_in_many_features_is_reached():
    """The map parts the space between ten clumps, far narrower than their distances; it is the gradient of a convex
    function. Where conjugates leap over walls between its cells, nothing is learned (52, as of the affine map)."""
    rng = np.random.default_rng(1)
    directions, centers = rng.normal(size=(10, 32)), 2 * rng.normal(size=(3, 32))

    def draw(n):
        return centers[rng.integers(3, size=n)] + rng.normal(size=(n, 32))

    def move(X):
        return softmax(4 * X @ directions.T / np.sqrt(32), axis=1) @ directions + 0.0125 * X

    X0, X1, X = draw(4000), move(draw(4000)), draw(1000)
    flow = RectifiedFlowTransport(
        max_iter=250, scaling="common", n_estimators=1, early_stopping=False, device="cpu", random_state=0
    ).fit(X0, X1)
    assert l2_uvp(flow.transform(X), move(X)) < 25


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_can_fit(context, clouds):
    flow = quick_flow(max_iter=20, coupling="independent")
    expected = clone(flow).fit(*clouds).partial_fit(*clouds).transform(clouds[0])
    with context():
        moved = flow.fit(*clouds).partial_fit(*clouds).transform(clouds[0])
    np.testing.assert_array_equal(moved, expected)
