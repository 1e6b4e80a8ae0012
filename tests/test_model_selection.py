"""Scores without labels of the target: known answers, scikit-learn's tools, and skada's values."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import sklearn
from conftest import shifted_classes
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from rfadapt import AdaptedClassifier, AffineTransport, DomainAdapter, model_selection
from rfadapt.model_selection import (
    CircularValidationScorer,
    DeepEmbeddedValidationScorer,
    ImportanceWeightedScorer,
    MixValScorer,
    PredictionEntropyScorer,
    SoftNeighbourhoodDensityScorer,
)

SCORERS = {name: getattr(model_selection, name)() for name in model_selection.__all__}
for scorer in SCORERS.values():
    if "random_state" in scorer.get_params():
        scorer.set_params(random_state=0)


class GivenProbabilities(DummyClassifier):
    """Predicts the features as probabilities."""

    def predict_proba(self, X):
        return np.asarray(X)


@pytest.fixture
def table():
    X, y, X_target, y_target = shifted_classes()
    order = np.random.default_rng(0).permutation(len(X) + len(X_target))
    domain = np.repeat([1, -1], [len(X), len(X_target)])[order]
    labels = np.concatenate([y, np.full(len(X_target), -1)])[order]
    return np.concatenate([X, X_target])[order], labels, domain


def adapted(**params):
    return AdaptedClassifier(LogisticRegression(**params), AffineTransport())


# ---------------------------------------------------------------------------------------------- known answers


def test_entropy():
    model = GivenProbabilities().fit([[0, 1]], [0])
    X = np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]])
    expected = (0 + np.log(2) + 0.25 * np.log(4) + 0.75 * np.log(4 / 3)) / 3
    assert PredictionEntropyScorer()(model, X) == pytest.approx(-expected)
    # Only rows of the target count.
    assert PredictionEntropyScorer()(model, X, [0, -1, 1]) == pytest.approx(-np.log(2))
    assert PredictionEntropyScorer()(model, X, sample_domain=[2, -1, 0]) == pytest.approx(-np.log(2))


def test_soft_neighbourhood_density(monkeypatch):
    model = GivenProbabilities().fit([[0, 1]], [0])
    # Two groups of 5 and of 10 that have nothing to do with each other: a row has 4 or 9 neighbours, equally near.
    X = np.repeat([[1.0, 0.0], [0.0, 1.0]], [5, 10], axis=0)
    expected = (5 * np.log(4) + 10 * np.log(9)) / 15
    scorer = SoftNeighbourhoodDensityScorer(temperature=0.01)
    assert scorer(model, X) == pytest.approx(expected)
    monkeypatch.setattr("rfadapt.model_selection.neighbourhood._BLOCK", 4)
    assert scorer(model, X) == pytest.approx(expected)
    spread = np.column_stack([np.linspace(0, 1, 15), np.linspace(1, 0, 15)])
    assert scorer(model, spread) < scorer(model, X)


def test_importance_weights_count_where_the_target_is():
    # The model is right on the left half only, and the target lies there.
    X = np.linspace(-1, 1, 400)[:, None]
    y = (np.arange(400) % 2)
    model = KNeighborsClassifier(1).fit(X, np.where(X[:, 0] < 0, y, 1 - y))
    rows, labels = np.concatenate([X, X[:200] - 0.2]), np.concatenate([y, np.full(200, -1)])
    assert ImportanceWeightedScorer(KernelDensity(bandwidth=0.1))(model, rows, labels) > 0.95
    assert ImportanceWeightedScorer()(model, rows, labels) > 0.8
    assert np.mean(model.predict(X) == y) == 0.5
    flipped = np.concatenate([X, -(X[:200] - 0.2)])
    assert ImportanceWeightedScorer()(model, flipped, labels) < 0.2


def test_importance_weights_of_an_adapted_model_are_those_where_the_domains_meet(table):
    X, y, domain = table
    model = adapted().fit(X, y, sample_domain=domain)
    score = ImportanceWeightedScorer()(model, X, y)
    assert score > 0.95
    # As it would be on rows that were moved by hand.
    moved = model.move(X, sample_domain=domain)
    assert score == pytest.approx(ImportanceWeightedScorer()(model.estimator_, moved, y))
    pipeline = make_pipeline(StandardScaler(), DomainAdapter(AffineTransport()), LogisticRegression())
    pipeline.fit(X[domain > 0], y[domain > 0], domainadapter__X_target=StandardScaler().fit_transform(X[domain < 0]))
    assert 0 <= ImportanceWeightedScorer()(pipeline, X, y) <= 1


def test_importance_weights_of_a_regressor():
    X = np.linspace(-1, 1, 200)[:, None]
    y = np.abs(X[:, 0])
    model = LinearRegression().fit(X[100:], y[100:])
    left, right = (
        ImportanceWeightedScorer()(model, np.concatenate([X, part]), np.concatenate([y, np.full(100, np.nan)]))
        for part in (X[:100], X[100:])
    )
    assert left < right and right > 0


def test_deep_embedded_validation_estimates_the_risk_of_the_target():
    rng = np.random.default_rng(0)
    X, X_target = rng.normal(size=(6000, 1)), rng.normal(size=(3000, 1)) + 1

    def label(rows):
        return (rng.random(len(rows)) < 1 / (1 + np.exp(-2 * rows[:, 0]))).astype(int)

    y, y_target = label(X), label(X_target)
    model = LogisticRegression().fit(X[:, :1] * 0.3, y)
    log_probabilities = model.predict_log_proba(X_target)
    risk = -log_probabilities[np.arange(3000), y_target].mean()
    unweighted = -model.predict_log_proba(X)[np.arange(6000), y].mean()
    rows, labels = np.concatenate([X, X_target]), np.concatenate([y, np.full(3000, -1)])
    estimated = -DeepEmbeddedValidationScorer(random_state=0)(model, rows, labels)
    assert abs(estimated - risk) < 0.3 * abs(unweighted - risk)


def test_a_class_that_the_model_does_not_know_costs_much():
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = np.repeat([0, 1, 2, -1], 15)
    knows_all, knows_two = (LogisticRegression().fit(X[:n], y[:n]) for n in (45, 30))
    scorer = DeepEmbeddedValidationScorer(random_state=0)
    assert scorer(knows_two, X, y) < scorer(knows_all, X, y)


def test_circular_validation(table):
    X, y, domain = table
    scorer = CircularValidationScorer()
    model = adapted().fit(X, y, sample_domain=domain)
    assert scorer(model, X, y) > 0.95 and scorer(model, X, y, sample_domain=domain) > 0.95
    # Where labels have nothing to do with rows, the way back does not find them.
    shuffled = np.where(domain > 0, np.random.default_rng(0).integers(2, size=len(y)), y)
    lost = AdaptedClassifier(KNeighborsClassifier(1), AffineTransport()).fit(X, shuffled, sample_domain=domain)
    assert scorer(lost, X, shuffled) < 0.75
    names = np.where(y == -1, None, np.array(["cat", "dog"])[y])
    assert scorer(clone(model).fit(X, names, sample_domain=domain), X, names) == scorer(model, X, y)


@pytest.mark.parametrize("routing", [False, True])
def test_circular_validation_of_a_pipeline(table, routing):
    X, y, domain = table
    with sklearn.config_context(enable_metadata_routing=routing):
        pipeline = make_pipeline(StandardScaler(), adapted())
        pipeline.fit(X, y, **{"sample_domain" if routing else "adaptedclassifier__sample_domain": domain})
        assert CircularValidationScorer()(pipeline, X, y) > 0.95


def test_circular_validation_with_one_class_predicted():
    X = np.arange(6.0)[:, None]
    y = np.array([0, 1, 2, 2, -1, -1])
    model = DummyClassifier(strategy="constant", constant=2).fit(X[:4], y[:4])
    assert CircularValidationScorer()(model, X, y) == pytest.approx(1 / 3)


def test_mixval_sees_a_boundary_in_a_crowd():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2)) + np.outer(rng.integers(2, size=400), [8, 0])
    apart = LogisticRegression().fit(X, X[:, 0] > 4)
    through = LogisticRegression().fit(X, X[:, 1] > 0)
    score = MixValScorer(random_state=0)
    assert score(apart, X) > score(through, X) + 0.02
    # One class: no pair between two of them, and every mix is of it.
    constant = DummyClassifier(strategy="constant", constant=1).fit(X, np.arange(400) % 2)
    assert score(constant, X) == MixValScorer(pairs="within")(constant, X) == 1
    assert np.isnan(MixValScorer(pairs="between")(constant, X))
    # With mixing=1 nothing is mixed.
    assert MixValScorer(mixing=1)(through, X) == 1


# --------------------------------------------------------------------------------- inside scikit-learn's tools


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("routing", [False, True])
def test_searches_find_what_is_better(table, name, routing):
    X, y, domain = table
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    with sklearn.config_context(enable_metadata_routing=routing):
        search = GridSearchCV(
            adapted(), {"estimator__C": [1e-6, 1.0], "transport__reg": [1e-6]}, scoring=SCORERS[name], cv=folds,
            error_score="raise",
        )
        search.fit(X, y, sample_domain=domain)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        if name in ("PredictionEntropyScorer", "DeepEmbeddedValidationScorer"):  # what the others see, C hardly changes
            assert search.best_params_["estimator__C"] == 1.0
        table_of_scores = cross_validate(
            adapted(), X, y, cv=folds, scoring={"mine": SCORERS[name]}, params={"sample_domain": domain},
            error_score="raise",
        )
        assert np.isfinite(table_of_scores["test_mine"]).all()


@pytest.mark.parametrize("name", SCORERS)
def test_frames_and_order(table, name):
    X, y, domain = table
    model = adapted().fit(X, y, sample_domain=domain)
    named = adapted().fit(pd.DataFrame(X, columns=["a", "b"]), y, sample_domain=domain)
    expected = SCORERS[name](model, X, y)
    assert SCORERS[name](named, pd.DataFrame(X, columns=["a", "b"]), y) == pytest.approx(expected)
    assert SCORERS[name](model, X, y, sample_domain=domain) == expected
    assert repr(SCORERS[name]).startswith(name) and repr(clone(SCORERS[name])) == repr(SCORERS[name])


@pytest.mark.parametrize("name", SCORERS)
def test_no_row_of_the_target(table, name):
    X, y, domain = table
    model = adapted().fit(X, y, sample_domain=domain)
    with pytest.raises(ValueError, match=f"{name} scores rows of the target; got none among 10 rows"):
        SCORERS[name](model, X[y != -1][:10], y[y != -1][:10])


@pytest.mark.parametrize(
    "name", ["CircularValidationScorer", "DeepEmbeddedValidationScorer", "ImportanceWeightedScorer"]
)
def test_no_row_of_the_source(table, name):
    X, y, domain = table
    model = adapted().fit(X, y, sample_domain=domain)
    with pytest.raises(ValueError, match=f"{name} needs labelled rows of the source.*got no y"):
        SCORERS[name](model, X)
    with pytest.raises(ValueError, match=f"{name} needs labelled rows of the source.*got none"):
        SCORERS[name](model, X[y == -1], y[y == -1])


@pytest.mark.parametrize(
    ("scorer", "model", "message"),
    [
        (PredictionEntropyScorer(), LinearSVC(), "needs predict_proba, which LinearSVC does not have"),
        (SoftNeighbourhoodDensityScorer(), LinearSVC(), "needs predict_proba"),
        (DeepEmbeddedValidationScorer(), LinearSVC(), "needs predict_proba"),
        (SoftNeighbourhoodDensityScorer(0), LogisticRegression(), "temperature must be a positive number; got 0"),
        (MixValScorer(0.2), LogisticRegression(), "mixing must be a number between 0.5 and 1; got 0.2"),
        (MixValScorer(pairs="some"), LogisticRegression(), "one of both, within, between; got 'some'"),
        (MixValScorer(), LinearRegression(), "compares classes; got LinearRegression"),
        (MixValScorer(), KMeans(2, n_init=1), "A classifier or regressor is scored; got KMeans"),
    ],
)
def test_what_cannot_be_scored(scorer, model, message):
    X, y, X_target, _ = shifted_classes()
    rows, domain = np.concatenate([X, X_target]), np.repeat([1, -1], [len(X), len(X_target)])
    with pytest.raises(ValueError, match=message):
        scorer(model.fit(X, y), rows, np.concatenate([y, np.zeros(len(X_target))]), domain)


# --------------------------------------------------------------------------------------------- skada's values

SKADA = """
import json, warnings
import numpy as np
import skada, skada.metrics as theirs
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from rfadapt import AdaptedClassifier, AffineTransport, DomainAdapter
from rfadapt.model_selection import *
from sklearn.neighbors import KernelDensity

rng = np.random.default_rng(0)
y = rng.integers(3, size=300)
X = rng.normal(size=(300, 2)) + np.array([[0, 0], [2, 1], [0, 3]])[y]
X_target = X[:180] * [1.3, 0.8] + [1.0, -0.5] + 0.3 * rng.normal(size=(180, 2))
X = StandardScaler().fit_transform(np.concatenate([X, X_target]))
domain = np.repeat([1, -2], [300, 180])
y_true = np.concatenate([y, y[:180]])
y = np.where(domain > 0, y_true, -1)
pairs = {}

plain = LogisticRegression().fit(X[:300], y[:300])
pipe = skada.make_da_pipeline(LogisticRegression().set_score_request(sample_weight=True))
pipe.fit(X, y.copy(), sample_domain=domain)

def compare(name, mine, other, model=pipe, factor=1.0):
    pairs[name] = [mine(plain, X, y, domain), factor * float(other(model, X, y.copy(), sample_domain=domain))]

# Theirs is a mean over rows and classes.
compare("entropy", PredictionEntropyScorer(), theirs.PredictionEntropyScorer(), factor=3)
compare("density", SoftNeighbourhoodDensityScorer(), theirs.SoftNeighborhoodDensity())
compare("importance", ImportanceWeightedScorer(KernelDensity()), theirs.ImportanceWeightedScorer())
def column(y, p):      # theirs multiplies weights of shape (n, 1), and needs losses of that shape
    return -np.log(np.take_along_axis(p, y[:, None], axis=1))
compare("deep embedded", DeepEmbeddedValidationScorer(LogisticRegression(tol=1e-9), random_state=0),
        theirs.DeepEmbeddedValidation(LogisticRegression(tol=1e-9), loss_func=column, random_state=0))
compare("circular", CircularValidationScorer(), theirs.CircularValidation())
steps = StandardScaler(), DomainAdapter(AffineTransport()), LogisticRegression()
adapted = skada.make_da_pipeline(*steps).fit(X, y.copy(), sample_domain=domain)
pairs["circular, of a pipeline of skada"] = [
    CircularValidationScorer()(adapted, X, y, domain),
    float(theirs.CircularValidation()(adapted, X, y.copy(), sample_domain=domain)),
]
for mine, other in {"both": "both", "within": "intra", "between": "inter"}.items():
    compare("mixval " + mine, MixValScorer(pairs=mine, random_state=0),
            theirs.MixValScorer(ice_type=other, random_state=0))

# The adapters as steps of skada's pipelines, with its scorers, in its cross-validation.
from sklearn.model_selection import cross_validate
from skada.model_selection import SourceTargetShuffleSplit
scoring = {"supervised": theirs.SupervisedScorer(), "entropy": theirs.PredictionEntropyScorer(),
           "density": theirs.SoftNeighborhoodDensity(), "circular": theirs.CircularValidation(),
           "mixval": theirs.MixValScorer(random_state=0)}
pipelines = {
    "plain": skada.make_da_pipeline(LogisticRegression()),
    "adapter": skada.make_da_pipeline(StandardScaler(), DomainAdapter(AffineTransport()), LogisticRegression()),
    "backwards": skada.make_da_pipeline(
        StandardScaler(), DomainAdapter(AffineTransport(), direction="target_to_source"), LogisticRegression()
    ),
    "classifier": skada.make_da_pipeline(StandardScaler(), AdaptedClassifier(LogisticRegression(), AffineTransport())),
}
accuracy = {}
for name, pipeline in pipelines.items():
    scores = cross_validate(pipeline, X, y, cv=SourceTargetShuffleSplit(3, random_state=0), scoring=scoring,
                            params={"sample_domain": domain, "target_labels": y_true}, error_score="raise")
    assert all(np.isfinite(scores["test_" + key]).all() for key in scoring), name
    accuracy[name] = float(scores["test_supervised"].mean())
bare = AdaptedClassifier(LogisticRegression(), AffineTransport()).fit(X, y, sample_domain=domain)
accuracy["by hand"] = bare.score(X, y_true, sample_domain=domain)
print(json.dumps({"pairs": pairs, "accuracy": accuracy}))
"""


@pytest.fixture(scope="module")
def skada_values():
    """Computed in a process of its own, as importing skada turns on metadata routing."""
    if find_spec("skada") is None:
        pytest.skip("skada is not installed")
    done = subprocess.run([sys.executable, "-c", SKADA], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_values_are_skadas(skada_values):
    for name, (mine, theirs) in skada_values["pairs"].items():
        assert mine == pytest.approx(theirs, abs=1e-6), name


def test_adapters_in_skadas_pipelines(skada_values):
    accuracy = skada_values["accuracy"]
    for name in ("adapter", "backwards", "classifier"):
        assert accuracy[name] > accuracy["plain"] + 0.05
        assert abs(accuracy[name] - accuracy["by hand"]) < 0.1
