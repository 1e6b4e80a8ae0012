"""What the readers and writers of data files share."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".csv", ".parquet", ".npy", ".npz")

#: Bytes of one chunk as an array; a few chunks live at a time.
CHUNK_BYTES = 32 * 2**20


def table_suffix(path) -> str:
    """The suffix that says the format, in lower case."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ValueError(f"The name of a data file must end in {known}; got {str(path)!r}.")
    return suffix


def chunk_rows(n_columns) -> int:
    """Rows of one chunk."""
    return max(1, CHUNK_BYTES // (8 * n_columns))


def import_pyarrow():
    """pyarrow, an optional dependency."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('Parquet files need pyarrow: pip install "rfadapt[parquet]".') from error
    return pyarrow


def listed(names, most=12) -> str:
    """Names for a message, not all of a thousand."""
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "")
