"""The training of the flow: history, reflow, early stopping, callbacks, warm starts and what goes wrong."""

import copy
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import AFFINE, NOTHING_LEARNED, SmallNet, quick_flow, relative_error

from rfadapt import Checkpoint, RectifiedFlowTransport, _training
from rfadapt._objectives import SemiDual
from rfadapt._optimisation import Adam, LearningRate
from rfadapt._training import TrainingPlan, _Best
from rfadapt.geometry import TensorRows
from rfadapt.metrics import energy_distance
from rfadapt.velocity import ConvexPotential


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

    def kill(state):
        if state.iteration == 200:
            raise KeyboardInterrupt

    killed = quick_flow(velocity=velocity, learning_rate=0.05, max_iter=1000, callbacks=[Checkpoint(path), kill])
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
    with pytest.raises(ValueError, match="to be continued, was on 2 features; got 1"):
        flow.fit(clouds[0][:, :1], clouds[1][:, :1])
    assert flow.n_features_in_ == 2
    flow.transform(clouds[0])


@pytest.mark.parametrize(
    ("name", "velocity"), [("fitted", "gradient"), ("regressed", "potential"), ("regressed", "mlp")]
)
def test_warm_start_of_another_kind_of_field(name, velocity, clouds, request):
    flow = copy.deepcopy(request.getfixturevalue(name)).set_params(warm_start=True, velocity=velocity)
    with pytest.raises(ValueError, match=r"to be continued, .* Call fit with warm_start=False"):
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


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.8, 0.95)])
def test_adam_is_torchs(betas):
    generator = torch.Generator().manual_seed(0)
    one, other = ([torch.randn(3, 2, generator=generator) for _ in range(2)] for _ in range(2))
    other = [value.clone() for value in one]
    groups = [{"relative_rate": 1.0, "weight_decay": 0.1}, {"relative_rate": 0.5}]
    ours = Adam([{**group, "params": [value]} for group, value in zip(groups, one)], betas)
    theirs = torch.optim.AdamW(
        [{"params": [value], "lr": 0.1 * group["relative_rate"]} for group, value in zip(groups, other)],
        betas=betas, weight_decay=0.0,
    )
    theirs.param_groups[0]["weight_decay"] = 0.1
    for _ in range(5):
        for mine, its in zip(one, other):
            mine.grad = torch.randn(3, 2, generator=generator)
            its.grad = mine.grad.clone()
        ours.step(0.1)
        theirs.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one, other))


def test_a_time_limit_ends_training_and_lets_the_step_size_fall(clouds):
    rates = []
    rate = LearningRate(1.0, 100_000, max_time=0.3)
    for iteration in range(100_000):
        if iteration >= rate.last:
            break
        rates.append(rate(iteration))
        time.sleep(0.001)
        rate.foresee(iteration + 1)
    assert len(rates) > 50
    assert max(rates) == 1.0 and rates[-1] < 0.2
    assert rates[len(rates) // 4] == 1.0
    flow = quick_flow(max_iter="auto", max_time=0.2, early_stopping=False, random_state=0).fit(*clouds)
    assert 0 < flow.n_iter_ < 1500


def test_time_is_kept_back_for_what_follows_the_last_step(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("rfadapt._optimisation.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    rate = LearningRate(1.0, 100_000, max_time=10.0)
    rate.foresee(100)  # 100 steps have taken a second
    assert rate.last == 1000
    rate.kept_back = 4.0
    rate.foresee(200)
    assert rate.last == 600
    rate.kept_back = 40.0  # more than there is: this is the last one
    rate.foresee(300)
    assert rate.last == 300


@pytest.mark.parametrize(("n_estimators", "checks"), [(1, 1), ("auto", 3)])
def test_what_is_kept_back_is_a_check_and_those_that_shrink_a_potential(monkeypatch, clouds, n_estimators, checks):
    rates, ticks = [], iter(range(1000))

    class Watched(LearningRate):
        def __init__(self, *settings):
            super().__init__(*settings)
            rates.append(self)

    monkeypatch.setattr(_training, "LearningRate", Watched)
    monkeypatch.setattr(_training, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))  # a check takes a tick
    flow = RectifiedFlowTransport(max_iter=5, max_time=60, n_estimators=n_estimators, width=32, random_state=0)
    flow.fit(*clouds)
    assert rates and {rate.kept_back for rate in rates} == {checks}


@pytest.mark.parametrize(
    ("n_rows", "max_time", "steps"),
    [(14746, None, 1000), (14746, 300, 1843), (1800, None, 225), (450, None, 200), (450, 300, 200)],
)
def test_steps_of_a_potential_follow_the_rows_and_whether_time_is_limited(n_rows, max_time, steps):
    assert RectifiedFlowTransport(max_time=max_time)._planned_steps(n_rows) == steps
    assert RectifiedFlowTransport(max_iter=5, max_time=max_time)._planned_steps(n_rows) == 5


def scripted(*checks, bound_energy=True, must_beat_start=True):
    """The best of models that a script of (loss, energy) stands for, around which the held-out rows' terms vary."""
    noise = torch.randn(50, generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean()) / noise.std()
    terms = iter([((loss + scale * noise,), (energy + scale * noise,)) for loss, energy, scale in checks])
    plan = TrainingPlan(max_iter=1, max_time=None, learning_rate=1.0, n_iter_no_change=8, tol=1e-4,
                        early_stopping=True, checks_after=0)  # fmt: skip
    best = _Best("start", lambda _: next(terms), plan, bound_energy, must_beat_start)
    for k in range(1, len(checks)):
        best.check(f"check {k}", k, is_end=k == len(checks) - 1)
    return best.model


@pytest.mark.parametrize(("energy", "kept"), [(0.22, "check 1"), (0.9, "start")])
def test_weights_that_stray_by_more_than_the_sampling_error_are_refused(energy, kept):
    # 50 rows whose terms vary by 1 tell means apart by 0.14.
    assert scripted((2.0, 0.2, 0.0), (1.0, energy, 1.0), (3.0, 0.2, 0.0)) == kept


@pytest.mark.parametrize(("end", "kept"), [(1.05, "check 2"), (1.5, "check 1"), (2.5, "check 1")])
def test_the_end_of_training_is_kept_unless_an_earlier_check_is_clearly_better(end, kept):
    assert scripted((2.0, 0.2, 0.0), (1.0, 0.2, 0.0), (end, 0.2, 1.0)) == kept


@pytest.mark.parametrize(("end", "kept"), [(3.05, "check 3"), (4.0, "check 2")])
def test_weights_that_need_not_beat_the_start_are_the_best_of_the_checks(end, kept):
    checks = (2.0, 0.2, 0.0), (5.0, 0.9, 0.0), (3.0, 0.9, 0.0), (end, 0.9, 1.0)
    assert scripted(*checks, bound_energy=False, must_beat_start=False) == kept
    assert scripted(*checks) == "start"


def test_batches_of_a_potential_grow_as_the_step_size_falls():
    class Watched(TensorRows):
        def rows(self, index):
            asked.append(len(index))
            return super().rows(index)

    def asked_for(n_rows, fallen):
        x = torch.randn(n_rows, 2, generator=torch.Generator().manual_seed(0))
        potential = ConvexPotential(torch.eye(2).double(), torch.eye(2).double(), 64).requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        objective = SemiDual(potential, Watched(x), TensorRows(x), batch_size=400, generator=generator)
        objective.set_gradients(fallen)
        return asked[-1]

    asked = []
    assert [asked_for(1000, fallen) for fallen in (0.0, 0.1, 0.4, 0.9, 1.0)] == [100, 200, 300, 400, 400]
    # Of few rows a batch has all that there are.
    assert asked_for(300, 0.0) == 300


def test_how_far_the_step_size_has_fallen():
    rate = LearningRate(1.0, 1000)
    assert [rate.fallen(k) for k in (0, 300, 650, 1000)] == pytest.approx([0.0, 0.0, 0.5, 1.0], abs=0.01)
    assert rate(650) == pytest.approx(0.5, abs=0.01)


class Pulled:
    """Steps towards 10, of a number that held-out rows want to be 2."""

    max_restarts = 0

    def __init__(self):
        self.model = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
        self.model.weight.zero_()

    def parameter_groups(self):
        return [{"params": [self.model.weight], "relative_rate": 1.0}]

    def set_gradients(self, fallen):
        self.model.weight.grad = self.model.weight - 10
        return torch.zeros(())

    def restart(self):
        pass


@pytest.mark.parametrize(("early_stopping", "n_steps"), [(True, 1600), (False, 1900)])
def test_training_that_learns_noise_ends_from_the_best_weights(early_stopping, n_steps):
    def monitor(model):
        noise = torch.linspace(-1, 1, 100)
        return ((model.weight.item() - 2 + noise).square(),), (torch.zeros(100),)

    objective = Pulled()
    start = copy.deepcopy(objective.model)
    plan = TrainingPlan(
        max_iter=1900, max_time=None, learning_rate=0.01, n_iter_no_change=50, tol=0.0,
        early_stopping=early_stopping, checks_after=0,
    )  # fmt: skip
    silent = {"on_check": lambda *state: False, "progress": lambda *state: None}
    # The step size begins to fall at 570, and at the check after half of that, 1300, the weight is near 10. It
    # was 2 at 300, so that as many steps follow.
    model, n_iter = _training.train(objective, plan, start=start, monitor=monitor, bound_energy=True, **silent)
    assert n_iter == n_steps
    assert model.weight.item() == pytest.approx(2, abs=0.4)
