"""Data sets in files, read and written in chunks: CSV, Parquet, NPY and NPZ."""

from ._open import open_table, read_table
from ._reader import TableReader
from ._write import write_table

__all__ = ["TableReader", "open_table", "read_table", "write_table"]
