"""What the parameters of the flow do, and that all of them lead somewhere."""

import numpy as np
import pytest
import torch
from conftest import AFFINE, SmallNet, quick_flow, relative_error

from rfadapt import IndependentCoupling, OTCoupling
from rfadapt.geometry import Frame
from rfadapt.metrics import energy_distance
from rfadapt.paths import LinearPath
from rfadapt.solvers import RK4


class WithDropout(SmallNet):
    """Draws random numbers whenever it is called in training; remembers how it was called."""

    calls = set()

    def forward(self, x, t):
        self.calls.add((torch.is_grad_enabled(), self.training))
        return torch.nn.functional.dropout(super().forward(x, t), 0.2, self.training)


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


@pytest.mark.parametrize("velocity", ["potential", "gradient", "mlp", SmallNet, WithDropout])
def test_same_seed_same_result(velocity, clouds):
    settings = {"velocity": velocity, "base": None, "max_iter": 30, "validation_fraction": 0.0}
    maps = [
        quick_flow(**settings, random_state=state).fit(*clouds).transform(clouds[0])
        for state in (3, 3, np.random.RandomState(3), 4)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])
    assert not np.allclose(maps[0], maps[3])


@pytest.mark.parametrize("velocity", ["potential", "gradient", "mlp", SmallNet, WithDropout])
def test_global_generators_are_left_alone(velocity, clouds):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    quick_flow(velocity=velocity, max_iter=5).fit(*clouds)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("validation_fraction", [0.0, 0.1])
def test_a_module_is_in_training_mode_only_where_it_is_trained(validation_fraction, clouds, monkeypatch):
    monkeypatch.setattr(WithDropout, "calls", set())
    blind = {"validation_fraction": validation_fraction, "early_stopping": False}
    flow = quick_flow(velocity=WithDropout, n_reflow=1, max_iter=10, **blind).fit(*clouds)
    flow.inverse_transform(flow.transform(clouds[0]))
    assert WithDropout.calls == {(True, True), (False, False)}


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
    # The rows are rounded far out, by 1e-10; short steps do not carry that further. Float32 would round them by 0.03.
    settings = {"max_iter": 50, "learning_rate": 0.05, "validation_fraction": 0.0, "early_stopping": False}
    X0, X1 = (X + shift for X in clouds)
    flow = quick_flow(**settings).fit(X0, X1)
    plain = quick_flow(**settings).fit(*clouds)
    np.testing.assert_allclose(flow.transform(X0) - shift, plain.transform(clouds[0]), atol=1e-4)


@pytest.mark.parametrize("rotation", [None, torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)])
def test_float32_far_from_the_origin_loses_nothing_of_the_mean(rotation):
    # Numbers of float32 are 0.0625 apart here, so that a rounded mean would be 0.03 off.
    frame = Frame(torch.tensor([1e6 + 0.03, -1e6], dtype=torch.float64), torch.ones(2, dtype=torch.float64), rotation)
    x = (1e6 * torch.tensor([1.0, -1.0]) + torch.randn(500, 2, generator=torch.Generator().manual_seed(0))).float()
    precise = x.double() - frame.mean
    precise = precise if rotation is None else precise @ rotation.T
    z = frame.enter(x, "cpu")
    torch.testing.assert_close(z, precise.float(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(frame.leave(z, x), x, atol=0.0, rtol=0.0)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"velocity": "potential", "coupling": "independent"}, 'goes with coupling="ot"'),
        ({"velocity": "potential", "n_reflow": 1}, "n_reflow=0; got .* n_reflow=1"),
        ({"coupling": OTCoupling}, "Add parentheses"),
        ({"callbacks": [3]}, "callbacks must hold callables.*got 3"),
        ({"n_steps": 4}, "n_steps=4 needs a named solver"),
        ({"device": "abacus"}, "'abacus'"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused_before_any_work(clouds, params, message):
    flow = quick_flow(**{"velocity": "auto", **params})
    before = dict(vars(flow))
    with pytest.raises(ValueError, match=message):
        flow.fit(*clouds)
    assert vars(flow) == before


def test_without_a_held_out_part_training_goes_to_the_end(clouds):
    flow = quick_flow(validation_fraction=0.0, max_iter=30).fit(*clouds)
    assert flow.n_iter_ == 30
