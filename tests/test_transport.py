"""The flow as its users meet it: known answers, and every promise of its documentation."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from conftest import make_clouds, quick_flow

from rfadapt import IndependentCoupling, OTCoupling, PairedCoupling, RectifiedFlowTransport
from rfadapt.baselines import AffineTransport
from rfadapt.datasets import make_gaussian_shift
from rfadapt.metrics import energy_distance
from rfadapt.paths import LinearPath
from rfadapt.solvers import RK4

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


# ------------------------------------------------------------------------------------------ known answers


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
    flow = quick_flow(velocity=velocity, coupling="independent", scaling="common", **NOTHING_LEARNED)
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


# -------------------------------------------------------------------------------- strategies and options


@pytest.mark.parametrize(
    "params",
    [
        {"coupling": "independent", "learning_rate": 0.02},
        {"velocity": "gradient", "learning_rate": 0.02},
        {"coupling": IndependentCoupling(), "velocity": "mlp", "learning_rate": 2e-3},
        {"base": None, "velocity": "gradient", "learning_rate": 0.02, "max_iter": 300},
        {"base": None, "velocity": SmallNet, "learning_rate": 1e-2, "max_iter": 300},
        {"scaling": "common"},
        {"scaling": None},
        {"early_stopping": False, "validation_fraction": 0.0},
        {"precision": "bfloat16", "velocity": "mlp", "learning_rate": 2e-3},
        {"solver": "dopri5"},
        {"solver": "heun", "n_steps": 3, "velocity": "gradient", "learning_rate": 0.02},
        {"batch_size": 7, "width": 1, "velocity": "gradient"},
        {"batch_size": 7},
        {"width": 1},
        {"width": 20},
        {"n_reflow": 1, "learning_rate": 0.02},
    ],
    ids=str,
)
def test_every_option_moves_the_source_onto_the_target(params, clouds):
    X0, X1 = clouds
    moved = quick_flow(**params).fit(X0, X1).transform(X0)
    assert np.isfinite(moved).all()
    assert energy_distance(moved, X1) < 0.2 * energy_distance(X0, X1)


def test_strings_and_instances_mean_the_same(clouds):
    named = {"velocity": "gradient", "max_iter": 20}
    strings = quick_flow(solver="rk4", **named).fit(*clouds)
    instances = quick_flow(coupling=OTCoupling(n_jobs=1), path=LinearPath(), solver=RK4(), **named).fit(*clouds)
    np.testing.assert_array_equal(instances.transform(clouds[0]), strings.transform(clouds[0]))


@pytest.mark.parametrize("velocity", ["potential", "gradient", "mlp", SmallNet])
def test_same_seed_same_result(velocity, clouds):
    maps = [
        quick_flow(velocity=velocity, base=None, max_iter=30, random_state=state).fit(*clouds).transform(clouds[0])
        for state in (3, 3, np.random.RandomState(3), 4)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])
    assert not np.allclose(maps[0], maps[3])


@pytest.mark.parametrize("velocity", ["potential", "gradient", "mlp", SmallNet])
def test_global_generators_are_left_alone(velocity, clouds):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    quick_flow(velocity=velocity, max_iter=5).fit(*clouds)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_factory_must_make_a_module(clouds):
    with pytest.raises(TypeError, match=r"factory f\(n_features\) -> torch.nn.Module; the one given returned int"):
        quick_flow(velocity=lambda n_features: n_features).fit(*clouds)


def fit_and_scale(X0, X1, X, factors, **params):
    plain = quick_flow(max_iter=50, **params).fit(X0, X1).transform(X)
    scaled = quick_flow(max_iter=50, **params).fit(X0 * factors, X1 * factors).transform(X * factors)
    return relative_error(scaled / factors, plain)


FIELDS = [{"velocity": "potential"}, {"velocity": "gradient"}, {"velocity": "gradient", "base": None}]


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_feature_scaling_makes_units_irrelevant(field, clouds):
    factors = np.array([1000.0, 0.01])
    assert fit_and_scale(*clouds, clouds[0], factors, scaling="feature", **field) < 1e-3
    assert fit_and_scale(*clouds, clouds[0], factors, scaling="common", **field) > 0.01


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_common_scaling_makes_the_common_unit_irrelevant(field, clouds):
    assert fit_and_scale(*clouds, clouds[0], 256.0, scaling="common", **field) < 1e-3


def test_scaling_decides_which_way_is_short():
    # Correlated features of different size: the optimal map depends on the unit of distance.
    rng = np.random.default_rng(0)
    X0 = rng.normal(size=(500, 2)) * [1.0, 10.0]
    X1 = rng.normal(size=(500, 2)) @ [[1.0, 8.0], [0.0, 6.0]]
    feature, common, none = (
        quick_flow(scaling=scaling, **AFFINE).fit(X0, X1).transform(X0)
        for scaling in ("feature", "common", None)
    )
    assert relative_error(common, none) < 1e-3 < 0.1 < relative_error(feature, common)
    cost = ((common - X0) ** 2).sum(1).mean()
    assert cost < ((feature - X0) ** 2).sum(1).mean()


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_data_far_from_the_origin(shift, clouds):
    X0, X1 = (X + shift for X in clouds)
    flow = quick_flow(max_iter=50).fit(X0, X1)
    plain = quick_flow(max_iter=50).fit(*clouds)
    np.testing.assert_allclose(flow.transform(X0) - shift, plain.transform(clouds[0]), atol=1e-3)


# ------------------------------------------------------------------------------- small and strange samples


@pytest.mark.parametrize("sizes", [(1, 1), (1, 40), (40, 1), (2, 3), (19, 200), (25, 30)])
@pytest.mark.parametrize(
    "params",
    [{}, {"early_stopping": False}, {"velocity": "gradient", "early_stopping": False},
     {"velocity": "gradient", "base": None}],
    ids=str,
)
def test_tiny_samples(sizes, params):
    rng = np.random.default_rng(0)
    X0, X1 = (rng.normal(size=(n, 3)) + 5 * k for k, n in enumerate(sizes))
    flow = quick_flow(max_iter=20, **params).fit(X0, X1)
    near = rng.normal(size=(200, 3))
    moved = flow.transform(near)
    assert np.isfinite(moved).all() and np.isfinite(flow.inverse_transform(moved)).all()
    # The gap between the means is bridged, and rows nearby do not fly away.
    assert np.abs(moved - 5).max() < 20
    assert len(flow.history_) == 1


def test_one_row_goes_to_the_only_row_there_is():
    moved = quick_flow(max_iter=20).fit([[1.0, 2.0]], [[5.0, -2.0]]).transform([[1.0, 2.0]])
    np.testing.assert_allclose(moved, [[5.0, -2.0]], atol=1e-4)


def test_one_feature(clouds):
    X0, X1 = (X[:, :1] for X in clouds)
    grid = np.linspace(-1, 3, 50)[:, None]
    moved = quick_flow().fit(X0, X1).transform(grid)
    # On a line a flow keeps the order.
    assert moved.shape == (50, 1) and (np.diff(moved[:, 0]) > 0).all()


@pytest.mark.parametrize("values", [(5.0, 5.0), (5.0, 7.0), (1e6, 1e6 + 3), (0.0, 0.0)])
def test_a_feature_that_is_constant_in_both_domains(values, clouds):
    X0, X1 = (np.column_stack([X, np.full(len(X), value)]) for X, value in zip(clouds, values))
    moved = quick_flow(max_iter=50).fit(X0, X1).transform(X0)
    np.testing.assert_allclose(moved[:, 2], values[1], rtol=1e-5, atol=0.05)
    assert energy_distance(moved, X1) < energy_distance(X0, X1)


@pytest.mark.parametrize("where", [0, 1])
def test_a_feature_that_is_constant_in_one_domain(where, clouds):
    extra = [np.random.default_rng(0).normal(size=len(X)) for X in clouds]
    extra[where] = np.full(len(clouds[where]), 4.0)
    X0, X1 = (np.column_stack([X, column]) for X, column in zip(clouds, extra))
    flow = quick_flow(max_iter=50).fit(X0, X1)
    moved = flow.transform(X0)
    assert np.isfinite(moved).all()
    assert abs(moved[:, 2].mean() - extra[1].mean()) < 0.2
    if where == 1:
        assert moved[:, 2].std() < 0.2


def test_domains_that_are_points():
    X0, X1 = np.ones((30, 2)), np.full((40, 2), 3.0)
    moved = quick_flow(max_iter=20).fit(X0, X1).transform(X0)
    np.testing.assert_allclose(moved, 3.0, atol=0.05)


def test_duplicated_rows(clouds):
    X0, X1 = (np.repeat(X[:10], 30, axis=0) for X in clouds)
    moved = quick_flow().fit(X0, X1).transform(X0)
    assert energy_distance(moved, X1) < 0.5 * energy_distance(X0, X1)
    np.testing.assert_array_equal(moved.reshape(10, 30, 2), np.repeat(moved.reshape(10, 30, 2)[:, :1], 30, axis=1))


def test_features_that_are_copies_of_each_other(clouds):
    X0, X1 = (np.column_stack([X, X]) for X in clouds)
    moved = quick_flow(max_iter=50).fit(X0, X1).transform(X0)
    assert relative_error(moved[:, :2], moved[:, 2:]) < 0.05
    assert energy_distance(moved, X1) < energy_distance(X0, X1)


def test_more_features_than_rows():
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(25, 60)), rng.normal(size=(30, 60)) + 1
    fresh = rng.normal(size=(400, 60))
    moved = quick_flow(max_iter=30).fit(X0, X1).transform(fresh)
    # One distribution, shifted: the map is near the shift though the covariances cannot be inverted.
    assert relative_error(moved, fresh + 1) < 0.7


# ----------------------------------------------------------------------------------- transform and friends


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


# ------------------------------------------------------------------------------ training, reflow, callbacks


def test_history_of_a_reflow(clouds):
    X0, X1 = clouds
    flow = quick_flow(coupling="independent", base=None, n_reflow=2, max_iter=400, random_state=1).fit(X0, X1)
    keys = {"round", "transport_cost", "straightness", "one_step_error", "energy_distance", "seconds", "n_iter"}
    assert [record["round"] for record in flow.history_] == [0, 1, 2]
    assert all(keys <= record.keys() and all(math.isfinite(record[key]) for key in keys) for record in flow.history_)
    assert flow.n_iter_ == sum(record["n_iter"] for record in flow.history_)
    first, *later = flow.history_
    for record in later:
        error = record["transport_cost_standard_error"]
        assert record["transport_cost"] <= first["transport_cost"] + 2 * error
        assert record["straightness"] < 0.5 * first["straightness"]
        assert record["one_step_error"] < 0.5 * first["one_step_error"]


def test_history_is_in_the_units_of_the_data():
    X0 = np.random.default_rng(0).normal(size=(400, 2)) * [1.0, 100.0]
    flow = quick_flow(**AFFINE).fit(X0, X0 + [3.0, 400.0])
    assert flow.history_[0]["transport_cost"] == pytest.approx(9 + 160_000, rel=1e-3)


class Swollen(SmallNet):
    gain = 1.0

    def forward(self, x, t):
        return self.gain * super().forward(x, t)


def test_a_reflow_that_raises_the_cost_says_so(clouds, monkeypatch):
    monkeypatch.setattr(Swollen, "gain", 1.0)

    def swell(state):
        if state.round == 1 and state.iteration == state.max_iter:
            monkeypatch.setattr(Swollen, "gain", 3.0)

    flow = quick_flow(velocity=Swollen, base=None, learning_rate=1e-2, n_reflow=1, callbacks=[swell])
    with pytest.warns(RuntimeWarning, match="Reflow round 1 raised the transport cost by .* Raise max_iter or width"):
        flow.fit(*clouds)


def test_early_stopping(clouds):
    X0, _ = clouds
    quiet = {"max_iter": 2000, "n_iter_no_change": 1, "batch_size": 32}
    # There is nothing to learn between two parts of one sample.
    early = quick_flow(**quiet).fit(X0[:300], X0[300:])
    assert early.n_iter_ < 1000
    full = quick_flow(**{**quiet, "max_iter": 250}, early_stopping=False).fit(X0[:300], X0[300:])
    assert full.n_iter_ == 250


def test_callbacks_see_the_training(clouds):
    states = []
    flow = quick_flow(max_iter=250, n_reflow=1, early_stopping=False, callbacks=[states.append]).fit(*clouds)
    assert [(state.round, state.iteration) for state in states] == [
        (0, 100), (0, 200), (0, 250), (1, 100), (1, 200), (1, 250)
    ]
    for state in states:
        assert state.max_iter == 250
        assert all(math.isfinite(v) for v in (state.loss, state.validation_loss, state.energy_distance))
    assert states[2].validation_loss < states[0].validation_loss
    assert flow.n_iter_ == 500


@pytest.mark.parametrize("velocity", ["potential", "gradient"])
def test_callbacks_without_a_held_out_part(velocity, clouds):
    states = []
    blind = {"max_iter": 50, "validation_fraction": 0.0, "early_stopping": False}
    quick_flow(velocity=velocity, callbacks=[states.append], **blind).fit(*clouds)
    assert len(states) == 1 and math.isnan(states[0].validation_loss) and math.isfinite(states[0].loss)


def test_a_callback_can_end_the_fit(clouds):
    seen = []
    flow = quick_flow(max_iter=1000, callbacks=[lambda state: state.iteration >= 200, seen.append]).fit(*clouds)
    assert flow.n_iter_ == 200 and len(seen) == 2
    assert np.isfinite(flow.transform(clouds[0])).all()


@pytest.mark.parametrize("velocity", ["potential", "gradient"])
def test_a_killed_fit_is_resumed_from_its_checkpoint(velocity, clouds, tmp_path):
    path = tmp_path / "checkpoint"

    def checkpoint(state):
        state.snapshot().save(path)
        if state.iteration == 200:
            raise KeyboardInterrupt

    killed = quick_flow(velocity=velocity, learning_rate=0.05, max_iter=1000, callbacks=[checkpoint])
    with pytest.raises(KeyboardInterrupt):
        killed.fit(*clouds)
    assert not any(name.endswith("_") for name in vars(killed))

    checkpointed = RectifiedFlowTransport.load(path).transform(clouds[0])
    affine = quick_flow(**AFFINE).fit(*clouds).transform(clouds[0])
    assert relative_error(checkpointed, affine) > 0.05
    # Resumed, the fit begins where it was, and goes on from there.
    resumed = RectifiedFlowTransport.load(path, warm_start=True, callbacks=None, **NOTHING_LEARNED).fit(*clouds)
    assert relative_error(resumed.transform(clouds[0]), checkpointed) < 0.01
    resumed = RectifiedFlowTransport.load(path, warm_start=True, callbacks=None, max_iter=200).fit(*clouds)
    assert resumed.n_iter_ == 200
    assert resumed.score(*clouds) > -1.5 * energy_distance(checkpointed, clouds[1])


def test_a_snapshot_is_a_copy(clouds):
    snapshots = []
    flow = quick_flow(max_iter=300, callbacks=[lambda state: snapshots.append(state.snapshot())]).fit(*clouds)
    maps = [snapshot.transform(clouds[0]) for snapshot in snapshots]
    assert not np.allclose(maps[0], maps[1]) and not np.allclose(maps[1], maps[2])
    assert snapshots[0] is not flow and snapshots[0].get_params() == flow.get_params()


@pytest.mark.parametrize("name", ["fitted", "regressed"])
def test_warm_start_continues(name, clouds, request):
    X, _ = clouds
    flow = request.getfixturevalue(name)
    warm = copy.deepcopy(flow).set_params(warm_start=True, **NOTHING_LEARNED).fit(*clouds)
    assert relative_error(warm.transform(X), flow.transform(X)) < 0.01
    cold = copy.deepcopy(flow).set_params(**NOTHING_LEARNED).fit(*clouds)
    assert relative_error(cold.transform(X), flow.transform(X)) > 0.05


@pytest.mark.parametrize("name", ["fitted", "regressed"])
def test_warm_start_does_not_change_what_it_started_from(name, clouds, request):
    X, _ = clouds
    fitted = request.getfixturevalue(name)
    other = copy.copy(fitted).set_params(
        warm_start=True, max_iter=50, validation_fraction=0.0, early_stopping=False
    )
    before = fitted.transform(X)
    moved = other.fit(*clouds).transform(X)
    np.testing.assert_array_equal(fitted.transform(X), before)
    assert not np.array_equal(moved, before)


def test_warm_start_on_other_features(fitted, clouds):
    flow = copy.deepcopy(fitted).set_params(warm_start=True)
    with pytest.raises(ValueError, match="warm_start=True continues a fit on 2 features; got 1"):
        flow.fit(clouds[0][:, :1], clouds[1][:, :1])
    assert flow.n_features_in_ == 2
    flow.transform(clouds[0])


@pytest.mark.parametrize(
    ("name", "velocity"), [("fitted", "gradient"), ("regressed", "potential"), ("regressed", "mlp")]
)
def test_warm_start_of_another_kind_of_field(name, velocity, clouds, request):
    flow = copy.deepcopy(request.getfixturevalue(name)).set_params(warm_start=True, velocity=velocity)
    with pytest.raises(ValueError, match=r"warm_start=True continues .*set_params\(warm_start=False\)"):
        flow.fit(*clouds)


@pytest.mark.parametrize("velocity", ["potential", "gradient"])
def test_warm_start_of_a_fit_that_had_too_few_rows_to_learn(velocity, clouds):
    X0, X1 = clouds
    flow = quick_flow(velocity=velocity, warm_start=True, learning_rate=0.05).fit(X0[:10], X1[:10])
    assert flow.n_iter_ == 0
    flow.fit(X0, X1)
    assert flow.n_iter_ == 200 and energy_distance(flow.transform(X0), X1) < 0.1 * energy_distance(X0, X1)


def test_warm_start_of_an_unfitted_flow_starts_anew(clouds):
    flow = quick_flow(warm_start=True, max_iter=20).fit(*clouds)
    np.testing.assert_array_equal(
        flow.transform(clouds[0]), quick_flow(max_iter=20).fit(*clouds).transform(clouds[0])
    )


class BreaksDown(SmallNet):
    """Trains for a while, and then returns NaN."""

    calls = 0

    def forward(self, x, t):
        type(self).calls += 1
        return super().forward(x, t) * (math.nan if type(self).calls > 60 else 1.0)


@pytest.mark.parametrize("validation_fraction", [0.0, 0.1])
def test_a_loss_that_is_not_finite_stops_with_advice(validation_fraction, clouds, fitted, monkeypatch):
    monkeypatch.setattr(BreaksDown, "calls", 0)
    flow = copy.deepcopy(fitted).set_params(
        velocity=BreaksDown, validation_fraction=validation_fraction, early_stopping=False
    )
    before, moved = dict(vars(flow)), flow.transform(clouds[0])
    with pytest.raises(FloatingPointError, match="loss became nan within the first 100 steps. Lower learning_rate"):
        flow.fit(*clouds)
    assert vars(flow) == before
    np.testing.assert_array_equal(flow.transform(clouds[0]), moved)


def test_an_error_in_a_callback_leaves_the_flow_as_it_was(clouds, fitted):
    def fail(state):
        raise RuntimeError("disk full")

    flow = copy.deepcopy(fitted).set_params(callbacks=[fail])
    before = dict(vars(flow))
    with pytest.raises(RuntimeError, match="disk full"):
        flow.fit(*clouds)
    assert vars(flow) == before


def test_progress(clouds, capsys):
    quick_flow(max_iter=150, n_reflow=1, verbose=1).fit(*clouds)
    shown = capsys.readouterr()
    assert shown.out == "" and "fit" in shown.err and "reflow 1" in shown.err and "150/150" in shown.err
    quick_flow(max_iter=150).fit(*clouds)
    assert capsys.readouterr().err == ""


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
