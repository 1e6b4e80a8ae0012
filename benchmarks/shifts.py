"""What the default adaptation gains, and what it harms, where tables are shifted on purpose or not at all.

    python benchmarks/shifts.py [--seeds 0 1 2] [--tables wine 'made*'] [--shifts none warp] [--resume]

Tables that come with scikit-learn, or that it makes, are cut in two. The second half is shifted, and 40 % of its rows
are scored, which nothing has seen. Of classes it is the accuracy, of numbers 1 less the squared error over the source's
variance, both in percent, of an estimator that is trained on the first half ("source only"), of the same within
AdaptedClassifier or AdaptedRegressor with their defaults ("adapted"), after POT's LinearTransport ("POT linear"), and
trained on the labels of the rest of the second half, which the others do not see ("target only"). Nothing that is
measured here has a setting of its own for a table, a shift or an estimator.

Four estimators of classes: logistic regression, nearest neighbour and SVC on standardised features, and a forest of 50
trees; and three of numbers: ridge and five neighbours on standardised features, and such a forest.
"""

import argparse
import time
import warnings
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import ot
import own_process
import pandas as pd
import torch
from sklearn import datasets
from sklearn.base import clone, is_classifier
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from rfadapt import AdaptedClassifier, AdaptedRegressor

HERE = Path(__file__).resolve().parent
PACKAGES = ("rfadapt", "torch", "numpy", "POT", "scikit-learn")
KEY = ["seed", "table", "shift", "estimator"]
COLUMNS = ["source only", "adapted", "POT linear", "target only"]
#: Points by which the adapted estimator is said to be ahead of, or behind, the one that is not.
CLEARLY = 5.0
CLASSIFIERS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "1-NN": make_pipeline(StandardScaler(), KNeighborsClassifier(1)),
    "forest": RandomForestClassifier(50, random_state=0),
    "SVC": make_pipeline(StandardScaler(), SVC()),
}
REGRESSORS = {
    "ridge": make_pipeline(StandardScaler(), Ridge()),
    "5-NN": make_pipeline(StandardScaler(), KNeighborsRegressor(5)),
    "forest of numbers": RandomForestRegressor(50, random_state=0),
}


def tables():
    """Functions that return X and y, by name."""

    def made(n_features, n_classes, n_informative, class_sep, n_clusters):
        return lambda: datasets.make_classification(
            2000, n_features, n_informative=n_informative, n_redundant=min(2, n_features - n_informative),
            n_classes=n_classes, n_clusters_per_class=n_clusters, class_sep=class_sep, random_state=n_features,
        )  # fmt: skip

    return {
        **{name: lambda name=name: getattr(datasets, f"load_{name}")(return_X_y=True)
           for name in ("digits", "breast_cancer", "wine", "iris")},
        "made-5": made(5, 2, 4, 1.0, 1), "made-20": made(20, 4, 10, 1.5, 2), "made-50": made(50, 3, 15, 1.2, 1),
        "diabetes": lambda: datasets.load_diabetes(return_X_y=True, scaled=False),
        "friedman-1": lambda: datasets.make_friedman1(1200, noise=0.5, random_state=0),
        "friedman-2": lambda: datasets.make_friedman2(1200, noise=5.0, random_state=0),
        "friedman-3": lambda: datasets.make_friedman3(1200, noise=0.05, random_state=0),
        "linear-20": lambda: datasets.make_regression(1500, 20, n_informative=8, noise=20.0, random_state=1),
    }  # fmt: skip


def shifts(X, y, rng):
    """Rows and labels of a shifted domain, by the name of the shift."""
    n, n_features = X.shape
    mean, spread = X.mean(axis=0), X.std(axis=0) + 1e-9
    z = (X - mean) / spread
    turn = np.linalg.qr(np.eye(n_features) + 0.5 * rng.normal(size=(n_features, n_features)) / np.sqrt(n_features))[0]
    turn *= np.sign(np.diag(turn))
    dead = rng.random(n_features) < 0.2
    classes, offset = np.unique(y), spread * rng.normal(size=n_features)
    if len(classes) <= 10:
        shares = rng.dirichlet(np.ones(len(classes))) + 0.05
        by_label = shares[np.searchsorted(classes, y)]
    else:
        by_label = np.exp(1.2 * rng.choice([-1, 1]) * (y - y.mean()) / y.std())
    by_feature = np.exp(1.5 * rng.choice([-1, 1]) * z[:, 0])

    def some(weights):
        return rng.choice(n, n // 2, replace=False, p=weights / weights.sum())

    by_label, by_feature = some(by_label), some(by_feature)
    found = {
        "none": (X, y),
        "scale": (X * np.exp(0.4 * rng.normal(size=n_features)), y),
        "offset": (X + offset, y),
        "noise": (X + 0.7 * spread * rng.normal(size=X.shape), y),
        "turn": (z @ turn * spread + mean, y),
        "warp": (np.sign(z) * np.abs(z) ** 1.5 * spread + mean + 0.3 * spread, y),
        "dead sensors": (np.where(dead, mean, X), y),
        "labels": (X[by_label], y[by_label]),
        "labels, offset": (X[by_label] + 0.6 * offset, y[by_label]),
        "one feature": (X[by_feature], y[by_feature]),
    }
    if 2 < len(classes) <= 10:
        there = y != classes[-1]
        found["a class gone, offset"] = X[there] + 0.5 * offset, y[there]
    return found


def measured(estimator, X0, y0, X1, y1, X_test, y_test):
    """One row: the four scores, seconds of the adapted fit, and what it chose."""

    def score(fitted):
        predicted = fitted.predict(X_test)
        if is_classifier(estimator):
            return 100 * float(np.mean(predicted == y_test))
        return 100 * (1 - float(np.mean((predicted - y_test) ** 2) / y0.var()))

    adapter = (AdaptedClassifier if is_classifier(estimator) else AdaptedRegressor)(clone(estimator), random_state=0)
    start = time.perf_counter()
    adapter.fit(X0, y0, X_target=X1)
    row = {"adapted": score(adapter), "seconds": time.perf_counter() - start, "chosen": adapter.chosen_}
    row["source only"] = score(clone(estimator).fit(X0, y0))
    if len(np.unique(y1)) > 1:
        row["target only"] = score(clone(estimator).fit(X1, y1))
    try:
        moved = ot.da.LinearTransport(reg=1e-3).fit(Xs=X0, Xt=X1).transform(X0)
        row["POT linear"] = score(clone(estimator).fit(moved, y0))
    except ValueError:  # its covariance has no root there
        pass
    return row


def tasks(arguments):
    """(key, arguments of `measured`) for everything that is asked for."""
    for seed in arguments.seeds:
        for table, load in tables().items():
            X, y = load()
            rng = np.random.default_rng([seed, len(X)])
            source, rest = np.array_split(rng.permutation(len(X)), 2)
            for shift, (X1, y1) in shifts(X[rest], y[rest], rng).items():
                X1, X_test, y1, y_test = train_test_split(X1, y1, test_size=0.4, random_state=seed)
                if not any(fnmatch(table, name) for name in arguments.tables):
                    continue
                for name, estimator in (CLASSIFIERS if len(np.unique(y)) <= 10 else REGRESSORS).items():
                    if any(fnmatch(shift, pattern) for pattern in arguments.shifts):
                        yield (seed, table, shift, name), (estimator, X[source], y[source], X1, y1, X_test, y_test)


def as_text(frame):
    frame = frame.assign(gain=frame["adapted"] - frame["source only"])
    frame["of"] = np.where(frame["estimator"].isin(REGRESSORS), "numbers", "classes")
    parts = [f"# Shifts made on purpose\n\n{own_process.machine(1, PACKAGES)} What is measured is said in shifts.py."]
    for of, rows in frame.groupby("of"):
        behind, ahead = rows["gain"] < -CLEARLY, rows["gain"] > CLEARLY
        parts.append(
            f"## {of.capitalize()}\n\n{len(rows)} cases: source only {rows['source only'].mean():.1f}, adapted "
            f"{rows['adapted'].mean():.1f}; behind by more than {CLEARLY:g} points in {behind.sum()}, ahead by more in "
            f"{ahead.sum()}. `POT linear` is behind by more in "
            f"{(rows['POT linear'] < rows['source only'] - CLEARLY).sum()}, ahead by more in "
            f"{(rows['POT linear'] > rows['source only'] + CLEARLY).sum()}. A fit takes "
            f"{rows['seconds'].median():.1f} s (median), {rows['seconds'].max():.0f} s at most."
        )
        for by in ("shift", "table", "estimator"):
            means = rows.groupby(by, sort=False)[COLUMNS].mean().round(1)
            means["behind"], means["ahead"] = behind.groupby(rows[by]).sum(), ahead.groupby(rows[by]).sum()
            parts.append(as_table(means.reset_index()))
        worst = rows.sort_values("gain")[[*KEY, *COLUMNS, "chosen"]].head(8).round(1)
        parts.append(f"Most behind:\n\n{as_table(worst)}")
    return "\n\n".join(parts) + "\n"


def as_table(frame):
    def line(cells):
        return "| " + " | ".join("" if cell != cell else str(cell) for cell in cells) + " |"

    return "\n".join([line(frame.columns), "|" + "---|" * frame.shape[1], *map(line, frame.to_numpy(dtype=object))])


def run(arguments, key_names, tasks, as_text):
    """Measure tasks, (key, arguments of `measured`), of which scores go to a .csv as they come, and in the end a page.

    `key_names` are the columns of the keys, and `as_text` makes the page from all rows.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    csv, page = (arguments.results.with_name(arguments.results.name + ending) for ending in (".csv", ".md"))
    rows = pd.read_csv(csv).to_dict("records") if arguments.resume and csv.is_file() else []
    done = {tuple(row[name] for name in key_names) for row in rows}
    for key, task in tasks:
        if key in done:
            continue
        rows.append(dict(zip(key_names, key)) | measured(*task))
        print(*key, *(f"{rows[-1].get(name, np.nan):.1f}" for name in COLUMNS), rows[-1]["chosen"], flush=True)
        columns = [*key_names, *COLUMNS, "seconds", "chosen"]
        pd.DataFrame(rows).reindex(columns=columns).round(2).to_csv(csv, index=False)
    page.write_text(as_text(pd.read_csv(csv)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tables", nargs="+", default=["*"], metavar="GLOB")
    parser.add_argument("--shifts", nargs="+", default=["*"], metavar="GLOB")
    parser.add_argument("--resume", action="store_true", help="keep the scores that the .csv has")
    parser.add_argument("--results", type=Path, default=HERE / "shifts_results", help="the two files, without endings")
    arguments = parser.parse_args()
    run(arguments, KEY, tasks(arguments), as_text)


if __name__ == "__main__":
    main()
