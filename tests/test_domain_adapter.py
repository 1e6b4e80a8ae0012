"""A transport as a step of a pipeline, in scikit-learn and for POT's and skada's users."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from conftest import quick_flow, shifted_classes
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import _num_samples

from rfadapt import AffineTransport, DomainAdapter, EMDTransport
from rfadapt.adaptation import POTOrder
from rfadapt.adaptation.accounts import Account


@pytest.fixture
def table():
    X, y, X_target, y_target = shifted_classes()
    domain = np.repeat([1, -1], [len(X), len(X_target)])
    labels = np.concatenate([y, np.full(len(X_target), -1)])
    return np.concatenate([X, X_target]), labels, domain, y_target


@pytest.mark.parametrize("transport", [AffineTransport(), EMDTransport(), quick_flow(max_iter=5)],
                         ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
def test_one_domain_moves_and_the_other_stays(table, transport, direction):
    X, _, domain, _ = table
    adapter = DomainAdapter(transport, direction=direction).fit(X, sample_domain=domain)
    moved = adapter.transform(X, sample_domain=domain)
    stays = domain < 0 if direction == "source_to_target" else domain > 0
    np.testing.assert_array_equal(moved[stays], X[stays])
    assert np.abs(moved[~stays].mean(0) - X[stays].mean(0)).max() < 1.5
    assert np.abs(X[~stays].mean(0) - X[stays].mean(0)).max() > 5
    np.testing.assert_array_equal(moved, adapter.fit_transform(X, sample_domain=domain))
    np.testing.assert_array_equal(adapter.transform(X[domain < 0]), moved[domain < 0])  # rows are of the target


def test_two_clouds(table):
    X, _, domain, _ = table
    source, target = X[domain > 0], X[domain < 0]
    expected = AffineTransport().fit(source, target).transform(source)
    adapter = DomainAdapter(AffineTransport())
    np.testing.assert_allclose(adapter.fit_transform(source, X_target=target), expected)
    np.testing.assert_array_equal(adapter.transform(target), target)
    np.testing.assert_allclose(adapter.transform(source, sample_domain=np.ones(len(source))), expected)
    assert adapter.chosen_ == "AffineTransport" and adapter.evidence_ == []


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
def test_in_a_pipeline(table, routing, direction):
    X, _, domain, y_target = table
    labels = np.concatenate([shifted_classes()[1], y_target])
    is_right = np.concatenate([np.ones((domain > 0).sum()), np.full(len(y_target), 1e-9)])  # only the source teaches
    with sklearn.config_context(enable_metadata_routing=routing):
        first, last = StandardScaler(), LogisticRegression()
        if routing:
            first.set_fit_request(sample_weight=False)
            last.set_fit_request(sample_weight=True)
            params = {"sample_domain": domain, "sample_weight": is_right}
        else:
            params = {"domainadapter__sample_domain": domain, "logisticregression__sample_weight": is_right}
        pipeline = make_pipeline(first, DomainAdapter(AffineTransport(), direction=direction), last)
        pipeline.fit(X, labels, **params)
        assert np.mean(pipeline.predict(X[domain < 0]) == y_target) > 0.95


def test_without_a_target_nothing_moves(table):
    X, *_ = table
    with pytest.warns(UserWarning, match="neither X_target nor sample_domain, and will move no row"):
        adapter = DomainAdapter(AffineTransport()).fit(X)
    np.testing.assert_array_equal(adapter.transform(X, sample_domain=np.ones(len(X))), X)
    assert adapter.transport_ is None and adapter.chosen_ == "nothing"


def test_weights_are_not_lost_in_silence(table):
    class Weights(Account):
        def fit(self, X0, y0, X1):
            self.weights_ = np.ones(len(X0))
            return self

    X, _, domain, _ = table
    with pytest.warns(UserWarning, match="weights.*AdaptedClassifier uses them"):
        DomainAdapter(Weights()).fit(X, sample_domain=domain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_domain": np.ones(600)}, "marks no row of the target"),
        ({"sample_domain": np.ones(600), "X_target": np.ones((3, 2))}, "got both"),
        ({"X_target": np.ones((3, 4))}, r"must have shape \(n_samples, 2\) like X; got \(3, 4\)"),
        ({"X_target": np.ones((0, 2))}, "X_target has no rows"),
    ],
)
def test_errors(table, arguments, message):
    with pytest.raises(ValueError, match=message):
        DomainAdapter(AffineTransport()).fit(table[0], **arguments)


def test_bad_parameters(table):
    X, _, domain, _ = table
    with pytest.raises(ValueError, match='must be "auto" or a transport'):
        DomainAdapter("coral").fit(X, sample_domain=domain)
    with pytest.raises(ValueError, match="one of source_to_target, target_to_source"):
        DomainAdapter(AffineTransport(), direction="up").fit(X, sample_domain=domain)


def test_frames_and_pickles(table):
    X, _, domain, _ = table
    frame = pd.DataFrame(X, columns=["a", "b"])
    adapter = DomainAdapter(AffineTransport()).set_output(transform="pandas")
    moved = adapter.fit_transform(frame, sample_domain=domain)
    assert list(moved.columns) == ["a", "b"] == adapter.get_feature_names_out().tolist()
    kept = pickle.loads(pickle.dumps(adapter))
    pd.testing.assert_frame_equal(kept.transform(frame, sample_domain=domain), moved)


@parametrize_with_checks([DomainAdapter(AffineTransport())])
@pytest.mark.filterwarnings("ignore:DomainAdapter.fit got neither")
def test_sklearn(estimator, check):
    check(estimator)


class OneSampleDomainAdapter(DomainAdapter):
    """The same checks with a target, of X stretched and shifted, and with all rows of the source."""

    def fit(self, X, y=None):
        target = 2 * X + 1 if isinstance(X, np.ndarray) and X.dtype.kind == "f" and X.ndim == 2 else X
        return super().fit(X, X_target=target)

    def fit_transform(self, X, y=None):
        return self.fit(X).transform(X)

    def transform(self, X):
        return super().transform(X, sample_domain=np.ones(_num_samples(X)))


@parametrize_with_checks([OneSampleDomainAdapter(AffineTransport())])
def test_sklearn_with_a_target(estimator, check):
    check(estimator)


# ------------------------------------------------------------------------------------------------ POT's callers


def adapt_as_for_pot(adaptation, Xs, ys, Xt, yt):
    """Written for a class of `ot.da`."""
    adaptation.fit(Xs=Xs, ys=ys, Xt=Xt, yt=yt)
    return adaptation.transform(Xs=Xs), adaptation.inverse_transform(Xt=Xt)


def test_the_call_order_of_pot():
    ot = pytest.importorskip("ot")
    X, y, X_target, _ = shifted_classes()
    unknown = np.full(len(X_target), -1)
    theirs = adapt_as_for_pot(ot.da.LinearTransport(reg=1e-9), X, y, X_target, unknown)
    ours = adapt_as_for_pot(POTOrder(AffineTransport(reg=0)), X, y, X_target, unknown)
    for mine, other in zip(ours, theirs):
        np.testing.assert_allclose(mine, other, atol=1e-3)
    bridge = POTOrder(AffineTransport())
    np.testing.assert_array_equal(bridge.fit_transform(X, y, X_target, unknown), bridge.transform(X))


def test_a_pipeline_keeps_its_steps(table):
    X, _, domain, _ = table
    pipeline = Pipeline([("adapt", DomainAdapter(AffineTransport()))])
    moved = pipeline.fit_transform(X, None, adapt__sample_domain=domain)
    np.testing.assert_array_equal(moved, pipeline["adapt"].transform(X, sample_domain=domain))
