"""The rows of one domain, wherever they are kept: dense tensors are made only of the rows asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch.utils.data import IterableDataset

# A block of rows that are looked at together: at most so many, and so many bytes in float64, which stay in a cache
# (blocks of 32 MiB took four times as long).
_BLOCK_ROWS = 65536
_BLOCK_BYTES = 4 * 2**20


class DatasetRows:
    """The features of a map-style torch Dataset, to be indexed like an array.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Its items are 1-D tensors or arrays of features, or tuples whose first entry is that.
    name : str
        What it is called in errors.

    Attributes
    ----------
    shape : tuple (n_samples, n_features)
    dtype : numpy dtype of the first item
    """

    def __init__(self, dataset, name):
        self._dataset, self._name = dataset, name
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise TypeError(
                f"{name} must be a map-style Dataset, with a length and items that can be read in any order; got "
                f"{type(dataset).__name__}. Read it into an array or a file first."
            )
        n_samples = len(dataset)
        if n_samples == 0:
            raise ValueError(f"Found {name} with 0 sample(s), a Dataset of length 0, while a minimum of 1 is required.")
        first = self._features(dataset[0], 0)
        self.shape, self.dtype = (n_samples, len(first)), first.dtype

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        index = list(range(*index.indices(len(self)))) if isinstance(index, slice) else np.asarray(index).tolist()
        # The protocol by which a torch DataLoader reads a batch at once, of data sets that can.
        read = getattr(self._dataset, "__getitems__", None)
        items = read(index) if read is not None else map(self._dataset.__getitem__, index)
        rows = np.empty((len(index), self.shape[1]), self.dtype)
        for k, item in enumerate(items):
            features = self._features(item, index[k])
            if len(features) != self.shape[1]:
                raise ValueError(
                    f"{self._name} must have rows of one length; got {self.shape[1]} features in item 0 and "
                    f"{len(features)} in item {index[k]}."
                )
            rows[k] = features
        return rows

    def _features(self, item, index) -> np.ndarray:
        item = item[0] if isinstance(item, (tuple, list)) else item
        features = item.detach().cpu().numpy() if isinstance(item, torch.Tensor) else np.asarray(item)
        if features.ndim != 1 or not len(features) or features.dtype.kind not in "fiub":
            raise ValueError(
                f"{self._name} must be a Dataset of rows: 1-D tensors or arrays of real numbers, or tuples whose first "
                f"entry is one; got {type(item).__name__} of shape {features.shape} and dtype {features.dtype} in "
                f"item {index}. Flatten or convert each item in a Dataset of your own."
            )
        return features


@dataclass(frozen=True)
class Samples:
    """The validated rows of one domain.

    Parameters
    ----------
    data : ndarray, CSR matrix, Tensor or DatasetRows of shape (n_samples, n_features)
        Real numbers. A memory-mapped array stays on disk.
    """

    data: np.ndarray | sparse.csr_matrix | torch.Tensor | DatasetRows

    def __len__(self) -> int:
        return self.data.shape[0]

    @property
    def n_features(self) -> int:
        return self.data.shape[1]

    @property
    def is_tensor(self) -> bool:
        return isinstance(self.data, torch.Tensor)

    @property
    def dtype(self) -> np.dtype:
        """Of the rows that are made: float32 for float32 data, float64 for all others."""
        single = torch.float32 if self.is_tensor else np.float32
        return np.dtype(np.float32 if self.data.dtype == single else np.float64)

    def rows(self, index=slice(None)) -> torch.Tensor:
        """The rows at `index` (a slice or an integer array) as a dense tensor, float32 or float64."""
        if self.is_tensor:
            return self.data[torch.as_tensor(index) if not isinstance(index, slice) else index]
        if isinstance(index, torch.Tensor):
            index = index.cpu().numpy()
        rows = self.data[index]
        if sparse.issparse(rows):
            rows = rows.toarray()
        # Memory-mapped files are often opened read-only, which torch does not accept without a copy.
        return torch.from_numpy(np.require(rows, self.dtype, requirements=["C", "W"]))

    @property
    def batch_rows(self) -> int:
        """Rows to look at together, by the memory that they take; at least as many as a covariance has."""
        return min(_BLOCK_ROWS, max(_BLOCK_BYTES // (8 * self.n_features), self.n_features))

    def batches(self, size: int | None = None):
        """Consecutive dense batches, as pairs (slice, tensor)."""
        size = size or self.batch_rows
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self.rows(part)

    @cached_property
    def mean_and_variance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each feature, float64 of shape (n_features,), on the CPU; one pass over the rows.

        Means and squares of blocks are merged (Chan, Golub and LeVeque 1983): no digits are lost far from the origin.
        """
        n, mean, squares = 0, torch.zeros(self.n_features, dtype=torch.float64), 0.0
        for _, rows in self.batches():
            rows = rows.to("cpu", torch.float64)
            block_mean = rows.mean(0)
            share = len(rows) / (n + len(rows))
            shift = block_mean - mean
            squares = squares + (rows - block_mean).square_().sum(0) + n * share * shift.square()
            mean, n = mean + share * shift, n + len(rows)
        return mean, squares / n

    def numpy(self) -> np.ndarray:
        """All rows as one dense float64 array."""
        return self.rows().detach().cpu().numpy().astype(np.float64)


def drawn(X, random_state, size):
    """At most `size` rows, drawn without replacement."""
    return X if len(X) <= size else X[random_state.permutation(len(X))[:size]]


def is_varying(variance: torch.Tensor, mean0: torch.Tensor, mean1: torch.Tensor) -> torch.Tensor:
    """Whether features vary, by their variance and their means in both domains.

    Rounding leaves a constant feature a variance of about its square times the float precision.
    """
    return variance > 1e-14 * (mean0.square() + mean1.square())
