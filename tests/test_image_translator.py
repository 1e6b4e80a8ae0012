"""Translation of small images: what it learns, what it gives back, and that a fit that was killed goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from torch import nn
from torchvision.transforms import v2

from rfadapt import ImageTranslator
from rfadapt.images import content
from rfadapt.images.domain_loss import domain_loss
from rfadapt.images.fitting import ImageFit
from rfadapt.images.metrics import cycle_error
from rfadapt.images.pairing import pair_by_transport, pair_independently
from rfadapt.images.reading import Images
from rfadapt.images.spread import Spread, smooth_noise, variances_by_scale
from rfadapt.images.training import Training


def bars(n, colour, background, seed=0):
    """Images of 8 x 8 pixels with one upright (label 0) or level (label 1) bar, and the labels."""
    rng = np.random.default_rng(seed)
    images = np.empty((n, 8, 8, 3), np.uint8)
    images[:] = background
    labels = rng.integers(0, 2, size=n)
    for image, label, place in zip(images, labels, rng.integers(1, 6, size=n)):
        view = image.swapaxes(0, 1) if label else image
        view[:, place : place + 2] = colour
    return images, labels


def is_level(images):
    """1 where rows differ more than columns do."""
    gray = images.astype(float).mean(-1)
    return (gray.mean(2).std(1) > gray.mean(1).std(1)).astype(int)


SOURCE, SOURCE_LABELS = bars(96, (250, 250, 250), (10, 10, 10))
TARGET, TARGET_LABELS = bars(80, (40, 60, 220), (200, 180, 60), seed=1)


def quick(**params):
    quick = {"max_iter": 20, "width": 8, "batch_size": 16, "n_steps": 2, "learning_rate": 5e-3, "device": "cpu",
             "precision": "float32", "random_state": 0}
    return ImageTranslator(**{**quick, **params})


@pytest.fixture(scope="module")
def trained():
    return quick(max_iter=250, batch_size=32, n_steps=4).fit(SOURCE, TARGET)


def test_colours_become_those_of_the_target_and_shapes_stay(trained):
    moved = trained.transform(SOURCE)
    assert moved.shape == SOURCE.shape and moved.dtype == np.uint8
    assert np.abs(moved.mean((0, 1, 2)) - TARGET.mean((0, 1, 2))).max() < 20
    assert (is_level(moved) == SOURCE_LABELS).mean() > 0.8


def test_the_flow_backwards_leads_to_where_it_started(trained):
    x = torch.from_numpy(SOURCE[:16]).movedim(-1, 1).float() / 127.5 - 1
    c = trained.flow_.condition(x, None)

    def error(n_steps):
        grid = torch.linspace(0, 1, n_steps + 1)
        there = trained.flow_.solve(x, c, grid)
        assert (there - x).abs().mean() > 0.3
        return (trained.flow_.solve(there, c, grid.flip(0)) - x).abs().mean()

    coarse, fine = error(10), error(60)
    assert fine < 0.01 and fine < coarse / 4


def test_the_way_back_makes_images_of_the_source(trained):
    back = trained.inverse_transform(TARGET)
    assert back.shape == TARGET.shape and np.abs(back.mean() - SOURCE.mean()) < 25
    assert (is_level(back) == TARGET_LABELS).mean() > 0.8


def test_the_cycle_error_is_that_of_going_there_and_back(trained):
    back = trained.inverse_transform(trained.transform(SOURCE[:8]))
    assert cycle_error(trained, SOURCE[:8]) == pytest.approx(np.abs(back.astype(float) - SOURCE[:8]).mean() / 255)
    with pytest.raises(ValueError, match="target's size"):
        cycle_error(trained, SOURCE[:2, :4])


def test_a_trajectory_leads_from_source_to_translation(trained):
    path = trained.trajectory(SOURCE[:5], 3)
    assert path.shape == (3, 5, 8, 8, 3) and path.dtype == np.uint8
    assert np.abs(path[-1].astype(int) - trained.transform(SOURCE[:5])).max() <= 1
    with pytest.raises(ValueError, match="at least 2"):
        trained.trajectory(SOURCE[:5], 1)


def test_saved_and_loaded_it_translates_the_same(trained, tmp_path):
    trained.save(tmp_path / "model")
    loaded = ImageTranslator.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(SOURCE[:9]), trained.transform(SOURCE[:9]))
    np.testing.assert_array_equal(loaded.inverse_transform(TARGET[:9]), trained.inverse_transform(TARGET[:9]))
    assert loaded.history_ == trained.history_
    with pytest.raises(ValueError, match="not an Other"):
        type("Other", (ImageTranslator,), {}).load(tmp_path / "model")


def test_what_is_given_comes_back_in_kind(trained):
    expected = trained.transform(SOURCE[:6])
    tensor = torch.from_numpy(SOURCE[:6]).movedim(-1, 1)
    moved = trained.transform(tensor)
    assert isinstance(moved, torch.Tensor) and moved.dtype == torch.uint8
    np.testing.assert_array_equal(moved.movedim(1, -1).numpy(), expected)
    floats = trained.transform(SOURCE[:6] / 255)
    assert floats.dtype == np.float64
    np.testing.assert_allclose(floats, expected / 255, atol=1e-6)


def test_folders_are_read_and_written(trained, tmp_path):
    (tmp_path / "in").mkdir()
    for i, image in enumerate(SOURCE[:3]):
        Image.fromarray(image).save(tmp_path / "in" / f"bar{i}.png")
    written = trained.transform(tmp_path / "in", out=tmp_path / "out")
    assert [Path(path).name for path in written] == ["bar0.png", "bar1.png", "bar2.png"]
    images = np.stack([np.asarray(Image.open(path)) for path in written])
    np.testing.assert_array_equal(images, trained.transform(SOURCE[:3]))
    with pytest.raises(ValueError, match="give a folder"):
        trained.transform(tmp_path / "in")


def test_gray_and_small_sources_become_images_of_the_target():
    gray = SOURCE[:, ::2, ::2, 0]
    moved = quick().fit(gray, TARGET).transform(gray)
    assert moved.shape == (96, 8, 8, 3)


def test_the_same_seed_gives_the_same_translation():
    a, b = (clone(quick()).fit(SOURCE, TARGET).transform(SOURCE[:4]) for _ in range(2))
    np.testing.assert_array_equal(a, b)


class _Killed(Exception):
    pass


class DiesAt:
    """An augmentation that ends the fit at some call, as a kill would."""

    def __init__(self, n_calls):
        self.left = n_calls

    def __repr__(self):
        return "DiesAt"

    def __call__(self, images):
        self.left -= 1
        if self.left == 0:
            raise _Killed
        return v2.functional.horizontal_flip(images) if torch.rand(()) < 0.5 else images


@pytest.fixture
def often(monkeypatch):
    """Checkpoints every ten steps."""
    monkeypatch.setattr("rfadapt.images.fitting._CHECK_EVERY", 10)


def test_a_killed_fit_resumes_to_the_same_weights(tmp_path, often):
    # The expected weights are those of a fit that nobody killed, with the same draws.
    whole = quick(max_iter=40, augment=DiesAt(-1)).fit(SOURCE, TARGET)
    path = tmp_path / "fit.checkpoint"
    killed = quick(max_iter=40, augment=DiesAt(2 * 25), checkpoint=path)
    with pytest.raises(_Killed):
        killed.fit(SOURCE, TARGET)
    assert path.exists() and not hasattr(killed, "flow_")
    # Whatever is random outside of the fit must not matter.
    torch.manual_seed(99)
    resumed = quick(max_iter=40, augment=DiesAt(-1), checkpoint=path).fit(SOURCE, TARGET)
    assert not path.exists()
    expected, found = whole.flow_.state(), resumed.flow_.state()
    assert set(expected) == set(found)
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("stage", [1, 2])
def test_a_fit_killed_in_a_later_round_resumes_to_the_same_weights(tmp_path, often, monkeypatch, stage):
    options = {"max_iter": 40, "n_reflow": 1, "distill": True, "features": "pixels", "conditions": None}
    whole = quick(**options).fit(SOURCE, TARGET)
    write, path, written = ImageFit._write_checkpoint, tmp_path / "fit.checkpoint", []

    def write_and_die(self, number, *rest):
        write(self, number, *rest)
        written.append(number)
        if number == stage:
            raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(ImageFit, "_write_checkpoint", write_and_die)
        with pytest.raises(_Killed):
            quick(checkpoint=path, **options).fit(SOURCE, TARGET)
    resumed = quick(checkpoint=path, **options).fit(SOURCE, TARGET)
    assert written[-1] == stage and written.count(stage) == 1
    for name, value in whole.flow_.state().items():
        assert torch.equal(value, resumed.flow_.state()[name]), name


def test_the_checkpoint_of_another_fit_is_refused(tmp_path, often):
    path = tmp_path / "fit.checkpoint"
    with pytest.raises(_Killed):
        quick(augment=DiesAt(2 * 15), checkpoint=path).fit(SOURCE, TARGET)
    with pytest.raises(ValueError, match="checkpoint of another fit"):
        quick(max_iter=21, augment=DiesAt(-1), checkpoint=path).fit(SOURCE, TARGET)


def test_accumulated_gradients_are_those_of_the_larger_batch():
    torch.manual_seed(0)
    x, net = torch.randn(8, 3), nn.Linear(3, 1)
    batches = iter(x.split(4))
    training = Training(net, quick(accumulate=2), later=False)
    training.step(lambda: net(next(batches)).square().mean())
    accumulated = [value.grad.clone() for value in net.parameters()]
    fresh = nn.Linear(3, 1)
    torch.manual_seed(0)
    torch.randn(8, 3)
    fresh.reset_parameters()
    expected = torch.autograd.grad(fresh(x).square().mean(), list(fresh.parameters()))
    norm = torch.cat([g.flatten() for g in expected]).norm().clamp_min(1.0)
    for ours, theirs in zip(accumulated, expected):
        torch.testing.assert_close(ours, theirs / norm, rtol=1e-4, atol=1e-6)


def test_a_student_translates_in_one_evaluation():
    translator = quick(max_iter=200, distill=True, n_reflow=1, features="pixels", conditions=None).fit(SOURCE, TARGET)
    calls = []
    translator.flow_.student.register_forward_hook(lambda *_: calls.append("student"))
    translator.flow_.velocity.register_forward_hook(lambda *_: calls.append("flow"))
    once = translator.transform(SOURCE[:32])
    assert calls == ["student"]
    many = translator.set_params(distill=False).transform(SOURCE[:32])
    assert calls.count("flow") == 4  # midpoint, two steps
    assert np.abs(once.astype(float) - many).mean() < 25
    assert [stage["stage"] for stage in translator.history_] == ["flow", "reflow 1", "distil"]
    with pytest.raises(ValueError, match="no student"):
        quick().fit(SOURCE, TARGET).set_params(distill=True).transform(SOURCE[:2])


def test_distillation_can_look_at_features_of_ones_own():
    seen = []

    def features(x):
        seen.append(x.shape)
        return nn.functional.avg_pool2d(x, 4)

    quick(max_iter=40, distill=True, distill_features=features).fit(SOURCE, TARGET)
    assert len(seen) == 2 * 10  # the second half of 20 steps, student and teacher


def test_guidance_one_is_the_conditional_flow_and_zero_the_unconditional_one(trained):
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t, c = torch.full((4,), 0.5), torch.randn(4, trained.flow_.n_content)
    net = trained.flow_.velocity
    with torch.no_grad():
        conditional, unconditional = net(x, t, c), net(x, t)
    try:
        for scale in (0.0, 1.0, 2.5):
            trained.set_params(guidance_scale=scale)
            guided = trained.flow_._guided(c, torch.enable_grad)(x, t)
            torch.testing.assert_close(guided, scale * conditional + (1 - scale) * unconditional, rtol=1e-4, atol=1e-5)
    finally:
        trained.set_params(guidance_scale=1.0)


def test_labels_as_conditions_say_what_the_translation_shows():
    colours = np.array(["red", "blue"])[TARGET_LABELS]
    target = np.where((colours == "red")[:, None, None, None], [220, 30, 30], [30, 30, 220]).astype(np.uint8)
    target = np.broadcast_to(target, TARGET.shape).copy()
    told = quick(max_iter=300, coupling="independent", features="pixels", conditions=None)
    told.fit(SOURCE, target, conditions1=colours)
    assert told.classes_.tolist() == ["blue", "red"]
    red, blue = (told.transform(SOURCE[:20], conditions=[name] * 20).mean((0, 1, 2)) for name in ("red", "blue"))
    assert red[0] - blue[0] > 60 and blue[2] - red[2] > 60
    with pytest.raises(ValueError, match="labels among"):
        told.transform(SOURCE[:1], conditions=["green"])
    with pytest.raises(ValueError, match="conditions of 2 features; this call none"):
        told.transform(SOURCE[:1])


def test_reflow_needs_conditions_of_the_source():
    with pytest.raises(ValueError, match="conditions0"):
        quick(n_reflow=1).fit(SOURCE, TARGET, conditions1=TARGET_LABELS)


def test_a_latent_space_of_ones_own():
    class Halves:
        """Mean of 2 x 2 pixels, and its repetition."""

        def encode(self, x):
            return nn.functional.avg_pool2d(x, 2)

        def decode(self, z):
            return nn.functional.interpolate(z, scale_factor=2.0)

    translator = quick(codec=Halves(), max_iter=150, features="pixels", conditions=None).fit(SOURCE, TARGET)
    moved = translator.transform(SOURCE)
    np.testing.assert_array_equal(moved[:, ::2, ::2], moved[:, 1::2, 1::2])
    assert np.abs(moved.mean((0, 1, 2)) - TARGET.mean((0, 1, 2))).max() < 40


def test_a_field_of_ones_own():
    class Field(nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.net = nn.Conv2d(shape[0] + 1, shape[0], 3, padding=1)

        def forward(self, x, t):
            return self.net(torch.cat([x, t[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1))

    translator = quick(velocity=Field, features="pixels", conditions=None).fit(SOURCE, TARGET)
    assert isinstance(translator.flow_.velocity, Field)
    with pytest.raises(TypeError, match="torch.nn.Module"):
        quick(velocity=lambda shape, n: None).fit(SOURCE, TARGET)


def test_the_domain_loss_sees_only_what_the_features_see():
    matrix = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    x, r = torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2, requires_grad=True)
    loss = domain_loss(lambda x: x.flatten(1) @ matrix.T, x, r)
    torch.testing.assert_close(loss, (r.flatten(1) @ matrix.T).square().mean())
    (gradient,) = torch.autograd.grad(loss, r)
    kernel = torch.linalg.svd(matrix).Vh[3:]  # directions in which the features do not change
    torch.testing.assert_close(gradient.flatten(1) @ kernel.T, torch.zeros(5, 9), atol=1e-5, rtol=0)
    assert np.isfinite(quick(loss="domain").fit(SOURCE, TARGET).history_[-1]["loss"])


def test_pairs_are_the_best_assignment_of_their_features():
    x = torch.arange(6.0)[:, None]
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    generator = torch.Generator().manual_seed(0)
    index0, index1 = pair_by_transport(x, x[order] + 100, None, None, n_pairings=4, generator=generator)
    assert len(index0) == 6 and (order[index1] == index0).all()


@pytest.mark.parametrize("paired", ["transport", "independent"])
def test_labels_are_kept_by_the_pairs(paired):
    generator = torch.Generator().manual_seed(0)
    y0, y1 = (torch.randint(0, 3, (n,), generator=generator) for n in (50, 70))
    if paired == "transport":
        x0, x1 = (torch.randn(n, 2, generator=generator) for n in (50, 70))
        index0, index1 = pair_by_transport(x0, x1, y0, y1, n_pairings=1, generator=generator)
    else:
        index0, index1 = pair_independently(50, 70, y0, y1, n_pairs=200, generator=generator)
    assert (y0[index0] == y1[index1]).all() and set(y0.tolist()) == set(y0[index0].tolist())


def test_labels_with_nothing_in_common_are_refused():
    with pytest.raises(ValueError, match="no label in common"):
        quick().fit(SOURCE, TARGET, y0=["a"] * 96, y1=["b"] * 80)
    with pytest.raises(ValueError, match="one entry for each of the 96"):
        quick().fit(SOURCE, TARGET, y0=[0, 1], y1=TARGET_LABELS)


def test_noise_is_what_the_source_lacks_and_is_taken_away_again():
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(500, 1, 2, 2, generator=generator), torch.randn(500, 1, 2, 2, generator=generator)
    x0[..., 0] = -1.0  # a black column
    spread = Spread.of(x0, 0.5 * x1, noise=True)
    assert (spread.deviation[..., 1] == 0).all() and (spread.deviation[..., 0] > 0.4).all()
    torch.testing.assert_close(spread.remove(spread.add(x0, generator)), x0)


def test_noise_has_the_scales_and_colours_that_the_source_lacks():
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.1, 0.0, 0.2, 0.7])
    noise = smooth_noise(torch.empty(4000, 3, 6, 8), shares, generator)
    torch.testing.assert_close(noise.var(0), torch.ones(3, 6, 8), rtol=0.15, atol=0)
    # Of pixels without any bond, squares of k pixels have the share 1 / k^2 of the variance.
    white = variances_by_scale(torch.randn(4000, 3, 8, 8, generator=generator))
    assert white.tolist() == pytest.approx([3 / 4, 3 / 16, 3 / 64, 1 / 64], rel=0.05)
    # A source of fine grain on black; the target has other colours as a whole, the same in red and green.
    grain = 0.5 * torch.randn(4000, 3, 8, 8, generator=generator)
    tint = torch.randn(4000, 2, 1, 1, generator=generator)[:, [0, 0, 1]].expand(-1, -1, 8, 8)
    spread = Spread.of(grain, tint + grain, noise=True)
    assert spread.scales[-1] > 0.95
    red, green, blue = spread.add(torch.zeros(4000, 3, 8, 8), generator).mean((2, 3)).T
    alike, unlike = (torch.corrcoef(torch.stack([red, other]))[0, 1] for other in (green, blue))
    assert alike > 0.75 and abs(unlike) < 0.1
    assert red.std().item() == pytest.approx(1, rel=0.1)


def test_noise_goes_to_the_target_images_that_are_like_it():
    x0, generator = torch.full((6, 1, 4, 4), -1.0), torch.Generator().manual_seed(0)
    # Black sources, targets of one tone each: the brightest gets the brightest noise, and so on.
    x1 = torch.linspace(-1, 1, 6)[[3, 0, 5, 1, 4, 2]][:, None, None, None].expand(6, 1, 4, 4)
    spread = Spread.of(x0, x1, noise=True)
    assert spread.scales[-1] == 1
    start = spread.add(x0, generator, towards=x1)
    assert (start.mean((1, 2, 3)).argsort() == x1.mean((1, 2, 3)).argsort()).all()
    generator.manual_seed(0)
    drawn = spread.add(x0, generator)  # the same draws, in other order
    torch.testing.assert_close(start.mean((1, 2, 3)).sort()[0], drawn.mean((1, 2, 3)).sort()[0])


def test_content_is_what_styles_leave_alone():
    """After training, an image is nearer to itself in another style than to other images in its own."""
    generator = torch.Generator().manual_seed(0)

    def read(images, index):
        return images.batch(index).float() / 127.5 - 1

    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = content.fit_content_encoder(
            Images(SOURCE, "source"), Images(TARGET, "target"), read, autocast=torch.enable_grad, device="cpu",
            generator=generator, n_steps=250,
        )  # fmt: skip
    x0 = read(Images(SOURCE, "source"), torch.arange(len(SOURCE)))
    styled = torch.stack([-0.5 * x0[:, 0], -0.4 * x0[:, 1], -0.7 * x0[:, 2]], 1) + 0.2

    def share_of_the_same_bar(features):
        nearest = torch.cdist(features(styled), features(x0)).argmin(1)
        return (x0[nearest] == x0).flatten(1).all(1).float().mean()

    assert share_of_the_same_bar(encoder) > 0.4  # one of ten bars would be chance
    assert share_of_the_same_bar(lambda x: x.flatten(1)) < 0.2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"features": "pixels"}, "conditions=None as well"),
        ({"augment": v2.RandomHorizontalFlip}, "Add parentheses"),
        ({"image_size": 9}, "must be even"),
        ({"n_steps": 0}, "n_steps"),
        ({"solver": "unknown"}, "solver"),
    ],
)
def test_options_that_go_wrong_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        quick(**params).fit(SOURCE, TARGET)


def test_a_failed_fit_leaves_the_translator_as_it_was(trained):
    translator = clone(trained).set_params(max_iter=20).fit(SOURCE, TARGET)
    before = translator.transform(SOURCE[:3])
    with pytest.raises(_Killed):
        translator.set_params(augment=DiesAt(3)).fit(SOURCE, TARGET)
    np.testing.assert_array_equal(translator.transform(SOURCE[:3]), before)


def test_a_fit_holds_no_more_images_than_it_is_allowed(tmp_path, monkeypatch):
    """Of a folder larger than the bound, no more images than that are decoded at once, or kept."""
    monkeypatch.setattr("rfadapt.images.reading._HELD_BYTES", 0)  # that is 64 images, whatever their size
    (tmp_path / "in").mkdir()
    for i in range(150):
        Image.fromarray(SOURCE[i % 96]).save(tmp_path / "in" / f"{i}.png")
    sizes, batch = [], Images.batch
    monkeypatch.setattr(Images, "batch", lambda self, index: sizes.append(len(index)) or batch(self, index))
    translator = quick(max_iter=2, n_reflow=1).fit(tmp_path / "in", TARGET)
    assert max(sizes) <= 64
    assert sum(value.nbytes for value in translator.flow_.state().values()) < 2**22
