"""Pairs of samples to learn on: maps with a known answer, and shifts of data that ship with scikit-learn."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_image
from sklearn.utils import Bunch, check_random_state

#: Brightest value a pixel of scikit-learn's digits can have.
_DIGIT_WHITE = 16.0


def make_gaussian_shift(n_samples=1000, n_features=2, *, shift=2.0, random_state=None) -> Bunch:
    r"""Draw two unpaired Gaussian samples between which the optimal map is known.

    The covariances share their eigenvectors :math:`Q` (they commute), so that the map of least squared
    distance stretches along those axes [1]_:

    .. math:: T(x) = m_1 + Q \operatorname{diag}(s_1 / s_0) Q^\top (x - m_0).

    Parameters
    ----------
    n_samples : int or (int, int), default=1000
        Rows of `X0` and `X1`.
    n_features : int, default=2
        Number of features.
    shift : float, default=2.0
        Euclidean distance between the two means; the standard deviations along `Q` lie in [0.5, 2].
    random_state : int, RandomState instance or None, default=None
        Draws the two Gaussians and the samples.

    Returns
    -------
    data : Bunch
        X0, X1 : ndarray of shape (n_samples, n_features)
            The two samples, unpaired.
        optimal_map, inverse_map : callable
            Take and return an array of shape (n, n_features): domain 0 to 1, and back.
        transport_cost : float
            :math:`W_2^2`, the mean squared distance the optimal map moves.
        mean0, mean1 : ndarray of shape (n_features,)
        covariance0, covariance1 : ndarray of shape (n_features, n_features)

    References
    ----------
    .. [1] C. R. Givens, R. M. Shortt, "A class of Wasserstein metrics for probability distributions",
       Michigan Mathematical Journal, 1984.

    Examples
    --------
    >>> from rfadapt.datasets import make_gaussian_shift
    >>> data = make_gaussian_shift(500, 3, random_state=0)
    >>> data.X0.shape, data.X1.shape
    ((500, 3), (500, 3))
    >>> moved = data.optimal_map(data.X0)
    >>> bool(abs(moved.mean(axis=0) - data.mean1).max() < 0.3)
    True
    """
    rng = check_random_state(random_state)
    n0, n1 = (n_samples, n_samples) if np.isscalar(n_samples) else n_samples
    axes = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    scale0, scale1 = 2.0 ** rng.uniform(-1, 1, size=(2, n_features))
    mean0 = rng.normal(size=n_features)
    direction = rng.normal(size=n_features)
    mean1 = mean0 + shift * direction / np.linalg.norm(direction)
    stretch = (axes * (scale1 / scale0)) @ axes.T
    shrink = (axes * (scale0 / scale1)) @ axes.T
    return Bunch(
        X0=mean0 + rng.normal(size=(n0, n_features)) * scale0 @ axes.T,
        X1=mean1 + rng.normal(size=(n1, n_features)) * scale1 @ axes.T,
        optimal_map=lambda X: mean1 + (X - mean0) @ stretch,
        inverse_map=lambda X: mean0 + (X - mean1) @ shrink,
        transport_cost=float(shift**2 + np.sum((scale1 - scale0) ** 2)),
        mean0=mean0,
        mean1=mean1,
        covariance0=(axes * scale0**2) @ axes.T,
        covariance1=(axes * scale1**2) @ axes.T,
    )


def load_drifted_digits(*, blur=0.6, gain=0.7, offset=2.0, rotation=15.0, random_state=0) -> Bunch:
    """Load handwritten digits and other handwritten digits seen by a sensor that has drifted.

    scikit-learn's 1797 digits (8 x 8 pixels, values 0 to 16) are split at random into two disjoint halves,
    so that no row of one domain has a twin in the other. The first half stays as it is. The second is seen
    by a sensor that is mounted askew (`rotation`), out of focus (`blur`), has lost sensitivity (`gain`) and
    gained a dark level (`offset`), and saturates at 0 and 16 as before.

    Parameters
    ----------
    blur : float, default=0.6
        Standard deviation of the Gaussian blur, in pixels.
    gain : float, default=0.7
        Factor on every value.
    offset : float, default=2.0
        Added to every value after the gain, in units of the pixel values.
    rotation : float, default=15.0
        Counterclockwise, in degrees.
    random_state : int, RandomState instance or None, default=0
        Splits the halves.

    Returns
    -------
    data : Bunch
        X0, y0 : ndarray of shape (898, 64), (898,)
            Domain 0, **clean**: what a classifier was trained on.
        X1, y1 : ndarray of shape (899, 64), (899,)
            Domain 1, **drifted**: what it meets in use. `y1` is for scoring.
        images0, images1 : ndarray of shape (n, 8, 8)
            The rows as pictures.
        domain_names : tuple of str
            ("clean", "drifted")

    Notes
    -----
    To carry the drifted digits back to a classifier that stays as it is, swap the domains:
    ``transport.fit(data.X1, data.X0)``.

    Examples
    --------
    >>> from sklearn.svm import SVC
    >>> from rfadapt.datasets import load_drifted_digits
    >>> data = load_drifted_digits()
    >>> classifier = SVC().fit(data.X0, data.y0)
    >>> bool(classifier.score(data.X1, data.y1) < 0.7)
    True
    """
    digits = load_digits()
    order = check_random_state(random_state).permutation(len(digits.target))
    clean, drifted = np.array_split(order, [len(order) // 2])
    images = ndimage.rotate(digits.images[drifted], rotation, axes=(1, 2), reshape=False, order=1)
    images = ndimage.gaussian_filter(images, (0, blur, blur))
    images = np.clip(gain * images + offset, 0, _DIGIT_WHITE)
    return Bunch(
        X0=digits.data[clean],
        y0=digits.target[clean],
        X1=images.reshape(len(images), -1),
        y1=digits.target[drifted],
        images0=digits.images[clean],
        images1=images,
        domain_names=("clean", "drifted"),
    )


def load_photograph_colours() -> Bunch:
    """Load the colours of scikit-learn's two sample photographs, one pixel a row.

    Returns
    -------
    data : Bunch
        X0, X1 : ndarray of shape (273280, 3), float32
            Red, green and blue in [0, 1] of every pixel of the temple (`china.jpg`) and of the flower
            (`flower.jpg`), row after row of the picture: ``moved.reshape(data.image0.shape)`` is a picture.
        image0, image1 : ndarray of shape (427, 640, 3), float32
            The photographs.
        feature_names : list of str
            ["red", "green", "blue"]
        domain_names : tuple of str
            ("china", "flower")

    Raises
    ------
    ImportError
        If pillow, which reads the JPEG files, is not installed.

    Examples
    --------
    >>> from rfadapt.datasets import load_photograph_colours
    >>> data = load_photograph_colours()
    >>> data.X0.shape, data.image0.shape
    ((273280, 3), (427, 640, 3))
    """
    image0 = load_sample_image("china.jpg").astype(np.float32) / 255
    image1 = load_sample_image("flower.jpg").astype(np.float32) / 255
    return Bunch(
        X0=image0.reshape(-1, 3),
        X1=image1.reshape(-1, 3),
        image0=image0,
        image1=image1,
        feature_names=["red", "green", "blue"],
        domain_names=("china", "flower"),
    )
