"""Reading files with named columns: CSV and Parquet."""

from __future__ import annotations

import csv
import warnings
from abc import abstractmethod

import numpy as np

from ._formats import chunk_rows, import_pyarrow, listed
from ._reader import TableReader


class FrameReader(TableReader):
    """Files with columns: chunks are checked one by one and put together."""

    def read(self):
        import pandas as pd

        features, labels = [], []
        for frame, y in self._frames():
            features.append(frame)
            labels.append(y)
        X = pd.concat(features, ignore_index=True)
        return X if self.columns else X.to_numpy(), np.concatenate(labels) if self.label is not None else None

    @abstractmethod
    def _raw_frames(self):
        """Yield the file as DataFrames, unchecked."""

    def chunks(self):
        for frame, _ in self._frames():
            yield frame if self.columns else frame.to_numpy()

    def _select(self, names):
        """The columns that are features; every name the user gave must exist, and every feature have one."""
        for name in (*self.drop, *([] if self.label is None else [self.label])):
            if name not in names:
                raise self._bad(f"there is no column {name!r}; the columns are {listed(names)}.")
        features = [name for name in names if name not in self.drop and name != self.label]
        if not features:
            raise self._bad("no column is left.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise self._bad(f"there is more than one column {listed(twice)}. Rename them.")
        return features

    def _frames(self):
        """Checked chunks as (features, labels or None)."""
        start = 0
        for frame in self._raw_frames():
            if frame.empty:
                continue
            y = None if self.label is None else frame[self.label]
            if y is not None and y.isna().any():
                row = start + int(y.isna().to_numpy().argmax())
                raise self._bad(f"the label {self.label!r} is missing in row {row}.")
            frame = frame[self._features]
            kinds = {name: dtype.kind for name, dtype in frame.dtypes.items()}
            if bad := [name for name, kind in kinds.items() if kind not in "fiub"]:
                self._explain_not_numeric(frame, bad, start)
            dtype = np.float32 if all(t == np.float32 for t in frame.dtypes) else np.float64
            frame = frame.astype(dtype).set_axis(range(start, start + len(frame)))
            self._check_finite(frame, start)
            start += len(frame)
            yield frame, None if y is None else y.to_numpy()
        if start == 0:
            raise self._bad("there is a header but no rows.")

    def _explain_not_numeric(self, frame, bad, start):
        import pandas as pd

        values = frame[bad[0]]
        first = int(np.argmax((pd.to_numeric(values, errors="coerce").isna() & values.notna()).to_numpy()))
        raise self._bad(
            f"the column{'s' * (len(bad) > 1)} {listed(bad)} {'are' if len(bad) > 1 else 'is'} not numeric "
            f"(row {start + first} holds {values.iloc[first]!r}). Encode as numbers, or leave out with "
            f"--drop {' '.join(map(repr, map(str, bad)))}."
        )

    def _check_finite(self, frame, start):
        values = frame.to_numpy()
        if np.isfinite(values).all():
            return
        row, column = np.argwhere(~np.isfinite(values))[0]
        where = f"column {self.columns[column]!r}" if self.columns else f"column {column}"
        raise self._bad(
            f"row {start + row}, {where} is missing or infinite. Impute or drop such rows first "
            "(rows are counted from 0, without the header)."
        )


class CsvReader(FrameReader):
    def _open(self):
        try:
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                first = next(csv.reader(file), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise self._bad(f"this is not a CSV file in UTF-8: {error}.") from error
        if not any(name.strip() for name in first):
            raise self._bad("the first line is empty; it should hold the column names or the first row.")
        # A header that only counts the columns, as pandas writes for an array, is numbers but not data.
        counted = first == [str(i) for i in range(len(first))]
        self._has_header = counted or not all(_is_number(name) for name in first)
        names = first if self._has_header else range(len(first))
        self._names = [str(name) or f"Unnamed: {i}" for i, name in enumerate(names)]
        for name in self._names:
            if name.startswith("Unnamed: ") and name not in self.drop:
                raise self._bad(
                    "a column has no name, as the index that pandas writes. Name it, or leave it out with "
                    f"--drop '{name}'."
                )
        if len(first) == 1 and (other := next((c for c in ";\t" if c in first[0]), None)):
            raise self._bad(f"the columns seem to be separated by {other!r}; write them separated by commas.")
        self._features = self._select(self._names)
        self.columns = self._features if self._has_header else None

    def _raw_frames(self):
        import pandas as pd

        rows = chunk_rows(len(self._names))
        try:
            with warnings.catch_warnings():
                # With index_col=False pandas only warns about rows that are too long, and cuts them.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                with pd.read_csv(self.path, header=0 if self._has_header else None, names=self._names,
                                 index_col=False, chunksize=rows, encoding="utf-8-sig",
                                 low_memory=False) as frames:
                    yield from frames
        except pd.errors.EmptyDataError:
            return
        except pd.errors.ParserWarning as error:
            columns = len(self._names)
            raise self._bad(f"some rows are longer than the {columns} columns of the first line.") from error
        except (pd.errors.ParserError, UnicodeDecodeError) as error:
            raise self._bad(f"this is not a readable CSV file: {str(error).strip()}.") from error


class ParquetReader(FrameReader):
    def _open(self):
        pyarrow = import_pyarrow()
        try:
            names = pyarrow.parquet.read_schema(self.path).names
        except (pyarrow.ArrowException, OSError) as error:
            raise self._bad(f"this is not a readable Parquet file: {error}.") from error
        # pandas stores a row index that is not 0, 1, 2, ... as a column of this name.
        names = [name for name in names if not name.startswith("__index_level_")]
        self._features = self.columns = self._select(names)

    def _raw_frames(self):
        pyarrow = import_pyarrow()
        names = [*self._features, *([] if self.label is None else [self.label])]
        rows = chunk_rows(len(names))
        try:
            # Buffered ahead, every row group read would stay in memory until the end.
            with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=rows, columns=names):
                    # Nulls become NaN, which the check then reports.
                    yield batch.to_pandas()
        except (pyarrow.ArrowException, OSError) as error:
            raise self._bad(f"this is not a readable Parquet file: {error}.") from error


def _is_number(text) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
