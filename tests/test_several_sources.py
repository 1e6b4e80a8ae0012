"""Several source domains: each has a map of its own, and weighs as it reaches the target."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from rfadapt import AdaptedClassifier, AffineTransport, DomainAdapter, IdentityTransport
from rfadapt.adaptation.class_aware import ClassAware
from rfadapt.model_selection import ImportanceWeightedScorer

CORNERS = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -3.0]])
# Class 0 of source 3 is where class 1 of source 0 is.
OFFSETS = {0: [0.0, 0.0], 3: [-3.0, 1.7], -1: [5.0, 5.0]}


def clumps(rng, n, offset):
    y = rng.integers(3, size=n)
    return CORNERS[y] + offset + 0.2 * rng.normal(size=(n, 2)), y


@pytest.fixture(scope="module")
def table():
    """Rows, masked labels and domains of two sources and a target, which are offset in different directions."""
    rng = np.random.default_rng(0)
    parts = [clumps(rng, 150, offset) for offset in OFFSETS.values()]
    domain = np.repeat(list(OFFSETS), 150)
    order = rng.permutation(len(domain))
    X, y = (np.concatenate(part)[order] for part in zip(*parts))
    return X, np.where(domain[order] < 0, -1, y), domain[order], y


def is_where_the_target_is(model, X, domain, number):
    rows = domain == number
    moved = model.move(X[rows], sample_domain=domain[rows])
    return np.allclose(moved.mean(axis=0), X[domain < 0].mean(axis=0), atol=0.1)


@pytest.mark.parametrize("transport", ["auto", AffineTransport()], ids=str)
def test_each_source_is_moved_by_itself(table, transport):
    X, y, domain, truth = table
    model = AdaptedClassifier(LogisticRegression(), transport, random_state=0).fit(X, y, sample_domain=domain)
    assert set(model.transport_) == {0, 3}
    assert all(is_where_the_target_is(model, X, domain, number) for number in (0, 3))
    assert model.score(X, truth, sample_domain=domain) > 0.99


def test_labels_that_each_source_gives_the_target_are_found_together(table):
    X, y, domain, truth = table
    near = X - 0.9 * np.array([OFFSETS[d] for d in domain])
    model = AdaptedClassifier(LogisticRegression(), ClassAware(random_state=0)).fit(near, y, sample_domain=domain)
    assert model.chosen_ == "class-aware"
    assert model.score(near, truth, sample_domain=domain) > 0.99


def test_the_evidence_is_of_each_source(table):
    X, y, domain, _ = table
    model = AdaptedClassifier(LogisticRegression(), random_state=0).fit(X, y, sample_domain=domain)
    assert model.chosen_ == "affine (source 0), affine (source 3)"
    taken = [entry["name"] for entry in model.evidence_ if entry["taken"]]
    assert taken == ["affine (source 0)", "affine (source 3)"]


def test_a_source_that_does_not_reach_the_target_weighs_less(table):
    X, y, domain, _ = table
    X = np.where((domain == 3)[:, None], X, X - [OFFSETS[d] for d in domain])  # source 0 is where the target is
    model = AdaptedClassifier(LogisticRegression(), IdentityTransport()).fit(X, y, sample_domain=domain)
    weights = model._movement.weights
    sources = domain[domain >= 0]
    assert weights.mean() == pytest.approx(1)
    assert weights[sources == 0].min() > 5 * weights[sources == 3].max()


def test_known_labels_of_the_target_take_part(table):
    X, y, domain, truth = table
    known = np.flatnonzero(domain < 0)[:12]
    labels = y.copy()
    labels[known] = truth[known]
    model = AdaptedClassifier(LogisticRegression(), random_state=0).fit(X, labels, sample_domain=domain)
    assert model.score(X, truth, sample_domain=domain) > 0.99


def test_the_other_direction_takes_the_sources_as_one(table):
    X, y, domain, _ = table
    model = AdaptedClassifier(LogisticRegression(), AffineTransport(), direction="target_to_source")
    expected = model.fit(X, y, sample_domain=np.sign(domain + 0.5).astype(int)).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, y, sample_domain=domain).predict_proba(X), expected)


def test_a_transformer_moves_each_source_too(table):
    X, _, domain, _ = table
    moved = DomainAdapter(AffineTransport()).fit_transform(X, sample_domain=domain)
    means = [moved[domain == number].mean(axis=0) for number in OFFSETS]
    assert np.allclose(means, means[-1], atol=0.1)


def test_a_scorer_moves_each_source_too(table):
    X, y, domain, _ = table
    model = AdaptedClassifier(LogisticRegression(), random_state=0).fit(X, y, sample_domain=domain)
    assert ImportanceWeightedScorer()(model, X, y, sample_domain=domain) > 0.99


def test_a_source_that_was_not_there_is_refused(table):
    X, y, domain, _ = table
    model = AdaptedClassifier(LogisticRegression(), AffineTransport()).fit(X, y, sample_domain=domain)
    with pytest.raises(ValueError, match=r"sources that fit has not seen: \[7\]; it saw \[0, 3\]"):
        model.move(X[:2], sample_domain=[7, -1])
