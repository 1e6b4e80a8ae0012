"""Arrays in, tensors out. Public methods call this once; everything inside works on plain tensors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import validate_data

# Rows looked at together when a whole data set is scanned: bounds memory for memory-mapped input.
_SCAN_ROWS = 65536


@dataclass(frozen=True)
class Samples:
    """The validated rows of one domain; dense tensors are made only of the rows asked for.

    Parameters
    ----------
    data : ndarray, CSR matrix or Tensor of shape (n_samples, n_features)
        float32 or float64. A memory-mapped array stays on disk.
    """

    data: np.ndarray | sparse.csr_matrix | torch.Tensor

    def __len__(self) -> int:
        return self.data.shape[0]

    @property
    def n_features(self) -> int:
        return self.data.shape[1]

    @property
    def is_tensor(self) -> bool:
        return isinstance(self.data, torch.Tensor)

    def rows(self, index=slice(None)) -> torch.Tensor:
        """The rows at `index` (a slice or an integer array) as a dense tensor of the data's own dtype."""
        if self.is_tensor:
            return self.data[torch.as_tensor(index) if not isinstance(index, slice) else index]
        if isinstance(index, torch.Tensor):
            index = index.cpu().numpy()
        rows = self.data[index]
        if sparse.issparse(rows):
            rows = rows.toarray()
        # Memory-mapped files are often opened read-only, which torch does not accept without a copy.
        return torch.from_numpy(np.require(rows, requirements=["C", "W"]))

    def batches(self, size: int = _SCAN_ROWS):
        """Consecutive dense batches, as pairs (slice, tensor)."""
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self.rows(part)

    def numpy(self) -> np.ndarray:
        """All rows as one dense float64 array."""
        return self.rows().detach().cpu().numpy().astype(np.float64)


def make_generator(random_state, device="cpu") -> torch.Generator:
    """The one source of randomness of a call, from scikit-learn's `random_state`."""
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    return torch.Generator(device=device).manual_seed(seed)


def check_samples(X, name: str, *, n_features: int | None = None, like: str = "X0") -> Samples:
    """Validate one data set and name it in every error.

    Raises
    ------
    ValueError
        For a wrong number of dimensions or features, an empty array, NaN or infinity (saying where), and
        data that are not real numbers.
    """
    if isinstance(X, Samples):
        return X
    _check_dimensions(X, name, n_features, like)
    if isinstance(X, torch.Tensor):
        data = _check_tensor(X, name)
    else:
        try:
            data = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32], ensure_all_finite=False,
                               ensure_2d=True, input_name=name)
        except ValueError as error:
            # Some of these messages go on with the whole array.
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{name} must be real numbers of shape (n_samples, n_features). {reason}") from error
    if n_features is not None and data.shape[1] != n_features:
        raise ValueError(
            f"{name} must have shape (n_samples, {n_features}) like {like}; got {tuple(data.shape)}: "
            f"X has {data.shape[1]} features, but {n_features} features are expected as input."
        )
    samples = Samples(data)
    _check_finite(samples, name, X)
    return samples


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


def _check_finite(samples, name, original):
    values = samples.data.data if sparse.issparse(samples.data) else None
    if values is not None and np.isfinite(values).all():
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
    samples0 = check_samples(X0, "X0")
    samples1 = check_samples(X1, "X1", n_features=samples0.n_features)
    holder = BaseEstimator()
    if not samples0.is_tensor:
        validate_data(holder, X0, skip_check_array=True)
    if not samples1.is_tensor and not isinstance(X1, Samples):
        _check_names(holder, X1, "X1", "X0")
    return samples0, samples1, {"n_features_in_": samples0.n_features, **vars(holder)}


def check_new_samples(transport, X, name="X") -> Samples:
    """Validate rows against what `transport` was fitted on: number of features and feature names."""
    samples = check_samples(X, name)
    if samples.n_features != transport.n_features_in_:
        raise ValueError(
            f"X has {samples.n_features} features, but {type(transport).__name__} is expecting "
            f"{transport.n_features_in_} features as input. It was fitted on X0 of shape "
            f"(n_samples, {transport.n_features_in_})."
        )
    if not samples.is_tensor and not isinstance(X, Samples):
        validate_data(transport, X, reset=False, skip_check_array=True)
    return samples


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
