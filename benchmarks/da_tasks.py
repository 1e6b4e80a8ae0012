"""Pairs of domains to adapt between: what is read, how features are made, and that no label is looked at for it.

    tasks(data)["mnist-usps"].build(0)        # seed 0: float32 features, labels 0, 1, ...

Features are divided by one number, the root of the median squared distance between rows of the two domains; apart from
that they are what the recipes below say. The data files are not part of the project; simulated shifts need skada.
"""

import csv
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sklearn
from scipy.sparse import csr_matrix
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

SURF, HOSPITALS = ("amazon", "caltech", "webcam", "dslr"), ("cleveland", "hungarian", "switzerland", "va")
_UNIT_ROWS = 1000


@dataclass(frozen=True)
class Task:
    """Two domains by a recipe.

    Attributes
    ----------
    make : callable
        From the seed and the files' arrays to Xs, ys, Xt, yt and, of several sources, the number of each row's.
    files : tuple of Path
        What it reads.
    regression : bool
        Whether labels are numbers.
    package : str, optional
        What has to be installed.
    several : bool
        Whether there are several sources.
    """

    make: Callable
    files: tuple[Path, ...] = ()
    regression: bool = False
    package: str | None = None
    several: bool = False

    def missing(self):
        """Why it cannot be built, or None."""
        if self.package is not None and importlib.util.find_spec(self.package) is None:
            return f"needs {self.package}"
        absent = [file.name for file in self.files if not file.is_file()]
        return f"needs {', '.join(absent)}" if absent else None

    def build(self, seed):
        """Features and labels of the two domains: Xs, ys, Xt, yt, and the number of the source of each row, or None."""
        Xs, ys, Xt, yt, *source = self.make(seed, *(_read(file) for file in self.files))
        rng = np.random.default_rng(0)
        a, b = (X[rng.choice(len(X), min(_UNIT_ROWS, len(X)), replace=False)] for X in (Xs, Xt))
        unit = np.sqrt(np.median(cdist(a, b, "sqeuclidean")))
        if not self.regression:
            classes = np.unique(np.concatenate([ys, yt]))
            ys, yt = np.searchsorted(classes, ys), np.searchsorted(classes, yt)
        return (Xs / unit).astype(np.float32), ys, (Xt / unit).astype(np.float32), yt, *(source or [None])


def _read(file):
    if file.suffix == ".npz":
        return np.load(file, allow_pickle=False)
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def _pick(X, y, n, rng):
    chosen = rng.choice(len(X), min(n, len(X)), replace=False)
    return X[chosen], y[chosen]


def _stacked(transformer, Xs, Xt):
    """Both domains transformed by what was fitted to all their rows."""
    Z = transformer.fit_transform(np.concatenate([Xs, Xt]))
    return Z[: len(Xs)], Z[len(Xs) :]


def _zscore(X):
    return (X - X.mean(0)) / np.where(X.std(0) > 0, X.std(0), 1)


def _resize(images, size):
    """Exact box averages of (n, h, w) images, of shape (n, size, size)."""

    def weights(old):
        edges, w = np.linspace(0, old, size + 1), np.zeros((size, old))
        for i in range(size):
            for j in range(old):
                w[i, j] = max(0.0, min(edges[i + 1], j + 1) - max(edges[i], j))
        return w / w.sum(1, keepdims=True)

    _, h, w = images.shape
    return np.einsum("ij,njk,lk->nil", weights(h), images.astype(float), weights(w), optimize=True)


def _mnist_usps(seed, mnist, usps, reverse):
    rng = np.random.default_rng(seed)
    Xm, ym = _pick(mnist["X_train"], mnist["y_train"], 3000, rng)
    Xu, yu = _pick(usps["X_train"], usps["y_train"], 3000, rng)
    Xm = _resize(Xm, 16).reshape(len(Xm), -1) / 255
    Xm, Xu = _stacked(PCA(50, random_state=0), Xm, Xu.reshape(len(Xu), -1))
    return (Xu, yu, Xm, ym) if reverse else (Xm, ym, Xu, yu)


def _mnist_usps_skada(seed, mnist, usps, reverse):
    """As skada-bench makes them: both padded to 32 x 32, whitened to 50 components."""
    rng = np.random.default_rng(seed)
    Xm, ym = _pick(mnist["X_train"], mnist["y_train"], 3000, rng)
    Xu, yu = _pick(usps["X_train"], usps["y_train"], 3000, rng)
    Xm, Xu = np.pad(Xm / 255, ((0, 0), (2, 2), (2, 2))), np.pad(Xu, ((0, 0), (8, 8), (8, 8)))
    Xm, Xu = ((X.reshape(len(X), -1) - 0.1307) / 0.3081 for X in (Xm, Xu))
    Xm, Xu = _stacked(PCA(50, whiten=True, random_state=0), Xm, Xu)
    return (Xu, yu, Xm, ym) if reverse else (Xm, ym, Xu, yu)


def _digits_usps(seed, usps):
    rng, digits = np.random.default_rng(seed), load_digits()
    Xu, yu = _pick(usps["X_train"], usps["y_train"], 2000, rng)
    return digits.data / 16, digits.target, _resize(Xu, 8).reshape(len(Xu), -1), yu


def _surf(seed, file, s, t):
    X = {name: file[f"{name}_X"].astype(float) for name in (s, t)}
    X = {name: _zscore(counts / counts.sum(1, keepdims=True)) for name, counts in X.items()}
    return X[s], file[f"{s}_y"], X[t], file[f"{t}_y"]


def _decaf(seed, file, s, t):
    Xs, Xt = _stacked(PCA(100, random_state=0), normalize(file[f"{s}_X"]), normalize(file[f"{t}_X"]))
    return Xs, file[f"{s}_y"], Xt, file[f"{t}_y"]


def _gas(seed, file, sources, target):
    rng = np.random.default_rng(seed)
    Xs = np.concatenate([file[f"batch{b}_X"] for b in sources])
    ys = np.concatenate([file[f"batch{b}_y"] for b in sources])
    Xs, ys = _pick(Xs, ys, 3000, rng)
    scale = StandardScaler().fit(Xs)  # of the source, as if in use when the target comes
    return scale.transform(Xs), ys, scale.transform(file[f"batch{target}_X"]), file[f"batch{target}_y"]


def _several_gas(seed, file, target):
    """Every earlier batch as a source of its own; the rows are those of the same sources as one."""
    sources = range(1, target)
    numbers = np.repeat(sources, [len(file[f"batch{b}_y"]) for b in sources])
    numbers, _ = _pick(numbers, numbers, 3000, np.random.default_rng(seed))
    return *_gas(seed, file, sources, target), numbers


def _unit_rows(seed, file, s, t):
    return normalize(file[f"{s}_X"]), file[f"{s}_y"], normalize(file[f"{t}_X"]), file[f"{t}_y"]


def _amazon(seed, file, s, t):
    def counts(domain):
        parts = ("data", "indices", "indptr", "shape")
        data, indices, indptr, shape = (file[f"{domain}_train_{part}"] for part in parts)
        return csr_matrix((data, indices, indptr), tuple(shape)).toarray().astype(np.float32)

    Z = np.vstack([np.log1p(counts(domain)) for domain in (s, t)])
    Z = normalize(TruncatedSVD(100, random_state=0).fit_transform(normalize(Z)))
    ys, yt = ((file[f"{domain}_train_y"] > 0) * 1 for domain in (s, t))
    return Z[: len(ys)], ys, Z[len(ys) :], yt


def _mushrooms(seed, file, reverse):
    """Mushrooms whose stalk becomes wider, and narrower."""
    rng, names = np.random.default_rng(seed), [str(name) for name in file["features"]]
    of_stalk = np.array(["stalk-shape" in name for name in names])
    X, y = file["X"][:, ~of_stalk].astype(float), file["y"]
    enlarging = file["X"][:, np.flatnonzero(of_stalk)[0]] > 0
    if enlarging.sum() != 3516:
        enlarging = ~enlarging
    a, b = _pick(X[enlarging], y[enlarging], 2000, rng), _pick(X[~enlarging], y[~enlarging], 2000, rng)
    return (*b, *a) if reverse else (*a, *b)


def _heart(seed, file, sources, target):
    """A column that one side never filled in gets the median of the other."""
    prepare = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    X, y = (np.concatenate([file[f"{hospital}_{part}"] for hospital in sources]) for part in "Xy")
    Xs, Xt = _stacked(prepare, X, file[f"{target}_X"])
    return Xs, y, Xt, file[f"{target}_y"]


def _several_hearts(seed, file, target):
    """All other hospitals, each a source of its own."""
    sources = [hospital for hospital in HOSPITALS if hospital != target]
    numbers = np.repeat(range(len(sources)), [len(file[f"{hospital}_y"]) for hospital in sources])
    return *_heart(seed, file, sources, target), numbers


def _bike(seed, rows):
    """Rentals an hour, of 3000 hours of 2011 and of 2012; the hour as a point on a circle."""
    rng = np.random.default_rng(seed)
    names = ("season", "mnth", "holiday", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed")
    X = np.array([[float(row[name]) for name in names] for row in rows])
    angle = 2 * np.pi * np.array([float(row["hr"]) for row in rows]) / 24
    X, y = np.c_[X, np.cos(angle), np.sin(angle)], np.array([float(row["cnt"]) for row in rows])
    second = np.array([row["yr"] == "1" for row in rows])
    (Xs, ys), (Xt, yt) = (_pick(X[year], y[year], 3000, rng) for year in (~second, second))
    scale = StandardScaler().fit(Xs)
    return scale.transform(Xs), ys, scale.transform(Xt), yt


def _simulated(seed, shift):
    """The parameters of skada-bench, which call conditional shift concept drift."""
    routing = sklearn.get_config()["enable_metadata_routing"]
    from skada.datasets import make_shifted_datasets

    sklearn.set_config(enable_metadata_routing=routing)  # importing skada turns it on
    times, noise = {"subspace": (3, 0.4), "covariate_shift": (1, 0.6)}.get(shift, (1, 0.8))
    X, y, domain = make_shifted_datasets(
        n_samples_source=100 * times,
        n_samples_target=100 * times,
        shift={"concept_drift": "conditional_shift"}.get(shift, shift),
        noise=noise,
        label="binary",
        center_cov_shift=(-0.4, 3),
        random_state=seed,
    )
    return X[domain > 0], y[domain > 0], X[domain < 0], y[domain < 0]


def _moons(seed, degrees):
    rng = np.random.default_rng(seed)

    def moons(n):
        y, t = rng.integers(0, 2, n), rng.uniform(0, np.pi, n)
        X = np.c_[np.cos(t), np.sin(t)]
        X[y == 1] = np.c_[1 - np.cos(t), 0.5 - np.sin(t)][y == 1]
        return X - [0.5, 0.25] + 0.1 * rng.standard_normal((n, 2)), y

    Xs, ys = moons(300)
    Xt, yt = moons(1000)
    a = np.deg2rad(degrees)
    return Xs, ys, Xt @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]), yt


def tasks(data):
    """All tasks by name.

    Parameters
    ----------
    data : Path
        Folder of the files.

    Returns
    -------
    tasks : dict of {str: Task}
    """
    found = {}

    def add(name, recipe, *files, regression=False, package=None, several=False, **settings):
        def make(seed, *arrays):
            return recipe(seed, *arrays, **settings)

        found[name] = Task(make, tuple(Path(data) / file for file in files), regression, package, several)

    for suffix, recipe in (("", _mnist_usps), ("-skada", _mnist_usps_skada)):
        for name, reverse in (("mnist-usps", False), ("usps-mnist", True)):
            add(name + suffix, recipe, "mnist.npz", "usps.npz", reverse=reverse)
    for shift in ("covariate_shift", "target_shift", "concept_drift", "subspace"):
        add(f"sim-{shift}", _simulated, shift=shift, package="skada")
    gas = "gas_drift_batches_1-5.npz"
    for k in (2, 3, 4, 5):
        add(f"gas-1-{k}", _gas, gas, sources=[1], target=k)
    for s, t in (("webcam", "dslr"), ("dslr", "webcam")):
        add(f"decaf-{s[0]}-{t[0]}", _decaf, "office_caltech10_decaf6_webcam_dslr.npz", s=s, t=t)
    for s, t in _ordered_pairs(SURF):
        add(f"surf-{s[0]}-{t[0]}", _surf, "office_caltech10_surf.npz", s=s, t=t)
    add("digits-usps", _digits_usps, "usps.npz")
    for degrees in (30, 50, 70):
        add(f"moons-{degrees}", _moons, degrees=degrees)
    for s, t in _ordered_pairs(("mnist", "usps")):
        add(f"tsl-{s}-{t}", _unit_rows, "tsl_digits.npz", s=s, t=t)
    for k in (3, 4, 5):  # past-2 is 1-2
        add(f"gas-past-{k}", _gas, gas, sources=list(range(1, k)), target=k)
    for s, t in _ordered_pairs(("books", "dvd")):
        add(f"amazon-{s[0]}-{t[0]}", _amazon, "amazon_reviews_books_dvd.npz", s=s, t=t)
    for name, reverse in (("mushrooms", False), ("mushrooms-reverse", True)):
        add(name, _mushrooms, "mushrooms_onehot.npz", reverse=reverse)
    for s, t in _ordered_pairs(HOSPITALS):
        add(f"heart-{s[0]}-{t[0]}", _heart, "heart_disease_4sites.npz", sources=[s], target=t)
    for target in HOSPITALS:
        add(f"heart-all-{target[0]}", _several_hearts, "heart_disease_4sites.npz", several=True, target=target)
    for k in (3, 4, 5):
        add(f"gas-all-{k}", _several_gas, gas, several=True, target=k)
    add("bike-2011-2012", _bike, "bike_sharing_hour.csv", regression=True)
    return found


def _ordered_pairs(names):
    return [(a, b) for a in names for b in names if a != b]
