"""Opening a data file by its suffix."""

from __future__ import annotations

from pathlib import Path

from ._arrays import NpyReader, NpzReader
from ._formats import table_suffix
from ._frames import CsvReader, ParquetReader
from ._reader import TableReader


def open_table(path, *, drop=(), label=None) -> TableReader:
    """Open a data set for reading, by its suffix: `.csv`, `.parquet`, `.npy` or `.npz`.

    Parameters
    ----------
    path : str or Path
        The file. One array of an NPZ file is chosen as ``file.npz:key``; the only one needs no key. CSV is
        separated by commas and has a header, unless its first line is numbers.
    drop : sequence of str, default=()
        Columns to leave out (CSV and Parquet).
    label : str, optional
        Column that holds labels, or the name of a second array in an NPZ file; left out of the features.

    Returns
    -------
    reader : TableReader
        Nothing but the header has been read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the suffix is unknown, the file is empty or unreadable, or a named column or key does not exist.
    """
    path, key = _split_key(path)
    kinds = {".csv": CsvReader, ".parquet": ParquetReader, ".npy": NpyReader, ".npz": NpzReader}
    kind = kinds[table_suffix(path)]
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty.")
    return kind(path, key, tuple(drop), label)


def read_table(path, *, drop=(), label=None):
    """Read a whole data set.

    Parameters
    ----------
    path, drop, label
        As in `open_table`.

    Returns
    -------
    X : ndarray or DataFrame of shape (n_samples, n_features)
        A DataFrame if the file names its columns. A NPY file stays on disk, as a `numpy.memmap`.
    y : ndarray of shape (n_samples,) or None
        The labels, if `label` was given.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from rfadapt.tables import read_table, write_table
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "points.csv"
    >>> with write_table(path, columns=["a", "b"]) as write:
    ...     write(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> read_table(path)[0].columns.tolist()
    ['a', 'b']
    """
    return open_table(path, drop=drop, label=label).read()


def _split_key(path):
    name, colon, key = str(path).rpartition(":")
    return (Path(name), key) if colon and name.lower().endswith(".npz") else (Path(path), None)
