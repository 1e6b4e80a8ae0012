"""Prediction forms: which of three equivalent quantities a velocity field is trained to tell.

At a place x at time t, the mean pair that passes (x0, x1) and its mean velocity v say the same, as

    x = a(t) x1 + b(t) x0,        v = a'(t) x1 + b'(t) x0.

What differs is the error that training weighs: that of v, of x1 (the data, in diffusion models) or of x0 (there the
noise epsilon). A field's output enters times a factor of the time, chosen so that every form is defined at all times
and exact where it is known beforehand: x1 at t = 1 and x0 at t = 0 are x itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch


class Prediction(ABC):
    """A prediction form. With the determinant D = a' b - a b' of the path (see `rfadapt.paths.Path`)."""

    @abstractmethod
    def endpoints(self, value, x, t, path) -> tuple[torch.Tensor, torch.Tensor]:
        """The pair (x0, x1) from the predicted value at `x`, of shape (n, n_features), at `t`, of shape (n,)."""

    @abstractmethod
    def value(self, x0, x1, t, path) -> torch.Tensor:
        """The predicted value from the pair."""

    @abstractmethod
    def scale(self, t, path) -> torch.Tensor:
        """Factor of the field's output in the velocity, of the shape of `t`."""

    @abstractmethod
    def weight(self, t, path) -> torch.Tensor:
        """Squared error of the prediction for an error of the field's output of 1, of the shape of `t`."""


class VelocityPrediction(Prediction):
    """The velocity v itself."""

    def endpoints(self, value, x, t, path):
        return path.endpoints(x, value, t)

    def value(self, x0, x1, t, path):
        return path.sample(x0, x1, t)[1]

    def scale(self, t, path):
        return torch.ones_like(t)

    def weight(self, t, path):
        return torch.ones_like(t)


class TargetPrediction(Prediction):
    """Where the row ends, x1. The output enters x1 times b, and so v times D."""

    def endpoints(self, value, x, t, path):
        a, b, _, _ = (c.unsqueeze(1) for c in path.coefficients(t))
        return (x - a * value) / b, value

    def value(self, x0, x1, t, path):
        return x1

    def scale(self, t, path):
        return path.determinant(t)

    def weight(self, t, path):
        return path.coefficients(t)[1].square()


class SourcePrediction(Prediction):
    """Where the row began, x0. The output enters x0 times -a, and so v times D."""

    def endpoints(self, value, x, t, path):
        a, b, _, _ = (c.unsqueeze(1) for c in path.coefficients(t))
        return value, (x - b * value) / a

    def value(self, x0, x1, t, path):
        return x0

    def scale(self, t, path):
        return path.determinant(t)

    def weight(self, t, path):
        return path.coefficients(t)[0].square()


PREDICTIONS = {"v": VelocityPrediction, "x1": TargetPrediction, "x0": SourcePrediction}


def convert(value: torch.Tensor, x: torch.Tensor, t: torch.Tensor, path, *, source: str, target: str) -> torch.Tensor:
    """Turn one prediction form into another, exactly.

    Parameters
    ----------
    value : Tensor of shape (n, n_features)
        The prediction in the form `source`, at `x`.
    x : Tensor of shape (n, n_features)
        Places on the path.
    t : Tensor of shape (n,)
        Their times.
    path : Path
    source, target : {"v", "x1", "x0"}
        Prediction forms.

    Returns
    -------
    converted : Tensor of shape (n, n_features)

    Raises
    ------
    ValueError
        If there is no such form, or the one given says nothing at one of the times: x1 at t = 1, x0 at t = 0.

    References
    ----------
    Salimans, Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022.

    Examples
    --------
    >>> import torch
    >>> from rfadapt.paths import LinearPath
    >>> from rfadapt.predictions import convert
    >>> x, t = torch.tensor([[1.0]]), torch.tensor([0.5])           # half-way from 0 to 2
    >>> convert(torch.tensor([[2.0]]), x, t, LinearPath(), source="v", target="x1").item()
    2.0
    """
    for form in (source, target):
        if form not in PREDICTIONS:
            raise ValueError(f"A prediction form is one of {', '.join(PREDICTIONS)}; got {form!r}.")
    if source == target:
        return value
    silent = {"x1": 1.0, "x0": 0.0}.get(source)
    if silent is not None and (t == silent).any():
        raise ValueError(f"{source} at t = {silent:g} is x itself and says nothing of {target}; leave that time out.")
    x0, x1 = PREDICTIONS[source]().endpoints(value, x, t, path)
    return PREDICTIONS[target]().value(x0, x1, t, path)
