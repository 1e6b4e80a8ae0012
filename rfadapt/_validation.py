"""Arrays in, tensors out. Public methods call this once; everything inside works on plain tensors."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data
from torch.utils.data import Dataset

from ._samples import DatasetRows, Samples


def check_samples(X, name: str, *, n_features: int | None = None, like: str = "X0") -> Samples:
    """Validate one data set and name it in every error.

    Raises
    ------
    ValueError
        For a wrong number of dimensions or features, an empty array, NaN or infinity (saying where), and
        data that are not real numbers.
    """
    samples = _as_samples(X, name, n_features, like)
    if not isinstance(X, Samples):
        _check_finite(samples, name, X)
    return samples


def _as_samples(X, name, n_features=None, like="X0"):
    """All checks that need no look at every number. Arrays of real numbers are neither copied nor read."""
    if isinstance(X, Samples):
        return X
    if isinstance(X, Dataset):
        X = DatasetRows(X, name)
    _check_dimensions(X, name, n_features, like)
    if isinstance(X, torch.Tensor):
        X = _check_tensor(X, name)
    elif not isinstance(X, DatasetRows):
        is_real_array = isinstance(X, np.ndarray) and X.dtype.kind in "fiub"
        try:
            X = check_array(X, accept_sparse="csr", dtype=None if is_real_array else [np.float64, np.float32],
                            ensure_all_finite=False, ensure_2d=True, input_name=name)
        except ValueError as error:
            # Some of these messages go on with the whole array.
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{name} must be real numbers of shape (n_samples, n_features). {reason}") from error
    if n_features is not None and X.shape[1] != n_features:
        raise ValueError(
            f"{name} must have shape (n_samples, {n_features}) like {like}; got {tuple(X.shape)}: "
            f"X has {X.shape[1]} features, but {n_features} features are expected as input."
        )
    return Samples(X)


def _check_dimensions(X, name, n_features, like):
    shape = getattr(X, "shape", None)
    if X is None:
        raise ValueError(f"{name} is missing: a transport is fitted on two data sets, fit(X0, X1); got None.")
    if shape is None and not hasattr(X, "__array__") and not hasattr(X, "__len__"):
        raise TypeError(f"{name} must be an array of shape (n_samples, n_features); got {type(X).__name__}.")
    try:
        shape = np.asarray(X).shape if shape is None else tuple(shape)
    except ValueError as error:
        raise ValueError(f"{name} must have rows of one length. {error}") from error
    if len(shape) == 2:
        return
    width = n_features if n_features is not None else "n_features"
    advice = (
        "Reshape your data with X.reshape(-1, 1) if it has a single feature or X.reshape(1, -1) if it is a "
        "single sample."
    )
    if name == "X1" and len(shape) == 1:
        advice = (
            "X1 is the second data set, not labels. Labels belong to AdaptedClassifier.fit(X, y, ...); "
            "in a Pipeline use the adapters, because a pipeline hands y over as the second argument. " + advice
        )
    elif len(shape) > 2:
        advice = f"Flatten each sample first, for example {name}.reshape(len({name}), -1)."
    raise ValueError(
        f"{name} must have shape (n_samples, {width}){f' like {like}' if n_features is not None else ''}; "
        f"got {shape}. Expected 2D array, got {len(shape)}D array instead. {advice}"
    )


def _check_tensor(X, name):
    if X.is_complex():
        raise ValueError(f"{name} must be real; got complex data not supported ({X.dtype}).")
    if X.layout != torch.strided:
        raise ValueError(f"{name} must be a dense tensor; got layout {X.layout}. Call {name}.to_dense() first.")
    for axis, what in enumerate(("sample(s)", "feature(s)")):
        if X.shape[axis] == 0:
            raise ValueError(f"Found {name} with 0 {what} (shape={tuple(X.shape)}) while a minimum of 1 is required.")
    X = X.detach()
    return X if X.dtype in (torch.float32, torch.float64) else X.to(torch.float32)


def _check_finite(samples, name, original, *, for_fit=False):
    values = samples.data.data if sparse.issparse(samples.data) else None
    if values is not None and np.isfinite(values).all():
        return
    if not samples.is_tensor and samples.data.dtype.kind in "iub":
        return
    # `fit` needs the moments, so that the pass over the data which finds NaN is the one that they take anyway.
    if for_fit and torch.isfinite(samples.mean_and_variance[0]).all():
        return
    bad, first = 0, None
    for part, rows in samples.batches():
        # A finite sum means that every term is finite, and costs one pass without a temporary array.
        if torch.isfinite(rows.sum()):
            continue
        mask = ~torch.isfinite(rows)
        if first is None and mask.any():
            row, column = (int(i) for i in torch.nonzero(mask)[0])
            first = part.start + row, column, float(rows[row, column])
        bad += int(mask.sum())
    if first is None:
        return
    row, column, value = first
    names = getattr(original, "columns", None)
    where = f"column {names[column]!r}" if names is not None else f"column {column}"
    raise ValueError(
        f"{name} contains NaN or infinity: {value} at row {row}, {where} ({bad} such value{'s' * (bad > 1)} in "
        "all). Impute or drop them first, for example with sklearn.impute.SimpleImputer."
    )


def check_two_samples(X0, X1):
    """Validate the two data sets of a fit.

    Returns
    -------
    X0, X1 : Samples
    columns : dict
        `n_features_in_` and, for data frames, `feature_names_in_`; the caller sets them once fit has worked.
    """
    samples0 = _as_samples(X0, "X0")
    samples1 = _as_samples(X1, "X1", samples0.n_features)
    holder = BaseEstimator()
    if _may_have_names(X0):
        validate_data(holder, X0, skip_check_array=True)
    if _may_have_names(X1):
        _check_names(holder, X1, "X1", "X0")
    for samples, name, X in ((samples0, "X0", X0), (samples1, "X1", X1)):
        _check_finite(samples, name, X, for_fit=True)
    return samples0, samples1, {"n_features_in_": samples0.n_features, **vars(holder)}


def check_new_samples(transport, X, name="X", *, out=None) -> Samples:
    """Validate rows against what `transport` was fitted on: number of features and feature names.

    Where the result is to be written to `out`, that is checked as well, before the rows are looked at.
    """
    samples = _as_samples(X, name)
    if samples.n_features != transport.n_features_in_:
        raise ValueError(
            f"{'' if name == 'X' else f'{name} is other data than was fitted: '}"
            f"X has {samples.n_features} features, but {type(transport).__name__} is expecting "
            f"{transport.n_features_in_} features as input. It was fitted on X0 of shape "
            f"(n_samples, {transport.n_features_in_})."
        )
    if _may_have_names(X):
        validate_data(transport, X, reset=False, skip_check_array=True)
    if out is not None:
        _check_output(out, (len(samples), samples.n_features))
    if not isinstance(X, Samples):
        _check_finite(samples, name, X)
    return samples


def _check_output(out, shape):
    if not isinstance(out, (np.ndarray, torch.Tensor)):
        raise TypeError(f"out must be an ndarray or a Tensor; got {type(out).__name__}.")
    if tuple(out.shape) != shape:
        raise ValueError(f"out must have shape {shape}, like X; got {tuple(out.shape)}.")
    is_array = isinstance(out, np.ndarray)
    if not (out.dtype.kind == "f" if is_array else out.is_floating_point()):
        raise ValueError(f"out must hold floating point numbers, or the result would be cut off; got {out.dtype}.")
    if is_array and not out.flags.writeable:
        raise ValueError('out must be writeable; got a read-only array. Open a memory-mapped file with mode "r+".')


def _may_have_names(X):
    return not isinstance(X, (Samples, torch.Tensor, Dataset))


def _check_names(holder, X, name, like):
    with warnings.catch_warnings(record=True) as only_one_has_names:
        warnings.simplefilter("always")
        try:
            validate_data(holder, X, reset=False, skip_check_array=True)
        except ValueError as error:
            raise ValueError(f"{name} does not have the columns of {like}. {error}") from error
    if only_one_has_names:
        named, other = (like, name) if hasattr(holder, "feature_names_in_") else (name, like)
        warnings.warn(
            f"{named} has feature names and {other} has none: their columns are matched by position.",
            UserWarning,
            stacklevel=4,
        )


def check_labels(y, n_samples: int, name: str) -> np.ndarray | None:
    """Labels of shape (n_samples,), or None."""
    if y is None:
        return None
    y = np.asarray(y.cpu() if isinstance(y, torch.Tensor) else y)
    if y.shape != (n_samples,):
        raise ValueError(f"{name} must have shape ({n_samples},), one label a row; got {y.shape}.")
    return y


@contextmanager
def fitting(estimator):
    """A block that fits an estimator: with gradients, whatever the caller's mode; if it fails, all is as it was."""
    before = dict(vars(estimator))
    try:
        with torch.inference_mode(False):
            yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
