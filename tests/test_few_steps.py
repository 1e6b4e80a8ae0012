"""Few evaluations of the field: Rectified Diffusion, Bellman-optimal grids, and students."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import NOTHING_LEARNED, make_clouds, quick_flow, relative_error
from scipy.stats import norm
from sklearn.base import clone

from rfadapt import PairedCoupling, RectifiedFlowTransport, _distillation, compare_transports
from rfadapt.metrics import energy_distance
from rfadapt.paths import PATHS
from rfadapt.predictions import PREDICTIONS
from rfadapt.schedules import optimal_time_grid, step_costs, uniform_time_grid
from rfadapt.solvers import Euler
from rfadapt.velocity import FlowVelocity

BENT = {"coupling": "independent", "velocity": "gradient", "learning_rate": 0.02, "max_iter": 300}


def error(flow, X, exact, **params):
    return relative_error(copy.copy(flow).set_params(**params).transform(X), exact)


@pytest.fixture(scope="module")
def bent(clouds):
    """A flow whose paths are bent, with the costs of steps."""
    return quick_flow(**BENT, schedule="bellman").fit(*clouds)


@pytest.fixture(scope="module")
def distilled(clouds):
    return quick_flow(**BENT, n_reflow=1, distill=True).fit(*clouds)


@pytest.fixture(scope="module")
def straightened(clouds):
    return quick_flow(**BENT, straighten=True, schedule="bellman", n_steps=3).fit(*clouds)


# ------------------------------------------------------------------------------------- paths and predictions


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("path", ["vp", "sub-vp", "trigonometric"])
def test_every_path_and_form_moves_the_source_onto_the_target(path, prediction, clouds):
    X0, X1 = clouds
    flow = quick_flow(**{**BENT, "max_iter": 200}, path=path, prediction=prediction).fit(X0, X1)
    moved = flow.transform(X0)
    assert energy_distance(moved, X1) < 0.1 * energy_distance(X0, X1)
    fine = copy.copy(flow).set_params(solver="rk4", n_steps=24)
    assert relative_error(moved, fine.transform(X0)) < 0.02
    assert relative_error(fine.inverse_transform(fine.transform(X0)), X0) < 0.02


def test_reflow_along_a_curved_path_makes_it_first_order_and_not_straight(clouds):
    flow = quick_flow(**{**BENT, "max_iter": 500}, path="vp", prediction="x1", n_reflow=1)
    first, last = flow.fit(*clouds).history_
    assert last["first_orderness"] < 0.5 * first["first_orderness"]
    assert last["one_step_error"] < 0.2 * first["one_step_error"]
    assert last["straightness"] > 0.3
    assert flow.velocity_.path == PATHS["vp"]() and type(flow.velocity_.prediction) is PREDICTIONS["x1"]


def test_the_affine_start_is_first_order_along_every_path(clouds):
    for path in PATHS:
        flow = quick_flow(velocity="gradient", path=path, prediction="x1", **NOTHING_LEARNED).fit(*clouds)
        assert flow.history_[0]["first_orderness"] < 1e-4 and flow.history_[0]["one_step_error"] < 1e-4
        assert flow.n_evaluations_ == 1


def test_phases_make_each_interval_exact(bent, clouds):
    X0, _ = clouds
    flow = quick_flow(**BENT, n_reflow=1, n_phases=2).fit(*clouds)
    exact = copy.copy(flow).set_params(solver="rk4", n_steps=16).transform(X0)
    before = copy.copy(bent).set_params(solver="rk4", n_steps=16, schedule="uniform").transform(X0)
    two = {"solver": "euler", "n_steps": 2, "schedule": "uniform"}
    assert error(flow, X0, exact, **two) < 0.5 * error(bent, X0, before, **two)
    assert error(flow, X0, exact, **two) < error(flow, X0, exact, solver="euler", n_steps=1)


def test_a_step_for_each_phase_is_the_map_of_the_flow_along_a_curved_path():
    # In one dimension the flow's map is known: the monotone one, whatever the path.
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(3000, 1)), rng.normal(size=(3000, 1)) * 0.5 + 3 * rng.choice([-1, 1], size=(3000, 1))
    places = np.linspace(-6, 6, 4001)
    X = np.linspace(-2, 2, 201)
    moved = np.interp(norm.cdf(X), norm.cdf(places - 3, scale=0.5) / 2 + norm.cdf(places + 3, scale=0.5) / 2, places)
    start, end = X[:, None], moved[:, None]

    settings = {**BENT, "max_iter": 400, "batch_size": 256, "path": "vp", "prediction": "x1"}
    plain = quick_flow(**settings).fit(X0, X1)
    phased = quick_flow(**settings, n_reflow=1, n_phases=4).fit(X0, X1)
    for method, x, exact in (("transform", start, end), ("inverse_transform", end, start)):
        many, few, bent = (
            relative_error(getattr(copy.copy(flow).set_params(solver=solver, n_steps=n), method)(x), exact)
            for flow, solver, n in ((phased, "rk4", 48), (phased, "ddim", 4), (plain, "ddim", 4))
        )
        assert few < 0.15 and few < 0.06 + many
        assert few < 0.7 * bent


def test_a_phased_flow_goes_on_and_has_students(clouds):
    phased = {**BENT, "max_iter": 50, "path": "vp", "prediction": "x1", "n_reflow": 1, "n_phases": 3}
    flow = quick_flow(**phased, distill=True).fit(*clouds)
    assert flow.velocity_.n_phases == 3 and flow.student_.n_phases == flow.inverse_student_.n_phases == 1
    flow.set_params(distill=False, straighten=True, n_steps=3, solver="auto").partial_fit(*clouds)
    assert flow.velocity_.n_phases == flow.student_.n_phases == 3 and flow.n_evaluations_ == 3
    with pytest.raises(ValueError, match="a field for each of 3 phases; got n_phases=2"):
        flow.set_params(n_phases=2).partial_fit(*clouds)


# ------------------------------------------------------------------------------------------------- Bellman


def test_bellman_grid_is_that_of_the_costs(bent, clouds):
    rows = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    costs = step_costs(bent.velocity_, rows, Euler())
    assert bent.step_costs_.shape == costs.shape
    for n_steps in (1, 3, 4):
        flow = copy.copy(bent).set_params(n_steps=n_steps)
        grid = optimal_time_grid(bent.step_costs_, n_steps)
        z = flow.geometry_.frame(0.0, flow.velocity_.path).enter(torch.from_numpy(clouds[0].copy()), "cpu")
        end = Euler().solve(flow.velocity_, z, grid)
        expected = flow.geometry_.frame(1.0, flow.velocity_.path).leave(end, torch.zeros(0, dtype=torch.float64))
        np.testing.assert_allclose(flow.transform(clouds[0]), expected, atol=1e-5)
        assert flow.n_evaluations_ == n_steps


def test_bellman_steps_are_better_where_the_velocity_changes_unevenly():
    # Two clumps, of which a row decides for one: late, and quickly.
    X0, X1 = make_clouds(1500, 1500)
    flow = quick_flow(**{**BENT, "max_iter": 500}, base=None, schedule="bellman").fit(X0, X1)
    exact = copy.copy(flow).set_params(solver="rk4", n_steps=32, schedule="uniform").transform(X0)
    uniform, bellman = (
        error(flow, X0, exact, solver="euler", n_steps=3, schedule=schedule) for schedule in ("uniform", "bellman")
    )
    assert bellman < uniform


def test_costs_are_needed(regressed, clouds):
    with pytest.raises(ValueError, match='schedule="bellman" needs the costs of steps'):
        copy.copy(regressed).set_params(schedule="bellman").transform(clouds[0])


def test_along_a_potential_every_grid_is_as_good(fitted, clouds):
    flow = clone(fitted).set_params(schedule="bellman", max_iter=20).fit(*clouds)
    assert flow.step_costs_ is None and flow.n_evaluations_ == 1
    one = flow.transform(clouds[0])
    np.testing.assert_allclose(flow.set_params(n_steps=2).transform(clouds[0]), one, atol=1e-3)


# ------------------------------------------------------------------------------------------------ students


def test_a_distilled_flow_moves_rows_in_one_step_each_way(distilled, clouds):
    X0, X1 = clouds
    teacher = copy.copy(distilled).set_params(distill=False)
    assert distilled.n_evaluations_ == 1
    calls = []
    hooks = [field.learned.register_forward_hook(lambda *_: calls.append(1))
             for field in (distilled.student_, distilled.inverse_student_, distilled.velocity_)]  # fmt: skip
    try:
        moved = distilled.transform(X0)
        back = distilled.inverse_transform(X1)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(calls) == 2
    one = copy.copy(teacher).set_params(solver="euler", n_steps=1)
    for method, X, result in (("transform", X0, moved), ("inverse_transform", X1, back)):
        exact = getattr(teacher.set_params(solver="rk4", n_steps=16), method)(X)
        assert relative_error(result, exact) < relative_error(getattr(one, method)(X), exact)
        assert relative_error(result, exact) < 0.1


def test_a_student_parts_rows_more_sharply_than_its_teacher_at_one_time():
    X0 = np.random.default_rng(0).normal(size=(1500, 4))
    X1 = X0 + 3 * np.sign(X0[:, :1]) * [1, 0, 0, 0]
    settings = {"coupling": PairedCoupling(), "velocity": "gradient", "width": 64, "scaling": None, "batch_size": 256}
    flow = quick_flow(**settings, max_iter=300, distill=True).fit(X0, X1)
    teacher = copy.copy(flow).set_params(distill=False)
    one, many = (copy.copy(teacher).set_params(solver=solver, n_steps=n) for solver, n in (("euler", 1), ("rk4", 16)))
    for method, X in (("transform", X0), ("inverse_transform", X1)):
        exact = getattr(many, method)(X)
        student, step = (relative_error(getattr(each, method)(X), exact) for each in (flow, one))
        assert student < 0.35 * step


def test_a_student_that_learns_nothing_is_one_step_of_its_teacher(clouds):
    flow = quick_flow(**{**BENT, "max_iter": 300}, n_reflow=1).fit(*clouds)
    flow.set_params(warm_start=True, distill=True, n_reflow=0, **NOTHING_LEARNED).fit(*clouds)
    step = copy.copy(flow).set_params(distill=False, solver="euler", n_steps=1)
    for method, X in (("transform", clouds[0]), ("inverse_transform", clouds[1])):
        np.testing.assert_allclose(getattr(flow, method)(X), getattr(step, method)(X), atol=1e-4)


def test_what_distillation_reports(distilled, clouds):
    report = distilled.distillation_
    assert report["grid"] == [0.0, 1.0] and report["n_iter"] == 600 and report["seconds"] > 0
    for prefix in ("", "inverse_"):
        assert 0 <= report[f"{prefix}student_error"] < 0.01
        teacher, student = (report[f"{prefix}{who}_energy_distance"] for who in ("teacher", "student"))
        assert math.isfinite(teacher) and student < teacher + 0.05
    assert distilled.n_iter_ == sum(record["n_iter"] for record in distilled.history_) == 600


def test_a_student_that_is_much_worse_says_so(clouds, monkeypatch):
    def idle(fit, *_, **__):
        return FlowVelocity(None, None, fit.path, fit.prediction), 0

    monkeypatch.setattr(_distillation, "_student", idle)
    flow = quick_flow(**{**BENT, "max_iter": 50}, distill=True)
    with pytest.warns(RuntimeWarning, match="student's energy distance is .* above it by over 10% and 2 standard"):
        flow.fit(*clouds)
    report = flow.distillation_
    assert report["student_energy_distance"] > 1.1 * report["teacher_energy_distance"]


def test_a_trajectory_of_a_student_ends_where_transform_does(distilled, straightened, clouds):
    for flow in (distilled, straightened):
        trajectory = flow.trajectory(clouds[0], 5)
        np.testing.assert_allclose(trajectory[0], clouds[0], atol=1e-5)
        np.testing.assert_allclose(trajectory[-1], flow.transform(clouds[0]), atol=1e-5)


def test_straightening_comes_closer_to_the_flow_on_its_grid(straightened, clouds):
    X0, X1 = clouds
    flow = copy.copy(straightened).set_params(straighten=False)
    on_grid = {"solver": "euler", "n_steps": 3}
    assert straightened.n_evaluations_ == 3
    exact = copy.copy(flow).set_params(solver="rk4", n_steps=32, schedule="uniform")
    for method, X in (("transform", X0), ("inverse_transform", X1)):
        plain = getattr(copy.copy(flow).set_params(**on_grid), method)(X)
        end = getattr(exact, method)(X)
        assert relative_error(getattr(straightened, method)(X), end) < 0.7 * relative_error(plain, end)


def test_students_of_a_curved_path(clouds):
    X0, X1 = clouds
    flow = quick_flow(**BENT, path="vp", prediction="x1", n_reflow=1, distill=True).fit(X0, X1)
    exact = copy.copy(flow).set_params(distill=False, solver="rk4", n_steps=24)
    assert relative_error(flow.transform(X0), exact.transform(X0)) < 0.15
    assert energy_distance(flow.inverse_transform(X1), X0) < 0.2 * energy_distance(X0, X1)


def test_a_distilled_potential_has_an_inverse_in_one_step(fitted, clouds):
    flow = clone(fitted).set_params(distill=True).fit(*clouds)
    np.testing.assert_array_equal(flow.transform(clouds[0]), fitted.transform(clouds[0]))
    assert flow.student_ is flow.velocity_ and type(flow.inverse_student_.learned).__name__ == "GradientVelocity"
    assert relative_error(flow.inverse_transform(clouds[1]), fitted.inverse_transform(clouds[1])) < 0.15


def test_distillation_of_too_few_rows_to_learn_is_the_affine_map():
    X0, X1 = make_clouds(12, 12)
    flow = quick_flow(velocity="gradient", distill=True).fit(X0, X1)
    plain = quick_flow(velocity="gradient").fit(X0, X1)
    np.testing.assert_allclose(flow.transform(X0), plain.transform(X0), atol=1e-5)
    assert flow.distillation_["n_iter"] == 0


def test_the_same_seed_gives_the_same_students(distilled, clouds):
    again = clone(distilled).fit(*clouds)
    np.testing.assert_array_equal(again.transform(clouds[0]), distilled.transform(clouds[0]))
    np.testing.assert_array_equal(again.inverse_transform(clouds[0]), distilled.inverse_transform(clouds[0]))


@pytest.mark.parametrize("name", ["distilled", "straightened", "bent"])
def test_students_and_costs_are_saved(name, request, clouds, tmp_path):
    flow = request.getfixturevalue(name)
    flow.save(tmp_path / "flow")
    loaded = RectifiedFlowTransport.load(tmp_path / "flow")
    for method in ("transform", "inverse_transform"):
        np.testing.assert_array_equal(getattr(loaded, method)(clouds[0]), getattr(flow, method)(clouds[0]))
    assert loaded.get_params() == flow.get_params() and loaded.distillation_ == flow.distillation_
    without = {"distill": False, "straighten": False, "schedule": "uniform", "n_steps": None}
    np.testing.assert_array_equal(
        loaded.set_params(**without).transform(clouds[0]), copy.copy(flow).set_params(**without).transform(clouds[0])
    )


def test_a_saved_distilled_potential(fitted, clouds, tmp_path):
    flow = clone(fitted).set_params(distill=True, max_iter=20).fit(*clouds)
    flow.save(tmp_path / "flow")
    loaded = RectifiedFlowTransport.load(tmp_path / "flow")
    np.testing.assert_array_equal(loaded.inverse_transform(clouds[1]), flow.inverse_transform(clouds[1]))
    np.testing.assert_array_equal(loaded.transform(clouds[0]), flow.transform(clouds[0]))


@pytest.mark.parametrize("params", [{}, {"path": "vp", "prediction": "x1"}], ids=str)
def test_partial_fit_makes_new_students(params, clouds):
    flow = quick_flow(**{**BENT, "max_iter": 50}, **params, distill=True)
    flow.partial_fit(*clouds)
    student, field = flow.student_, flow.velocity_
    flow.partial_fit(*make_clouds(seed=3))
    assert flow.student_ is not student and flow.velocity_ is not field
    assert len(flow.history_) == 2 and np.isfinite(flow.inverse_transform(clouds[1])).all()


def test_going_on_along_another_path_is_refused(bent, clouds):
    for change in ({"path": "vp"}, {"prediction": "x1"}):
        with pytest.raises(ValueError, match="had another path or prediction form"):
            copy.copy(bent).set_params(**change).partial_fit(*clouds)


def test_a_snapshot_is_the_flow_without_students(clouds):
    rounds, snapshots = [], []

    def keep(state):
        rounds.append(state.round)
        snapshots.append(state.snapshot())

    settings = {**BENT, "max_iter": 100}
    flow = quick_flow(**settings, straighten=True, n_steps=2, n_reflow=1, callbacks=[keep]).fit(*clouds)
    assert rounds == [0, 1, 2, 3]
    assert flow.straighten and not any(snapshot.straighten or snapshot.distill for snapshot in snapshots)
    moved = copy.copy(flow).set_params(straighten=False, n_steps=None).transform(clouds[0])
    for snapshot in snapshots[2:]:
        np.testing.assert_allclose(snapshot.transform(clouds[0]), moved, atol=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"distill": True, "straighten": True, "n_steps": 2}, "take one"),
        ({"distill": True, "solver": "rk4"}, "distill=True moves rows in one step"),
        ({"distill": True, "solver": "auto", "n_steps": 3}, "distill=True moves rows in one step"),
        ({"straighten": True, "velocity": "gradient"}, "a number of n_steps; got solver='auto', n_steps=None"),
        ({"straighten": True, "n_steps": 2}, "nothing to do for the optimal flow"),
        ({"schedule": "bellman", "solver": "rk4"}, "solvers of one evaluation a step"),
        ({"n_phases": 3}, "but n_reflow is 0"),
        ({"velocity": "potential", "prediction": "x1"}, "got .* prediction='x1'"),
    ],
    ids=str,
)
def test_parameters_that_do_not_go_together(params, message, clouds):
    flow = quick_flow(**params)
    with pytest.raises(ValueError, match=message):
        flow.fit(*clouds)


def test_students_belong_to_their_grid(straightened, regressed, clouds):
    with pytest.raises(ValueError, match=r"trained for the times \[0.0, .*, 1.0\]; .* Fit again"):
        copy.copy(straightened).set_params(n_steps=2).transform(clouds[0])
    with pytest.raises(ValueError, match="which this flow was fitted without"):
        copy.copy(regressed).set_params(distill=True).transform(clouds[0])


def test_evaluations_are_counted(regressed):
    known = [("euler", 3, 3), ("heun", 3, 6), ("rk4", 2, 8), ("ddim", 5, 5), ("dopri5", 1, None)]
    for solver, n_steps, expected in known:
        assert copy.copy(regressed).set_params(solver=solver, n_steps=n_steps).n_evaluations_ == expected


def test_ddim_is_eulers_method_along_straight_lines(regressed, clouds):
    euler, ddim = (
        copy.copy(regressed).set_params(solver=solver, n_steps=3).transform(clouds[0]) for solver in ("euler", "ddim")
    )
    np.testing.assert_allclose(ddim, euler, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The .*student")
def test_first_orderness_is_compared(clouds):
    flows = {
        "vp": quick_flow(**{**BENT, "max_iter": 50}, path="vp", prediction="x1"),
        "one step": quick_flow(**{**BENT, "max_iter": 50}, distill=True),
    }
    table = compare_transports(flows, *clouds, random_state=0)
    assert table["error"].isna().all()
    assert table.loc["vp", "first_orderness"] < table.loc["vp", "straightness"]
    assert table.loc["one step", ["first_orderness", "one_step_error"]].abs().max() < 1e-6


def test_uniform_is_the_default_grid():
    assert RectifiedFlowTransport().schedule == "uniform"
    assert uniform_time_grid(2).tolist() == [0.0, 0.5, 1.0]
