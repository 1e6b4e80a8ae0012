"""How well images were translated: nearness to the target in a space of features, content kept, way back."""

from __future__ import annotations

import numpy as np
import torch

from .reading import as_floats

_TOGETHER = 256


def features_of(images, network):
    """Features of images, by a network, a few at a time.

    Parameters
    ----------
    images : ndarray of shape (n, height, width, channels) and type uint8
    network : callable
        f(x) -> Tensor of shape (n, ...), of float images x of shape (n, channels, height, width) between -1 and 1.

    Returns
    -------
    features : ndarray of shape (n, n_features), float64
    """
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), _TOGETHER):
            x = torch.from_numpy(np.ascontiguousarray(images[start : start + _TOGETHER])).movedim(-1, 1)
            parts.append(network(as_floats(x)).flatten(1).double().cpu())
    return torch.cat(parts).numpy()


def frechet_distance(features, target_features):
    r"""Fréchet distance between two samples of features, as if both were Gaussian.

    .. math:: \|m_0 - m_1\|^2 + \mathrm{tr}(S_0 + S_1 - 2 (S_0 S_1)^{1/2})

    With the features of Inception-v3 this is the FID; say which features yours are of. It is biased upwards for few
    images: compare samples of equal size.

    Parameters
    ----------
    features, target_features : ndarray of shape (n, n_features), (m, n_features)

    Returns
    -------
    distance : float
        In squared units of the features.

    References
    ----------
    M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.images.metrics import frechet_distance
    >>> X = np.random.default_rng(0).normal(size=(500, 3))
    >>> round(frechet_distance(X, X + 1), 6)
    3.0
    """
    X, Y = _checked(features, target_features)
    S0, S1 = (np.atleast_2d(np.cov(Z, rowvar=False)) for Z in (X, Y))
    # The eigenvalues of the product are those of a matrix that is symmetric and positive, up to rounding.
    values, vectors = np.linalg.eigh(S0)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ S1 @ root).clip(0)).sum()
    shift = ((X.mean(0) - Y.mean(0)) ** 2).sum()
    return float(max(shift + np.trace(S0) + np.trace(S1) - 2 * overlap, 0.0))


def kernel_distance(features, target_features):
    r"""Squared maximum mean discrepancy with the kernel :math:`(x^\top y / d + 1)^3`, without bias (KID).

    Parameters
    ----------
    features, target_features : ndarray of shape (n, d), (m, d)

    Returns
    -------
    distance : float
        May be below zero for samples of one distribution.

    References
    ----------
    M. Binkowski et al., "Demystifying MMD GANs", ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt.images.metrics import kernel_distance
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(2, 500, 3))
    >>> kernel_distance(X, Y) < 0.1 < kernel_distance(X, Y + 1)
    True
    """
    X, Y = _checked(features, target_features)
    n, m, d = len(X), len(Y), X.shape[1]
    within0, within1, between = (((A @ B.T) / d + 1) ** 3 for A, B in ((X, X), (Y, Y), (X, Y)))
    within0, within1 = ((K.sum() - np.trace(K)) / (k * (k - 1)) for K, k in ((within0, n), (within1, m)))
    return float(within0 + within1 - 2 * between.mean())


def content_kept(translated, labels, predict):
    """Share of translated images in which a classifier of the target reads the label of the original.

    Parameters
    ----------
    translated : ndarray
        Images as `predict` takes them.
    labels : array-like of shape (n,)
        Of the source images.
    predict : callable
        predict(images) -> labels, trained on the target.

    Returns
    -------
    accuracy : float
    """
    return float(np.mean(np.asarray(predict(translated)) == np.asarray(labels)))


def cycle_error(translator, images, *, conditions=None):
    """Mean absolute error of images that were translated there and back, as a share of the range of a pixel.

    Parameters
    ----------
    translator : ImageTranslator
    images : ndarray of type uint8
        Source images of the size of the target's.
    conditions : array-like, optional
        See `ImageTranslator.transform`.
    """
    back = translator.inverse_transform(translator.transform(images, conditions=conditions), conditions=conditions)
    images = np.asarray(images)
    if images.ndim == 3 and back.ndim == 4:
        images = images[..., None]
    if images.shape[1:3] != back.shape[1:3]:
        raise ValueError(f"Images must have the target's size {back.shape[1:3]}; got {images.shape[1:3]}.")
    return float(np.abs(images.astype(np.float64) - back).mean() / 255)


def _checked(X, Y):
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    if X.ndim != 2 or Y.ndim != 2 or X.shape[1] != Y.shape[1] or min(len(X), len(Y)) < 2:
        raise ValueError(f"Features must be two samples of shape (n, n_features) with n > 1; got {X.shape}, {Y.shape}.")
    return X, Y
