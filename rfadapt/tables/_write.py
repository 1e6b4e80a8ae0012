"""Writing data sets in chunks: CSV, Parquet, NPY and NPZ."""

from __future__ import annotations

import os
import zipfile
from contextlib import contextmanager

import numpy as np

from .._persistence import atomic_path
from ._formats import import_pyarrow, table_suffix


@contextmanager
def write_table(path, columns=None):
    """Write a data set in chunks, in the format of the suffix; the file appears only when it is complete.

    Parameters
    ----------
    path : str or Path
        The file to write; an existing one is replaced at the end. It is checked before anything is written.
    columns : list of str, optional
        Column names. NPY and NPZ files hold none, a CSV file without them has no header, and a Parquet file,
        which needs names, counts them: "0", "1", ...

    Yields
    ------
    write : callable
        ``write(X)`` appends the rows of an array of shape (n_rows, n_features).

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written.
    ValueError
        If the suffix is unknown.
    """
    kinds = {".csv": _CsvWriter, ".parquet": _ParquetWriter, ".npy": _NpyWriter, ".npz": _NpzWriter}
    kind = kinds[table_suffix(path)]
    with atomic_path(path) as temporary:
        writer = kind(temporary, columns)
        try:
            yield writer.write
        finally:
            writer.close()


class _CsvWriter:
    def __init__(self, path, columns):
        self._file = open(path, "w", newline="", encoding="utf-8")
        self._columns = columns

    def write(self, X):
        import pandas as pd

        first = self._file.tell() == 0
        frame = pd.DataFrame(np.asarray(X), columns=self._columns)
        frame.to_csv(self._file, header=first and self._columns is not None, index=False)

    def close(self):
        self._file.close()


class _ParquetWriter:
    def __init__(self, path, columns):
        import_pyarrow()
        self._path, self._columns, self._writer = path, columns, None

    def write(self, X):
        pyarrow, X = import_pyarrow(), np.asarray(X)
        columns = self._columns or [str(i) for i in range(X.shape[1])]
        table = pyarrow.table([np.ascontiguousarray(column) for column in X.T], names=columns)
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self):
        if self._writer is not None:
            self._writer.close()


class _NpyWriter:
    """The number of rows is only known at the end; numpy pads the header so that it can grow in place."""

    def __init__(self, path, columns):
        self._file = open(path, "wb")
        self._rows, self._like = 0, None

    def write(self, X):
        X = np.ascontiguousarray(X)
        if self._like is None:
            self._like = X[:0]
            self._write_header()
            self._header_bytes = self._file.tell()
        self._rows += len(X)
        self._file.write(X.astype(self._like.dtype, copy=False).data)

    def _write_header(self):
        header = np.lib.format.header_data_from_array_1_0(self._like)
        header["shape"] = (self._rows, self._like.shape[1])
        np.lib.format.write_array_header_1_0(self._file, header)

    def close(self):
        try:
            if self._like is not None:
                self._file.seek(0)
                self._write_header()
                assert self._file.tell() == self._header_bytes, "the header must have grown in place"
        finally:
            self._file.close()


class _NpzWriter:
    """The rows go to a temporary NPY file first, which is then packed as the array `X`."""

    def __init__(self, path, columns):
        self._path, self._rows_path = path, path + ".npy"
        self._writer = _NpyWriter(self._rows_path, columns)
        self.write = self._writer.write

    def close(self):
        try:
            self._writer.close()
            with zipfile.ZipFile(self._path, "w", allowZip64=True) as archive:
                archive.write(self._rows_path, "X.npy")
        finally:
            os.remove(self._rows_path)
