"""The comparison table, with transports whose numbers are known."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import Ridge

from rfadapt import BaseTransport, RectifiedFlowTransport, compare_transports, metrics
from rfadapt.base import InvertibleTransport

DISTANCES = ["energy_distance", "sliced_wasserstein"]
MEASURED = ["fit_seconds", "transform_seconds", "peak_memory_mb"]
COLUMNS = [
    "energy_distance",
    "energy_distance_floor",
    "sliced_wasserstein",
    "sliced_wasserstein_floor",
    "domain_auc",
    "transport_cost",
    "round_trip_error",
    "straightness",
    "first_orderness",
    "one_step_error",
    "accuracy",
    "fit_seconds",
    "transform_seconds",
    "peak_memory_mb",
    "error",
]


class Shift(InvertibleTransport):
    """Adds a known constant; its way back may be wrong by `slip`."""

    def __init__(self, by=0.0, slip=0.0):
        self.by = by
        self.slip = slip

    _parameter_constraints = {}

    def _fit(self, X0, X1, y0, y1):
        self.fitted_ = True

    def _transform(self, x):
        return x + self.by

    def _inverse_transform(self, x):
        return x - self.by + self.slip


class FreshDraws(BaseTransport):
    """The perfect transport onto the standard normal distribution: moves each row to a new draw from it."""

    _parameter_constraints = {}

    def __init__(self, random_state=None):
        self.random_state = random_state

    def _fit(self, X0, X1, y0, y1):
        self.generator_ = np.random.default_rng(self.random_state)

    def _transform(self, x):
        return torch.from_numpy(self.generator_.normal(size=x.shape)).to(x)


class Watched(Shift):
    """Keeps what it is given."""

    seen = None

    def fit(self, X0, X1, *, y0=None, y1=None):
        type(self).seen = {"X0": X0, "X1": X1, "y0": y0, "y1": y1, "moved": []}
        return super().fit(X0, X1, y0=y0, y1=y1)

    def transform(self, X, out=None):
        self.seen["moved"].append(X)
        return super().transform(X, out)


class BreaksInFit(Shift):
    def _fit(self, X0, X1, y0, y1):
        raise RuntimeError("no convergence after 3 steps")


class BreaksInInverse(Shift):
    def _inverse_transform(self, x):
        raise ValueError("there is no way back")


class Diverges(Shift):
    def _transform(self, x):
        return x * math.nan


class Hungry(Shift):
    def _fit(self, X0, X1, y0, y1):
        np.ones(10 * 2**20)  # 80 MiB, let go at once
        self.fitted_ = True


@pytest.fixture(scope="module")
def shifted():
    """Two classes, and a target that is the source moved by 3 along each of two features."""
    rng = np.random.default_rng(0)
    y0, y1 = rng.integers(2, size=200), rng.integers(2, size=150)
    X0 = rng.normal(size=(200, 2)) + np.outer(y0, [4, 4])
    X1 = rng.normal(size=(150, 2)) + np.outer(y1, [4, 4]) + 3
    return X0, X1, y0, y1


def without_measured(table):
    return table.drop(columns=MEASURED)


def test_table_of_known_transports(shifted):
    X0, X1, y0, y1 = shifted
    transports = {"right": Shift(3.0), "wrong": Shift(-7.0, slip=1.0), "none": Shift()}
    table = compare_transports(transports, X0, X1, y0=y0, y1=y1, random_state=0)
    assert list(table.index) == ["right", "wrong", "none"] and table.index.name == "transport"
    assert list(table.columns) == COLUMNS
    assert table["transport_cost"].to_list() == pytest.approx([18, 98, 0])
    assert table["error"].isna().all() and (table[MEASURED[:2]] >= 0).all(axis=None)
    assert table["straightness"].isna().all() and table["one_step_error"].isna().all()

    right, wrong, none = (table.loc[name] for name in transports)
    for distance in DISTANCES:
        assert right[distance] < 3 * right[f"{distance}_floor"]
        assert wrong[distance] > none[distance] > 4 * right[distance]
    assert abs(right["domain_auc"] - 0.5) < 0.15 and none["domain_auc"] > 0.9
    assert right["accuracy"] > 0.95 > 0.7 > max(none["accuracy"], wrong["accuracy"])
    # A slip of 1 in both features, against the spread of the held-out source.
    assert right["round_trip_error"] == pytest.approx(0, abs=1e-12)
    assert wrong["round_trip_error"] == pytest.approx(math.sqrt(2 / X0.var(axis=0).sum()), rel=0.2)


@pytest.mark.parametrize(("n0", "n1", "n0_test", "n1_test"), [(400, 300, 120, 90), (1000, 60, 42, 18)])
def test_floor_is_what_a_perfect_transport_gets(n0, n1, n0_test, n1_test):
    d = 40
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(n0, d)) * 2 + 1, rng.normal(size=(n1, d))
    table = compare_transports([FreshDraws(), FreshDraws(1), Shift()], X0, X1, random_state=0)
    # In expectation; in many dimensions there is little noise about it.
    expected = (1 / n0_test + 1 / n1_test) * 2 * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    assert table["energy_distance_floor"].to_list() == pytest.approx([expected] * 3, rel=0.1)
    for distance in DISTANCES:
        perfect, floor = table[distance].iloc[:2], table[f"{distance}_floor"].iloc[:2]
        assert perfect.to_list() == pytest.approx(floor.to_list(), rel=0.15)
        assert table[distance].iloc[2] > 2 * table[f"{distance}_floor"].iloc[2]


def test_held_out_rows_and_target_labels_are_not_fitted(shifted):
    X0, X1, _, _ = shifted
    y0, y1 = X0[:, 0] > 1, X1[:, 0] > 1
    compare_transports([Watched()], X0, X1, y0=y0, y1=y1, test_size=0.25, random_state=0)
    seen = Watched.seen
    assert seen["X0"].shape == (150, 2) and seen["X1"].shape == (112, 2)
    assert seen["y1"] is None
    assert (seen["y0"] == (seen["X0"][:, 0] > 1)).all()
    held_out, trained = seen["moved"]
    assert (trained == seen["X0"]).all()
    assert sorted(np.r_[held_out, trained].tolist()) == sorted(X0.tolist())
    assert set(map(tuple, seen["X1"])) < set(map(tuple, X1))


def test_max_samples_caps_what_is_held_out(shifted):
    X0, X1, _, _ = shifted
    compare_transports([Watched()], X0, X1, max_samples=10, random_state=0)
    assert Watched.seen["X0"].shape == (190, 2) and Watched.seen["X1"].shape == (140, 2)
    assert Watched.seen["moved"][0].shape == (10, 2)


def test_y0_alone_reaches_fit_and_gives_no_accuracy(shifted):
    X0, X1, y0, _ = shifted
    table = compare_transports([Watched()], X0, X1, y0=y0, random_state=0)
    assert list(table.columns) == [name for name in COLUMNS if name != "accuracy"]
    assert Watched.seen["y0"] is not None


def test_estimator_is_the_one_given(shifted):
    X0, X1, y0, _ = shifted
    y1 = np.ones(150, dtype=int)
    for constant, accuracy in ((1, 1.0), (0, 0.0)):
        estimator = DummyClassifier(strategy="constant", constant=constant)
        table = compare_transports([Shift()], X0, X1, y0=y0, y1=y1, estimator=estimator, random_state=0)
        assert table.loc["Shift", "accuracy"] == accuracy
        assert "classes_" not in vars(estimator)


def test_same_seed_same_table_and_the_arguments_are_left_alone(shifted):
    X0, X1, y0, y1 = shifted
    draws = FreshDraws()
    tables = [
        without_measured(compare_transports([draws, Shift(3.0)], X0, X1, y0=y0, y1=y1, random_state=seed))
        for seed in (0, 0, 1)
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    assert (tables[0][DISTANCES] != tables[2][DISTANCES]).all(axis=None)
    assert vars(draws) == {"random_state": None}


def test_a_failing_transport_does_not_cost_the_others(shifted):
    X0, X1, y0, y1 = shifted
    transports = [BreaksInFit(), BreaksInInverse(3.0), Diverges(), Shift(3.0)]
    with pytest.warns(RuntimeWarning) as caught:
        table = compare_transports(transports, X0, X1, y0=y0, y1=y1, random_state=0)
    assert "BreaksInFit failed in compare_transports: RuntimeError: no convergence" in str(caught[0].message)
    assert len(caught) == 3 and caught[0].filename == __file__

    measured = table.drop(columns=["error", *(f"{name}_floor" for name in DISTANCES)])
    assert measured.loc["BreaksInFit"].isna().all()
    assert table.loc["BreaksInFit", "error"] == "RuntimeError: no convergence after 3 steps"
    # What was measured before the failure is kept.
    kept = [*DISTANCES, "domain_auc", "transport_cost"]
    assert (table.loc["BreaksInInverse", kept] == table.loc["Shift", kept]).all()
    assert math.isnan(table.loc["BreaksInInverse", "accuracy"])
    assert "NaN or infinity" in table.loc["Diverges", "error"]
    assert pd.isna(table.loc["Shift", "error"]) and table.loc["Shift", "accuracy"] > 0.95


def test_names(shifted):
    X0, X1, _, _ = shifted
    transports = ["identity", Shift(), "identity", Shift(1.0), Shift(2.0)]
    table = compare_transports(transports, X0, X1, random_state=0)
    assert list(table.index) == ["identity", "Shift", "identity (2)", "Shift (2)", "Shift (3)"]
    assert table["transport_cost"].to_list() == pytest.approx([0, 0, 0, 2, 8])
    table = compare_transports({"nothing": "identity", "affine": "affine"}, X0, X1, random_state=0)
    assert list(table.index) == ["nothing", "affine"]
    assert table.loc["affine", "energy_distance"] < 0.2 * table.loc["nothing", "energy_distance"]


@pytest.fixture(scope="module")
def expected_table(shifted):
    X0, X1, y0, y1 = shifted
    return compare_transports([Shift(3.0), "affine"], X0, X1, y0=y0, y1=y1, random_state=0)


@pytest.mark.parametrize("container", ["frame", "tensor", "sparse", "memmap", "mixed"])
def test_containers_give_the_same_table(shifted, expected_table, container, tmp_path):
    X0, X1, y0, y1 = shifted
    if container == "memmap":
        np.save(tmp_path / "X0.npy", X0)
        given = np.load(tmp_path / "X0.npy", mmap_mode="r"), X1
    else:
        given = {
            "frame": (pd.DataFrame(X0, columns=["a", "b"]), pd.DataFrame(X1, columns=["a", "b"])),
            "tensor": (torch.from_numpy(X0), torch.from_numpy(X1)),
            "sparse": (sparse.csr_matrix(X0), sparse.csr_matrix(X1)),
            "mixed": (X0, torch.from_numpy(X1)),
        }[container]
    labels = {"y0": list(y0), "y1": torch.from_numpy(y1)}
    table = compare_transports([Shift(3.0), "affine"], *given, **labels, random_state=0)
    pd.testing.assert_frame_equal(without_measured(table), without_measured(expected_table), rtol=1e-6)


def test_peak_memory_sees_what_is_let_go(shifted):
    X0, X1, _, _ = shifted
    peak = compare_transports([Shift(), Hungry(), Shift()], X0, X1, random_state=0)["peak_memory_mb"]
    if peak.isna().all():
        pytest.skip("this system does not tell the peak memory of a process")
    assert 70 < peak["Hungry"] < 120
    assert peak["Shift"] < 20 and peak["Shift (2)"] < 20


def test_flow_has_straightness_first_orderness_and_one_step_error(shifted):
    X0, X1, _, _ = shifted
    flow = RectifiedFlowTransport(max_iter=20, width=16, batch_size=64, device="cpu")
    table = compare_transports({"flow": flow, "shift": Shift(3.0)}, X0, X1, random_state=0)
    columns = ["straightness", "first_orderness", "one_step_error"]
    assert table.loc["shift", columns].isna().all()
    # Between samples that differ by little more than a shift, the way is nearly straight.
    assert (table.loc["flow", columns] >= 0).all() and (table.loc["flow", columns] < 0.1).all()
    assert table.loc["flow", "round_trip_error"] < 1e-2
    assert table.loc["flow", "transport_cost"] == pytest.approx(18, rel=0.3)

    # A quarter turn in one Euler step is off by far more.
    turning = RectifiedFlowTransport("independent", velocity=_QuarterTurn, base=None, max_iter=1, device="cpu")
    quarter = compare_transports({"flow": turning}, X0, X1, random_state=0)
    assert (quarter.loc["flow", columns] > 0.1).all()


class _QuarterTurn(torch.nn.Module):
    """A field that walks a quarter circle about the origin, whatever it is trained on."""

    def __init__(self, n_features):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t):
        return np.pi / 2 * torch.stack([-x[:, 1], x[:, 0]], dim=1) + 0 * self.unused


@pytest.mark.parametrize(
    ("transports", "error", "message"),
    [
        (["affine", "gan"], ValueError, r"no transport 'gan'.*'affine'.*'flow'.*'identity'"),
        ([], ValueError, "transports is empty"),
        ("flow", ValueError, "'transports' parameter of compare_transports must be an instance of 'list'"),
        ([Shift], TypeError, "must hold transports"),
        ([Ridge()], TypeError, "must hold transports"),
    ],
)
def test_refuses_what_is_no_transport(shifted, transports, error, message):
    with pytest.raises(error, match=message):
        compare_transports(transports, *shifted[:2])


def test_refuses_data_that_do_not_fit(shifted):
    X0, X1, y0, y1 = shifted

    def compare(X0=X0, X1=X1, **options):
        compare_transports([Shift()], X0, X1, **options)

    with pytest.raises(ValueError, match=r"y1 must have shape \(150,\).*got \(200,\)"):
        compare(y0=y0, y1=y0)
    with pytest.raises(ValueError, match="y1 only scores a classifier"):
        compare(y1=y1)
    with pytest.raises(ValueError, match="estimator is trained with y0"):
        compare(y0=y0, estimator=DummyClassifier())
    with pytest.raises(ValueError, match="must be a classifier"):
        compare(y0=y0, y1=y1, estimator=Ridge())
    with pytest.raises(ValueError, match="got 3 rows of X0"):
        compare(X0[:3])
    with pytest.raises(ValueError, match="n_samples, 2"):
        compare(X1=X1[:, :1])
    with pytest.raises(ValueError, match="test_size"):
        compare(test_size=2)
    with pytest.raises(ValueError, match="max_samples"):
        compare(max_samples=1)


def test_few_rows_are_enough(shifted):
    X0, X1, _, y1 = shifted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y0 = [0, 1, 0, 1, 0, 1]
        table = compare_transports([Shift(3.0)], X0[:6], X1[:5], y0=y0, y1=y1[:5], random_state=0)
    assert table[DISTANCES].notna().all(axis=None)
    assert metrics.transport_cost(X0, X0 + 3) == pytest.approx(table.loc["Shift", "transport_cost"])
