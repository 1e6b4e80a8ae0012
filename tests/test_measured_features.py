"""Maps leave categories and counts as they are."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from rfadapt import AdaptedClassifier, AffineTransport
from rfadapt.adaptation.accounts import AffineAccount, OffsetClasses, TransportAccount
from rfadapt.adaptation.accounts.measured import measured


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("source", "target", "is_measured"),
    [
        ([0, 1], [1, 1, 0], False),
        ([0, 1], [0.2, 1.3], True),
        ([3, 4, 6], [5, 8], False),  # a count that was not seen before
        ([3, 4, 6], [5.5, 8.5], True),
        ([3, 4, 6], [103, 104, 106], True),  # far from all that was seen
        ([0.5, 2, 7], [7, 2], False),  # names of categories
        ([0.5, 2, 7], [2.5, 4, 9], True),
        ([1, 2, 3], [4, 4, 4], False),
        ([0, 0, 0], [0, 0], False),
        ([0, 0, 0], [2, 2], True),
        (np.arange(26), [3, 5], True),  # may be rounded
        (np.linspace(0, 1, 400), [0, 0], True),  # a sensor that is dead
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_has_few_values_that_are_the_same_is_not_measured(source, target, is_measured, dtype):
    scale = 0.1  # counts in another unit, rounded
    X0, X1 = (scale * np.array(values, dtype=dtype)[:, None] for values in (source, target))
    assert measured(X0, X1).tolist() == [is_measured]


def of_wards(n, rng, moved):
    """Two measured features, moved together, between a category and a count."""
    rows = rng.normal(size=(n, 2)) @ [[1.0, 0.6], [0.0, 0.8]] + moved
    return np.column_stack([rows[:, 0], rng.integers(0, 2, n), rows[:, 1], rng.poisson(2 + moved, n)])


ACCOUNTS = [AffineAccount(), AffineAccount(turned=True, random_state=0), TransportAccount(AffineTransport())]


@pytest.mark.parametrize("account", [*ACCOUNTS, OffsetClasses(0)])
def test_categories_and_counts_stay_where_they_are(account, rng):
    X0, X1, y0 = of_wards(300, rng, 0), of_wards(200, rng, 2), rng.integers(0, 2, 300)
    moved = account.fit(X0, y0, X1).transform(X0)
    np.testing.assert_array_equal(moved[:, [1, 3]], X0[:, [1, 3]])
    np.testing.assert_allclose(moved[:, [0, 2]].mean(axis=0), X1[:, [0, 2]].mean(axis=0), atol=0.1)
    np.testing.assert_allclose(account.inverse_transform(moved), X0, atol=1e-5)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_what_is_measured_is_moved_as_if_it_were_all(account, rng):
    X0, X1 = of_wards(300, rng, 0), of_wards(200, rng, 2)
    moved = account.fit(X0, None, X1).transform(X0)[:, [0, 2]]
    alone = account.fit(X0[:, [0, 2]], None, X1[:, [0, 2]]).transform(X0[:, [0, 2]])
    np.testing.assert_allclose(moved, alone, atol=1e-5)


@pytest.mark.parametrize("account", [*ACCOUNTS, OffsetClasses(0)])
def test_where_nothing_is_measured_nothing_moves(account, rng):
    X0, X1 = ((rng.random((n, 4)) < share).astype(float) for n, share in ((200, 0.5), (150, 0.2)))
    account.fit(X0, rng.integers(0, 2, 200), X1)
    np.testing.assert_array_equal(account.transform(X0), X0)
    np.testing.assert_array_equal(account.inverse_transform(X1), X1)


def people(years, n, rng):
    """Of whom classes say who went to school for less than 11 years."""
    schooling = rng.binomial(17, years / 17, n)
    income = np.exp(rng.normal(2 + schooling / 8, 0.6))
    X = np.column_stack([schooling, rng.uniform(20, 60, n), income, rng.integers(0, 2, n)])
    return X, (schooling < 11).astype(int)


@pytest.mark.parametrize("estimator", [SVC(), LogisticRegression()])
@pytest.mark.parametrize("seed", [0, 1])
def test_people_who_went_to_school_for_shorter_are_not_moved(estimator, seed):
    rng = np.random.default_rng(seed)
    (X0, y0), (X1, y1) = people(12.5, 400, rng), people(9.5, 200, rng)
    estimator = make_pipeline(StandardScaler(), estimator)
    adapted = AdaptedClassifier(estimator, random_state=0).fit(X0, y0, X_target=X1)
    assert adapted.score(X1, y1) > 0.95  # half of it after an affine map
