import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from conftest import shifted_classes
from matplotlib import pyplot as plt
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from rfadapt import (
    AdaptedClassifier,
    AdaptedRegressor,
    AffineTransport,
    BaseTransport,
    DomainAdapter,
    RectifiedFlowTransport,
)
from rfadapt.plotting import EvidenceDisplay, FewStepDisplay, HistoryDisplay, TrajectoryDisplay, TransportDisplay


class Shift(BaseTransport):
    """Adds the difference of the means."""

    _parameter_constraints = {}

    def _fit(self, X0, X1, y0, y1):
        self.shift_ = X1.numpy().mean(axis=0) - X0.numpy().mean(axis=0)

    def _transform(self, x):
        return x + torch.from_numpy(self.shift_).to(x)


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 4)), rng.normal(size=(50, 4)) * [1.0, 5.0, 1.0, 2.0] + 3


@pytest.fixture(scope="module")
def flow():
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(80, 3)), rng.normal(size=(80, 3)) + 4
    return RectifiedFlowTransport(n_reflow=1, max_iter=20, random_state=0).fit(X0, X1)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_transport_is_drawn_in_the_principal_components_of_the_target(samples):
    X0, X1 = samples
    transport = Shift().fit(X0, X1)
    display = TransportDisplay.from_estimator(transport, X0, X1)
    # Of independent features the widest are the second and the last one, up to sampling error.
    assert display.before.shape == (60, 2) and display.target.shape == (50, 2)
    assert abs(np.corrcoef(display.target[:, 0], X1[:, 1])[0, 1]) > 0.95
    assert abs(np.corrcoef(display.target[:, 1], X1[:, 3])[0, 1]) > 0.9
    np.testing.assert_allclose(display.target.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(display.after.mean(axis=0), 0, atol=1e-9)
    shift = display.after - display.before
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-9)


def test_transport_panels(samples):
    X0, X1 = samples
    display = TransportDisplay.from_estimator(Shift().fit(X0, X1), X0, X1, domain_names=("old", "new"))
    before, after = display.axes_
    assert [axis.get_title(loc="left") for axis in display.axes_] == ["before", "after"]
    assert before.get_xlim() == after.get_xlim() and before.get_ylim() == after.get_ylim()
    np.testing.assert_allclose(before.collections[1].get_offsets(), display.before)
    np.testing.assert_allclose(after.collections[1].get_offsets(), display.after)
    np.testing.assert_allclose(after.collections[0].get_offsets(), display.target)
    assert [text.get_text() for text in after.get_legend().get_texts()] == ["new", "old, moved"]
    assert display.figure_ is before.figure


@pytest.mark.parametrize(
    "container", [pd.DataFrame, pl.DataFrame, sparse.csr_matrix, torch.from_numpy, np.ndarray.tolist]
)
def test_containers_and_subsets(samples, container):
    X0, X1 = map(container, samples)
    display = TransportDisplay.from_estimator(Shift().fit(X0, X1), X0, X1, max_points=20)
    assert display.before.shape == display.after.shape == display.target.shape == (20, 2)


def test_one_feature_is_a_histogram(samples):
    X0, X1 = (X[:, :1] for X in samples)
    display = TransportDisplay.from_estimator(Shift().fit(X0, X1), X0, X1)
    assert display.before.shape == (60, 1)
    assert all(axis.get_ylabel() == "density" for axis in display.axes_)


def test_trajectories(flow):
    X = np.random.default_rng(1).normal(size=(40, 3))
    display = TrajectoryDisplay.from_estimator(flow, X, n_times=6, max_paths=10)
    assert display.paths.shape == (6, 10, 2)
    lines, starts, ends = display.ax_.collections
    assert len(lines.get_segments()) == 10
    np.testing.assert_allclose(starts.get_offsets(), display.paths[0])
    np.testing.assert_allclose(ends.get_offsets(), display.paths[-1])
    whole = TrajectoryDisplay.from_estimator(flow, X, n_times=2)
    ends = np.concatenate([X, flow.transform(X)])
    # The two components of the ends keep as much of their variance as any plane can.
    variance = np.linalg.eigvalsh(np.cov(ends.T, ddof=0))[-2:].sum()
    np.testing.assert_allclose(whole.paths.var(axis=(0, 1)).sum(), variance, rtol=1e-3)


def test_trajectories_of_one_feature_run_over_time():
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(50, 1)), rng.normal(size=(50, 1)) + 4
    flow = RectifiedFlowTransport(max_iter=10, random_state=0).fit(X0, X1)
    axis = TrajectoryDisplay.from_estimator(flow, X0, n_times=5).ax_
    assert axis.get_xlabel() == "time t"
    np.testing.assert_allclose(axis.collections[0].get_segments()[0][:, 0], [0, 0.25, 0.5, 0.75, 1])


def test_history(flow):
    display = HistoryDisplay.from_estimator(flow)
    assert display.rounds.tolist() == [0, 1]
    for axis, name in zip(display.axes_, ("transport_cost", "straightness")):
        np.testing.assert_allclose(axis.lines[0].get_ydata(), [entry[name] for entry in flow.history_])
        assert axis.get_ylim()[0] == 0


@pytest.fixture(scope="module", params=["classifier", "regressor", "transformer"])
def adapter(request):
    X, y, X_target, _ = shifted_classes()
    if request.param == "transformer":
        return DomainAdapter("auto", random_state=0).fit(X, X_target=X_target)
    kind, inner = {
        "classifier": (AdaptedClassifier, LogisticRegression()), "regressor": (AdaptedRegressor, LinearRegression())
    }[request.param]  # fmt: skip
    return kind(inner, random_state=0).fit(X, y, X_target=X_target)


def highlighted(display):
    """Names drawn bold, and those of the bars that have their colour."""
    labels = display.ax_.get_yticklabels()
    bold = [label for label in labels if label.get_fontweight() == "bold"]
    bars = [
        label.get_text() for label, bar in zip(labels, display.bars_)
        if any(same_color(bar.get_edgecolor(), other.get_color()) for other in bold)
    ]  # fmt: skip
    return [label.get_text() for label in bold], bars


def words(display):
    """What is said beside the bars."""
    (beside,) = display.ax_.child_axes
    return [label.get_text() for label in beside.get_yticklabels()]


def test_evidence_of_each_account(adapter):
    display = EvidenceDisplay.from_estimator(adapter)
    evidence, axis = adapter.evidence_, display.ax_
    assert [label.get_text() for label in axis.get_yticklabels()] == [found["name"] for found in evidence]
    assert axis.yaxis_inverted()  # the simplest on top
    np.testing.assert_allclose([bar.get_width() for bar in display.bars_], [found["discrepancy"] for found in evidence])
    assert {found["explains"] for found in evidence} == {True, False}
    assert [bar.get_hatch() is None for bar in display.bars_] == [found["explains"] for found in evidence]
    for text, found in zip(words(display), evidence):
        assert text.startswith("explains") == found["explains"]
        assert ("score" in text) == (found["score"] is not None)
    assert adapter.chosen_ == "affine" and highlighted(display) == (["affine"], ["affine"])
    title = axis.get_title(loc="left").replace("\n", " ")
    assert title == (f"affine: {adapter.reason_}" if hasattr(adapter, "reason_") else "affine")
    assert display.figure_ is axis.figure


def test_evidence_highlights_what_was_refined():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = rng.normal(size=(300, 2)) + 1.2 * np.array([[0, 0], [1, 0], [0, 1]])[y]  # classes overlap: they are refined
    model = AdaptedClassifier(KNeighborsClassifier(1), random_state=0).fit(X, y, X_target=2 * X + 10)
    assert model.chosen_ == "class-aware"
    display = EvidenceDisplay.from_estimator(model)
    name = model.transport_.start_.name
    assert highlighted(display) == ([name], [name]) and name in model.reason_
    assert display.ax_.get_title(loc="left").startswith("class-aware: ")


def test_evidence_in_words():
    found = {"name": "weights", "discrepancy": -0.01, "explains": False, "effective_sample_size": 0.004, "score": 0.5}
    taken = {"name": "map", "explains": True, "effective_sample_size": 1.0, "score": None, "taken": True}
    evidence = [found | {"taken": False}, found | taken]
    display = EvidenceDisplay(evidence, "map").plot()
    assert words(display) == [
        "does not explain the shift\n0.4% of rows left, score 0.50", "explains the shift\n100% of rows left"
    ]  # fmt: skip
    np.testing.assert_allclose([bar.get_width() for bar in display.bars_], -0.01)
    assert display.ax_.get_xlim()[0] <= -0.01 and highlighted(display)[0] == ["map"]


@pytest.mark.parametrize("ax", [None, "given"])
def test_texts_beside_the_evidence_do_not_overlap(adapter, ax):
    given = Figure(figsize=(7.6, 4), layout="constrained").subplots() if ax else None
    display = EvidenceDisplay.from_estimator(adapter, ax=given)
    figure, axis = display.figure_, display.ax_
    figure.draw_without_rendering()
    texts = [*axis.get_yticklabels(), *axis.child_axes[0].get_yticklabels(), *axis.texts, axis._left_title]
    boxes = [text.get_window_extent() for text in texts]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_there_is_no_evidence_without_a_choice():
    X, y, X_target, _ = shifted_classes()
    with pytest.raises(NotFittedError):
        EvidenceDisplay.from_estimator(AdaptedClassifier(LogisticRegression()))
    given = AdaptedClassifier(LogisticRegression(), AffineTransport()).fit(X, y, X_target=X_target)
    with pytest.warns(UserWarning, match="neither X_target nor sample_domain"):
        no_target = DomainAdapter("auto").fit(X)
    for fitted in (given, no_target, given.transport_):
        with pytest.raises(ValueError, match='no evidence to draw.* transport="auto" and with rows of the target'):
            EvidenceDisplay.from_estimator(fitted)
    assert not plt.get_fignums()


def test_displays_draw_on_the_axes_given_and_open_no_other_figure(flow, samples, adapter):
    X0, X1 = (X[:, :3] for X in samples)
    axes = Figure().subplots(1, 2)
    assert TransportDisplay.from_estimator(flow, X0, X1, ax=axes).axes_ == list(axes)
    assert TrajectoryDisplay.from_estimator(flow, X0, ax=axes[0]).ax_ is axes[0]
    assert HistoryDisplay.from_estimator(flow, ax=axes).axes_ == list(axes)
    assert EvidenceDisplay.from_estimator(adapter, ax=axes[1]).ax_ is axes[1]
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="ax must hold 2 matplotlib Axes; got 1"):
        HistoryDisplay.from_estimator(flow, ax=axes[0])


def test_few_steps_are_compared_with_many(flow):
    X = np.random.default_rng(1).normal(size=(50, 3))
    distilled = RectifiedFlowTransport(
        "independent", schedule="bellman", distill=True, max_iter=30, width=16, validation_fraction=0.0, random_state=0
    ).fit(X, X**3)
    display = FewStepDisplay.from_estimator({"a": flow, "b": distilled}, X, n_evaluations=[4, 1])
    assert list(display.errors) == ["a, uniform", "b, uniform", "b, bellman", "b, distilled"]
    lengths = [list(line) for line in display.errors.values()]
    assert lengths == [[1, 4], [1, 4], [1, 4], [1]]
    assert display.errors["b, uniform"][4] < display.errors["b, uniform"][1]
    assert display.errors["b, uniform"][1] == display.errors["b, bellman"][1]
    drawn = {line.get_label(): list(line.get_xdata()) for line in display.ax_.lines}
    assert drawn == dict(zip(display.errors, lengths))


def test_few_steps_are_compared_with_a_known_answer(flow):
    X = np.random.default_rng(1).normal(size=(50, 3))
    exact = FewStepDisplay.from_estimator(flow, X, X_moved=flow.transform(X) + 1, n_evaluations=[1])
    assert exact.errors["uniform"][1] > 10
    with pytest.raises(ValueError, match="n_evaluations must hold numbers of at least 1"):
        FewStepDisplay.from_estimator(flow, X, n_evaluations=[0])
    with pytest.raises(NotFittedError):
        FewStepDisplay.from_estimator(RectifiedFlowTransport(), X)
