"""The geometry of a transport: where each domain is centred, how it is turned, and the unit of distance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ._samples import Samples, is_varying
from .rotation import power

# Scaled copies of data sets up to this size are kept on the training device; larger ones are read row by row.
_RESIDENT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Geometry:
    """Coordinates z = Q_t (x - mean_t) / scale of the flow, which move and turn from one domain to the other.

    Attributes
    ----------
    mean0, mean1 : Tensor of shape (n_features,)
        Means of the two domains, float64.
    scale : Tensor of shape (n_features,)
        Unit of each feature, float64.
    rotation : Tensor of shape (n_features, n_features) or None
        Q_0, the turn of domain 0, float64; None where the domains are not turned against each other. Domain 1 is
        never turned: Q_1 is the identity.
    """

    mean0: torch.Tensor
    mean1: torch.Tensor
    scale: torch.Tensor
    rotation: torch.Tensor | None = None

    def frame(self, t: float, path) -> Frame:
        """The coordinates at time `t`."""
        a, b, _, _ = path.coefficients(torch.tensor(t, dtype=torch.float64))
        rotation = self.rotation
        if rotation is not None and b != 1:
            rotation = torch.from_numpy(power(rotation.numpy(), float(b))) if b != 0 else None
        return Frame(a * self.mean1 + b * self.mean0, self.scale, rotation)

    def turned(self, rotation: torch.Tensor) -> Geometry:
        """The same geometry with domain 0 turned."""
        return replace(self, rotation=rotation)


@dataclass(frozen=True)
class Frame:
    """Coordinates z = Q (x - mean) / scale; see `Geometry`.

    They are computed in the precision that the rows have. Far from the origin a mean has more digits than float32: what
    it lacks is taken off, or put on, by itself, while numbers are as small as the spread.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    rotation: torch.Tensor | None

    def enter(self, x: torch.Tensor, device) -> torch.Tensor:
        """Rows in these coordinates, float32 on `device`."""
        mean, rest, scale, rotation = self._as(x)
        z = torch.addcmul(-rest / scale, x - mean, 1 / scale)
        z = z if rotation is None else z @ rotation.T
        return z.to(device=device, dtype=torch.float32)

    def leave(self, z: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Rows back in the data's units, with the dtype and device of `like`."""
        mean, rest, scale, rotation = self._as(like)
        z = z.to(device=like.device, dtype=like.dtype)
        z = z if rotation is None else z @ rotation
        return torch.addcmul(rest, z, scale).add_(mean)

    def _as(self, x):
        """The mean, what the dtype of `x` cannot hold of it, the scale and the rotation, in this dtype, beside `x`."""
        mean = self.mean.to(x.dtype)
        parts = mean, self.mean - mean, self.scale, self.rotation
        return [None if part is None else part.to(device=x.device, dtype=x.dtype) for part in parts]


@dataclass(frozen=True)
class Moments:
    """Covariance and fourth moment of one domain about its mean, in units of the geometry."""

    n: int
    covariance: torch.Tensor
    fourth: torch.Tensor


def fit_geometry(X0: Samples, X1: Samples, scaling: str | None) -> tuple[Geometry, Moments, Moments]:
    """The geometry that `scaling` asks for, with the moments of both domains in it.

    The unit comes from the variances within the domains, pooled; a feature that varies in neither keeps its
    own unit.
    """
    (mean0, variance0), (mean1, variance1) = X0.mean_and_variance, X1.mean_and_variance
    pooled = (variance0 + variance1) / 2
    if scaling == "common":
        pooled = pooled.mean().expand(len(pooled))
    if scaling is None:
        pooled = torch.ones_like(pooled)
    scale = torch.where(is_varying(pooled, mean0, mean1), pooled, 1.0).sqrt()
    return Geometry(mean0, mean1, scale), moments(X0, scale), moments(X1, scale)


def moments(X: Samples, scale: torch.Tensor) -> Moments:
    """Moments of a data set about its mean, in units of `scale`; one pass over it, in blocks of rows."""
    mean, _ = X.mean_and_variance
    covariance = torch.zeros(X.n_features, X.n_features, dtype=torch.float64)
    fourth = torch.zeros((), dtype=torch.float64)
    for _, rows in X.batches():
        z = (rows.to("cpu", torch.float64) - mean) / scale
        covariance += z.T @ z
        fourth += z.square().sum(1).square().sum()
    return Moments(len(X), covariance / len(X), fourth / len(X))


class ScaledRows:
    """A domain's rows in the geometry's coordinates, as couplings and training see them.

    Parameters
    ----------
    X : Samples
    frame : Frame
        Coordinates of this domain.
    index : Tensor of shape (n_rows,)
        The rows of `X` that belong (the training or the held-out part).
    device : torch.device
    labels : ndarray of shape (n_samples,), optional
        Labels of all rows of `X`; those of the rows that belong become the attribute.
    """

    def __init__(self, X, frame, index, device, labels=None):
        self._X, self._frame, self._device = X, frame, device
        self.labels = None if labels is None else labels[index.numpy()]
        self._index = index
        self._resident = None
        if 4 * len(index) * X.n_features <= _RESIDENT_BYTES:
            self._resident = torch.empty(len(index), X.n_features, device=device)
            # In the order in which the rows are stored: one pass over a file, however large.
            for part in index.argsort().split(X.batch_rows):
                self._resident[part] = self._read(index[part])
            self._X = None

    def __len__(self):
        return len(self._index)

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Rows at `index`, float32 on the training device."""
        if self._resident is not None:
            return self._resident.index_select(0, index.to(self._device, non_blocking=True))
        order = self._index[index].argsort()
        rows = torch.empty(len(index), len(self._frame.mean), device=self._device)
        for part in order.split(self._X.batch_rows):
            rows[part] = self._read(self._index[index[part]])
        return rows

    def first(self, n: int) -> torch.Tensor:
        """Up to `n` rows: a random part, where the order of `index` is random."""
        return self.rows(torch.arange(min(n, len(self))))

    def _read(self, index):
        return self._frame.enter(self._X.rows(index), self._device)


class TensorRows:
    """Rows that are already scaled and on the device, with the interface of `ScaledRows`."""

    labels = None

    def __init__(self, values: torch.Tensor):
        self._values = values

    def __len__(self):
        return len(self._values)

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Rows at `index`."""
        return self._values.index_select(0, index.to(self._values.device, non_blocking=True))
