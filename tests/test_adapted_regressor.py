"""A regressor that is trained on one domain and predicts another."""

import numpy as np
import pytest
from conftest import quick_flow
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from rfadapt import AdaptedRegressor, AffineTransport
from rfadapt.model_selection import CircularValidationScorer


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X, X_target = rng.normal(size=(200, 2)), rng.normal(size=(150, 2))
    return X, X @ [1.0, 0.5], 2 * X_target + [3, -3], X_target @ [1.0, 0.5]


@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("transport", [AffineTransport(), quick_flow(max_iter=5)], ids=lambda t: type(t).__name__)
def test_it_works_on_the_target(data, transport, direction):
    X, y, X_target, y_target = data
    assert LinearRegression().fit(X, y).score(X_target, y_target) < 0
    model = AdaptedRegressor(LinearRegression(), transport, direction=direction).fit(X, y, X_target=X_target)
    assert model.score(X_target, y_target) > 0.9 and not hasattr(model, "classes_")


@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
def test_a_stacked_table_and_known_numbers(data, direction):
    X, y, X_target, y_target = data
    known = np.where(np.arange(len(y_target)) < 50, -1.0, np.nan)  # -1 is a number like any other
    model = AdaptedRegressor(KNeighborsRegressor(1), AffineTransport(), direction=direction)
    model.fit(X, y, X_target=X_target, y_target=known)
    assert (model.predict(X_target[:50]) == -1).all()
    domain = np.repeat([1, -1], [len(X), len(X_target)])
    rows, numbers = np.concatenate([X, X_target]), np.concatenate([y, known])
    again = AdaptedRegressor(KNeighborsRegressor(1), AffineTransport(), direction=direction)
    again.fit(rows, numbers, sample_domain=domain)
    np.testing.assert_allclose(again.predict(X_target), model.predict(X_target))


@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_rows_are_weighed_where_the_regressor_gains_by_it(direction, is_sorted):
    """A line cannot follow a parabola, but the part of it that the target's rows are on; neighbours can follow all."""
    rng = np.random.default_rng(0)
    X, X_target = rng.uniform(-2, 2, size=(600, 1)), rng.normal(1, 0.4, size=(300, 1))
    X = np.sort(X, axis=0) if is_sorted else X
    y, y_target = X[:, 0] ** 2 + 0.1 * rng.normal(size=600), X_target[:, 0] ** 2
    scores = {}
    for estimator, chosen in ((LinearRegression(), "importance weights"), (KNeighborsRegressor(5), "nothing")):
        model = AdaptedRegressor(estimator, direction=direction, random_state=0).fit(X, y, X_target=X_target)
        assert model.chosen_ == chosen and ("nothing to gain" in model.reason_) == (chosen == "nothing")
        scores[chosen] = model.score(X_target, y_target), estimator.fit(X, y).score(X_target, y_target)
    assert scores["importance weights"][0] > 0.85 > 0.2 > scores["importance weights"][1]
    assert scores["nothing"][0] == scores["nothing"][1] > 0.95


def test_a_trained_regressor_stays_as_it_is(data):
    X, y, X_target, y_target = data
    trained = FrozenEstimator(LinearRegression().fit(X, y))
    model = AdaptedRegressor(trained, AffineTransport(), direction="target_to_source").fit(X, y, X_target=X_target)
    assert model.score(X_target, y_target) > 0.9 and model.estimator_ is trained


def test_search(data):
    X, y, X_target, _ = data
    domain = np.repeat([1, -1], [len(X), len(X_target)])
    rows, numbers = np.concatenate([X, X_target]), np.concatenate([y, np.full(len(X_target), np.nan)])
    order = np.random.default_rng(0).permutation(len(rows))
    model = AdaptedRegressor(Ridge(), AffineTransport())
    search = GridSearchCV(
        model, {"estimator__alpha": [1e-3, 1e4]}, scoring=CircularValidationScorer(), error_score="raise"
    )
    search.fit(rows[order], numbers[order], sample_domain=domain[order])
    assert search.best_params_ == {"estimator__alpha": 1e-3}


def test_errors(data):
    X, y, X_target, _ = data
    with pytest.raises(ValueError, match="needs a regressor; got SVC"):
        AdaptedRegressor(SVC(), AffineTransport()).fit(X, y, X_target=X_target)
    model = AdaptedRegressor(LinearRegression(), AffineTransport())
    with pytest.raises(ValueError, match="Input y contains NaN"):
        model.fit(X, np.where(np.arange(len(y)) == 3, np.nan, y), X_target=X_target)
    with pytest.raises(ValueError, match="Input y_target contains infinity"):
        model.fit(X, y, X_target=X_target, y_target=np.full(len(X_target), np.inf))
    model.fit(X, y, X_target=X_target)
    with pytest.raises(ValueError, match="of the 150 that there are, 150 are masked"):
        model.score(X_target, np.full(len(X_target), np.nan))


class OneSampleAdaptedRegressor(AdaptedRegressor):
    """Lets the regressor take part in scikit-learn's checks, which call `fit(X, y)`: X is the target as well."""

    def fit(self, X, y):
        return super().fit(X, y, X_target=X)


@parametrize_with_checks([OneSampleAdaptedRegressor(Ridge(), AffineTransport())])
def test_sklearn(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n_source", "n_target"), [(2, 300), (4, 300), (300, 2), (300, 4), (3, 3)])
def test_of_a_handful_of_rows_nothing_is_said_about_folds(n_source, n_target):
    rng = np.random.default_rng(0)
    X, X_target = rng.normal(size=(n_source, 1)), rng.normal(1, 0.3, size=(n_target, 1))
    model = AdaptedRegressor(LinearRegression(), random_state=0).fit(X, 2 * X[:, 0], X_target=X_target)
    assert np.isfinite(model.predict(X_target)).all()
