"""Other libraries' ways to move one sample onto another, with one interface and the settings of their own examples.

A module here has `fit(X0, X1, budget, **settings)`, which fits for at most `budget` seconds where the method is
iterative and returns a `Fitted`; importing the module imports the library, which is not counted as fitting.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np


@dataclass(frozen=True)
class Fitted:
    """A map that a peer has learned.

    Attributes
    ----------
    transform : callable
        From rows of domain 0, of shape (n, n_features), to where they go.
    one_step : callable, optional
        The same with one evaluation of the velocity, for flows.
    note : str
        What a table should say of the fit.
    """

    transform: Callable[[np.ndarray], np.ndarray]
    one_step: Callable[[np.ndarray], np.ndarray] | None = None
    note: str = ""


@dataclass(frozen=True)
class Peer:
    """Where a peer is found, what it needs, and whether more time makes it better."""

    module: str
    needs: tuple[str, ...]
    iterative: bool
    settings: dict = field(default_factory=dict)

    def missing(self):
        """Packages that are not installed."""
        return [name for name in self.needs if find_spec(name) is None]

    def load(self):
        """The module's `fit`; imports the library."""
        return importlib.import_module(f"peers.{self.module}").fit


# Rows a side that POT's discrete transports are given: what memory and patience allow. Its entropic one iterates in
# the log domain, an order of magnitude slower than the plan itself.
PEERS = {
    "pot-linear": Peer("discrete", ("ot",), False, {"kind": "linear"}),
    "pot-emd": Peer("discrete", ("ot",), False, {"kind": "emd", "max_rows": 5000}),
    "pot-sinkhorn": Peer("discrete", ("ot",), False, {"kind": "sinkhorn", "max_rows": 2000}),
    "torchcfm-ot": Peer("flow_matching", ("torchcfm",), True, {"coupling": "ot"}),
    "torchcfm-independent": Peer("flow_matching", ("torchcfm",), True, {"coupling": "independent"}),
    "ott-enot": Peer("neural_dual", ("ott", "flax"), True),
}
