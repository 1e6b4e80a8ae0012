"""Reading files with one array of rows: NPY and NPZ."""

from __future__ import annotations

import zipfile
import zlib
from abc import abstractmethod
from contextlib import contextmanager

import numpy as np

from ._formats import chunk_rows, listed
from ._reader import TableReader


class ArrayReader(TableReader):
    """Files with one array of rows."""

    def _open(self):
        if self.drop:
            raise self._bad(f"columns to drop need names, which a {self.path.suffix} file does not hold.")
        array, self._labels = self._load()
        if array.dtype.kind not in "fiub":
            raise self._bad(f"the array must hold real numbers; got dtype {array.dtype}.")
        if array.ndim != 2:
            advice = " Flatten each sample first: X.reshape(len(X), -1)." if array.ndim > 2 else ""
            raise self._bad(f"the array must have shape (n_samples, n_features); got {array.shape}.{advice}")
        if not array.size:
            raise self._bad(f"the array is empty; its shape is {array.shape}.")
        self._array = array

    @abstractmethod
    def _load(self):
        """The array and the labels or None."""

    def read(self):
        for _ in self.chunks():  # each is checked
            pass
        return self._array, self._labels

    def chunks(self):
        rows = chunk_rows(self._array.shape[1])
        for start in range(0, len(self._array), rows):
            chunk = self._rows(start, start + rows)
            if not np.isfinite(chunk).all():
                row, column = np.argwhere(~np.isfinite(chunk))[0]
                raise self._bad(
                    f"row {start + row}, column {column} is NaN or infinite. Impute or drop such rows first "
                    "(rows are counted from 0)."
                )
            yield chunk

    def _rows(self, start, stop):
        return self._array[start:stop]

    @contextmanager
    def _reading(self):
        try:
            yield
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            what = "it holds Python objects, not numbers" if "bject" in str(error) else str(error)
            raise self._bad(f"this is not a readable {self.path.suffix} file: {what}.") from error


class NpyReader(ArrayReader):
    """The array stays on disk."""

    def _load(self):
        if self.label is not None:
            raise self._bad("labels need named columns or arrays, which a .npy file does not hold. Use .npz.")
        with self._reading():
            return np.lib.format.open_memmap(self.path, mode="r"), None

    def _rows(self, start, stop):
        # Through a mapping of its own: the pages that one mapping has read would stay in memory together.
        return np.array(np.lib.format.open_memmap(self.path, mode="r")[start:stop])


class NpzReader(ArrayReader):
    """Compressed arrays cannot be read in part, so the one asked for is loaded whole."""

    def _load(self):
        if not zipfile.is_zipfile(self.path):
            raise self._bad("this is not a readable .npz file. It may be truncated, or another kind of file.")
        with np.load(self.path, allow_pickle=False) as arrays:
            keys = [key for key in arrays.files if key != self.label]
            if self.key is None and len(keys) != 1:
                raise self._bad(
                    f"the file holds {len(keys)} arrays, {listed(keys)}. Choose one: {self.path}:KEY."
                )
            array = self._pick(arrays, self.key if self.key is not None else keys[0])
            labels = self._pick(arrays, self.label) if self.label is not None else None
        if labels is not None and labels.shape != array.shape[:1]:
            raise self._bad(
                f"{self.label!r} must hold one label a row, shape {array.shape[:1]}; got {labels.shape}."
            )
        return array, labels

    def _pick(self, arrays, key):
        if key not in arrays.files:
            raise self._bad(f"there is no array {key!r}; the file holds {listed(arrays.files)}.")
        with self._reading():
            return arrays[key]
