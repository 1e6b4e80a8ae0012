import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from rfadapt.images.metrics import content_kept, features_of, frechet_distance, kernel_distance


def two_samples(n=400, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), rng.normal(size=(n, d)) + 2


def test_frechet_distance_is_that_of_the_matrix_square_root():
    X, Y = two_samples()
    S0, S1 = np.cov(X.T), np.cov(Y.T)
    expected = ((X.mean(0) - Y.mean(0)) ** 2).sum() + np.trace(S0 + S1 - 2 * sqrtm(S0 @ S1).real)
    assert frechet_distance(X, Y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(X, X) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_is_that_of_torchmetrics():
    image = pytest.importorskip("torchmetrics.image.fid")

    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, x):
            return x.flatten(1).float()

    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, high, size=(300, 3, 2, 2), dtype=np.uint8)) for high in (256, 128)]
    metric = image.FrechetInceptionDistance(feature=Flat(), input_img_size=(3, 2, 2))
    metric.update(images[0], real=True)
    metric.update(images[1], real=False)
    ours = frechet_distance(*(batch.flatten(1).numpy() for batch in images))
    assert ours == pytest.approx(metric.compute().item(), rel=1e-3)


def test_kernel_distance_is_the_mean_over_distinct_pairs():
    X, Y = two_samples(n=20)

    def k(x, y):
        return (x @ y / len(x) + 1) ** 3

    within = [np.mean([k(x, y) for i, x in enumerate(Z) for j, y in enumerate(Z) if i != j]) for Z in (X, Y)]
    assert kernel_distance(X, Y) == pytest.approx(sum(within) - 2 * np.mean([k(x, y) for x in X for y in Y]))


def test_content_kept_is_the_share_of_labels_that_are_read():
    assert content_kept(np.arange(4), [0, 1, 2, 9], lambda images: images) == 0.75


def test_features_are_those_of_images_between_minus_one_and_one():
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[1] = 255
    np.testing.assert_allclose(features_of(images, lambda x: x.mean((2, 3))), [[-1] * 3, [1] * 3, [-1] * 3])


def test_features_must_be_two_samples():
    with pytest.raises(ValueError, match="two samples"):
        frechet_distance(np.zeros((3, 2)), np.zeros((3, 4)))
