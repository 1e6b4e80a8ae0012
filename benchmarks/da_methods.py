"""The protocols and the methods of domain_adaptation.py: what each of them sees, and one measurement.

A `Problem` is a task, cut as a protocol says, with the estimator that all methods train. A method takes it and returns
something with `predict`. Of the target's labels only those in `known` may be used, but for the ceiling, "target-only".
"""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import sklearn
from sklearn.base import clone, is_regressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC
from sklearn.utils.validation import has_fit_parameter

from rfadapt import AdaptedClassifier, AdaptedRegressor, RectifiedFlowTransport, model_selection
from rfadapt.baselines import BASELINES

PROTOCOLS = ("inductive", "transductive", "labelled", "regression", "several")
SCORERS = model_selection.__all__
SETTINGS = ("auto", "identity", "coral", "affine", "emd", "sinkhorn", "class-sinkhorn", "flow")
_TEST_SHARE = 0.3
_PICKED_ON = 1000


@dataclass(frozen=True)
class Problem:
    """What a method is given, and what it is scored on.

    Attributes
    ----------
    Xs, ys : ndarray
        The source.
    X_target, y_target : ndarray
        The target's rows to adapt to, and their labels.
    known : ndarray of bool
        Which of these labels are given to the method.
    X_test, y_test : ndarray
        The target's rows to score.
    seed : int
    estimator : estimator
        Not fitted.
    source : ndarray of int, optional
        Which of several sources a row of `Xs` is from.
    """

    Xs: np.ndarray
    ys: np.ndarray
    X_target: np.ndarray
    y_target: np.ndarray
    known: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    seed: int
    estimator: object = None
    source: np.ndarray | None = None

    @property
    def regression(self):
        return is_regressor(self.estimator)

    def with_known(self, X, y):
        """Source rows, and behind them the target's rows whose labels are known."""
        return np.concatenate([X, self.X_target[self.known]]), np.concatenate([y, self.y_target[self.known]])

    def stacked(self, masked=-1, target=-1):
        """Both domains as one table: rows, labels, of which the target's are masked, and numbers of the domains."""
        n = len(self.X_target)
        source = np.full(len(self.Xs), 1) if self.source is None else self.source
        X, y = np.concatenate([self.Xs, self.X_target]), np.concatenate([self.ys, np.full(n, masked)])
        return X, y, np.concatenate([source, np.full(n, target)])


def applies(protocol, name, task):
    """Whether a protocol is for a task; the published figures with 1-NN are for two groups of them."""
    if task.several or protocol == "several":
        return task.several and protocol == "several"
    if protocol == "transductive":
        return name.startswith(("surf-", "tsl-"))
    return task.regression == (protocol == "regression")


def pose(task, seed, protocol, labelled):
    """Cut a task for a protocol, and pick the estimator.

    `np.random.default_rng(seed)` permutes the target's rows: the first 30 percent, rounded up, are scored, the others
    adapted to. The same generator then draws the labelled rows, class by class, and last the source's rows that
    the estimator is picked on.
    """
    Xs, ys, Xt, yt, source = task.build(seed)
    if protocol == "transductive":
        return Problem(Xs, ys, Xt, yt, np.zeros(len(Xt), bool), Xt, yt, seed, KNeighborsClassifier(1))
    rng = np.random.default_rng(seed)
    test, rest = np.split(rng.permutation(len(Xt)), [int(np.ceil(_TEST_SHARE * len(Xt)))])
    known = np.zeros(len(rest), bool)
    if protocol == "labelled":
        for label in np.unique(ys):  # a class that the source has not cannot be learned
            rows = np.flatnonzero(yt[rest] == label)
            known[rng.choice(rows, min(labelled, len(rows)), replace=False)] = True
    problem = Problem(Xs, ys, Xt[rest], yt[rest], known, Xt[test], yt[test], seed, source=source)
    rows = rng.choice(len(Xs), min(_PICKED_ON, len(Xs)), replace=False)
    return replace(problem, estimator=pick(Xs[rows], ys[rows], task.regression, seed))


def pick(X, y, regression, seed):
    """The best of three estimators by 5-fold cross-validation; the first one of equals."""
    # Features are in units of a typical distance between rows, where C=1 would allow next to no slope.
    candidates = [LogisticRegression(C=100.0, max_iter=1000), KNeighborsClassifier(1), SVC()]
    if regression:
        candidates = [Ridge(), KNeighborsRegressor(5), HistGradientBoostingRegressor(random_state=seed)]
    scores = [cross_val_score(candidate, X, y, cv=5).mean() for candidate in candidates]
    return candidates[int(np.argmax(scores))]


def source_only(problem):
    return clone(problem.estimator).fit(*problem.with_known(problem.Xs, problem.ys))


def target_only(problem):
    return clone(problem.estimator).fit(problem.X_target, problem.y_target)


def adapted(problem, transport="auto"):
    """This library's estimator around a transport."""
    kind = AdaptedRegressor if problem.regression else AdaptedClassifier
    model = kind(problem.estimator, own_transport(transport, problem.seed), random_state=problem.seed)
    masked = None
    if problem.known.any():
        masked = np.where(problem.known, problem.y_target, -1)
    return model.fit(problem.Xs, problem.ys, X_target=problem.X_target, y_target=masked)


def adapted_several(problem):
    """The same, told which source each row is from."""
    X, y, domain = problem.stacked()
    return AdaptedClassifier(problem.estimator, random_state=problem.seed).fit(X, y, sample_domain=domain)


def own_transport(name, seed):
    if name == "flow":
        return RectifiedFlowTransport(scaling="common", random_state=seed)
    return name if name == "auto" else BASELINES[name]()


def pot_linear(problem):
    """POT's own affine map, its ridge a thousandth of the unit of the features."""
    import ot

    Xs, Xt = (X.astype(np.float64) for X in (problem.Xs, problem.X_target))
    moved = ot.da.LinearTransport(reg=1e-3).fit(Xs=Xs, Xt=Xt).transform(Xs=Xs)
    return clone(problem.estimator).fit(*problem.with_known(moved.astype(np.float32), problem.ys))


def load_skada():
    """Import skada, if it is there, and undo the routing of metadata that it turns on for the whole process."""
    if importlib.util.find_spec("skada") is None:
        return None
    routing = sklearn.get_config()["enable_metadata_routing"]
    import skada

    sklearn.set_config(enable_metadata_routing=routing)
    return skada


def of_skada(problem, kind):
    """One of skada's pipelines, with its defaults.

    Weights reach an estimator that takes them. 1-NN takes none, and then the score is that of no adaptation.
    """
    build = getattr(load_skada(), kind)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = clone(problem.estimator)
        if has_fit_parameter(estimator, "sample_weight"):
            estimator.set_fit_request(sample_weight=True)
        as_one = replace(problem, source=None)  # several sources too
        X, y, domain = as_one.stacked(np.nan if problem.regression else -1, target=-2)
        model = build(base_estimator=estimator).fit(X, y, sample_domain=domain)
        return Fixed(model.predict(problem.X_test, sample_domain=np.full(len(problem.X_test), -2)))


@dataclass(frozen=True)
class Fixed:
    """Predictions that were made where skada's routing was on."""

    predicted: np.ndarray

    def predict(self, X):
        return self.predicted


@dataclass(frozen=True)
class Method:
    """What fits, for which problems, and the name that skada has for it.

    Attributes
    ----------
    fit : callable
        From a Problem to something with `predict`.
    needs_classes : bool
        Whether it is for classification only.
    skada : str, optional
    """

    fit: Callable
    needs_classes: bool = False
    skada: str | None = None

    def applies(self, protocol):
        if self.skada is not None and protocol == "labelled":
            return False  # its pipelines mask all labels of the target
        if self.fit is target_only and protocol == "transductive":
            return False  # would be scored on the rows it has learned
        if self.fit is adapted_several and protocol != "several":
            return False
        return not (self.needs_classes and protocol == "regression")

    def missing(self):
        """Why it cannot run, or None."""
        if self.skada is None:
            return None
        library = load_skada()
        if library is None:
            return "needs skada"
        return None if hasattr(library, self.skada) else f"not in skada {library.__version__}"


_SKADA = {
    "coral": ("CORAL", False),
    "sa": ("SubspaceAlignment", False),
    "tca": ("TransferComponentAnalysis", False),
    "tjm": ("TransferJointMatching", False),
    "tsl": ("TransferSubspaceLearning", True),
    "ot-labelprop": ("OTLabelProp", True),
    "jcpot": ("JCPOTLabelProp", True),
    "mmd-tars": ("MMDTarSReweight", True),
    "mmd-lscons": ("MMDLSConSMapping", True),
    "gauss-rw": ("GaussianReweight", False),
    "discrim-rw": ("DiscriminatorReweight", False),
    "density-rw": ("DensityReweight", False),
    "kliep": ("KLIEPReweight", False),
    "kmm": ("KMMReweight", False),
    "nn-rw": ("NearestNeighborReweight", False),
}
METHODS = {"source-only": Method(source_only), "rfadapt": Method(adapted)}
METHODS["rfadapt-several"] = Method(adapted_several)
METHODS["rfadapt-flow"] = Method(partial(adapted, transport="flow"))
METHODS |= {
    name: Method(partial(adapted, transport=name), name == "class-sinkhorn") for name in BASELINES if name != "identity"
}
METHODS["pot-linear"] = Method(pot_linear)
METHODS |= {
    f"skada-{name}": Method(partial(of_skada, kind=kind), needs_classes, kind)
    for name, (kind, needs_classes) in _SKADA.items()
}
METHODS["target-only"] = Method(target_only)


def measure(problem, name):
    """One method on one problem; rows of one dict with its score."""
    start = time.perf_counter()
    model = METHODS[name].fit(problem)
    predicted = model.predict(problem.X_test)
    row = {"seconds": time.perf_counter() - start}
    row["score"] = float((r2_score if problem.regression else accuracy_score)(problem.y_test, predicted))
    if name == "rfadapt":
        row |= {"chosen": model.chosen_, "reason": model.reason_}
    return [row]


def measure_scorers(problem, setting):
    """What every scorer says of one setting, as a search with one fold would: rows of dicts.

    The model is fitted to two thirds of the rows of both domains, and the scorers see the others. The accuracy, the
    first row, is of the target's test rows, which neither has seen.
    """
    X, y, domain = problem.stacked()
    counts = np.bincount(y + 1)
    group = np.where(counts[y + 1] < 3, 0, y + 1)  # too few to be in both parts
    parts = train_test_split(X, y, domain, test_size=1 / 3, stratify=group, random_state=problem.seed)
    X, X_out, y, y_out, domain, domain_out = parts
    start = time.perf_counter()
    model = AdaptedClassifier(
        LogisticRegression(max_iter=1000), own_transport(setting, problem.seed), random_state=problem.seed
    )
    model.fit(X, y, sample_domain=domain)
    rows = [{"score": model.score(problem.X_test, problem.y_test), "seconds": time.perf_counter() - start}]
    rows[0] |= {"chosen": model.chosen_, "reason": model.reason_}
    for name in SCORERS:
        scorer, start = getattr(model_selection, name)(), time.perf_counter()
        if "random_state" in scorer.get_params():
            scorer.set_params(random_state=problem.seed)
        row = {"scorer": name}
        try:
            row["score"] = scorer(model, X_out, y_out, domain_out)
        except Exception as error:
            row["reason"] = f"{type(error).__name__}: {error}"
        rows.append(row | {"seconds": time.perf_counter() - start})
    return rows
