"""The two domains as a fit sees them: their rows in one geometry, and a part of each held out."""

from __future__ import annotations

from dataclasses import replace

import torch

from . import rotation
from ._random import random_state_of
from .geometry import ScaledRows, fit_geometry
from .velocity import shrunk_covariances

# A sample smaller than this cannot spare rows, and without held-out rows nothing shows that learning helps.
_MIN_ROWS_TO_HOLD_OUT = 20
# Rows of each domain that a turn is looked for in.
_PAIRED_ROWS = 2048


class Domains:
    """The samples of the two domains in a geometry's coordinates, each split into training and held-out rows.

    Parameters
    ----------
    transport : RectifiedFlowTransport
        Its parameters say how they are scaled, turned, labelled and split.
    X0, X1 : Samples
    labels : tuple (y0, y1)
        Labels of all their rows, or None.
    geometry : Geometry or None
        That of an earlier fit, or None for one of their own.
    generator : torch.Generator
    device : torch.device

    Attributes
    ----------
    geometry : Geometry
    moments, covariances : pair of Moments, pair of Tensor
        In that geometry, the covariances shrunk; None in one of an earlier fit.
    train, held : pair of ScaledRows
        The training and the held-out rows of both domains, in random order.
    """

    def __init__(self, transport, X0, X1, labels, geometry, generator, device):
        self._samples, self._path, self._rotation = (X0, X1), transport._path(), transport.rotation
        self._generator, self._device = generator, device
        self.geometry, self.moments, self.covariances = geometry, None, None
        if geometry is None:
            self.geometry, *self.moments = fit_geometry(X0, X1, transport.scaling)
            self.covariances = shrunk_covariances(*self.moments)
        self._parts = self._first_parts = self._split(transport.validation_fraction)
        self._labels = labels
        coupling = transport._coupling()
        if getattr(coupling, "reads_labels", None) is not None:
            # Before rows are held out, as a few of them do not show their classes.
            every = ([torch.arange(len(X))] for X in self._samples)
            self._labels = coupling.complete_labels(*(rows for (rows,) in self._scaled(every)), generator)
        self._read()

    @property
    def n_features(self):
        return len(self.geometry.scale)

    @property
    def n_train(self):
        """Training rows of the smaller sample."""
        return min(map(len, self.train))

    @property
    def too_few(self):
        """Whether a sample is too small to spare rows."""
        return min(map(len, self._samples)) < _MIN_ROWS_TO_HOLD_OUT

    @property
    def can_watch(self):
        """Whether there are held-out rows."""
        return len(self.held[0]) > 0

    def measured_rows(self, n):
        """Up to `n` rows of each domain to measure on: held-out ones where there are any."""
        return (rows.first(n) for rows in (self.held if self.can_watch else self.train))

    def hold_out(self, fold):
        """Hold out the rows of another fold, as many as in the first (0)."""
        self._parts = []
        for rest, held in self._first_parts:
            order = torch.cat([held, rest]).roll(-fold * len(held))
            self._parts.append((order[len(held) :], order[: len(held)]))
        self._read()

    def turn(self):
        """Turn domain 0, if that is asked for or shown by the rows; whether it was turned."""
        x0, x1 = (rows.first(_PAIRED_ROWS).double().cpu().numpy() for rows in self.train)
        problem = rotation.LinearProblem(x0, x1, *(covariance.numpy() for covariance in self.covariances))
        random_state = random_state_of(self._generator)
        if self._rotation == "auto" and not rotation.is_turned(problem, random_state):
            return False
        turn = torch.from_numpy(rotation.fit_rotation(problem, random_state))
        self.geometry = self.geometry.turned(turn)
        self.moments[0] = replace(self.moments[0], covariance=turn @ self.moments[0].covariance @ turn.T)
        self.covariances = shrunk_covariances(*self.moments)
        self._read()
        return True

    def _split(self, fraction):
        """Numbers of the training and of the held-out rows, for each domain."""
        n_held = [round(fraction * len(X)) for X in self._samples]
        if self.too_few or min(n_held) == 0:
            n_held = [0, 0]
        orders = [torch.randperm(len(X), generator=self._generator) for X in self._samples]
        if len(orders[0]) == len(orders[1]):
            orders[1] = orders[0]  # so that rows which are pairs stay pairs
        return [(order[n:], order[:n]) for order, n in zip(orders, n_held)]

    def _read(self):
        self.train, self.held = zip(*self._scaled(self._parts))

    def _scaled(self, parts):
        """Rows in the geometry's coordinates, of every part of either domain."""
        frames = (self.geometry.frame(t, self._path) for t in (0.0, 1.0))
        return [
            [ScaledRows(X, frame, index, self._device, y) for index in part]
            for X, y, frame, part in zip(self._samples, self._labels, frames, parts)
        ]
