"""Model files: what comes back, what is refused, and what is never left behind."""

import copy
import io
import json
import os
import pickle
import pickletools
import stat
from dataclasses import dataclass
from unittest import mock

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import quick_flow
from safetensors import safe_open
from safetensors.torch import save_file

from rfadapt import BaseTransport, OTCoupling, PairedCoupling, RectifiedFlowTransport, _persistence
from rfadapt.baselines import AffineTransport, IdentityTransport
from rfadapt.paths import LinearPath, VariancePreservingPath
from rfadapt.solvers import Dopri5

ROWS = np.random.default_rng(0).normal(size=(20, 2)) * 2


class Linear(torch.nn.Module):
    """A velocity field of the user's own."""

    def __init__(self, n_features):
        super().__init__()
        self.layer = torch.nn.Linear(n_features + 1, n_features)

    def forward(self, x, t):
        return self.layer(torch.cat([x, t[:, None]], dim=1))


@dataclass(frozen=True)
class PathOfMyOwn(LinearPath):
    pass


@dataclass(frozen=True)
class CouplingOfMyOwn(PairedCoupling):
    anything: object = None


class NamedTransport(IdentityTransport):
    """A subclass of the user's."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def assert_equal_transports(first, second):
    np.testing.assert_array_equal(first.transform(ROWS), second.transform(ROWS))
    np.testing.assert_array_equal(first.inverse_transform(ROWS), second.inverse_transform(ROWS))


@pytest.mark.parametrize("reader", [RectifiedFlowTransport, BaseTransport])
def test_round_trip(fitted, path, reader):
    fitted.save(path)
    loaded = reader.load(path)
    assert type(loaded) is RectifiedFlowTransport
    assert loaded.get_params() == fitted.get_params()
    assert_equal_transports(loaded, fitted)
    assert loaded.history_ == fitted.history_ and loaded.n_iter_ == fitted.n_iter_
    assert loaded.n_features_in_ == 2 and not hasattr(loaded, "feature_names_in_")
    np.testing.assert_array_equal(loaded.trajectory(ROWS, 3), fitted.trajectory(ROWS, 3))
    assert {name for name in vars(loaded) if name.endswith("_")} == {
        name for name in vars(fitted) if name.endswith("_")
    }


@pytest.mark.parametrize(
    "params",
    [
        {"velocity": "potential", "width": 12},
        {"velocity": "gradient"},
        {"velocity": "mlp", "width": "auto"},
        {"velocity": "gradient", "base": None},
        {"early_stopping": False, "validation_fraction": 0.0},
        {"scaling": None},
        {"scaling": "common", "width": "auto"},
        {"solver": "euler", "n_steps": 1},
        {"solver": Dopri5(rtol=1e-3)},
        {"coupling": OTCoupling(block_size=64, n_jobs=1)},
        {"path": LinearPath(), "coupling": "independent"},
        {"n_reflow": 1},
        {"path": "sub-vp", "prediction": "x0", "n_reflow": 1, "n_phases": 2},
        {"path": VariancePreservingPath(beta_max=10.0), "prediction": "x1", "distill": True},
        {"velocity": "mlp", "schedule": "bellman", "straighten": True, "n_steps": np.int64(2)},
        {"distill": True},
        {"learning_rate": np.float64(0.01), "width": np.int64(16), "velocity": "gradient"},
        {"callbacks": [print], "device": torch.device("cpu")},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Reflow round", "ignore:The .*student")
def test_round_trip_of_every_kind_of_parameter(clouds, path, params, capsys):
    flow = quick_flow(**{"max_iter": 20, **params}).fit(*clouds)
    flow.save(path)
    loaded = RectifiedFlowTransport.load(path)
    assert_equal_transports(loaded, flow)
    for name in set(params) - {"callbacks", "device"}:
        assert getattr(loaded, name) == params[name]


def test_round_trip_of_a_flow_that_had_too_few_rows_to_learn(path):
    flow = quick_flow().fit(ROWS[:5], ROWS[5:] + 1)
    flow.save(path)
    assert_equal_transports(RectifiedFlowTransport.load(path), flow)


@pytest.mark.parametrize("velocity", ["potential", "gradient", "mlp", Linear])
def test_loading_leaves_the_global_generator_alone(velocity, clouds, path):
    quick_flow(velocity=velocity, max_iter=1).fit(*clouds).save(path)
    before = torch.get_rng_state()
    RectifiedFlowTransport.load(path, velocity=velocity)
    assert torch.equal(torch.get_rng_state(), before)


def test_feature_names_come_back(path):
    frames = [pd.DataFrame(ROWS + shift, columns=["a", "b"]) for shift in (0, 1)]
    quick_flow(max_iter=1).fit(*frames).save(path)
    loaded = RectifiedFlowTransport.load(path)
    assert loaded.get_feature_names_out().tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.transform(frames[0].rename(columns={"a": "z"}))


def test_parameters_can_be_replaced(fitted, path):
    fitted.save(path)
    loaded = RectifiedFlowTransport.load(path, solver="euler", n_steps=2, warm_start=True)
    assert (loaded.solver, loaded.n_steps, loaded.warm_start) == ("euler", 2, True)
    one = copy.copy(fitted).set_params(solver="euler", n_steps=2)
    np.testing.assert_array_equal(loaded.transform(ROWS), one.transform(ROWS))


def test_parameters_changed_after_fit_do_not_break_the_file(fitted, path):
    copy.copy(fitted).set_params(velocity="mlp", base=None, width=8, scaling=None).save(path)
    assert_equal_transports(RectifiedFlowTransport.load(path), fitted)


def test_a_path_may_be_a_string(fitted, path):
    fitted.save(str(path))
    assert_equal_transports(RectifiedFlowTransport.load(str(path)), fitted)


def test_a_velocity_of_ones_own_must_be_given_again(clouds, path):
    flow = quick_flow(velocity=Linear, max_iter=30).fit(*clouds)
    flow.save(path)
    with pytest.raises(ValueError, match=r"a velocity of your own.*load\(path, velocity=\.\.\.\)"):
        RectifiedFlowTransport.load(path)
    assert_equal_transports(RectifiedFlowTransport.load(path, velocity=Linear), flow)


def test_a_path_of_ones_own_must_be_given_again(clouds, path):
    flow = quick_flow(path=PathOfMyOwn(), max_iter=5).fit(*clouds)
    flow.save(path)
    with pytest.raises(ValueError, match=r"a path of your own.*load\(path, path=\.\.\.\)"):
        RectifiedFlowTransport.load(path)
    assert_equal_transports(RectifiedFlowTransport.load(path, path=PathOfMyOwn()), flow)


def test_a_coupling_of_ones_own_is_not_needed_any_more(clouds, path):
    X0, _ = clouds
    flow = quick_flow(coupling=CouplingOfMyOwn(anything=object()), max_iter=5).fit(X0, 2 * X0)
    flow.save(path)
    assert_equal_transports(RectifiedFlowTransport.load(path), flow)


def test_another_class_is_refused(fitted, path):
    fitted.save(path)
    with pytest.raises(ValueError, match=r"holds a RectifiedFlowTransport, not a AffineTransport\..*\.load"):
        AffineTransport.load(path)


def test_a_class_that_is_not_known_here(path):
    NamedTransport().fit(ROWS, ROWS).save(path)
    assert type(BaseTransport.load(path)) is NamedTransport
    description = read_description(path)
    _persistence.write_model(path, {}, {**description, "class": "TransportOfSomebodyElse"})
    with pytest.raises(ValueError, match="TransportOfSomebodyElse, which is not known here; import it first"):
        BaseTransport.load(path)


def read_description(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["description"])


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_a_truncated_file(fitted, path, share):
    fitted.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a readable rfadapt model.*truncated"):
        RectifiedFlowTransport.load(path)


def test_foreign_files(path):
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(ValueError, match="is a safetensors file but not an rfadapt model"):
        BaseTransport.load(path)
    for content in (b"PK\x03\x04 a zip file perhaps", b"col_a,col_b\n1,2\n" * 100, pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a readable rfadapt model"):
            BaseTransport.load(path)


@pytest.mark.parametrize("name", ["nothing", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="There is no model file at"):
        BaseTransport.load(tmp_path / name)


def test_a_folder_that_does_not_exist(fitted, tmp_path):
    with pytest.raises(OSError, match="there is no folder .*missing"):
        fitted.save(tmp_path / "missing" / "model")
    assert not any(tmp_path.iterdir())


def test_a_folder_in_place_of_a_file(fitted, tmp_path):
    with pytest.raises(OSError, match="it is a folder"):
        fitted.save(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(fitted, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    # Root may write anywhere, so that the refusal is simulated for everybody.
    refusal = PermissionError(13, "Permission denied")
    with mock.patch.object(_persistence.tempfile, "mkstemp", side_effect=refusal):
        with pytest.raises(OSError, match="Cannot write .*locked.*Permission denied"):
            fitted.save(folder / "model")
    assert not any(folder.iterdir())


@pytest.mark.parametrize("failure", [OSError("No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_failure_while_writing_leaves_the_old_file(fitted, path, failure):
    fitted.save(path)
    old = path.read_bytes()

    def half(arrays, filename, metadata):
        with open(filename, "wb") as file:
            file.write(old[:100])
        raise failure

    with mock.patch.object(_persistence, "save_file", half), pytest.raises(type(failure)):
        fitted.save(path)
    assert path.read_bytes() == old and os.listdir(path.parent) == [path.name]


def test_permissions_follow_the_umask(fitted, path):
    umask = os.umask(0o027)
    try:
        fitted.save(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_holds_tensors_and_json_but_no_pickle(fitted, path):
    fitted.save(path)
    with safe_open(path, framework="pt") as file:
        assert all(isinstance(file.get_tensor(name), torch.Tensor) for name in file.keys())
        assert json.loads(file.metadata()["description"])["class"] == "RectifiedFlowTransport"
    content = path.read_bytes()
    with pytest.raises(ValueError):
        list(pickletools.genops(io.BytesIO(content)))
    with mock.patch("pickle.Unpickler", side_effect=AssertionError("load must not unpickle")):
        RectifiedFlowTransport.load(path)


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_other_ways_to_keep_a_transport(fitted, path, how):
    if how == "pickle":
        kept = pickle.loads(pickle.dumps(fitted))
    elif how == "joblib":
        joblib.dump(fitted, path)
        kept = joblib.load(path)
    else:
        kept = copy.deepcopy(fitted)
    assert_equal_transports(kept, fitted)
    assert kept.history_ == fitted.history_
