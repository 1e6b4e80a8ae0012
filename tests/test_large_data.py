"""Data that need not fit into memory: what is read, how much of it at once, and in which order."""

import copy
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import quick_flow
from sklearn import config_context
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from rfadapt import _samples, geometry
from rfadapt._devices import batch_rows
from rfadapt._samples import Samples
from rfadapt.baselines import AffineTransport

FINE = np.random.default_rng(0).normal(size=(30, 2))


class Listed(Dataset):
    """Items of any kind, one by one."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Recorded(Listed):
    """Rows with labels, read in batches; remembers which were asked for."""

    def __init__(self, items):
        super().__init__(items)
        self.requests = []

    def __getitem__(self, index):
        self.requests.append([index])
        return self.items[index], "label"

    def __getitems__(self, indices):
        self.requests.append(list(indices))
        return [(self.items[i], "label") for i in indices]


class Stream(IterableDataset):
    """Rows that come one after the other."""

    def __iter__(self):
        return iter(FINE)


class Peak(TorchDispatchMode):
    """Bytes of the largest tensor that was made in a block, and the peak of numpy's memory."""

    def __enter__(self):
        self.tensor = 0
        tracemalloc.start()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.numpy = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.tensor = max(self.tensor, value.numel() * value.element_size())
        return result


@pytest.fixture
def small_blocks(monkeypatch):
    """Nothing is kept, and 64 rows of 2 features are a block."""
    monkeypatch.setattr(geometry, "_RESIDENT_BYTES", 0)
    monkeypatch.setattr(_samples, "_BLOCK_BYTES", 64 * 2 * 8)


@pytest.mark.parametrize("velocity", ["potential", "gradient"])
def test_rows_are_read_in_blocks_and_in_order(velocity, clouds, small_blocks):
    X0, X1 = (Recorded(X) for X in clouds)
    flow = quick_flow(velocity=velocity, max_iter=20, batch_size=128)
    moved = flow.fit(X0, X1).transform(X0)
    for X in (X0, X1):
        assert max(map(len, X.requests)) <= max(64, batch_rows(2))
        assert all(request == sorted(request) for request in X.requests)
    assert max(map(len, X1.requests)) <= 64
    expected = quick_flow(velocity=velocity, max_iter=20, batch_size=128).fit(*clouds).transform(clouds[0])
    np.testing.assert_array_equal(moved, expected)


def test_a_fit_reads_every_row_three_times(clouds):
    X0, X1 = (Recorded(X) for X in clouds)
    quick_flow(max_iter=50).fit(X0, X1)
    for X in (X0, X1):
        # Once for NaN, mean and variance, once for the covariance, once to keep it; and the first item for its shape.
        assert np.bincount(np.concatenate(X.requests)).tolist() == [4] + [3] * (len(X) - 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int64, np.float16])
def test_a_file_is_never_held_in_memory(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(geometry, "_RESIDENT_BYTES", 0)
    monkeypatch.setattr(_samples, "_BLOCK_BYTES", 2**18)
    shape, files = (60_000, 16), []
    for k in (0, 1):
        files.append(np.lib.format.open_memmap(tmp_path / f"{k}.npy", "w+", dtype, shape))
        files[k][:] = np.random.default_rng(k).integers(-50, 50, size=shape)
        files[k].flush()
    whole = 60_000 * 16 * 2  # bytes, in the narrowest of these types
    flow = quick_flow(max_iter=3, batch_size=64, coupling="independent", validation_fraction=0.001)
    with Peak():
        flow.fit(*(file[:100] for file in files))  # what is imported takes memory, too
    with Peak() as fit:
        flow.fit(*(np.load(tmp_path / f"{k}.npy", mmap_mode="r") for k in (0, 1)))
    monkeypatch.setattr(flow, "_batch_rows", lambda: 1024, raising=False)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, shape)
    with Peak() as transform:
        flow.transform(files[0], out=out)
    # The order in which rows are drawn takes 8 bytes a row.
    assert fit.tensor <= 8 * 60_000 and fit.numpy < whole / 2
    assert transform.tensor < whole / 2 and transform.numpy < whole / 2
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (Listed([[1.0, 2.0], [3.0, 4.0]]), ValueError, "X1 must be a Dataset of rows.*got float of shape .. .*item 0"),
        (Listed(np.ones((3, 4, 4))), ValueError, r"got ndarray of shape \(4, 4\).*Flatten"),
        (Listed([np.ones(2), np.ones(3)]), ValueError, "rows of one length; got 2 features in item 0 and 3 in item 1"),
        (Listed(np.array([["a", "b"]])), ValueError, "1-D tensors or arrays of real numbers.*dtype <U1"),
        (Listed(np.ones((3, 5))), ValueError, r"X1 must have shape \(n_samples, 2\) like X0; got \(3, 5\)"),
        (Listed([]), ValueError, "Found X1 with 0 sample"),
        (Listed([torch.tensor([0.0, 1.0]), torch.tensor([0.0, torch.nan])]), ValueError, "nan at row 1, column 1"),
        (Stream(), TypeError, "X1 must be a map-style Dataset.*got Stream"),
    ],
    ids=range(8),
)
def test_a_dataset_that_is_not_one_of_rows(X, error, message):
    with pytest.raises(error, match=message):
        quick_flow().fit(FINE, X)


def test_single_precision_stays_single_precision(fitted):
    rows = torch.from_numpy(FINE)
    assert fitted.transform(TensorDataset(rows)).dtype == np.float64
    moved = fitted.transform(TensorDataset(rows.float(), torch.zeros(30)))
    assert isinstance(moved, np.ndarray) and moved.dtype == np.float32
    np.testing.assert_array_equal(moved, fitted.transform(FINE.astype(np.float32)))


def test_moments_of_blocks_are_those_of_all_rows(monkeypatch):
    monkeypatch.setattr(_samples, "_BLOCK_BYTES", 8 * 3 * 7)
    rng = np.random.default_rng(0)
    # Sorted, so that blocks differ, and far from the origin.
    X = np.sort(rng.normal(size=(1000, 3)), axis=0) * [1.0, 10.0, 0.01] + [1e6, -1e3, 0.0]
    mean, variance = Samples(X).mean_and_variance
    np.testing.assert_allclose(mean, X.mean(0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(variance, X.var(0), rtol=1e-7)
    _, moments, _ = geometry.fit_geometry(Samples(X), Samples(X), "feature")
    z = (X - X.mean(0)) / X.std(0)
    np.testing.assert_allclose(moments.covariance, z.T @ z / 1000, rtol=1e-6)
    assert float(moments.fourth) == pytest.approx(((z**2).sum(1) ** 2).mean(), rel=1e-6)


def test_batches_are_sized_by_what_they_need():
    assert batch_rows(1) == 32768
    for n_features, width in ((50, 0), (50, 512), (200, 2048)):
        assert 2**25 < 4 * (16 * n_features + 6 * width) * batch_rows(n_features, width) <= 2**26
    assert batch_rows(20_000) == 20_000


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_blocks_do_not_change_the_result(method, fitted, clouds, monkeypatch):
    flow = copy.copy(fitted)
    together = getattr(flow, method)(clouds[0])
    flow._batch_rows = lambda: 37
    np.testing.assert_allclose(getattr(flow, method)(clouds[0]), together, atol=1e-4)


@pytest.mark.parametrize("method", ["transform", "inverse_transform"])
def test_out_may_be_the_input_and_of_another_precision(method, fitted, clouds):
    flow = copy.copy(fitted)
    flow._batch_rows = lambda: 37
    expected = getattr(flow, method)(clouds[0])
    X = clouds[0].copy()
    assert getattr(flow, method)(X, out=X) is X
    np.testing.assert_array_equal(X, expected)
    single = np.empty(X.shape, np.float32)
    getattr(flow, method)(clouds[0], out=single)
    np.testing.assert_array_equal(single, expected.astype(np.float32))


def test_out_is_refused_before_the_rows_are_looked_at(fitted):
    out = np.ones((30, 2))
    out.flags.writeable = False
    rows = Recorded(FINE)
    for bad, message in ((out, "out must be writeable; got a read-only array"), (np.ones((2, 2)), "shape"),
                         (np.ones((30, 2), int), "floating point")):
        with pytest.raises(ValueError, match=message):
            fitted.transform(rows, out=bad)
    assert rows.requests == [[0]] * 3  # the first item, for its shape


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_out_and_frames_contradict_each_other(container):
    transport, out = AffineTransport().fit(FINE, FINE + 1), np.zeros((30, 2))
    with config_context(transform_output=container), pytest.raises(ValueError, match=f"transform='{container}'"):
        transport.transform(FINE, out=out)
    transport.set_output(transform=container)
    with pytest.raises(ValueError, match="asks for a frame"):
        transport.transform(FINE, out=out)
    assert not out.any()
    assert transport.inverse_transform(FINE + 1, out=out) is out  # whose result is never a frame
    assert transport.set_output(transform="default").transform(FINE, out=out) is out
