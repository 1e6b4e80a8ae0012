"""A classifier that is trained on one domain and predicts another: both forms of fit, both directions, errors."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from conftest import quick_flow, shifted_classes
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC, NuSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from rfadapt import AdaptedClassifier, AffineTransport, EMDTransport
from rfadapt.adaptation import movement
from rfadapt.adaptation.accounts import Account
from rfadapt.adaptation.adapted import _systematic_sample
from rfadapt.adaptation.evidence import Choice
from rfadapt.model_selection import PredictionEntropyScorer

DIRECTIONS = ["source_to_target", "target_to_source"]


def stacked(X, y, X_target, mask=-1):
    """One table, labels of the target masked, in an order that mixes the domains."""
    order = np.random.default_rng(1).permutation(len(X) + len(X_target))
    labels = np.concatenate([y, np.full(len(X_target), mask)])
    domain = np.repeat([2, -3], [len(X), len(X_target)])
    return np.concatenate([X, X_target])[order], labels[order], domain[order]


class TwoWeights(Account):
    """Rows of class 0 weigh nothing."""

    name = "class 1 only"

    def fit(self, X0, y0, X1):
        self.weights_ = 2.0 * (np.asarray(y0) == 1)
        return self


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "transport", [AffineTransport(), EMDTransport(), quick_flow(max_iter=5)], ids=lambda t: type(t).__name__
)
def test_it_works_on_the_target(transport, direction):
    X, y, X_target, y_target = shifted_classes()
    assert LogisticRegression().fit(X, y).score(X_target, y_target) < 0.6
    model = AdaptedClassifier(LogisticRegression(), transport, direction=direction).fit(X, y, X_target=X_target)
    assert model.score(X_target, y_target) > 0.95
    assert model.chosen_ == type(transport).__name__ and model.evidence_ == [] and model.reason_
    assert model.classes_.tolist() == [0, 1] and model.n_features_in_ == 2
    assert model.predict_proba(X_target).shape == (len(X_target), 2)
    assert model.decision_function(X_target).shape == (len(X_target),)
    np.testing.assert_allclose(model.predict_log_proba(X_target), np.log(model.predict_proba(X_target)))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_is_what_one_would_do_by_hand(direction):
    X, y, X_target, _ = shifted_classes()
    model = AdaptedClassifier(LogisticRegression(), AffineTransport(), direction=direction).fit(X, y, X_target=X_target)
    if direction == "source_to_target":
        moved = AffineTransport().fit(X, X_target).transform(X)
        expected = LogisticRegression().fit(moved, y).decision_function(X_target)
    else:
        moved = AffineTransport().fit(X_target, X).transform(X_target)
        expected = LogisticRegression().fit(X, y).decision_function(moved)
    np.testing.assert_allclose(model.decision_function(X_target), expected)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("mask", [-1, np.nan])
def test_a_stacked_table_is_the_same_as_two_clouds(direction, mask):
    X, y, X_target, y_target = shifted_classes()
    model = AdaptedClassifier(LogisticRegression(), AffineTransport(), direction=direction)
    expected = clone(model).fit(X, y, X_target=X_target).predict_proba(X_target)
    rows, labels, domain = stacked(X, y, X_target, mask)
    model.fit(rows, labels, sample_domain=domain)
    np.testing.assert_allclose(model.predict_proba(X_target), expected, atol=1e-6)
    together = model.predict_proba(rows, sample_domain=domain)
    np.testing.assert_allclose(together[domain < 0], model.predict_proba(rows[domain < 0]))
    # Rows of the source are predicted as what they are: moved with the source, or left.
    assert np.mean(model.predict(rows, sample_domain=domain)[domain > 0] == labels[domain > 0]) > 0.95
    assert model.score(X_target, y_target) > 0.95


def test_domain_zero_is_a_source():
    X, y, X_target, _ = shifted_classes()
    rows, labels, domain = stacked(X, y, X_target)
    model = AdaptedClassifier(LogisticRegression(), AffineTransport())
    expected = clone(model).fit(rows, labels, sample_domain=domain).predict_proba(X_target)
    model.fit(rows, labels, sample_domain=np.where(domain > 0, 0, domain))
    np.testing.assert_array_equal(model.predict_proba(X_target), expected)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_labelled_rows_of_the_target_join_the_training_set(direction):
    X, y, X_target, y_target = shifted_classes()
    # Classes change places in the target: only labels tell.
    y_target = 1 - y_target
    known = np.where(np.arange(len(y_target)) < 100, y_target, -1)
    model = AdaptedClassifier(KNeighborsClassifier(1), AffineTransport(), direction=direction)
    blind = clone(model).fit(X, y, X_target=X_target)
    model.fit(X, y, X_target=X_target, y_target=known)
    assert blind.score(X_target[:100], y_target[:100]) < 0.1
    assert model.score(X_target[:100], y_target[:100]) == 1
    rows, labels = np.concatenate([X, X_target]), np.concatenate([y, known])
    domain = np.repeat([1, -1], [len(X), len(X_target)])
    again = clone(model).fit(rows, labels, sample_domain=domain)
    np.testing.assert_array_equal(again.predict(X_target), model.predict(X_target))


@pytest.mark.parametrize("mask", [None, np.nan, -1])
def test_labels_may_be_strings(mask):
    X, y, X_target, y_target = shifted_classes()
    names = np.array(["cat", "dog"])
    model = AdaptedClassifier(LogisticRegression(), AffineTransport()).fit(X, names[y], X_target=X_target)
    assert model.classes_.tolist() == ["cat", "dog"] and model.score(X_target, names[y_target]) > 0.95
    labels = np.concatenate([names[y].astype(object), np.full(len(X_target), mask, dtype=object)])
    domain = np.repeat([1, -1], [len(X), len(X_target)])
    again = clone(model).fit(np.concatenate([X, X_target]), labels, sample_domain=domain)
    np.testing.assert_array_equal(again.predict(X_target), model.predict(X_target))
    assert again.score(X_target, names[y_target]) > 0.95
    if mask == -1:  # numpy makes strings of all of them
        again.fit(np.concatenate([X, X_target]), np.array(labels.tolist()), sample_domain=domain)
        assert again.classes_.tolist() == ["cat", "dog"]
    if mask is None:  # and pandas makes a series with a mask of its own
        series = pd.Series(labels, dtype="string")
        again.fit(np.concatenate([X, X_target]), series, sample_domain=domain)
        assert again.classes_.tolist() == ["cat", "dog"]


def test_a_trained_classifier_stays_as_it_is():
    X, y, X_target, y_target = shifted_classes()
    trained = LogisticRegression().fit(X, y)
    before = trained.coef_.copy()
    model = AdaptedClassifier(FrozenEstimator(trained), AffineTransport(), direction="target_to_source")
    model.fit(X[:50], y[:50], X_target=X_target)
    assert model.score(X_target, y_target) > 0.9
    np.testing.assert_array_equal(trained.coef_, before)
    with pytest.raises(ValueError, match="moving the source would change nothing.*target_to_source"):
        clone(model).set_params(direction="source_to_target").fit(X, y, X_target=X_target)
    with pytest.raises(ValueError, match=r"not trained on: \[2\]; it knows \[0, 1\]"):
        model.fit(X, y + 1, X_target=X_target)


def test_a_trained_classifier_that_knows_names_gets_them(recwarn):
    X, y, X_target, _ = shifted_classes()
    frame, target = (pd.DataFrame(rows, columns=["a", "b"]) for rows in (X, X_target))
    trained = LogisticRegression().fit(frame, y)
    model = AdaptedClassifier(FrozenEstimator(trained), AffineTransport(), direction="target_to_source")
    model.fit(frame, y, X_target=target).predict(target)
    assert not recwarn.list and model.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="(?s)X_target does not go with X.*feature names should match"):
        model.fit(frame, y, X_target=target[["b", "a"]])


@pytest.mark.parametrize("estimator", [LogisticRegression(), KNeighborsClassifier(),
                                       make_pipeline(StandardScaler(), LogisticRegression())])
def test_weights_of_an_account_reach_the_classifier(estimator):
    X, y, X_target, _ = shifted_classes()
    y = np.where(np.arange(len(y)) % 3 == 0, 2, y)
    for routing in (False, True):
        with sklearn.config_context(enable_metadata_routing=routing):
            model = AdaptedClassifier(estimator, TwoWeights(), random_state=0).fit(X, y, X_target=X_target)
        assert model.chosen_ == "class 1 only"
        assert set(model.predict(X_target)) == {1}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_rows_that_an_account_labels_are_trained_on_unless_their_label_is_known(direction):
    class Guesses(Account):
        def fit(self, X0, y0, X1):
            self.labelled_target_ = X1, np.ones(len(X1), dtype=int)
            self.weights_ = np.full(len(X0), 1e-9)
            return self

        def transform(self, X0):
            return X0 + 100

        def inverse_transform(self, X1):
            return X1 - 100

    X, y, X_target, _ = shifted_classes()
    model = AdaptedClassifier(LogisticRegression(C=1e6), Guesses(), direction=direction)
    assert (model.fit(X, y, X_target=X_target).predict(X_target) == 1).all()
    model.set_params(estimator=KNeighborsClassifier(1), random_state=0)
    known = np.where(np.arange(len(X_target)) < 20, 0, -1)
    model.fit(X, y, X_target=X_target, y_target=known)
    assert (model.predict(X_target[:20]) == 0).all()
    back = 0 if direction == "source_to_target" else 100
    np.testing.assert_allclose(model.move(X_target), X_target - back)


class Remembers(LogisticRegression):
    """Keeps the weights that it was trained with last."""

    def fit(self, X, y, sample_weight=None):
        self.weights_ = sample_weight
        return super().fit(X, y, sample_weight)


def choose(monkeypatch, account, discrepancy, explains):
    """Let "auto" choose an account, whatever the rows show."""
    evidence = [{"name": account.name, "discrepancy": discrepancy, "explains": explains, "taken": True}]
    monkeypatch.setattr(movement, "choose_account", lambda *rows, **others: Choice(account, evidence, "it was told to"))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("discrepancy", "explains", "weight"),
    [(0.06, False, 1.5), (0.4, False, 2.0), (0.02, False, 1.0), (-0.01, False, 1.0), (0.4, True, 1.0)],
)
def test_known_rows_weigh_as_much_as_the_domains_differ(monkeypatch, discrepancy, explains, weight, direction):
    X, y, X_target, y_target = shifted_classes()
    choose(monkeypatch, Account(), discrepancy, explains)
    n_known = len(X) // 100  # a quarter of 0.06 of the source, shared among a hundredth of it, are 1.5 for each
    known = np.where(np.arange(len(X_target)) < n_known, y_target, -1)
    model = AdaptedClassifier(Remembers(), direction=direction).fit(X, y, X_target=X_target, y_target=known)
    weights = model.estimator_.weights_
    if weight == 1:
        assert weights is None
    else:
        np.testing.assert_allclose(weights, np.repeat([1, weight], [len(X), n_known]))
    assert model.fit(X, y, X_target=X_target).estimator_.weights_ is None


def test_known_rows_weigh_like_others_beside_rows_that_are_labelled_without(monkeypatch):
    X, y, X_target, y_target = shifted_classes()
    account = Account()
    account.labelled_target_ = X_target, y_target
    choose(monkeypatch, account, 0.4, False)
    known = np.where(np.arange(len(X_target)) < 4, y_target, -1)
    model = AdaptedClassifier(Remembers()).fit(X, y, X_target=X_target, y_target=known)
    assert model.estimator_.weights_ is None


def test_known_rows_are_drawn_as_often_as_they_weigh_where_weights_are_not_taken(monkeypatch):
    X, y, X_target, y_target = shifted_classes()
    choose(monkeypatch, Account(), 0.4, False)
    n_known = len(X) // 100
    known = np.where(np.arange(len(X_target)) < n_known, y_target, -1)
    model = AdaptedClassifier(KNeighborsClassifier(), random_state=0).fit(X, y, X_target=X_target, y_target=known)
    rows, times = np.unique(model.estimator_._fit_X, axis=0, return_counts=True)
    assert len(rows) == len(X) + n_known
    is_known = (rows[:, None] == X_target[:n_known]).all(axis=2).any(axis=1)
    assert is_known.sum() == n_known and (times[is_known] == 2).all() and (times[~is_known] == 1).all()


def test_known_rows_weigh_like_others_where_the_estimator_cannot_be_trained_with_weights(monkeypatch):
    choose(monkeypatch, Account(), 0.4, False)
    X = np.random.default_rng(0).normal(size=(300, 3))
    y = (np.arange(300) >= 250).astype(int)
    known = np.where(np.arange(300) < 6, y, -1)
    both = np.concatenate([X, X[:6] + 3]), np.concatenate([y, y[:6]])
    classifier = NuSVC(nu=2 * 50 / 309)  # there are 50 rows of the smaller class among 306, or among a weight of 312
    with pytest.raises(ValueError, match="infeasible"):
        classifier.fit(*both, sample_weight=np.repeat([1.0, 2.0], [300, 6]))
    model = AdaptedClassifier(classifier).fit(X, y, X_target=X + 3, y_target=known)
    np.testing.assert_array_equal(model.predict(X), classifier.fit(*both).predict(X))


def test_known_rows_show_an_edge_that_nothing_explains(monkeypatch):
    # Classes have their edge at 0, and in the target, which lies elsewhere, at 0.5.
    rng = np.random.default_rng(0)
    X, X_target = rng.uniform(-1, 1, size=(500, 2)), rng.uniform(-1, 1, size=(300, 2)) + [0, 3]
    y, y_target = (X[:, 0] > 0).astype(int), (X_target[:, 0] > 0.5).astype(int)
    known = np.where(np.arange(300) < 20, y_target, -1)
    scores = []
    for discrepancy in (0.0, 0.8):
        choose(monkeypatch, Account(), discrepancy, False)
        model = AdaptedClassifier(LogisticRegression()).fit(X, y, X_target=X_target, y_target=known)
        scores.append(model.score(X_target[20:], y_target[20:]))
    assert scores[0] < 0.9 < scores[1]


def test_weights_that_do_not_reach_a_frozen_classifier_are_not_lost_in_silence():
    class Halves(Account):
        def fit(self, X0, y0, X1):
            self.weights_ = np.ones(len(X0))
            return self

    X, y, X_target, _ = shifted_classes()
    model = AdaptedClassifier(FrozenEstimator(LogisticRegression().fit(X, y)), Halves(), direction="target_to_source")
    with pytest.warns(UserWarning, match="do not reach a FrozenEstimator"):
        model.fit(X, y, X_target=X_target)


def test_of_a_class_that_weighs_next_to_nothing_a_few_rows_are_drawn():
    X, y = np.arange(200.0)[:, None], np.repeat([0, 1], 100)
    model = AdaptedClassifier(KNeighborsClassifier(), random_state=0)
    drawn = model._train(KNeighborsClassifier(), X, y, np.where(y == 0, 1.999, 0.001))
    assert drawn.n_samples_fit_ in range(200, 207) and set(drawn.predict(X)) == {0, 1}


def test_rows_are_drawn_as_often_as_they_weigh():
    weights = np.array([0.5, 1.0, 0.0, 2.25, 1.0, 1.25])
    counts = [np.bincount(_systematic_sample(weights, np.random.RandomState(k)), minlength=6) for k in range(400)]
    assert (np.abs(counts - weights) < 1).all()
    np.testing.assert_allclose(np.mean(counts, axis=0), weights, atol=0.08)


def test_a_classifier_without_weights_sees_every_class_that_weighs():
    class Rare(Account):
        def fit(self, X0, y0, X1):
            self.weights_ = np.where(y0 == 0, 1e-9, 1.0)
            return self

    X, y, X_target, _ = shifted_classes()
    model = AdaptedClassifier(KNeighborsClassifier(1), Rare(), random_state=0).fit(X, y, X_target=X_target)
    assert model.classes_.tolist() == [0, 1]


def test_auto_says_what_it_chose():
    X, y, X_target, _ = shifted_classes()
    model = AdaptedClassifier(LogisticRegression(), random_state=0).fit(X, y, X_target=X_target)
    assert isinstance(model.chosen_, str) and isinstance(model.evidence_, list) and model.reason_
    assert all("name" in row for row in model.evidence_)
    assert isinstance(model.transport_, Account)


def test_random_state_seeds_the_transport():
    X, y, X_target, _ = shifted_classes()
    model = AdaptedClassifier(LogisticRegression(), quick_flow(max_iter=3, random_state=None), random_state=0)
    first, again = (clone(model).fit(X, y, X_target=X_target).decision_function(X_target) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert model.transport.random_state is None


# --------------------------------------------------------------------------------- inside scikit-learn's tools


@pytest.mark.parametrize("routing", [False, True])
def test_pipelines_and_searches(routing):
    X, y, X_target, y_target = shifted_classes()
    rows, labels, domain = stacked(X, y, X_target)
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    with sklearn.config_context(enable_metadata_routing=routing):
        model = AdaptedClassifier(LogisticRegression(), AffineTransport())
        prefix = "" if routing else "adaptedclassifier__"
        pipeline = make_pipeline(StandardScaler(), model)
        pipeline.fit(rows, labels, **{f"{prefix}sample_domain": domain})
        assert np.mean(pipeline.predict(X_target) == y_target) > 0.95
        search = GridSearchCV(pipeline, {"adaptedclassifier__estimator__C": [1e-4, 1.0]}, cv=folds,
                              scoring=PredictionEntropyScorer(), error_score="raise")
        search.fit(rows, labels, **{f"{prefix}sample_domain": domain})
        assert search.best_params_ == {"adaptedclassifier__estimator__C": 1.0}
        assert np.mean(search.predict(X_target) == y_target) > 0.95
        params = {"sample_domain": domain}
        scores = cross_val_score(model, rows, labels, cv=folds, params=params, scoring=PredictionEntropyScorer())
        assert scores.shape == (3,) and (scores < 0).all()
        # Its own score needs labels, and says so rather than score masked ones.
        with pytest.raises(ValueError, match=r"are masked.*rfadapt\.model_selection"):
            cross_val_score(model, rows, labels, cv=folds, params=params, error_score="raise")


def test_true_labels_of_the_target_are_scored_where_routing_says_which_rows_those_are():
    X, y, X_target, y_target = shifted_classes()
    rows, labels = np.concatenate([X, X_target]), np.concatenate([y, y_target])
    domain = np.repeat([1, -1], [len(X), len(X_target)])
    model = AdaptedClassifier(LogisticRegression(), AffineTransport()).fit(X, y, X_target=X_target)
    assert model.score(rows, labels, sample_domain=domain) == model.score(X_target, y_target)
    weight = np.random.default_rng(0).random(len(rows))
    weighted = model.score(rows, labels, weight, sample_domain=domain)
    assert weighted == model.score(X_target, y_target, weight[domain < 0])


def test_an_array_of_other_rows_is_refused_where_folds_are_cut():
    X, y, X_target, _ = shifted_classes()
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(AdaptedClassifier(LogisticRegression(), AffineTransport()), {})
        with pytest.raises((ValueError, TypeError), match="X_target"):
            search.fit(X, y, X_target=X_target)


def test_methods_are_those_of_the_classifier():
    X, y, X_target, _ = shifted_classes()
    assert not hasattr(AdaptedClassifier(LinearSVC()), "predict_proba")
    assert hasattr(AdaptedClassifier(LogisticRegression()), "predict_proba")
    assert not hasattr(AdaptedClassifier(KNeighborsClassifier()), "decision_function")
    with pytest.raises(NotFittedError):
        AdaptedClassifier(SVC()).predict(X)


def test_parameters_pickles_and_repr():
    X, y, X_target, _ = shifted_classes()
    model = AdaptedClassifier(LogisticRegression(C=3), AffineTransport(), direction="target_to_source")
    assert repr(model) == (
        "AdaptedClassifier(direction='target_to_source',\n                  estimator=LogisticRegression(C=3),\n"
        "                  transport=AffineTransport())"
    )
    assert clone(model).set_params(transport__reg=0.1, estimator__C=1).transport.reg == 0.1
    model.fit(X, y, X_target=X_target)
    kept = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(kept.predict_proba(X_target), model.predict_proba(X_target))


# --------------------------------------------------------------------------------------------------- errors

BAD = {
    "no target": ({}, "needs rows of the target.*X_target=.*sample_domain=.*got neither"),
    "both": ({"X_target": np.ones((5, 2)), "sample_domain": np.ones(200)}, "either as X_target.*got both"),
    "no row of the target": ({"sample_domain": np.ones(200)}, "marks no row of the target.*among 200 rows"),
    "no row of the source": ({"sample_domain": -np.ones(200)}, "marks no row of the source"),
    "short sample_domain": ({"sample_domain": [1, -1]}, r"must have shape \(200,\).*got \(2,\)"),
    "half a domain": ({"sample_domain": np.full(200, 0.5)}, "must be whole numbers"),
    "domains in words": ({"sample_domain": ["source"] * 200}, "must be whole numbers"),
    "empty": ({"X_target": np.empty((0, 2))}, r"X_target has no rows: shape \(0, 2\)"),
    "an empty list": ({"X_target": []}, "X_target has no rows"),
    "width": ({"X_target": np.ones((5, 3))}, r"X_target must have shape \(n_samples, 2\) like X; got \(5, 3\)"),
    "a vector": ({"X_target": np.ones(5)}, "X_target does not go with X.*got 1D array"),
    "NaN": ({"X_target": np.full((5, 2), np.nan)}, "X_target does not go with X.*contains NaN"),
    "labels of nothing": ({"y_target": [0], "sample_domain": np.ones(200)}, "all labels are in y"),
    "unseen": ({"X_target": np.ones((3, 2)), "y_target": [0, -1, 7]}, r"not have: \[7\]; the source has \[0, 1\]"),
    "few labels": ({"X_target": np.ones((3, 2)), "y_target": [0]}, r"y_target must have shape \(3,\).*got \(1,\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_targets(name):
    X, y, *_ = shifted_classes(n=100)
    arguments, message = BAD[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        AdaptedClassifier(LogisticRegression(), AffineTransport()).fit(X, y, **arguments)


def test_auto_needs_rows_to_choose_by():
    X, y, X_target, _ = shifted_classes()
    with pytest.raises(ValueError, match='at least 2 rows of each domain; got n_samples = 1 of the target'):
        AdaptedClassifier(LogisticRegression()).fit(X, y, X_target=X_target[:1])


def test_bad_labels():
    X, y, X_target, _ = shifted_classes()
    model = AdaptedClassifier(LogisticRegression(), AffineTransport())
    with pytest.raises(ValueError, match="at least 2 classes; got 1 class: 1\\."):
        model.fit(X, np.ones(len(X), dtype=int), X_target=X_target)
    with pytest.raises(ValueError, match="y is None"):
        model.fit(X, None, X_target=X_target)
    with pytest.raises(ValueError, match="3 of the labels in y are missing"):
        model.fit(X, np.array([None] * 3 + ["a", "b"] * (len(X) // 2), dtype=object)[: len(X)], X_target=X_target)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        model.fit(X, np.where(y == 1, np.nan, y), X_target=X_target)
    rows, labels, domain = stacked(X, 2 * y - 1, X_target)
    with pytest.raises(ValueError, match="-1 is a class of the source and also the mark"):
        model.fit(rows, labels, sample_domain=domain)
    # Masked otherwise, -1 is a class like any other.
    rows, labels, domain = stacked(X, 2 * y - 1, X_target, np.nan)
    assert model.fit(rows, labels, sample_domain=domain).classes_.tolist() == [-1, 1]
    assert model.score(X_target[:1], [-1]) in (0, 1)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"transport": "affine"}, 'must be "auto" or a transport.*got \'affine\''),
        ({"transport": AffineTransport}, 'must be "auto" or a transport'),
        ({"direction": "sideways"}, "one of source_to_target, target_to_source; got 'sideways'"),
        ({"estimator": StandardScaler()}, "needs a classifier; got StandardScaler"),
    ],
)
def test_bad_parameters(params, message):
    X, y, X_target, _ = shifted_classes()
    model = AdaptedClassifier(LogisticRegression(), AffineTransport()).set_params(**params)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, X_target=X_target)


# -------------------------------------------------------------------------------- scikit-learn's own checks


class OneSampleAdaptedClassifier(AdaptedClassifier):
    """Lets the classifier take part in scikit-learn's checks, which call `fit(X, y)`: X is the target as well."""

    def fit(self, X, y):
        return super().fit(X, y, X_target=X)


@parametrize_with_checks(
    [
        OneSampleAdaptedClassifier(LogisticRegression(), AffineTransport()),
        OneSampleAdaptedClassifier(LogisticRegression(), AffineTransport(), direction="target_to_source"),
    ]
)
def test_sklearn(estimator, check):
    check(estimator)
