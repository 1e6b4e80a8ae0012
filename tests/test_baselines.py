"""The baselines against POT's own results, closed forms, and brute force."""

import warnings

import numpy as np
import ot
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import linalg, sparse, special
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from rfadapt.base import BaseTransport, InvertibleTransport
from rfadapt.baselines import (
    BASELINES,
    AffineTransport,
    ClassRegularizedSinkhornTransport,
    CoralTransport,
    EMDTransport,
    KernelMappingTransport,
    SinkhornTransport,
    UnbalancedSinkhornTransport,
)
from rfadapt.baselines import plan as plan_module

WITH_PLAN = ["emd", "sinkhorn", "unbalanced", "class-sinkhorn", "kernel"]
NEAREST_ROW = ["emd", "unbalanced", "class-sinkhorn"]


def clouds(n0=60, n1=45, d=3, seed=0):
    """Two clouds of three blobs each, the labels of the first, and new rows of domain 0."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(scale=3.0, size=(3, d))
    y0, y1, y = (rng.integers(3, size=n) for n in (n0, n1, 30))
    X0, X1, X = (centers[k] + rng.normal(size=(len(k), d)) for k in (y0, y1, y))
    return X0, X1 @ (np.eye(d) + 0.2) + 2.0, y0, X


def covariance(X):
    return np.cov(X.T, bias=True)


def pot_pair(name):
    """Our transport and POT's with corresponding settings, both solved to convergence."""
    tight = {"max_iter": 20_000, "tol": 1e-12}
    return {
        "emd": lambda: (EMDTransport(), ot.da.EMDTransport(norm="median")),
        "sinkhorn": lambda: (
            SinkhornTransport(reg=0.1, **tight),
            ot.da.SinkhornTransport(reg_e=0.1, norm="median", **tight),
        ),
        "unbalanced": lambda: (
            UnbalancedSinkhornTransport(reg=0.1, reg_m=0.5, **tight),
            ot.da.UnbalancedSinkhornTransport(reg_e=0.1, reg_m=0.5, norm="median", **tight),
        ),
        "class-sinkhorn": lambda: (
            ClassRegularizedSinkhornTransport(reg=0.2, reg_cl=0.05, max_inner_iter=20_000, tol=1e-12),
            ot.da.SinkhornLpl1Transport(reg_e=0.2, reg_cl=0.05, norm="median", max_inner_iter=20_000, tol=1e-12),
        ),
    }[name]()


@pytest.mark.parametrize("name", ["emd", "sinkhorn", "unbalanced", "class-sinkhorn"])
def test_plans_equal_pot_on_training_rows_and_on_new_rows(name):
    X0, X1, y0, X = clouds()
    ours, theirs = pot_pair(name)
    ours.fit(X0, X1, y0=np.array(["c", "a", "b"])[y0])
    theirs.fit(Xs=X0, ys=y0, Xt=X1)
    assert_allclose(ours.transform(X0), theirs.transform(Xs=X0), atol=1e-7)
    assert_allclose(ours.transform(X), theirs.transform(Xs=X), atol=1e-7)
    # The settings matter: this is not the identity or the mean.
    assert np.ptp(ours.transform(X0), axis=0).min() > 1
    assert np.abs(ours.transform(X0) - X0).max() > 1


def test_class_regularisation_matters_in_the_comparison_with_pot():
    X0, X1, y0, _ = clouds()
    ours, _ = pot_pair("class-sinkhorn")
    moved = ours.fit(X0, X1, y0=y0).transform(X0)
    without = ours.set_params(reg_cl=0.0).fit(X0, X1, y0=y0).transform(X0)
    assert np.abs(moved - without).max() > 0.1
    plain = SinkhornTransport(reg=0.2, max_iter=20_000, tol=1e-12).fit(X0, X1).transform(X0)
    assert_allclose(without, plain, atol=1e-7)


def test_kernel_mapping_equals_pot():
    X0, X1, _, X = clouds()
    unit = np.sqrt(np.median(ot.dist(X0, X1)))
    ours = KernelMappingTransport(sigma=0.8, mu=0.5, eta=0.01, max_iter=7, tol=1e-12)
    with pytest.warns(ConvergenceWarning, match="max_iter=7"):
        ours.fit(X0, X1)
    theirs = ot.da.MappingTransport(mu=0.5, eta=0.01, kernel="gaussian", sigma=0.8, max_iter=7, tol=1e-12)
    origin = X1.mean(axis=0)
    theirs.fit(Xs=(X0 - origin) / unit, Xt=(X1 - origin) / unit)
    assert_allclose(ours.transform(X), theirs.transform((X - origin) / unit) * unit + origin, atol=1e-6)
    assert_allclose(ours.transform(X0)[:5], ours.transform(X0[:5]), atol=1e-9)


@pytest.mark.parametrize("reg", [0.0, 1e-3])
def test_affine_equals_pot(reg):
    X0, X1, _, X = clouds(d=4)
    # Features of one pooled variance, where a share of each is the one number that POT takes.
    variance = (X0.var(axis=0) + X1.var(axis=0)) / 2
    X0, X1, X = (rows * np.sqrt(5.0 / variance) for rows in (X0, X1, X))
    theirs = ot.da.LinearTransport(reg=5.0 * reg).fit(Xs=X0, Xt=X1)
    ours = AffineTransport(reg=reg).fit(X0, X1)
    assert_allclose(ours.transform(X), theirs.transform(Xs=X), atol=1e-9)
    assert_allclose(ours.inverse_transform(X), theirs.inverse_transform(Xt=X), atol=1e-9)


def test_affine_is_exact_between_gaussians_with_commuting_covariances():
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    scales0, scales1 = np.array([1.0, 2, 3, 4, 5]), np.array([5.0, 0.5, 1, 2, 9])
    Z = rng.normal(size=(200, 5))
    Z = (Z - Z.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(covariance(Z))).T
    X0, X1 = Z * scales0 @ basis.T + 1, Z[::-1] * scales1 @ basis.T - 1
    exact = (X0 - 1) @ (basis * (scales1 / scales0)) @ basis.T - 1
    assert_allclose(AffineTransport(reg=0).fit(X0, X1).transform(X0), exact, atol=1e-10)


def test_coral_equals_its_formula():
    X0, X1, _, X = clouds(d=4)
    whiten, colour = linalg.inv(linalg.sqrtm(covariance(X0))), linalg.sqrtm(covariance(X1))
    expected = (X - X0.mean(axis=0)) @ whiten @ colour + X1.mean(axis=0)
    assert_allclose(CoralTransport(reg=0).fit(X0, X1).transform(X), expected, atol=1e-9)


@pytest.mark.parametrize("kind", [AffineTransport, CoralTransport])
def test_linear_maps_match_moments_and_invert(kind):
    X0, X1, _, X = clouds(d=5)
    units = np.array([1e-3, 1e-2, 1.0, 1e2, 1e3])
    transport = kind().fit(X0 * units, X1 * units)
    moved = transport.transform(X0 * units) / units
    assert_allclose(moved.mean(axis=0), X1.mean(axis=0), atol=1e-6)
    assert_allclose(covariance(moved), covariance(X1), atol=1e-3)
    assert_allclose(transport.inverse_transform(transport.transform(X * units)) / units, X, atol=1e-6)


@pytest.mark.parametrize("kind", [AffineTransport, CoralTransport])
def test_linear_maps_on_digits_whose_covariance_is_singular(kind):
    X = load_digits().data
    X0, X1 = X[:400] * 1.3 + 2, X[400:900]
    transport = kind().fit(X0, X1)
    moved = transport.transform(X0)
    assert_allclose(moved.mean(axis=0), X1.mean(axis=0), atol=1e-3)
    varies = (X0.var(axis=0) > 0.01) & (X1.var(axis=0) > 0.01)
    assert_allclose(covariance(moved)[varies][:, varies], covariance(X1)[varies][:, varies], atol=0.3)
    # The first pixel is constant in both; what a new row has there is kept.
    assert transport.transform(X0[:1] + np.eye(64)[0])[0, 0] - moved[0, 0] == pytest.approx(1.0, abs=1e-2)
    assert_allclose(transport.inverse_transform(moved), X0, atol=1e-3)


@pytest.mark.parametrize("kind", [AffineTransport, CoralTransport])
def test_linear_maps_say_when_there_is_no_inverse(kind):
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(3, 5)), rng.normal(size=(40, 5))
    for source, target in ((X0, X1), (X1, X0)):
        with pytest.raises(ValueError, match="got singular ones with reg=0. Raise reg"):
            kind(reg=0).fit(source, target)


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"identity"}))
@pytest.mark.parametrize("scale, offset", [(1e-8, 0.0), (1e7, 0.0), (1.0, 1e5), (1e120, 0.0)])
def test_maps_are_free_of_the_data_units(name, scale, offset):
    X0, X1, y0, X = clouds()
    transport = BASELINES[name]()
    expected = transport.fit(X0, X1, y0=y0).transform(X)
    transport.fit(scale * X0 + offset, scale * X1 + offset, y0=y0)
    moved = transport.transform(scale * X + offset)
    assert_allclose((moved - offset) / scale, expected, atol=1e-4)


def log_domain_plan(cost, reg, reg_m, n_iter):
    """Unbalanced Sinkhorn by brute force: log-domain scalings, no shortcut."""
    n0, n1 = cost.shape
    f, g, share = np.zeros(n0), np.zeros(n1), reg_m / (reg_m + reg)
    log_kernel = -cost / reg - np.log(n0 * n1)
    for _ in range(n_iter):
        f = share * (-np.log(n0) - special.logsumexp(log_kernel + g, axis=1))
        g = share * (-np.log(n1) - special.logsumexp(log_kernel + f[:, None], axis=0))
    return np.exp(log_kernel + f[:, None] + g)


def with_outliers():
    X0, X1, y0, X = clouds()
    X0[0] += 100.0
    X1[:2] -= [[400.0], [90.0]]
    cost = ot.dist(X0, X1)
    return X0, X1, y0, X, cost / np.median(cost)


@pytest.mark.parametrize("reg_m", [0.5, 5.0])
def test_unbalanced_is_exact_with_outliers(reg_m):
    X0, X1, _, _, cost = with_outliers()
    assert np.exp(-cost / 0.05)[0].sum() == 0, "the kernel of an outlier should vanish for this test"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transport = UnbalancedSinkhornTransport(reg=0.05, reg_m=reg_m, max_iter=50_000, tol=1e-12).fit(X0, X1)
    plan = log_domain_plan(cost, 0.05, reg_m, n_iter=4000)
    mass = plan.sum(axis=1, keepdims=True)
    # A row so far out that its mass is nothing is moved with its nearest neighbour; all others by the plan.
    has_mass = mass[:, 0] > 1e-200
    assert has_mass[1:].all() and has_mass[0] == (reg_m == 5.0)
    assert_allclose(transport.transform(X0)[has_mass], (plan @ X1)[has_mass] / mass[has_mass], atol=1e-5)


def test_rows_without_mass_follow_the_nearest_row_with_mass():
    X0, X1, _, _ = clouds()
    X0[0] += 1e4
    transport = UnbalancedSinkhornTransport().fit(X0, X1)
    assert len(transport.support_) == len(X0) - 1
    moved = transport.transform(X0)
    nearest = 1 + ot.dist(X0[:1], X0[1:]).argmin()
    assert_allclose(moved[0] - X0[0], moved[nearest] - X0[nearest], atol=1e-8)
    assert_allclose(moved[1:], UnbalancedSinkhornTransport().fit(X0, X1).transform(X0[1:]), atol=1e-8)


def test_a_plan_without_mass_is_an_error():
    X0, X1, _, _ = clouds()
    with pytest.raises(ValueError, match="plan without mass.*Raise reg_m"):
        UnbalancedSinkhornTransport(reg_m=1e-9).fit(X0, X1)


def test_unbalanced_leaves_target_outliers_behind():
    X0, X1, _, _ = clouds()
    far = np.vstack([X1, np.full((5, 3), 1000.0)])
    clean = UnbalancedSinkhornTransport().fit(X0, X1).transform(X0)
    assert np.abs(UnbalancedSinkhornTransport().fit(X0, far).transform(X0)).max() < np.abs(X1).max()
    assert EMDTransport().fit(X0, far).transform(X0).max() > 500
    assert np.abs(clean).max() < np.abs(X1).max()


def test_sinkhorn_with_outliers_keeps_the_marginals_and_never_underflows():
    X0, X1, _, _, cost = with_outliers()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transport = SinkhornTransport(tol=1e-9, max_iter=100_000).fit(X0, X1)
    # Far beyond the outliers too, where every weight exp(-cost / reg) is zero in floating point.
    assert np.isfinite(transport.transform([[1e6] * 3, [-1e6] * 3])).all()
    plan = ot.bregman.sinkhorn_log(*(np.full(n, 1 / n) for n in cost.shape), cost, 0.05, numItermax=100_000)
    assert_allclose(transport.transform(X0), len(X0) * plan @ X1, atol=1e-4)
    assert_allclose(transport.transform(X0).mean(axis=0), X1.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("transport", [
    SinkhornTransport(reg=1e-3, max_iter=1),
    SinkhornTransport(reg=1e-3, max_iter=30),
    UnbalancedSinkhornTransport(reg=1e-3, max_iter=1),
    ClassRegularizedSinkhornTransport(reg=1e-3, max_inner_iter=15),
    EMDTransport(max_iter=1),
    KernelMappingTransport(max_iter=1, tol=1e-9),
])
def test_early_stops_warn_with_advice(transport):
    X0, X1, y0, X = clouds()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transport.fit(X0, X1, y0=y0)
    (warning,) = caught
    assert warning.category is ConvergenceWarning
    message = str(warning.message)
    assert warning.filename == __file__
    assert type(transport).__name__ in message and "iter=" in message and "Raise" in message
    assert np.isfinite(transport.transform(X)).all()


@pytest.mark.parametrize("name", WITH_PLAN)
def test_defaults_converge_on_ordinary_data(name):
    X0, X1, y0, _ = clouds(d=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BASELINES[name]().fit(X0, X1, y0=y0)


@pytest.mark.parametrize("name", WITH_PLAN)
def test_a_large_side_is_subsampled_by_the_seed(name):
    X0, X1, y0, X = clouds(n0=80, n1=30)
    transport = BASELINES[name](max_samples=40, random_state=3).fit(X0, X1, y0=y0)
    kept = transport.target_ if name == "sinkhorn" else transport.support_
    assert len(kept) == (30 if name == "sinkhorn" else 40)
    first = transport.transform(X)
    assert_array_equal(first, clone(transport).fit(X0, X1, y0=y0).transform(X))
    other = clone(transport).set_params(random_state=4).fit(X0, X1, y0=y0).transform(X)
    assert np.abs(first - other).max() > 1e-3
    if name != "sinkhorn":
        # As if fitted on those rows, with their own labels.
        rows = [int(np.flatnonzero((X0 == row).all(axis=1))[0]) for row in kept]
        assert_allclose(first, BASELINES[name]().fit(X0[rows], X1, y0=y0[rows]).transform(X), atol=1e-3)


@pytest.mark.parametrize("name", BASELINES)
def test_the_seed_does_not_matter_where_nothing_is_drawn(name):
    X0, X1, y0, X = clouds()
    if "random_state" not in BASELINES[name]().get_params():
        pytest.skip("takes no seed")
    a, b = (BASELINES[name](random_state=seed).fit(X0, X1, y0=y0).transform(X) for seed in (0, 1))
    assert_array_equal(a, b)


@pytest.mark.parametrize("name", BASELINES)
def test_a_refit_forgets_the_fit_before(name):
    X0, X1, y0, X = clouds()
    X0_before, X1_before, y0_before, _ = clouds(n0=20, n1=70, d=5, seed=1)
    transport = BASELINES[name]().fit(100 * X0_before, X1_before, y0=y0_before, y1=np.zeros(70))
    again = transport.fit(X0, X1, y0=y0).transform(X)
    fresh = BASELINES[name]().fit(X0, X1, y0=y0)
    assert_array_equal(again, fresh.transform(X))
    assert vars(transport).keys() == vars(fresh).keys()


@pytest.mark.parametrize("name", BASELINES)
def test_fitted_state_is_small_and_survives_a_file(name, tmp_path):
    X0, X1, y0, X = clouds(n0=300, n1=300)
    transport = BASELINES[name]().fit(X0, X1, y0=y0)
    numbers = sum(np.size(value) for attribute, value in vars(transport).items() if attribute.endswith("_"))
    assert numbers <= 2 * 300 * 3 + 100
    transport.save(tmp_path / "model")
    assert_array_equal(BaseTransport.load(tmp_path / "model").transform(X), transport.transform(X))


@pytest.mark.parametrize("name", BASELINES)
def test_containers_and_dtypes(name):
    X0, X1, y0, X = clouds()
    X0, X1, X = (rows.astype(np.float32) * (rows > 0) for rows in (X0, X1, X))
    expected = BASELINES[name]().fit(X0.astype(float), X1.astype(float), y0=y0).transform(X.astype(float))
    assert expected.dtype == np.float64
    for container in (np.asarray, torch.from_numpy, sparse.csr_matrix):
        moved = BASELINES[name]().fit(container(X0), container(X1), y0=y0).transform(container(X))
        assert isinstance(moved, torch.Tensor if container is torch.from_numpy else np.ndarray)
        assert str(moved.dtype).endswith("float32")
        assert_allclose(moved, expected, atol=2e-3 if name == "kernel" else 1e-4)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("case", ["one sample", "one to many", "many to one", "one feature", "constant", "one point"])
def test_degenerate_data(name, case):
    rng = np.random.default_rng(0)
    n0, n1, d = {
        "one sample": (1, 1, 3), "one to many": (1, 20, 3), "many to one": (20, 1, 3), "one feature": (20, 30, 1),
    }.get(case, (20, 30, 3))
    X0, X1 = rng.normal(size=(n0, d)), rng.normal(size=(n1, d)) + 1
    if case == "constant":
        X0[:, 1], X1[:, 1], X1[:, 2] = 0.1, 0.3, 5.0
    if case == "one point":
        X0[:], X1[:] = 0.1, 0.1
    y0 = np.arange(n0) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transport = BASELINES[name]().fit(X0, X1, y0=y0)
        moved = transport.transform(X0)
        assert np.isfinite(moved).all() and np.isfinite(transport.transform(X0 + 0.5)).all()
    if name != "identity":
        limits = {"unbalanced": 1.0, "kernel": 0.3}
        assert_allclose(moved.mean(axis=0), X1.mean(axis=0), atol=limits.get(name, 1e-3))
    if isinstance(transport, InvertibleTransport):
        assert_allclose(transport.inverse_transform(moved), X0, atol=1e-3)


def test_rows_that_coincide_share_the_mean_of_their_images():
    X0, X1 = np.array([[0.0], [0.0], [10.0], [10.0]]), np.array([[1.0], [2.0], [11.0], [14.0]])
    transport = EMDTransport().fit(X0, X1)
    assert_allclose(transport.transform(X0).ravel(), [1.5, 1.5, 12.5, 12.5])
    assert_allclose(transport.fit(X0[::-1], X1).transform([[0.1], [9.0]]).ravel(), [1.6, 11.5])


@pytest.mark.parametrize("name", WITH_PLAN)
def test_blocks_do_not_change_the_result(name, monkeypatch):
    X0, X1, y0, X = clouds()
    transport = BASELINES[name]().fit(X0, X1, y0=y0)
    expected = transport.transform(X)
    monkeypatch.setattr(plan_module, "_BLOCK_ENTRIES", 4 * 60)
    assert_allclose(transport.transform(X), expected, atol=1e-9)


@pytest.mark.parametrize("name", NEAREST_ROW)
def test_nearest_row_is_found_far_from_the_origin_and_beside_outliers(name):
    X0, X1, y0, _ = clouds()
    X0[0] = 1e9
    transport = BASELINES[name]().fit(X0 + 1e4, X1 + 1e4, y0=y0)
    moved = transport.transform(X0[1:] + 1e4)
    for x, y in zip(X0[1:] + 1e4, moved, strict=True):
        own = (transport.support_ == x).all(axis=1)
        assert own.sum() == 1
        assert_allclose(y, transport.image_[own][0], atol=1e-9)


@pytest.mark.parametrize("y0, message", [
    (None, "needs the labels of the source; got y0=None"),
    ([0, 1, -1, 1], r"y0 has 1 missing label.*first at row 2"),
    ([0, np.nan, np.nan, 1], r"y0 has 2 missing label.*first at row 1"),
    (np.array(["a", None, "b", "b"], dtype=object), r"y0 has 1 missing label.*first at row 1"),
    (np.array(["a", "b", "b", -1], dtype=object), r"y0 has 1 missing label.*first at row 3"),
])
def test_missing_labels_are_refused(y0, message):
    X = np.arange(8.0).reshape(4, 2)
    with pytest.raises(ValueError, match=message):
        ClassRegularizedSinkhornTransport().fit(X, X, y0=y0)


@pytest.mark.parametrize("y0", [
    np.array(["b", "a", "b", "a"]), np.array(["x", 3, "x", 3], dtype=object), np.array([True, False, True, False]),
    torch.tensor([7, 2, 7, 2]), np.array([0.5, 1.5, 0.5, 1.5]), np.array([3, 1, 3, 1], dtype=np.uint8),
])
def test_labels_of_any_kind_mean_their_classes(y0):
    X0 = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.1]])
    X1 = X0[:, ::-1] + 0.4
    expected = ClassRegularizedSinkhornTransport(reg=0.5).fit(X0, X1, y0=[0, 1, 0, 1]).transform(X0)
    moved = ClassRegularizedSinkhornTransport(reg=0.5).fit(X0, X1, y0=y0).transform(X0)
    assert_allclose(moved, expected, atol=1e-6)
    other = ClassRegularizedSinkhornTransport(reg=0.5).fit(X0, X1, y0=[0, 0, 1, 1]).transform(X0)
    assert np.abs(moved - other).max() > 1e-3


@pytest.mark.parametrize("transport, name", [
    (SinkhornTransport(reg=0.0), "reg"), (SinkhornTransport(max_iter=0), "max_iter"),
    (UnbalancedSinkhornTransport(reg_m=-1.0), "reg_m"), (ClassRegularizedSinkhornTransport(reg_cl=-0.1), "reg_cl"),
    (EMDTransport(max_samples=0), "max_samples"), (KernelMappingTransport(sigma="wide"), "sigma"),
    (AffineTransport(reg=-1e-3), "reg"),
])
def test_parameters_are_validated(transport, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of {type(transport).__name__}"):
        transport.fit([[0.0]], [[1.0]])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", BASELINES)
def test_cuda_tensors_stay_where_they_are(name):
    X0, X1, y0, X = clouds()
    expected = BASELINES[name]().fit(X0, X1, y0=y0).transform(X)
    X0, X1, X = (torch.tensor(rows, device="cuda") for rows in (X0, X1, X))
    moved = BASELINES[name]().fit(X0, X1, y0=y0).transform(X)
    assert moved.device.type == "cuda"
    assert_allclose(moved.cpu(), expected, atol=1e-6)
