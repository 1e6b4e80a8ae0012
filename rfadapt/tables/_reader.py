"""The contract of the readers of data files."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod


class TableReader(metaclass=ABCMeta):
    """The rows of one file; made by `open_table`.

    Attributes
    ----------
    columns : list of str or None
        Names of the features, if the file holds any.
    """

    def __init__(self, path, key, drop, label):
        self.path, self.key, self.drop, self.label = path, key, drop, label
        self.columns = None
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Read the header; set `columns`."""

    @abstractmethod
    def chunks(self):
        """Yield the rows as DataFrames, or arrays where the file names no columns."""

    @abstractmethod
    def read(self):
        """All rows and their labels or None."""

    def _bad(self, what) -> ValueError:
        return ValueError(f"{self.path}: {what}")
