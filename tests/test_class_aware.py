"""Which account of a shift is chosen, and how the target's own classes and known labels refine it."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from rfadapt import AdaptedClassifier
from rfadapt.adaptation import evidence
from rfadapt.adaptation.accounts import Account, ImportanceWeights, OffsetClasses
from rfadapt.adaptation.class_aware import ClassAware
from rfadapt.adaptation.evidence import choose_account
from rfadapt.adaptation.known_labels import _surely_better
from rfadapt.adaptation.separation import _score, best_separated


def ring(n, centers, rng, spread=0.4):
    """Rows around the centres, one class each, in equal numbers."""
    y = np.arange(n) % len(centers)
    return np.asarray(centers)[y] + spread * rng.normal(size=(n, len(centers[0]))), y


@pytest.fixture
def swapped(rng):
    """Two classes that have changed places: nothing but labels shows it."""
    X0, y0 = ring(200, [[-2.0, 0.0], [2.0, 0.0]], rng)
    X1, y1 = ring(200, [[2.0, 0.0], [-2.0, 0.0]], rng)
    return X0, y0, X1, y1


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def three_of_each(y1):
    known = np.full(len(y1), -1)
    for label in np.unique(y1):
        known[np.flatnonzero(y1 == label)[:3]] = label
    return known


@pytest.mark.parametrize("n_features", [2, 40], ids=["as they are", "two views"])
def test_classes_follow_the_clusters_of_the_target(n_features, rng):
    centers = np.zeros((4, n_features))
    centers[:, :2] = 3.0 * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    X0, y0 = ring(240, centers, rng)
    # Every class moves its own way, by less than the classes are apart, and spreads.
    moved = centers + 1.4 * rng.normal(size=centers.shape) / np.sqrt(n_features / 2)
    X1, y1 = ring(200, moved, rng, spread=0.8)
    account = ClassAware(random_state=0).fit(X0, y0, X1)
    rows, labels = account.labelled_target_
    assert rows is X1
    assert (labels == y1).mean() > 0.95
    assert account.source_accuracy_ > 0.97 and 0 < account.margin_ <= 1.2


@pytest.mark.parametrize("spread", [0.6, 0.9])
def test_other_class_proportions_are_not_taken_for_other_classes(spread):
    # Bayes' classifier of these is right in 99.9 and 98.7 %; three quarters of the source are of class 1.
    rng = np.random.default_rng(0)

    def domain(share, offset):
        y = (rng.random(300) < share).astype(int)
        return spread * rng.normal(size=(300, 12)) + np.outer(4 * y - 2, np.eye(12)[0]) + offset, y

    X0, y0 = domain(0.75, 0.0)
    X1, y1 = domain(0.2, 1.5 * np.eye(12)[1])
    labels = ClassAware(random_state=0).fit(X0, y0, X1).labelled_target_[1]
    assert (labels == y1).mean() > 0.96


def test_known_labels_turn_the_clusters_that_they_are_in(swapped):
    X0, y0, X1, y1 = swapped
    without = ClassAware.refining(Account(), X0, y0, X1, 0)
    assert (without.labelled_target_[1] == y1).mean() < 0.1
    known1 = np.zeros(len(X1), bool)
    known1[:40] = True
    labels = ClassAware.refining(Account(), X0, y0, X1, 0, y1, known1).labelled_target_[1]
    np.testing.assert_array_equal(labels[known1], y1[known1])
    assert (labels == y1).mean() > 0.95


def test_labels_of_the_target_are_seen_where_they_are_known_only(swapped):
    X0, y0, X1, y1 = swapped
    known1 = np.arange(len(X1)) < 10
    masked = np.where(known1, y1, -1)
    one, other = (ClassAware.refining(Account(), X0, y0, X1, 0, y, known1) for y in (y1, masked))
    np.testing.assert_array_equal(one.labelled_target_[1], other.labelled_target_[1])


def test_known_labels_choose_the_account(rng):
    # Class 1 has stayed and class 0 has gone beyond it, which nothing but labels shows.
    X0, y0 = ring(240, [[0.0, 0.0], [4.0, 0.0]], rng)
    X1, y1 = ring(240, [[8.0, 0.0], [4.0, 0.0]], rng)
    model = AdaptedClassifier(KNeighborsClassifier(), random_state=0)
    assert model.fit(X0, y0, X_target=X1).score(X1, y1) < 0.6
    model.fit(X0, y0, X_target=X1, y_target=three_of_each(y1))
    assert "known classes" in model.reason_
    X_test, y_test = ring(200, [[8.0, 0.0], [4.0, 0.0]], rng)
    assert model.score(X_test, y_test) > 0.97


@pytest.mark.parametrize(
    ("gained", "lost", "is_taken"), [(3, 0, False), (4, 0, True), (6, 1, True), (5, 1, False), (0, 4, False)]
)
def test_known_labels_choose_nothing_by_luck(gained, lost, is_taken):
    by_default, by_another = np.zeros(20, bool), np.zeros(20, bool)
    by_another[:gained] = by_default[gained : gained + lost] = True
    assert _surely_better([by_default, by_default, by_another], 1) == (2 if is_taken else None)


def test_labels_that_agree_with_the_choice_do_not_change_it(rng):
    X0, y0 = ring(240, [[-2.0, 0.0], [2.0, 0.0]], rng)
    X1, y1 = ring(200, [[4.0, 3.0], [8.0, 3.0]], rng)
    plain = AdaptedClassifier(LogisticRegression(), random_state=0).fit(X0, y0, X_target=X1)
    model = AdaptedClassifier(LogisticRegression(), random_state=0)
    model.fit(X0, y0, X_target=X1, y_target=three_of_each(y1))
    assert (model.chosen_, model.reason_) == (plain.chosen_, plain.reason_)


def test_rows_are_refined_where_domains_cannot_be_told_apart(rng):
    # One sample cut in two, whose classes overlap too much to be separated surely.
    X, y = ring(600, [[-1.0, 0.0], [1.0, 0.0]], rng, spread=1.3)
    choice = choose_account(X[:300], y[:300], X[300:], random_state=0)
    assert [row["name"] for row in choice.evidence] == ["nothing"]
    assert choice.evidence[0]["seconds"] > 0  # of the refinement: to do nothing takes none
    assert isinstance(choice.account, ClassAware) and choice.account.weights_ is None
    assert (choice.account.labelled_target_[1] == y[300:]).mean() > 0.7


def test_weights_that_leave_a_handful_of_rows_explain_nothing(rng):
    X0, X1 = rng.gamma(2.0, size=(300, 2)), rng.gamma(2.0, size=(300, 2)) + 4
    share = ImportanceWeights(0).fit(X0, None, X1).effective_sample_size_
    assert share < 0.05
    weighed = {row["name"]: row for row in choose_account(X0, None, X1, random_state=0).evidence}
    assert not weighed["importance weights"]["explains"]
    assert weighed["importance weights"]["effective_sample_size"] == pytest.approx(share, rel=0.5)


def test_a_class_that_weighs_nothing_does_not_confuse_libsvm(rng):
    class Gone(Account):
        def fit(self, X0, y0, X1):
            self.weights_ = np.where(y0 == 0, 0.0, 4 / 3)
            return self

    X0, y0 = ring(400, 3.0 * np.eye(4), rng)
    X1, y1 = ring(400, 3.0 * np.eye(4), rng)
    there = y1 > 0
    model = AdaptedClassifier(SVC(), Gone()).fit(X0, y0, X_target=X1[there])
    assert model.score(X1[there], y1[there]) > 0.95


class Heavy(Account):
    """Rows of class 1 weigh most."""

    def fit(self, X0, y0, X1):
        weights = np.where(y0 == 1, 4.0, 1.0)
        self.weights_ = weights / weights.mean()
        return self


@pytest.fixture
def overlapping(rng):
    """Two classes that overlap, four fifths of the one in the source and a third in the target."""
    y0, y1 = (rng.random(200) < 0.8).astype(int), (rng.random(250) < 0.35).astype(int)
    X0, X1 = (rng.normal(size=(len(y), 12)) + np.outer(2 * y - 1, np.eye(12)[0]) for y in (y0, y1))
    return X0, y0, X1, y1


def test_a_rare_class_is_not_lost(overlapping):
    X0, y0, X1, y1 = overlapping
    account = ClassAware(random_state=0).fit(X0, y0, X1)
    assert not account.has_collapsed_
    assert (account.labelled_target_[1] == y1).mean() > 0.6


def test_a_refinement_that_loses_a_class_does_not_count(overlapping):
    # Weights make a rare class rarer: what is seen of it in the target goes over to the other, round by round.
    X0, y0, X1, _ = overlapping
    refined = ClassAware(Heavy(), random_state=0).fit(X0, y0, X1)
    assert refined.has_collapsed_ and (refined.labelled_target_[1] == 1).mean() > 0.9
    entries = [dict(name="heavy", score=_score(refined)), dict(name="light", score=0.1, refined=refined)]
    assert entries[0]["score"] is None
    assert best_separated(entries)[0] is entries[1]
    assert best_separated(entries[:1])[:2] == (entries[0], False)


@pytest.mark.parametrize("margin, is_refined", [(0.2, False), (0.35, True)], ids=["halved", "kept"])
def test_a_refinement_that_blurs_the_classes_is_not_taken(margin, is_refined):
    refined = SimpleNamespace(plain_margin_=0.45, margin_=margin)
    entry = dict(name="nothing", score=0.3, discrepancy=0.1, refined=refined)
    chosen, taken, reason = best_separated([entry])
    assert chosen is entry and taken == is_refined
    assert ("blurs" in reason) != is_refined


@pytest.mark.parametrize(
    ("scores", "expected"),
    [((0.3, 0.28, 0.3), "affine"), ((0.3, 0.27, 0.3), "flow"), ((0.3, None, 0.31), "flow")]
    + [((0.3, 0.2, 0.2), "nothing")],
)
def test_where_classes_blur_the_shift_decides_unless_they_are_less_clear_without_it(scores, expected):
    refined = SimpleNamespace(plain_margin_=0.45, margin_=0.2)
    entries = [
        dict(name=name, score=score, discrepancy=0.1, refined=refined)
        for name, score in zip(("nothing", "affine", "flow"), scores)
    ]
    taken, is_refined, _ = best_separated(entries)
    assert (taken["name"], is_refined) == (expected, False)


def test_a_target_of_one_class_is_not_spread_over_all_where_that_blurs_them(monkeypatch):
    # The account of moved classes with other proportions would be ahead of how the classes separate.
    monkeypatch.setattr(OffsetClasses, "is_likely_", property(lambda self: False, lambda self, value: None))
    rng = np.random.default_rng(4)
    centers = 3 * rng.normal(size=(3, 4))

    def drawn(y):
        return centers[y] + rng.normal(size=(len(y), 4))

    y0 = rng.integers(3, size=80)
    X0, X1 = drawn(y0), drawn(np.zeros(100, dtype=int)) + 0.5 * centers.std() * rng.normal(size=4)
    before = KNeighborsClassifier().fit(X0, y0).score(X1, np.zeros(100))
    model = AdaptedClassifier(KNeighborsClassifier(), random_state=0).fit(X0, y0, X_target=X1)
    assert "blurs" in model.reason_ and model.score(X1, np.zeros(100)) > before - 0.1


@pytest.mark.parametrize(
    ("left", "score", "expected"),
    [(-0.01, 0.54, "nothing"), (0.0, 0.54, "nothing"), (0.0, 0.56, "affine")]
    + [(0.4, 0.51, "nothing"), (0.4, 0.53, "affine"), (0.9, 0.51, "affine")],
)
def test_the_less_a_simple_account_explains_the_less_is_its_simplicity_worth(left, score, expected):
    refined = SimpleNamespace(plain_margin_=0.5, margin_=0.5)
    entries = [dict(name="nothing", score=0.5, discrepancy=left, refined=refined),
               dict(name="affine", score=score, discrepancy=0.0, refined=refined)]  # fmt: skip
    assert best_separated(entries)[0]["name"] == expected


def test_a_refinement_that_keeps_the_classes_has_not_collapsed(rng):
    X0, y0 = ring(200, [[-2.0, 0.0], [2.0, 0.0]], rng)
    X1, _ = ring(200, [[-2.0, 1.0], [2.0, 1.0]], rng)
    assert not ClassAware(random_state=0).fit(X0, y0, X1).has_collapsed_


def test_a_mirror_image_is_the_last_resort(rng):
    corners = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -3.0]])

    def clumps(n):
        y = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
        return 0.2 * rng.normal(size=(n, 2)) + corners[y], y

    def weighed(X1):
        choice = choose_account(*clumps(800), X1, random_state=0)
        return choice.account.name, [row["name"] for row in choice.evidence]

    chosen, names = weighed(clumps(800)[0] * [1, -1])
    assert chosen == names[-1] == "mirrored affine"
    chosen, names = weighed(clumps(800)[0] + 1)
    assert chosen == "affine" and "mirrored affine" not in names


@pytest.mark.parametrize(("n_target", "expected"), [(301, "mirrored affine"), (300, "nothing")])
def test_without_classes_few_rows_do_not_show_a_mirror_image(n_target, expected, rng):
    corners = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -3.0]])
    X = 0.2 * rng.normal(size=(1400, 2)) + corners[rng.choice(3, size=1400, p=[0.5, 0.3, 0.2])]
    choice = choose_account(X[:800], None, (X[800:] * [1, -1])[:n_target], random_state=0)
    assert choice.account.name == expected


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_units_of_the_features_do_not_decide(name):
    """Proline has a spread of 300 and ash one of 0.3: by distances as they are, nothing else would be seen."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    rng, spread = np.random.default_rng(0), X.std(axis=0)
    X1 = X[1::2] * np.exp(rng.normal(scale=0.4, size=len(spread))) + rng.normal(scale=0.5, size=len(spread)) * spread
    pooled = np.sqrt((X[::2].var(axis=0) + X1.var(axis=0)) / 2)
    mixed = choose_account(X[::2], y[::2], X1, random_state=0)
    plain = choose_account(X[::2] / pooled, y[::2], X1 / pooled, random_state=0)
    assert plain.account.name == mixed.account.name == "affine"
    for one, other in zip(plain.evidence, mixed.evidence, strict=True):
        assert one["discrepancy"] == pytest.approx(other["discrepancy"], abs=0.02)


def test_the_flow_does_not_look_at_units_either(monkeypatch, rng):
    scalings = []
    monkeypatch.setattr(evidence, "default_candidates", lambda seed, scaling: scalings.append(scaling) or [])
    for units in ([1.0, 1.0], [1.0, 1000.0]):
        X0, X1 = rng.normal(size=(2, 50, 2)) * units
        choose_account(X0, None, X1, random_state=0)
    assert scalings == ["common", "feature"]


@pytest.mark.parametrize("offset", [[2, 2], [5, -1], [5, 5], [20, 20]], ids=str)
def test_scores_that_shoot_over_far_away_are_no_sign_of_being_sure(offset, rng):
    corners = np.array([[2.0, 0.0], [-1.0, 1.7], [-1.0, -3.0]])
    y = rng.choice(3, size=600)
    X = 0.2 * rng.normal(size=(600, 2)) + corners[y]
    assert choose_account(X[:300], y[:300], X[300:] + offset, random_state=0).account.name == "affine"
