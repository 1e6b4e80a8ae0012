"""With few rows of the target, what is chosen must find the way back to the source."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, make_blobs
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.svm import SVC, NuSVC

from rfadapt import AdaptedClassifier
from rfadapt.adaptation.accounts import Account, AffineAccount, ClassWeights, ImportanceWeights
from rfadapt.adaptation.domains import Domains
from rfadapt.adaptation.evidence import settled
from rfadapt.adaptation.trials import Trials

NEAR, FAR = 0.1, 1.0


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def two_classes(n, share, rng):
    """Rows around (-3, 0) and, that share of them, around (3, 0)."""
    y = (np.arange(n) < share * n).astype(int)
    return rng.normal(size=(n, 2)) + np.outer(6 * y - 3, [1, 0]), y


def trials(X0, y0, X1, y1=None, known1=None, estimator=None):
    """Trials of a classifier with these rows."""
    known1 = np.zeros(len(X1), dtype=bool) if known1 is None else known1
    domains = Domains(X0, y0, X1, y1, known1, np.zeros(len(X0), dtype=int))
    model = AdaptedClassifier(LogisticRegression() if estimator is None else estimator)
    return Trials(model._trained, model._trained_plainly, domains, "source_to_target")


@pytest.mark.parametrize(("n_target", "is_confirmed"), [(40, False), (300, False), (301, True)])
def test_a_map_that_takes_one_class_for_the_other_is_not_confirmed(n_target, is_confirmed, rng):
    # The target is nearly all of one class, which the map of the moments spreads over both.
    X0, y0 = two_classes(400, 0.5, rng)
    X1, _ = two_classes(n_target, 0.95, rng)
    affine = AffineAccount(random_state=0).fit(X0, y0, X1)
    assert trials(X0, y0, X1).confirm(affine, Account(), NEAR) == is_confirmed


def test_a_map_to_a_far_target_is_confirmed(rng):
    X0, y0 = two_classes(400, 0.5, rng)
    X1 = 2 * two_classes(100, 0.5, rng)[0] + 20
    affine = AffineAccount(random_state=0).fit(X0, y0, X1)
    far = trials(X0, y0, X1, estimator=KNeighborsClassifier(1))
    assert far.confirm(affine, Account(), FAR) and not far.confirm(Account(), affine, FAR)


def test_what_teaches_as_much_is_confirmed(rng):
    X0, y0 = two_classes(100, 0.5, rng)
    assert trials(X0, y0, two_classes(50, 0.5, rng)[0]).confirm(Account(), Account(), NEAR)


def test_known_labels_have_no_part_in_it(rng):
    X0, y0 = two_classes(400, 0.5, rng)
    X1, y1 = two_classes(100, 0.95, rng)
    affine = AffineAccount(random_state=0).fit(X0, y0, X1)
    # Labels that are all wrong would speak for the map.
    known = trials(X0, y0, X1, 1 - y1, np.ones(100, dtype=bool))
    assert known.knows_enough and not known.confirm(affine, Account(), NEAR)


@pytest.mark.parametrize(
    ("gain", "n_more", "is_kept"),
    [(0.0, None, True), (0.04, 0, False), (0.06, 0, True), (0.0, 1, True), (-0.01, 1, False)],
)
def test_where_labels_are_known_the_way_back_or_they_must_speak_for_it(gain, n_more, is_kept):
    nothing, affine = Account(), AffineAccount()
    refined = SimpleNamespace(plain_margin_=0.9, margin_=0.9)  # so sure that nothing is refined
    entries = [
        dict(name=account.name, account=account, discrepancy=0.0, score=score, refined=refined, refine=lambda *_: None)
        for account, score in ((nothing, 0.5), (affine, 0.56))
    ]
    ways = SimpleNamespace(
        knows_enough=n_more is not None,
        rights=lambda make_account: np.arange(6) < 3 + n_more * (make_account(None) is affine),
        confirm=lambda changed, plain, shift, by: gain >= by,
        learns=lambda account, plain: True,
    )
    account, is_refined, _ = settled(entries, None, None, ways, NEAR)
    assert (account is affine) == is_kept and not is_refined


@pytest.mark.parametrize(
    ("account", "score", "is_kept"),
    [
        (AffineAccount(), 0.6, True),
        (AffineAccount(), 0.56, False),
        (AffineAccount(turned=True), 0.6, False),
        (ClassWeights(), 0.6, False),
    ],
)
def test_a_plain_map_that_separates_classes_clearly_better_needs_no_way_back(account, score, is_kept):
    nothing, account.weights_ = Account(), np.ones(5) if isinstance(account, ClassWeights) else None
    refined = SimpleNamespace(plain_margin_=0.9, margin_=0.9)
    entries = [
        dict(name=account.name, account=account, discrepancy=0.0, score=score, refined=refined)
        for account, score in ((nothing, 0.5), (account, score))
    ]
    ways = SimpleNamespace(knows_enough=False, gains=lambda *_: True, confirm=lambda *_: False, learns=lambda *_: True)
    assert (settled(entries, None, None, ways, NEAR)[0] is account) == is_kept


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("n_target", [100, 300])
def test_a_shift_within_reach_of_other_classes_is_undone(n_target, seed):
    """Rows of one class are where another was, so that the way back between the rows as they are leads astray."""
    X, y = make_blobs(300 + n_target, 4, centers=3, center_box=(-5, 5), random_state=seed)
    X0, y0, X1, y1 = X[:300], y[:300], X[300:] + 2.5, y[300:]
    model = AdaptedClassifier(LogisticRegression(), random_state=0).fit(X0, y0, X_target=X1)
    same = LogisticRegression().fit(X0, y0).score(X1 - 2.5, y1)
    assert model.score(X1, y1) > same - 0.05


@pytest.mark.parametrize("gains", [True, False])
def test_rows_are_weighed_where_the_estimator_gains_by_it(gains):
    nothing, weights = Account(), ClassWeights()
    weights.weights_ = np.ones(5)
    refined = SimpleNamespace(plain_margin_=0.9, margin_=0.9)  # so sure that nothing is refined
    entries = [
        dict(name=account.name, account=account, discrepancy=0.0, score=score, refined=refined)
        for account, score in ((nothing, 0.5), (weights, 0.9))
    ]
    ways = SimpleNamespace(knows_enough=False, gains=lambda account: gains, confirm=lambda *_: True,
                           learns=lambda *_: True)  # fmt: skip
    account, _, reason = settled(entries, None, None, ways, NEAR)
    assert account is (weights if gains else nothing) and ("nothing to gain" in reason) != gains


@pytest.mark.parametrize("y_is_curved", [False, True])
def test_a_line_between_classes_gains_by_weights_where_the_edge_is_curved(y_is_curved):
    """Weights tell a line which part of a curved edge to follow; a straight edge it finds from all rows as well."""
    rng = np.random.default_rng(0)
    X0, X1 = rng.uniform(-2, 2, size=(800, 2)), np.c_[rng.normal(1, 0.3, size=400), rng.uniform(-2, 2, size=400)]
    edge = X0[:, 0] ** 2 - 1 if y_is_curved else X0[:, 0] - 0.5
    y0 = (X0[:, 1] > edge).astype(int)
    weights = ImportanceWeights(0).fit(X0, y0, X1)
    assert trials(X0, y0, X1, estimator=LogisticRegression()).gains(weights) == y_is_curved


@pytest.mark.parametrize(
    ("n_known", "n_more", "is_refined"), [(6, 0, False), (6, 1, True), (30, 1, False), (30, 4, True)]
)
def test_that_classes_need_no_refinement_is_not_believed_against_known_labels(n_known, n_more, is_refined):
    refined = SimpleNamespace(plain_margin_=0.9, margin_=0.9)
    entry = dict(name="nothing", account=Account(), score=0.9, refined=refined, refine=lambda y1, known1: "refined")
    ways = SimpleNamespace(
        knows_enough=True,
        rights=lambda make_account: np.arange(n_known) < 3 + n_more * (make_account(None) == "refined"),
        confirm=lambda changed, plain, shift, by: by == 0.0,
        learns=lambda account, plain: True,
    )
    assert settled([entry], np.zeros(n_known), np.ones(n_known, bool), ways, NEAR)[1] == is_refined


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("n_target", [40, 80])
def test_tumours_that_are_larger_are_told_apart_as_well_as_before(n_target, several):
    """Nearly all tumours below the median size are benign, and most above it malignant: classes have other shares."""
    X, y = load_breast_cancer(return_X_y=True)
    is_large = X[:, 0] > np.median(X[:, 0])
    X = (X - X[~is_large].mean(axis=0)) / X[~is_large].std(axis=0)
    X0, y0 = np.delete(X[~is_large], 0, 1), y[~is_large]
    rows = np.random.default_rng(0).permutation(np.flatnonzero(is_large))
    X1, X_test, y_test = np.delete(X[rows[:n_target]], 0, 1), np.delete(X[rows[n_target:]], 0, 1), y[rows[n_target:]]
    estimator = LogisticRegression(max_iter=1000)
    before = estimator.fit(X0, y0).score(X_test, y_test)
    domain = np.repeat([-1, 0], [n_target, len(X0)])
    domain[n_target:] += several * (np.arange(len(X0)) % 2)
    model = AdaptedClassifier(estimator, random_state=0)
    labels = np.concatenate([np.full(n_target, -1), y0])
    model.fit(np.concatenate([X1, X0]), labels, sample_domain=domain)
    assert before > 0.9 and model.score(X_test, y_test) > before - 0.05


def test_the_way_back_is_in_the_directions_that_vary_most(rng):
    """Of 202 columns the last 200 are noise, and there are thirty rows: with all directions it would be 0.85."""
    X0, y0 = two_classes(400, 0.5, rng)
    X1, _ = two_classes(30, 0.5, rng)
    noise0, noise1 = (0.8 * rng.normal(size=(len(X), 200)) for X in (X0, X1))
    wide = trials(np.c_[X0, noise0], y0, np.c_[X1, noise1], estimator=KNeighborsClassifier(1))
    narrow = trials(X0, y0, X1, estimator=KNeighborsClassifier(1))
    assert narrow._way_back(Account(), NEAR) > 0.98 and wide._way_back(Account(), NEAR) > 0.9


@pytest.mark.parametrize(("estimator", "is_learned"), [(GaussianNB(), False), (KNeighborsClassifier(1), True)])
def test_labels_that_the_estimator_cannot_hold_are_not_learned(estimator, is_learned, rng):
    X0, y0 = two_classes(200, 0.5, rng)
    X1, y1 = two_classes(100, 0.5, rng)
    for X, y in ((X0, y0), (X1, y1)):
        X[:, 0] -= 4 * y - 2  # nearer to each other
    X1[:5] = [60, 0]  # taken for the first class, whose spread they multiply
    labelling = Account()
    labelling.labelled_target_ = X1, np.where(np.arange(100) < 5, 0, y1)
    assert trials(X0, y0, X1, estimator=estimator).learns(labelling, Account()) == is_learned


@pytest.mark.parametrize(("estimator", "is_learned"), [(NuSVC(), False), (SVC(), True)])
def test_weights_that_the_estimator_cannot_be_trained_with_are_not_learned(estimator, is_learned, rng):
    X0, y0 = two_classes(100, 0.5, rng)
    weighing = Account()
    weighing.weights_ = np.where(y0 == 0, 0.02, 1.98)  # for nu = 0.5, no class may be so rare
    assert trials(X0, y0, X0, estimator=estimator).learns(weighing, Account()) == is_learned


@pytest.mark.parametrize(
    "estimator", [NuSVC(), QuadraticDiscriminantAnalysis(), KNeighborsClassifier(), GridSearchCV(SVC(), {"C": [1, 10]})]
)
@pytest.mark.parametrize("n_target", [200, 600])
def test_a_target_of_one_class_does_not_make_training_fail(estimator, n_target, rng):
    X0, y0 = two_classes(150, 0.5, rng)
    X1, y1 = two_classes(n_target, 0.0, rng)
    assert AdaptedClassifier(estimator, random_state=0).fit(X0, y0, X_target=X1).score(X1, y1) > 0.98


def test_an_estimator_that_fails_on_the_way_does_not_confirm(rng):
    X0, y0 = two_classes(100, 0.5, rng)
    far = trials(X0, y0, X0 + 50, estimator=RadiusNeighborsClassifier(1.0))
    affine = AffineAccount(random_state=0).fit(X0, y0, X0 + 50)
    assert far.confirm(affine, Account(), FAR) and not far.confirm(Account(), affine, FAR)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_outliers_of_the_target_do_not_spoil_a_classifier_that_cannot_hold_them(seed):
    X, y = make_blobs(900, 6, centers=5, cluster_std=2.5, center_box=(-4, 4), random_state=seed)
    X0, y0, X1, y1 = X[:400], y[:400], X[400:], y[400:]
    rng = np.random.default_rng(seed)
    far = rng.random(len(X1)) < 0.05
    X1[far] += 10 * X0.std() * rng.normal(size=(far.sum(), 6))
    before = GaussianNB().fit(X0, y0).score(X1, y1)
    model = AdaptedClassifier(GaussianNB(), random_state=0).fit(X0, y0, X_target=X1)
    assert model.score(X1, y1) > before - 0.05


def board(n, tilt, rng):
    """Rows on a board of 16 squares, whose colours are the classes; of the right, the more, the larger `tilt`."""
    X = rng.uniform(0, 4, (4 * n, 2))
    X = X[rng.random(4 * n) < 1 - tilt * (1 - X[:, 0] / 4)][:n]
    return X, (np.floor(X).sum(axis=1) % 2).astype(int)


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_that_do_not_follow_the_shape_of_the_rows_are_not_refined(seed):
    rng = np.random.default_rng(seed)
    (X0, y0), (X1, y1) = board(500, 0, rng), board(600, 0.9, rng)
    plain = KNeighborsClassifier(1).fit(X0, y0).score(X1, y1)
    adapted = AdaptedClassifier(KNeighborsClassifier(1), random_state=0).fit(X0, y0, X_target=X1)
    assert adapted.score(X1, y1) > plain - 0.02  # 0.1 less if they are refined
    assert adapted.chosen_ != "class-aware"


@pytest.mark.parametrize(("n_others", "is_worth_it"), [(0, False), (400, True)])
def test_refining_pays_where_it_changes_more_than_it_gets_wrong(n_others, is_worth_it, rng):
    (X0, y0), (X1, _) = board(500, 0, rng), board(400, 0, rng)
    model = trials(X0, y0, X1, estimator=KNeighborsClassifier(1))
    before = model.train_plain(X0, y0).predict(X1)
    labels = np.where(np.arange(400) < n_others, 1 - before, before)
    refined = SimpleNamespace(start_=Account(), labelled_target_=(X1, labels))
    assert model.pays(refined) == is_worth_it


def test_refining_pays_where_it_finds_as_many_classes_of_the_source(rng):
    X0, y0 = two_classes(300, 0.5, rng)
    X1, _ = two_classes(200, 0.5, rng)
    model = trials(X0, y0, X1)
    refined = SimpleNamespace(start_=Account(), labelled_target_=(X1, model.train_plain(X0, y0).predict(X1)))
    assert model.pays(refined)


@pytest.mark.parametrize(
    ("classes", "estimator"),
    [([0, 1], KNeighborsClassifier(1)), ([0, 1], LogisticRegression()), ([0, 0, 1, 1], KNeighborsClassifier(3))],
)
def test_refining_is_not_doubted_where_the_source_is_too_small_to_tell(classes, estimator, rng):
    X0, X1 = rng.normal(size=(len(classes), 2)), rng.normal(size=(20, 2))
    refined = SimpleNamespace(start_=Account(), labelled_target_=(X1, np.zeros(20, dtype=int)))
    assert trials(X0, np.array(classes), X1, estimator=estimator).pays(refined)
