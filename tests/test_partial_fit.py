"""Going on with further rows: what is kept, what is learned, and what is never lost."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import NOTHING_LEARNED, make_clouds, quick_flow, relative_error
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from rfadapt import RectifiedFlowTransport
from rfadapt.baselines import BASELINES
from rfadapt.metrics import energy_distance

NEW0, NEW1 = make_clouds(500, 700, seed=5)


@pytest.mark.parametrize("velocity", ["potential", "gradient"])
def test_the_first_call_is_a_fit(velocity, clouds):
    params = {"velocity": velocity, "max_iter": 20}
    flow = quick_flow(**params)
    assert flow.partial_fit(*clouds) is flow
    np.testing.assert_array_equal(flow.transform(NEW0), quick_flow(**params).fit(*clouds).transform(NEW0))


@pytest.mark.parametrize("name", ["fitted", "regressed"])
def test_geometry_and_base_are_kept_and_the_field_goes_on(name, clouds, request):
    fitted = request.getfixturevalue(name)
    # "auto" would choose its steps on other rows.
    fitted = copy.copy(fitted).set_params(solver="rk4", n_steps=8)
    before = fitted.transform(NEW0)
    flow = copy.copy(fitted).set_params(**NOTHING_LEARNED)
    # Rows in other places, whose own means and scales would make another map.
    flow.partial_fit(2 * NEW0 + 1, NEW1 - 3)
    assert flow.geometry_ is fitted.geometry_
    assert relative_error(flow.transform(NEW0), before) < 1e-3
    if fitted.velocity_.base is not None:
        assert torch.equal(flow.velocity_.base.eigenvalues, fitted.velocity_.base.eigenvalues)
    np.testing.assert_array_equal(fitted.transform(NEW0), before)


@pytest.mark.parametrize("velocity", ["potential", "gradient"])
def test_more_rows_make_a_better_map(velocity):
    flow = quick_flow(velocity=velocity, learning_rate=0.02, max_iter=100).partial_fit(*make_clouds(60, 60))
    test0, test1 = make_clouds(2000, 2000, seed=9)
    before = energy_distance(flow.transform(test0), test1)
    for seed in range(1, 4):
        flow.partial_fit(*make_clouds(600, 600, seed=seed))
    assert energy_distance(flow.transform(test0), test1) < 0.7 * before


@pytest.mark.parametrize("name", ["fitted", "regressed"])
def test_training_that_does_not_help_is_undone(name, request):
    fitted = request.getfixturevalue(name)
    flow = copy.copy(fitted).set_params(learning_rate=100.0, max_iter=100).partial_fit(NEW0, NEW1)
    np.testing.assert_allclose(flow.transform(NEW0), fitted.transform(NEW0), atol=1e-5)


@pytest.mark.parametrize("name", ["fitted", "regressed"])
def test_too_few_rows_to_hold_out_change_nothing(name, request):
    fitted = request.getfixturevalue(name)
    flow = copy.copy(fitted).partial_fit(NEW0[:10], NEW1)
    np.testing.assert_array_equal(flow.transform(NEW0), fitted.transform(NEW0))
    assert len(flow.history_) == 2 and flow.n_iter_ == fitted.n_iter_
    warm = copy.copy(fitted).set_params(warm_start=True).fit(NEW0[:10], NEW1)
    np.testing.assert_array_equal(warm.transform(NEW0), fitted.transform(NEW0))


def test_a_fit_of_too_few_rows_is_made_anew(clouds):
    X0, X1 = clouds
    flow = quick_flow().partial_fit(X0[:10], X1[:10])
    assert flow.n_iter_ == 0
    flow.partial_fit(X0, X1)
    np.testing.assert_array_equal(flow.transform(NEW0), quick_flow().fit(X0, X1).transform(NEW0))
    assert [record["n_iter"] > 0 for record in flow.history_] == [False, True]


def test_history_grows_and_fit_begins_a_new_one(clouds):
    flow = quick_flow(max_iter=30, coupling="independent", n_reflow=1, velocity="gradient").fit(*clouds)
    first = flow.history_
    flow.partial_fit(NEW0, NEW1)
    assert flow.history_[:2] == first and [record["round"] for record in flow.history_] == [0, 1, 0, 1]
    assert flow.n_iter_ == sum(record["n_iter"] for record in flow.history_) > 60
    assert len(flow.fit(NEW0, NEW1).history_) == 2


def test_after_loading(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = RectifiedFlowTransport.load(tmp_path / "model", max_iter=30).partial_fit(NEW0, NEW1)
    kept = copy.copy(fitted).set_params(max_iter=30).partial_fit(NEW0, NEW1)
    np.testing.assert_array_equal(loaded.transform(NEW0), kept.transform(NEW0))
    assert loaded.n_iter_ == kept.n_iter_ > fitted.n_iter_ and len(loaded.history_) == 2


def test_a_clone_forgets(fitted):
    with pytest.raises(NotFittedError):
        clone(fitted).transform(NEW0)
    assert len(clone(fitted).set_params(max_iter=5).partial_fit(NEW0, NEW1).history_) == 1


def test_features_must_be_those_of_the_first_call(clouds):
    frames = [pd.DataFrame(X, columns=["a", "b"]) for X in clouds]
    flow = quick_flow(max_iter=5).partial_fit(*frames)
    before = dict(vars(flow))
    with pytest.raises(ValueError, match="X1 is other data .*X has 1 features, but .* is expecting 2"):
        flow.partial_fit(NEW0, NEW1[:, :1])
    with pytest.raises(ValueError, match="(?s)feature names should match.*- c"):
        flow.partial_fit(frames[0], frames[1].rename(columns={"b": "c"}))
    with pytest.raises(ValueError, match="X1 contains NaN or infinity"):
        flow.partial_fit(frames[0], frames[1] * np.nan)
    with pytest.raises(ValueError, match=r"y0 must have shape \(600,\)"):
        flow.partial_fit(*frames, y0=[1, 2])
    assert vars(flow) == before
    flow.partial_fit(*frames)
    assert flow.feature_names_in_.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("params", "message"),
    [({"velocity": "mlp"}, "has a field of the class PotentialVelocity"), ({"max_iter": 0}, "'max_iter' parameter")],
    ids=str,
)
def test_a_failure_leaves_the_transport_as_it_was(params, message, fitted):
    flow = copy.copy(fitted).set_params(**params)
    before = dict(vars(flow))
    with pytest.raises(ValueError, match=message):
        flow.partial_fit(NEW0, NEW1)
    assert vars(flow) == before


def test_baselines_have_none():
    assert not any(hasattr(kind(), "partial_fit") for kind in BASELINES.values())
