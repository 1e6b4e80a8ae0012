"""What may come in, in which container, and what is said about the rest."""

import copy
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from conftest import quick_flow
from scipy import sparse
from sklearn.exceptions import NotFittedError
from torch.utils.data import TensorDataset

from rfadapt._random import make_generator
from rfadapt._validation import check_samples

ROWS = np.array([[0.5, -2.0], [1.0, -1.5], [0.0, -2.5]])
FINE = np.random.default_rng(0).normal(size=(30, 2))


def with_bad_value(value, row=3, column=1):
    X = FINE.copy()
    X[row, column] = value
    return X


def attributes(estimator):
    """What an estimator holds: the objects, and a copy of them to see changes inside."""
    return dict(vars(estimator)), copy.deepcopy(vars(estimator))


def assert_unchanged(estimator, before):
    objects, values = before
    assert vars(estimator).keys() == objects.keys()
    for name, value in vars(estimator).items():
        assert value is objects[name], name
        if isinstance(value, torch.nn.Module):
            for mine, old in zip(value.state_dict().values(), values[name].state_dict().values()):
                assert torch.equal(mine, old)
        elif isinstance(value, (int, float, str, list)):
            assert value == values[name], name


# Bad input: (X0, X1, what the message must say).
BAD = {
    "NaN": (with_bad_value(np.nan), FINE, r"X0 contains NaN or infinity: nan at row 3, column 1 \(1 such value in"),
    "infinity in X1": (FINE, with_bad_value(-np.inf), "X1 contains NaN or infinity: -inf at row 3, column 1"),
    "many": (np.full((3, 2), np.nan), FINE, "at row 0, column 0 .6 such values in all"),
    "frame": (pd.DataFrame(with_bad_value(np.inf), columns=["age", "dose"]), FINE, "inf at row 3, column 'dose'"),
    "missing in a frame": (
        pd.DataFrame({"age": pd.array([1, None], dtype="Int64"), "dose": [1, 2]}), FINE, "nan at row 1, column 'age'"
    ),
    "polars": (pl.DataFrame({"age": [1.0, 2.0], "dose": [1.0, None]}), FINE, "nan at row 1, column 'dose'"),
    "sparse": (sparse.csr_matrix(with_bad_value(np.nan)), FINE, "nan at row 3, column 1"),
    "tensor": (FINE, torch.from_numpy(with_bad_value(np.inf)), "X1 contains NaN or infinity: inf at row 3, column 1"),
    "labels as X1": (
        FINE, np.zeros(30), r"X1 must have shape \(n_samples, 2\) like X0; got \(30,\).*AdaptedClassifier\.fit\(X, y"
    ),
    "a list of labels": (FINE, ["a"] * 30, r"got \(30,\).*Labels belong to AdaptedClassifier"),
    "no X1": (FINE, None, "X1 is missing.*two data sets"),
    "1-D X0": (FINE[0], FINE, r"X0 must have shape \(n_samples, n_features\); got \(2,\).*reshape\(1, -1\)"),
    "images": (FINE, np.zeros((5, 4, 4)), r"got \(5, 4, 4\).*X1\.reshape\(len\(X1\), -1\)"),
    "other width": (FINE, np.zeros((5, 3)), r"X1 must have shape \(n_samples, 2\) like X0; got \(5, 3\)"),
    "no rows": (np.empty((0, 2)), FINE, "X0.* 0 sample"),
    "no rows in X1": (FINE, np.empty((0, 2)), "X1.* 0 sample"),
    "no features": (np.empty((4, 0)), np.empty((4, 0)), r"X0.* 0 feature"),
    "an empty tensor": (FINE, torch.empty(0, 2), r"X1 with 0 sample"),
    "an empty list": ([], FINE, r"X0 must have shape .*got \(0,\)"),
    "complex": (FINE, FINE * 1j, "^X1 must be real .*[Cc]omplex data not supported$"),
    "a complex tensor": (torch.ones(3, 2) * 1j, FINE, "X0 must be real; got complex"),
    "strings": (np.array([["a", "b"]]), FINE, "X0 must be real numbers.*could not convert string to float"),
    "strings as objects": (FINE, np.array([["a", 1.0]], dtype=object), "X1 must be real numbers.*'a'"),
    "strings in a frame": (pd.DataFrame({"a": ["x"], "b": [1.0]}), FINE, "X0 must be real numbers.*'x'"),
    "strings in polars": (pl.DataFrame({"a": ["x"], "b": [1.0]}), FINE, "X0 must be real numbers.*'x'"),
    "ragged": (FINE, [[1.0, 2.0], [3.0]], "X1 must have rows of one length"),
    "a sparse tensor": (torch.eye(2).to_sparse(), FINE, r"X0 must be a dense tensor.*to_dense\(\)"),
    "other names": (
        pd.DataFrame(FINE, columns=["a", "b"]), pd.DataFrame(FINE, columns=["a", "c"]),
        "(?s)X1 does not have the columns of X0.*- c.*- b",
    ),
    "other order": (
        pd.DataFrame(FINE, columns=["a", "b"]), pd.DataFrame(FINE, columns=["b", "a"]),
        "X1 does not have the columns of X0(?s:.)*same order",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_samples_are_named(case):
    X0, X1, message = BAD[case]
    flow = quick_flow()
    before = attributes(flow)
    with pytest.raises(ValueError, match=message):
        flow.fit(X0, X1)
    assert_unchanged(flow, before)


@pytest.mark.parametrize("case", BAD)
def test_a_failed_fit_leaves_a_fitted_transport_as_it_was(case, fitted):
    X0, X1, message = BAD[case]
    flow = copy.deepcopy(fitted)
    before, moved = attributes(flow), flow.transform(ROWS)
    with pytest.raises(ValueError, match=message):
        flow.fit(X0, X1)
    assert_unchanged(flow, before)
    np.testing.assert_array_equal(flow.transform(ROWS), moved)


def test_something_that_is_no_array():
    with pytest.raises(TypeError, match=r"X0 must be an array of shape \(n_samples, n_features\); got object"):
        quick_flow().fit(object(), FINE)


# An option that does not exist, and what the message must list or say.
BAD_OPTIONS = {
    "coupling": ("best", "independent.*ot|ot.*independent"),
    "path": ("curly", "linear"),
    "velocity": ("cnn", "gradient.*mlp|mlp.*gradient"),
    "base": ("quadratic", "affine.*None"),
    "scaling": ("minmax", "feature.*None"),
    "solver": ("rk5", "rk4"),
    "schedule": ("cosine", "uniform"),
    "precision": ("float8", "bfloat16"),
    "n_reflow": (-1, r"\[0, inf\)"),
    "n_steps": (0, r"\[1, inf\)"),
    "width": (0, r"\[1, inf\)"),
    "max_iter": (-5, r"\[1, inf\)"),
    "batch_size": (0, r"\[1, inf\)"),
    "learning_rate": (0.0, r"\(0.0, inf\)"),
    "validation_fraction": (1.0, r"\[0.0, 1.0\)"),
    "n_iter_no_change": (0, r"\[1, inf\)"),
    "tol": (-1e-3, r"\[0.0, inf\)"),
    "early_stopping": ("yes", "bool"),
    "callbacks": (print, "list"),
    "random_state": ("zero", "RandomState"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_an_unknown_option_is_told_what_would_do(name, fitted):
    value, message = BAD_OPTIONS[name]
    flow = copy.deepcopy(fitted).set_params(**{name: value})
    before = attributes(flow)
    with pytest.raises(ValueError, match=f"(?s)'{name}' parameter of RectifiedFlowTransport must be .*{message}"):
        flow.fit(FINE, FINE)
    assert_unchanged(flow, before)


@pytest.mark.parametrize(("name", "value"), [("solver", "rk5"), ("n_steps", 0), ("schedule", "cosine")])
@pytest.mark.parametrize("method", ["transform", "inverse_transform", "trajectory"])
def test_options_that_are_read_after_fit_are_checked_there(method, name, value, fitted):
    flow = copy.deepcopy(fitted).set_params(**{name: value})
    with pytest.raises(ValueError, match=f"'{name}' parameter"):
        getattr(flow, method)(ROWS)


@pytest.mark.parametrize("method", ["transform", "inverse_transform", "trajectory"])
def test_unfitted_use(method):
    with pytest.raises(NotFittedError, match="RectifiedFlowTransport instance is not fitted yet"):
        getattr(quick_flow(), method)(ROWS)


def test_unfitted_score_and_save(tmp_path):
    with pytest.raises(NotFittedError):
        quick_flow().score(ROWS, ROWS)
    with pytest.raises(NotFittedError):
        quick_flow().save(tmp_path / "model")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["transform", "inverse_transform", "trajectory"])
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((4, 3)), "X has 3 features, but RectifiedFlowTransport is expecting 2 features as input"),
        (np.ones(2), r"X must have shape .*got \(2,\)"),
        (with_bad_value(np.nan), "X contains NaN or infinity: nan at row 3, column 1"),
        (np.empty((0, 2)), "0 sample"),
    ],
)
def test_bad_new_rows(method, X, message, fitted):
    with pytest.raises(ValueError, match=message):
        getattr(fitted, method)(X)


def test_feature_names_of_new_rows():
    frames = [pd.DataFrame(FINE + shift, columns=["a", "b"]) for shift in (0, 1)]
    flow = quick_flow(max_iter=1).fit(*frames)
    assert flow.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="(?s)feature names should match.*- c"):
        flow.transform(frames[0].rename(columns={"b": "c"}))
    with pytest.raises(ValueError, match="(?s)feature names should match.*same order"):
        flow.inverse_transform(frames[0][["b", "a"]])
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        flow.transform(FINE)


@pytest.mark.parametrize("which", [0, 1])
def test_a_frame_and_an_array_are_matched_by_position_with_a_warning(which):
    clouds = [FINE, FINE + 1]
    clouds[which] = pd.DataFrame(clouds[which], columns=["a", "b"])
    with pytest.warns(UserWarning, match=f"X{which} has feature names and X{1 - which} has none"):
        quick_flow(max_iter=1).fit(*clouds)


def test_refit_forgets_feature_names():
    flow = quick_flow(max_iter=1).fit(*[pd.DataFrame(FINE + shift, columns=["a", "b"]) for shift in (0, 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.fit(FINE[:, :1], FINE[:, 1:]).transform(FINE[:, :1])
    assert flow.n_features_in_ == 1 and not hasattr(flow, "feature_names_in_")


@pytest.mark.parametrize("labels", [{"y0": [1, 2]}, {"y1": np.zeros((30, 1))}])
def test_labels_of_another_length(labels):
    (name,) = labels
    with pytest.raises(ValueError, match=rf"{name} must have shape \(30,\), one label a row; got"):
        quick_flow().fit(FINE, FINE, **labels)


def as_memmap(X, path):
    np.save(path, X)
    return np.load(path, mmap_mode="r")


CONTAINERS = {
    "list": lambda X, _: X.tolist(),
    "int": lambda X, _: X.astype(int),
    "float16": lambda X, _: X.astype(np.float16),
    "float32": lambda X, _: X.astype(np.float32),
    "float64": lambda X, _: X,
    "longdouble": lambda X, _: X.astype(np.longdouble),
    "big-endian": lambda X, _: X.astype(">f8"),
    "object": lambda X, _: X.astype(object),
    "Fortran order": lambda X, _: np.asfortranarray(X),
    "negative strides": lambda X, _: X[::-1].copy()[::-1],
    "pandas": lambda X, _: pd.DataFrame(X, columns=["a", "b"]),
    "polars": lambda X, _: pl.DataFrame(X, schema=["a", "b"]),
    "tensor": lambda X, _: torch.from_numpy(X),
    "tensor float32": lambda X, _: torch.from_numpy(X).float(),
    "tensor float16": lambda X, _: torch.from_numpy(X).half(),
    "tensor int": lambda X, _: torch.from_numpy(X).long(),
    "tensor with gradient": lambda X, _: torch.from_numpy(X).requires_grad_(),
    "CSR": lambda X, _: sparse.csr_matrix(X),
    "CSR array": lambda X, _: sparse.csr_array(X),
    "COO": lambda X, _: sparse.coo_array(X),
    "memmap": lambda X, path: as_memmap(X, path / "X.npy"),
    "memmap int": lambda X, path: as_memmap(X.astype(int), path / "X.npy"),
    "Dataset": lambda X, _: TensorDataset(torch.from_numpy(X)),
    "memmap float32": lambda X, path: as_memmap(X.astype(np.float32), path / "X.npy"),
}
# Integers hold all dtypes exactly, so that every container means the same rows.
WHOLE0 = np.random.default_rng(0).integers(-9, 9, size=(60, 2)).astype(float)
WHOLE1 = np.random.default_rng(1).integers(0, 30, size=(40, 2)).astype(float)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name, tmp_path):
    (tmp_path / "0").mkdir(), (tmp_path / "1").mkdir()
    X0, X1 = (CONTAINERS[name](X, tmp_path / str(k)) for k, X in enumerate((WHOLE0, WHOLE1)))
    flow = quick_flow(max_iter=20, width=8).fit(X0, X1)
    moved = flow.transform(X0)
    assert moved.shape == (60, 2) and isinstance(moved, torch.Tensor) == name.startswith("tensor")
    expected = quick_flow(max_iter=20, width=8).fit(WHOLE0, WHOLE1).transform(WHOLE0)
    np.testing.assert_allclose(np.asarray(moved), expected, rtol=1e-4, atol=1e-3)


def test_containers_of_the_two_samples_may_differ(tmp_path):
    flow = quick_flow(max_iter=20, width=8).fit(sparse.csr_matrix(WHOLE0), torch.from_numpy(WHOLE1).float())
    expected = quick_flow(max_iter=20, width=8).fit(WHOLE0, WHOLE1)
    np.testing.assert_allclose(flow.transform(WHOLE0), expected.transform(WHOLE0), atol=1e-3)


def test_input_is_not_written_to():
    X0, X1, tensor = WHOLE0.copy(), WHOLE1.copy(), torch.from_numpy(WHOLE0.copy())
    quick_flow(max_iter=20).fit(X0, X1).transform(X0)
    quick_flow(max_iter=20).fit(tensor, X1).transform(tensor)
    np.testing.assert_array_equal(X0, WHOLE0)
    np.testing.assert_array_equal(X1, WHOLE1)
    np.testing.assert_array_equal(tensor, WHOLE0)


def test_values_near_the_largest_float_are_finite():
    # Their sum is not.
    samples = check_samples(np.full((10, 2), 3e38, dtype=np.float32), "X")
    assert len(samples) == 10 and samples.n_features == 2


def test_a_generator_is_made_of_any_random_state():
    draws = [
        torch.rand(3, generator=make_generator(state)).tolist()
        for state in (7, np.int64(7), np.random.RandomState(7), 8)
    ]
    assert draws[0] == draws[1] == draws[2] != draws[3]
    own = np.random.RandomState(7)
    first, second = make_generator(own), make_generator(own)
    assert first.initial_seed() != second.initial_seed()
