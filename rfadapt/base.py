"""The contract of every transport, the flow and the baselines alike."""

from __future__ import annotations

import json
from abc import ABCMeta, abstractmethod
from dataclasses import asdict, is_dataclass
from importlib import import_module

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted

from . import _persistence
from ._devices import batch_rows
from ._samples import Samples
from ._validation import check_labels, check_new_samples, check_two_samples, fitting


class BaseTransport(OneToOneFeatureMixin, TransformerMixin, BaseEstimator, metaclass=ABCMeta):
    """A map that moves samples of domain 0 onto domain 1, learned from two unpaired samples.

    A subclass implements `_fit`, which sets fitted attributes (names ending in an underscore), and
    `_transform`, which maps one dense batch. Validation, batching, containers, feature names, `out=`, saving
    and the promise that a failed fit leaves the estimator as it was are here, once.
    """

    #: Whether the map has an inverse; `InvertibleTransport` says yes.
    invertible = False
    #: Whether `fit` takes labels that are numbers, not classes.
    _reads_numbers = False

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X0, X1, *, y0=None, y1=None):
        """Learn the map from the sample `X0` of domain 0 to the sample `X1` of domain 1.

        Parameters
        ----------
        X0 : array-like, sparse matrix, Tensor or map-style Dataset of shape (n0, n_features)
            Sample of the source domain. The items of a `torch.utils.data.Dataset` are rows, or tuples that begin
            with one.
        X1 : array-like, sparse matrix, Tensor or map-style Dataset of shape (n1, n_features)
            Sample of the target domain; `n1` may differ from `n0`.
        y0, y1 : array-like of shape (n0,), (n1,), optional
            Labels, for the transports that are class-aware; the others accept and ignore them, so that one
            call fits any transport.

        Returns
        -------
        self : object
            The fitted transport.

        Raises
        ------
        ValueError
            If the input is not two finite, real, 2-D samples with the same features. The estimator is then
            left as it was, also after any other failure.
        """
        X0, X1, columns = check_two_samples(X0, X1)
        y0, y1 = check_labels(y0, len(X0), "y0"), check_labels(y1, len(X1), "y1")
        with fitting(self):
            self._validate_params()
            for name in ("feature_names_in_", "n_features_in_"):
                vars(self).pop(name, None)
            vars(self).update(columns)
            self._fit(X0, X1, y0, y1)
        return self

    def fit_transform(self, X0, X1, *, y0=None, y1=None):
        """Fit the map and return `X0` moved onto domain 1, of shape (n0, n_features)."""
        return self.fit(X0, X1, y0=y0, y1=y1).transform(X0)

    def transform(self, X, out=None):
        """Move rows of domain 0 onto domain 1.

        Parameters
        ----------
        X : array-like, sparse matrix, Tensor or map-style Dataset of shape (n_samples, n_features)
            Any rows of domain 0, seen in `fit` or not.
        out : ndarray or Tensor of shape (n_samples, n_features), optional
            Where to write the result, of any floating point type, for example a `numpy.memmap`. It is filled block
            by block, and nothing else of its size is made. May be `X` itself.

        Returns
        -------
        X_moved : ndarray or Tensor of shape (n_samples, n_features)
            `out` if it is given. Else a Tensor on the same device for a Tensor, and an array or what `set_output`
            asked for for everything else. float32 input gives float32 output.

        Raises
        ------
        ValueError, TypeError
            If `X` does not go with what was fitted, or `out` cannot hold the result; `out` is then as it was.
        """
        container = _get_output_config("transform", self)["dense"]
        if out is not None and container != "default":
            raise ValueError(
                f"out is filled and returned as it is; got it with set_output(transform={container!r}), which asks for "
                "a frame. Take one of the two."
            )
        return self._map_rows(self._transform, X, out)

    def _map_rows(self, function, X, out=None):
        check_is_fitted(self)
        # Some parameters are read here, and may have been changed after `fit`.
        self._validate_params()
        X = check_new_samples(self, X, out=out)
        if out is None:
            shape = (len(X), X.n_features)
            out = torch.empty_like(X.data) if X.is_tensor else np.empty(shape, X.dtype)
        for part, rows in X.batches(self._batch_rows()):
            moved = function(rows)
            out[part] = moved if isinstance(out, torch.Tensor) else moved.cpu().numpy()
        return out

    def _batch_rows(self) -> int:
        """Rows that are moved together: as many as keep what is computed on the way within a bound."""
        return batch_rows(self.n_features_in_)

    @abstractmethod
    def _fit(self, X0: Samples, X1: Samples, y0, y1) -> None:
        """Set the fitted attributes."""

    @abstractmethod
    def _transform(self, x: torch.Tensor) -> torch.Tensor:
        """Move one dense float32 or float64 batch; the result has its dtype and device."""

    def save(self, path) -> None:
        """Write the fitted transport to one file: tensors in the safetensors format, the rest as JSON.

        Nothing in the file can run code when it is loaded. The file appears only when it is complete.

        Raises
        ------
        OSError
            If `path` cannot be written; nothing half-written is left behind.
        """
        check_is_fitted(self)
        tensors, values = self._get_state()
        params = {name: _to_json(value) for name, value in self.get_params(deep=False).items()}
        kind = {"class": type(self).__name__, "module": type(self).__module__}
        description = {**kind, "params": params, "fitted": values}
        _persistence.write_model(path, tensors, description)

    @classmethod
    def load(cls, path, /, **params):
        """Read a transport that `save` wrote.

        Parameters
        ----------
        path : str or Path
            The file. `BaseTransport.load` reads any transport, a subclass only its own.
        **params
            Constructor parameters to replace. Those that are not plain values (a velocity factory, a coupling
            or a solver of your own) are not in the file and must be given again where the map needs them.

        Returns
        -------
        transport : BaseTransport
            Fitted, with the same `transform`.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no file, it is truncated, or it is not a transport of this class.
        """
        tensors, description = _persistence.read_model(path)
        if description["module"].startswith(f"{__package__}."):
            import_module(description["module"])  # ours are loaded at need; nobody else's is because a file says so
        kinds = {kind.__name__: kind for kind in _all_subclasses(BaseTransport)}
        kind = kinds.get(description["class"])
        if kind is None:
            raise ValueError(f"{path} holds a {description['class']}, which is not known here; import it first.")
        if not issubclass(kind, cls):
            name = kind.__name__
            raise ValueError(f"{path} holds a {name}, not a {cls.__name__}. Load it with {name}.load(path).")
        known = {name: kind._param_from_json(value) for name, value in description["params"].items()}
        missing = [name for name, value in known.items() if value is _NOT_SAVED and name not in params]
        known = {name: value for name, value in known.items() if value is not _NOT_SAVED}
        if needed := [name for name in missing if name in kind._needed_to_load]:
            raise ValueError(
                f"{path} was fitted with a {needed[0]} of your own, which a model file does not hold. "
                f"Call {kind.__name__}.load(path, {needed[0]}=...) with the same one."
            )
        transport = kind(**{**known, **params})
        transport._set_state(tensors, description["fitted"])
        return transport

    #: Parameters without which a loaded model cannot transform; others fall back to their default.
    _needed_to_load: tuple = ()

    #: The strategies that a model file may name, by class name; those of the user's own are not in it.
    _strategies: dict = {}

    @classmethod
    def _param_from_json(cls, value):
        """A parameter from its JSON form; strategies arrive as {"strategy": class name, ...}."""
        if isinstance(value, dict) and "not_saved" in value:
            return _NOT_SAVED
        if isinstance(value, dict) and "strategy" in value:
            value = dict(value)
            kind = cls._strategies.get(value.pop("strategy"))
            return _NOT_SAVED if kind is None else kind(**value)
        return value

    def _get_state(self) -> tuple[dict, dict]:
        """Fitted attributes as (arrays and tensors, JSON-serialisable values)."""
        tensors, values = {}, {}
        for name, value in vars(self).items():
            if not name.endswith("_") or name.startswith("__"):
                continue
            if isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub"):
                tensors[name] = value
            elif isinstance(value, np.ndarray):
                values[name] = {"array": value.tolist()}
            else:
                values[name] = value
        return tensors, values

    def _set_state(self, tensors: dict, values: dict) -> None:
        for name, value in tensors.items():
            setattr(self, name, value.numpy())
        for name, value in values.items():
            is_array = isinstance(value, dict) and set(value) == {"array"}
            setattr(self, name, np.array(value["array"], dtype=object) if is_array else value)


class InvertibleTransport(BaseTransport):
    """A transport whose map has an inverse."""

    invertible = True

    def inverse_transform(self, X, out=None):
        """Move rows of domain 1 back to domain 0; arguments and result as in `transform`."""
        return self._map_rows(self._inverse_transform, X, out)

    @abstractmethod
    def _inverse_transform(self, x: torch.Tensor) -> torch.Tensor:
        """Move one dense batch back."""


_NOT_SAVED = object()


def _to_json(value):
    """A parameter as JSON: plain values as they are, strategies by class name, anything else by its name only."""
    plain = value.item() if isinstance(value, np.generic) else value
    if is_dataclass(value) and not isinstance(value, type):
        plain = {"strategy": type(value).__name__, **asdict(value)}
    try:
        json.dumps(plain)
    except TypeError:
        return {"not_saved": getattr(value, "__qualname__", type(value).__name__)}
    return plain


def _all_subclasses(kind) -> set:
    return {kind}.union(*(_all_subclasses(sub) for sub in kind.__subclasses__()))
