"""The mean of several potentials: its map and equations, how many are trained, and what becomes of them."""

import copy

import numpy as np
import pytest
import torch
from conftest import NOTHING_LEARNED, make_clouds, quick_flow, relative_error

from rfadapt import RectifiedFlowTransport
from rfadapt._flow_fit import FlowFit
from rfadapt.velocity import ConvexPotential, PotentialVelocity, gaussian_map
from rfadapt.velocity.frozen import FrozenPotential

NEW0, NEW1 = make_clouds(300, 300, seed=5)
COVARIANCES = [torch.tensor(C, dtype=torch.float64) for C in ([[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.3], [-0.3, 3.0]])]


def bent_potential(seed):
    """A potential away from its start, as training would leave it."""
    generator = torch.Generator().manual_seed(seed)
    potential = ConvexPotential(*COVARIANCES, 32, generator)
    with torch.no_grad():
        for value in potential.parameters():
            value += 0.3 * torch.randn(value.shape, generator=generator)
        potential.log_heights += 4
        potential.log_ridge_heights += 4
    return potential.requires_grad_(False)


def points(n=200):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def several(clouds):
    """A flow along the mean of three potentials, to look at."""
    return quick_flow(n_estimators=3).fit(*clouds)


def singles(flow):
    """The same flow along each of its potentials alone."""
    for potential in flow.velocity_.learned.potentials:
        one = copy.deepcopy(flow)
        one.velocity_.learned.potentials = torch.nn.ModuleList([potential])
        yield one


def test_the_gradient_of_the_mean_is_the_mean_of_the_gradients():
    potentials, x, start = [bent_potential(seed) for seed in range(3)], points(), torch.zeros(200)
    expected = torch.stack([PotentialVelocity(potential)(x, start) for potential in potentials]).mean(0)
    torch.testing.assert_close(PotentialVelocity(*potentials)(x, start), expected)


def test_the_mean_of_gaussian_maps_is_the_gaussian_map():
    potentials = [ConvexPotential(*COVARIANCES, 32).make_affine() for _ in range(2)]
    x = points()
    moved = x + PotentialVelocity(*potentials)(x, torch.zeros(200))
    torch.testing.assert_close(moved, x @ gaussian_map(*COVARIANCES).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("time", [0.3, 1.0])
def test_rows_on_their_way_come_from_where_they_began(time):
    velocity, x = PotentialVelocity(*(bent_potential(seed) for seed in range(2))), points()
    step = velocity(x, torch.zeros(200))
    # Along straight lines the velocity stays what it was.
    assert relative_error(velocity(x + time * step, torch.full((200,), time)), step) < 0.01


def test_a_fit_averages_the_maps_of_its_potentials(several, clouds):
    moved = np.stack([one.transform(NEW0) for one in singles(several)])
    assert len(moved) == 3 and relative_error(moved[0], moved[1]) > 1e-3
    np.testing.assert_allclose(several.transform(NEW0), moved.mean(0), atol=1e-4)
    assert several.n_iter_ == 600 and len(several.history_) == 1
    assert relative_error(several.inverse_transform(several.transform(NEW0)), NEW0) < 0.01


def test_each_potential_holds_out_other_rows(clouds, monkeypatch):
    held = []
    original = FlowFit.train

    def noted(self, *args, **kwargs):
        held.append([set(map(tuple, rows.rows(torch.arange(len(rows))).tolist())) for rows in self.domains.held])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(FlowFit, "train", noted)
    flow = quick_flow(n_estimators=3).fit(*clouds)
    for parts, size in zip(zip(*held), (60, 48)):
        assert [len(part) for part in parts] == [size] * 3 and len(set.union(*parts)) == 3 * size
    # The first one is judged by rows that it has not seen.
    first, (record,) = next(singles(flow)), flow.history_
    X0, X1 = (
        np.array(sorted(part)) * flow.geometry_.scale.numpy() + mean.numpy()
        for part, mean in zip(held[0], (flow.geometry_.mean0, flow.geometry_.mean1))
    )
    cost = np.square(first.transform(X0) - X0).sum(1).mean()
    assert record["transport_cost"] == pytest.approx(cost, rel=1e-3)


def test_a_row_that_is_moved_costs_an_evaluation_of_each(clouds, several, monkeypatch):
    evaluated = []
    original = FrozenPotential.map
    monkeypatch.setattr(FrozenPotential, "map", lambda self, z: evaluated.append(len(z)) or original(self, z))
    several.transform(clouds[0])
    assert evaluated == [len(clouds[0])] * 3


@pytest.mark.parametrize("n, expected", [(600, 4), (1600, 2), (2400, 1)])
def test_as_many_as_the_rows_are_few(n, expected):
    X0, X1 = make_clouds(2400, n)
    flow = quick_flow(n_estimators="auto", max_iter=100).fit(X0, X1)
    assert len(flow.velocity_.learned.potentials) == expected
    # All of few rows are needed to say whether they are learned from.
    flow = quick_flow(n_estimators="auto", max_iter=100, validation_fraction=0.0).fit(X0, X1)
    assert len(flow.velocity_.learned.potentials) == 1


def test_one_potential_of_fewer_rows_than_a_linear_map_has_entries():
    X0, X1 = (np.random.default_rng(seed).normal(size=(300, 17)) for seed in range(2))
    assert quick_flow(n_estimators="auto", max_iter=100).fit(X0, X1).n_iter_ == 100
    assert quick_flow(n_estimators="auto", max_iter=100).fit(X0[:, :16], X1[:, :16]).n_iter_ == 400


def test_as_many_as_there_is_time_for(clouds):
    # The first takes far less than its share of the time, and eight are the most.
    flow = quick_flow(n_estimators="auto", max_iter=50, max_time=600.0, validation_fraction=0.0).fit(*clouds)
    assert len(flow.velocity_.learned.potentials) == 8 and flow.n_iter_ == 400
    # Time is up before the first one's steps are done.
    flow.set_params(max_iter=10**6, max_time=0.3).fit(*clouds)
    assert len(flow.velocity_.learned.potentials) == 1
    # What is asked for shares the time.
    flow.set_params(n_estimators=2).fit(*clouds)
    assert len(flow.velocity_.learned.potentials) == 2 and 2 <= flow.n_iter_ < 10**6


def test_where_nothing_is_learned_there_is_one_potential():
    X = np.random.default_rng(0).normal(size=(400, 2))
    flow = quick_flow(n_estimators=3, rotation=False, **NOTHING_LEARNED).fit(X[:200], X[200:])
    assert len(flow.velocity_.learned.potentials) == 1


def test_a_callback_ends_all_and_snapshots_grow(clouds):
    states, widths = [], []

    def watch(state):
        states.append(state)
        widths.append(len(state.snapshot().velocity_.learned.potentials))
        return len(states) == 3

    flow = quick_flow(n_estimators=3, callbacks=[watch]).fit(*clouds)
    assert [state.iteration for state in states] == [100, 200, 100]
    # The second counts from its end.
    assert widths == [1, 1, 1] and len(flow.velocity_.learned.potentials) == 2
    np.testing.assert_array_equal(
        states[2].snapshot().transform(NEW0), states[1].snapshot().transform(NEW0)
    )


def test_a_continued_fit_goes_on_with_what_it_has(several, clouds):
    flow = copy.copy(several).set_params(n_estimators=1, **NOTHING_LEARNED).partial_fit(NEW0, NEW1)
    assert len(flow.velocity_.learned.potentials) == 3
    np.testing.assert_allclose(flow.transform(NEW0), several.transform(NEW0), atol=1e-3)
    before = several.transform(NEW0)
    warm = copy.copy(several).set_params(warm_start=True, max_iter=50, early_stopping=False, validation_fraction=0.0)
    warm.fit(*clouds)
    assert warm.n_iter_ == 150 and not np.array_equal(warm.transform(NEW0), before)
    np.testing.assert_array_equal(several.transform(NEW0), before)


def test_round_trip_of_a_model_file(several, tmp_path):
    several.save(tmp_path / "model")
    loaded = RectifiedFlowTransport.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(NEW0), several.transform(NEW0))
    np.testing.assert_array_equal(loaded.inverse_transform(NEW1), several.inverse_transform(NEW1))


@pytest.mark.filterwarnings("ignore:The .*student")
def test_the_inverse_of_several_is_distilled(clouds):
    flow = quick_flow(n_estimators=2, distill=True).fit(*clouds)
    assert relative_error(flow.inverse_transform(flow.transform(NEW0)), NEW0) < 0.3
