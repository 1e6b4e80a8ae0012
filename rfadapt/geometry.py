"""The geometry of a transport: where each domain is centred, and the unit in which distance is measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._validation import Samples

# Scaled copies of data sets up to this size are kept on the training device; larger ones are read row by row.
_RESIDENT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Geometry:
    """Coordinates z = (x - mean_t) / scale of the flow, with mean_t on the way between the domains' means.

    Attributes
    ----------
    mean0, mean1 : Tensor of shape (n_features,)
        Means of the two domains, float64.
    scale : Tensor of shape (n_features,)
        Unit of each feature, float64.
    """

    mean0: torch.Tensor
    mean1: torch.Tensor
    scale: torch.Tensor

    def mean(self, t: float, path) -> torch.Tensor:
        """Origin of the moving frame at time `t`."""
        a, b, _, _ = path.coefficients(torch.tensor(t, dtype=torch.float64))
        return a * self.mean1 + b * self.mean0

    def scaled(self, x: torch.Tensor, mean: torch.Tensor, device) -> torch.Tensor:
        """Rows in the frame's coordinates, float32 on `device`."""
        z = (x.to(torch.float64) - mean.to(x.device)) / self.scale.to(x.device)
        return z.to(device=device, dtype=torch.float32)

    def unscaled(self, z: torch.Tensor, mean: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Rows back in the data's units, with the dtype and device of `like`."""
        z = z.to(device=like.device, dtype=torch.float64)
        return (z * self.scale.to(like.device) + mean.to(like.device)).to(like.dtype)


@dataclass(frozen=True)
class Moments:
    """Mean, covariance and fourth moment of one domain, accumulated in one pass over its batches."""

    n: int
    mean: torch.Tensor
    covariance: torch.Tensor
    fourth: torch.Tensor


def moments(X: Samples, scale: torch.Tensor | None = None) -> Moments:
    """Moments of a data set, in units of `scale` about the mean; two passes over it, in blocks of rows."""
    mean = sum(rows.sum(0, dtype=torch.float64).cpu() for _, rows in X.batches()) / len(X)
    covariance = torch.zeros(X.n_features, X.n_features, dtype=torch.float64)
    fourth = torch.zeros((), dtype=torch.float64)
    for _, rows in X.batches():
        z = rows.to("cpu", torch.float64) - mean
        z = z if scale is None else z / scale
        covariance += z.T @ z
        fourth += z.square().sum(1).square().sum()
    return Moments(len(X), mean, covariance / len(X), fourth / len(X))


def fit_geometry(X0: Samples, X1: Samples, scaling: str | None) -> tuple[Geometry, Moments, Moments]:
    """The geometry that `scaling` asks for, with the moments of both domains in it.

    The unit comes from the variances within the domains, pooled; a feature that varies in neither keeps its
    own unit.
    """
    raw0, raw1 = moments(X0), moments(X1)
    pooled = (raw0.covariance.diagonal() + raw1.covariance.diagonal()) / 2
    if scaling == "common":
        pooled = pooled.mean().expand(len(pooled))
    if scaling is None:
        pooled = torch.ones_like(pooled)
    # Rounding leaves a constant feature a variance of about its square times the float precision.
    floor = 1e-14 * (raw0.mean.square() + raw1.mean.square())
    scale = torch.where(pooled > floor, pooled, 1.0).sqrt()
    geometry = Geometry(raw0.mean, raw1.mean, scale)
    return geometry, _rescaled(raw0, X0, scale), _rescaled(raw1, X1, scale)


def _rescaled(raw: Moments, X: Samples, scale: torch.Tensor) -> Moments:
    if bool((scale == scale[0]).all()):
        return Moments(raw.n, raw.mean, raw.covariance / scale[0] ** 2, raw.fourth / scale[0] ** 4)
    return moments(X, scale)


class ScaledRows:
    """A domain's rows in the geometry's coordinates, as couplings and training see them.

    Parameters
    ----------
    X : Samples
    geometry : Geometry
    mean : Tensor of shape (n_features,)
        Centre of this domain.
    index : Tensor of shape (n_rows,)
        The rows of `X` that belong (the training or the held-out part).
    device : torch.device
    """

    def __init__(self, X, geometry, mean, index, device):
        self._X, self._geometry, self._mean, self._device = X, geometry, mean, device
        self._index = index
        self._resident = None
        if 4 * len(index) * X.n_features <= _RESIDENT_BYTES:
            self._resident = torch.empty(len(index), X.n_features, device=device)
            for start in range(0, len(index), 65536):
                part = slice(start, start + 65536)
                self._resident[part] = self._read(index[part])
            self._X = None

    def __len__(self):
        return len(self._index)

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Rows at `index`, float32 on the training device."""
        if self._resident is not None:
            return self._resident[index.to(self._device, non_blocking=True)]
        return self._read(self._index[index])

    def _read(self, index):
        return self._geometry.scaled(self._X.rows(index), self._mean, self._device)


class TensorRows:
    """Rows that are already scaled and on the device, with the interface of `ScaledRows`."""

    def __init__(self, values: torch.Tensor):
        self._values = values

    def __len__(self):
        return len(self._values)

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Rows at `index`."""
        return self._values[index.to(self._values.device, non_blocking=True)]
