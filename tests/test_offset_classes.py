"""Classes that are gone or have other shares, in a target that has moved as well."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from rfadapt import AdaptedClassifier
from rfadapt.adaptation.accounts import OffsetClasses
from rfadapt.adaptation.domains import Domains
from rfadapt.adaptation.trials import Trials

CENTERS = np.array([[0.0, 0.0], [6.0, 0.0], [1.0, 9.0]])


def drawn(shares, n, rng, centers=CENTERS):
    """Rows and classes, which have these shares."""
    y = rng.choice(len(shares), size=n, p=shares)
    return centers[y] + rng.normal(size=(n, centers.shape[1])), y


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize(
    ("shares", "offset"),
    [((0.5, 0.5, 0), (3, 2)), ((0, 0.3, 0.7), (-8, 5)), ((0.8, 0.1, 0.1), (4, -4)), ((0, 1, 0), (-1.0, 1.0))],
)
def test_it_finds_the_shares_and_the_offset(shares, offset, scale, seed):
    rng = np.random.default_rng(seed)
    (X0, y0), (X1, y1) = drawn([1 / 3] * 3, 300, rng), drawn(shares, 200, rng)
    far = np.array([1e4, -1e4])
    account = OffsetClasses(0).fit(scale * (X0 + far), y0, scale * (X1 + far + offset))
    assert account.proportions_ == pytest.approx(np.bincount(y1, minlength=3) / 200, abs=0.02)
    assert account.transform(scale * far[None])[0] == pytest.approx(scale * (far + offset), abs=0.4 * scale)
    assert account.inverse_transform(account.transform(X0)) == pytest.approx(X0)
    assert account.is_likely_ and not account.is_ambiguous_
    assert account.weights_.mean() == pytest.approx(1) and account.weigh(X0, y0) == pytest.approx(account.weights_)


@pytest.mark.parametrize(("offset", "is_ambiguous"), [(1.0, False), (2.5, True), (3.0, True), (5.0, False)])
def test_one_class_between_two_may_be_either(offset, is_ambiguous):
    rng = np.random.default_rng(0)
    (X0, y0), (X1, _) = drawn([1 / 3] * 3, 300, rng), drawn([1, 0, 0], 200, rng)
    assert OffsetClasses(0).fit(X0, y0, X1 + [offset, 0.0]).is_ambiguous_ == is_ambiguous


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_all_rows_are_scaled_the_moments_say_it_better(seed):
    rng = np.random.default_rng(seed)
    (X0, y0), (X1, _) = drawn([1 / 3] * 3, 300, rng), drawn([1 / 3] * 3, 200, rng)
    assert not OffsetClasses(0).fit(X0, y0, X1 * [1.8, 0.6] + 1).is_likely_


@pytest.mark.parametrize("estimator", [LogisticRegression(), KNeighborsClassifier()])
@pytest.mark.parametrize("n_target", [200, 400])
@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
def test_two_of_three_classes_are_found_where_they_have_moved(estimator, n_target, direction):
    rng = np.random.default_rng(0)
    (X0, y0), (X1, y1) = drawn([1 / 3] * 3, 300, rng), drawn([0.5, 0, 0.5], n_target, rng)
    X1 = X1 + [4.0, 3.0]
    model = AdaptedClassifier(estimator, direction=direction, random_state=0).fit(X0, y0, X_target=X1)
    assert estimator.fit(X0, y0).score(X1, y1) < 0.7
    assert model.score(X1, y1) > 0.98 and model.chosen_ == "class weights, offset"


@pytest.mark.parametrize("seed", [0, 8, 9, 12, 19])
def test_a_target_of_one_class_that_has_moved_is_not_spread_over_all(seed):
    """The affine map of the moments, and the classes of the target after it, would give two rows of three others."""
    rng = np.random.default_rng(seed)
    centers = 3 * rng.normal(size=(3, 4))
    y0 = rng.integers(3, size=80)
    X0 = centers[y0] + rng.normal(size=(80, 4))
    X1 = centers[0] + rng.normal(size=(100, 4)) + 0.5 * centers.std() * rng.normal(size=4)
    before = KNeighborsClassifier().fit(X0, y0).score(X1, np.zeros(100))
    model = AdaptedClassifier(KNeighborsClassifier(), random_state=0).fit(X0, y0, X_target=X1)
    assert model.score(X1, np.zeros(100)) >= before


def test_known_labels_are_believed_more():
    rng = np.random.default_rng(0)
    (X0, y0), (X1, _) = drawn([1 / 3] * 3, 300, rng), drawn([0, 1, 0], 100, rng)
    X1 = X1 + [-4.0, 0.0]  # nearer to class 0 than to the class that it is
    known = np.where(np.arange(100) < 9, 1, -1)
    guess = AdaptedClassifier(LogisticRegression(), random_state=0).fit(X0, y0, X_target=X1)
    told = AdaptedClassifier(LogisticRegression(), random_state=0).fit(X0, y0, X_target=X1, y_target=known)
    assert guess.score(X1, np.ones(100)) < 0.4 and told.score(X1, np.ones(100)) > 0.8


@pytest.mark.parametrize(("gains", "is_weighed"), [(True, True), (False, False)])
def test_the_offset_is_kept_where_the_estimator_does_not_gain_by_the_weights(monkeypatch, gains, is_weighed):
    rng = np.random.default_rng(0)
    (X0, y0), (X1, y1) = drawn([1 / 3] * 3, 300, rng), drawn([0.8, 0.1, 0.1], 200, rng)
    monkeypatch.setattr(Trials, "gains", lambda self, weighing: gains)
    model = AdaptedClassifier(KNeighborsClassifier(), random_state=0).fit(X0, y0, X_target=X1 + [4.0, 3.0])
    assert (model.transport_.weights_ is not None) == is_weighed
    assert model.score(X1 + [4.0, 3.0], y1) > 0.97


def test_weights_are_tried_where_the_rows_are_moved():
    """Without the move, held-out rows would all be taken for one class, with weights or without."""
    rng = np.random.default_rng(0)
    (X0, y0), (X1, _) = drawn([1 / 3] * 3, 300, rng, CENTERS / 3), drawn([0.9, 0.1, 0], 200, rng, CENTERS / 3)
    domains = Domains(X0, y0, X1 + 50, None, np.zeros(200, dtype=bool), np.zeros(300, dtype=int))
    model = AdaptedClassifier(LogisticRegression())
    trials = Trials(model._trained, model._trained_plainly, domains, "source_to_target")
    assert trials.gains(OffsetClasses(0).fit(X0, y0, X1 + 50))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_features", [1, 3])
@pytest.mark.parametrize("target", [0.0, 5.0])
def test_features_that_do_not_vary_within_classes_are_no_failure(n_features, target):
    y0 = np.repeat([0, 1], 30)
    X0 = np.repeat(y0[:, None] * 1.5, n_features, axis=1)  # no row differs from its class
    account = OffsetClasses(0).fit(X0, y0, np.full((40, n_features), target) + 0.25 * np.arange(40)[:, None])
    assert np.isfinite(account.transform(X0)).all() and np.isfinite(account.weights_).all()


@pytest.mark.filterwarnings("error")
def test_a_category_that_only_the_target_has_is_no_failure():
    rng = np.random.default_rng(0)
    X0, y0 = np.zeros((60, 2)), np.repeat([0, 1], 30)
    X0[:, 1] = y0
    X1 = (rng.random((50, 2)) < 0.5).astype(float)
    account = OffsetClasses(0).fit(X0, y0, X1)
    assert np.isfinite(account.transform(X0)).all() and np.isfinite(account.weights_).all()
