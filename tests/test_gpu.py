"""On a CUDA device: the same results as on the CPU, and no step of training waits for the device."""

import gc
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from rfadapt import ImageTranslator, RectifiedFlowTransport, metrics
from rfadapt._devices import Replayed
from rfadapt._objectives import Regression, SemiDual
from rfadapt._timed_pairs import AnyTime
from rfadapt.couplings import IndependentCoupling
from rfadapt.geometry import TensorRows
from rfadapt.paths import LinearPath
from rfadapt.predictions import PREDICTIONS
from rfadapt.velocity import AffineVelocity, ConvexPotential, GradientVelocity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@contextmanager
def no_waiting():
    """Within it, whatever makes the host wait for the device is an error."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def rows_of(n=3000, n_features=4):
    """Rows of two domains, on the device."""
    x0 = torch.randn(n, n_features)
    return [TensorRows(rows.cuda()) for rows in (x0, torch.randn(n, n_features) + torch.randn(n, 1).sign())]


def test_no_waiting_notices_what_waits():
    with pytest.raises(RuntimeError), no_waiting():
        torch.ones(3, device="cuda").sum().item()


def test_a_replayed_function_takes_every_call_s_inputs():
    weights = torch.ones(3, device="cuda")
    replayed = Replayed(lambda x, index: (x * weights).sum(1).index_select(0, index))
    answers, expected = [], []
    for n in range(4):
        x, index = torch.randn(5, 3), torch.randint(5, (7,))
        weights.fill_(n)
        answers.append(replayed(x.cuda(), index.cuda()))
        expected.append(n * x.sum(1)[index])
    torch.testing.assert_close(torch.stack(answers).cpu(), torch.stack(expected))


def test_what_is_thrown_away_meanwhile_does_not_spoil_a_recording():
    """Recordings of an earlier fit are garbage that the collector may find at any moment."""
    x = torch.ones(3, device="cuda")
    earlier = Replayed(lambda x: x + 1)
    earlier(x)
    earlier.itself = earlier
    garbage = [earlier]
    del earlier

    def function(x):
        if torch.cuda.is_current_stream_capturing():
            garbage.clear()
            if gc.isenabled():  # the collector may come by
                gc.collect()
        return x + 2

    torch.testing.assert_close(Replayed(function)(x).cpu(), torch.full((3,), 3.0))


def test_a_step_of_the_semi_dual_does_not_wait():
    generator = torch.Generator().manual_seed(0)
    potential = ConvexPotential(*[torch.eye(4, dtype=torch.float64)] * 2, 64, generator).cuda()
    objective = SemiDual(potential, *rows_of(), batch_size=512, generator=generator)
    objective.set_gradients(1.0)  # is recorded
    with no_waiting():
        losses = [objective.set_gradients(1.0) for _ in range(5)]
    assert torch.isfinite(torch.stack(losses)).all()
    assert all(torch.isfinite(value.grad).all() for value in potential.parameters())


def test_gradients_of_the_semi_dual_are_those_on_the_cpu():
    """Whose far rows are improved alone, so that conjugates differ where they are not close; later batches agree."""
    gradients = {}
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        rows = [TensorRows(rows._values.to(device)) for rows in rows_of()]
        potential = ConvexPotential(*[torch.eye(4, dtype=torch.float64)] * 2, 64, generator).to(device)
        objective = SemiDual(potential, *rows, batch_size=3000, generator=generator)
        for _ in range(12):  # the same parameters, so that all conjugates come close
            objective.set_gradients(1.0)
        gradients[device] = torch.cat([value.grad.flatten().cpu() for value in potential.parameters()])
    difference = (gradients["cuda"] - gradients["cpu"]).norm() / gradients["cpu"].norm()
    assert difference < 0.05


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_step_of_regression_does_not_wait(bfloat16):
    generator = torch.Generator().manual_seed(0)
    rows0, rows1 = rows_of()
    path, eye = LinearPath(), torch.eye(4, dtype=torch.float64)
    objective = Regression(
        GradientVelocity(4, width=64, generator=generator).cuda(),
        AffineVelocity(eye, eye, path).cuda(),
        AnyTime(IndependentCoupling().prepare(rows0, rows1, generator)),
        path,
        PREDICTIONS["v"](),
        weighted=True,
        batch_size=256,
        generator=generator,
        bfloat16=bfloat16,
    )
    objective.set_gradients(1.0)
    with no_waiting():
        losses = [objective.set_gradients(1.0) for _ in range(3)]
    assert torch.isfinite(torch.stack(losses)).all()


def test_the_optimal_map_is_found_as_well_as_on_the_cpu():
    rng = np.random.default_rng(0)
    directions, A = rng.normal(size=(6, 3)), np.diag([2.0, 1.0, 0.5])

    def optimal_map(X):  # the gradient of a convex function
        return X @ A + np.tanh(X @ directions.T) @ directions

    X0, other, X = (rng.normal(size=(4000, 3)) for _ in range(3))
    X1 = optimal_map(other)
    errors = {}
    for device in ("cpu", "cuda"):
        flow = RectifiedFlowTransport(max_iter=400, random_state=0, device=device).fit(X0, X1)
        errors[device] = metrics.l2_uvp(flow.transform(X), optimal_map(X), X1.var(0).sum())
        np.testing.assert_allclose(flow.inverse_transform(flow.transform(X[:200])), X[:200], atol=0.02)
    assert errors["cuda"] < 1.3 * errors["cpu"] + 0.1


@pytest.mark.parametrize("settings", [{"n_reflow": 1}, {"velocity": "mlp", "coupling": "ot"}, {"rotation": True}])
def test_every_kind_of_fit_runs(settings):
    rng = np.random.default_rng(0)
    X0, X1 = rng.normal(size=(400, 3)), 2 * rng.normal(size=(300, 3)) + 1
    flow = RectifiedFlowTransport(max_iter=60, random_state=0, device="cuda", **settings).fit(X0, X1)
    assert np.isfinite(flow.transform(X0)).all()
    moved = flow.transform(torch.tensor(X0, device="cuda"))
    assert moved.is_cuda and moved.dtype == torch.float64


def test_images_are_translated():
    rng = np.random.default_rng(0)
    dark, bright = rng.integers(0, 60, (80, 16, 16, 1), np.uint8), rng.integers(190, 255, (80, 16, 16, 1), np.uint8)
    translator = ImageTranslator(max_iter=30, random_state=0, device="cuda").fit(dark, bright)
    assert translator.transform(dark[:8]).shape == (8, 16, 16, 1)


def test_modules_of_the_user_s_own_are_moved_to_the_device():
    class Codec(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = torch.nn.Conv2d(1, 4, 2, 2), torch.nn.ConvTranspose2d(4, 1, 2, 2)

        def encode(self, x):
            return self.encoder(x)

        def decode(self, z):
            return self.decoder(z)

    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 16, 16, 1), np.uint8)
    settings = {"max_iter": 4, "distill": True, "random_state": 0, "device": "cuda"}
    translator = ImageTranslator(codec=Codec(), distill_features=torch.nn.Flatten(), **settings).fit(images, images)
    assert translator.transform(images[:3]).shape == (3, 16, 16, 1)
