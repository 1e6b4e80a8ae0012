"""POT's domain adaptation transports (Flamary et al., "POT: Python Optimal Transport", JMLR 2021)."""

import numpy as np
import ot

from . import Fitted


def fit(X0, X1, budget=None, *, kind, max_rows=None):
    """Fit `ot.da`'s transport of this kind ("linear", "emd" or "sinkhorn"), to its end: it has no time limit.

    A larger side is thinned to `max_rows` random rows. Entropy is weighed by 0.05 median costs, the cost of a plan
    being quadratic; everything else is as POT has it.
    """
    rng = np.random.default_rng(0)
    X0, X1 = (_thinned(np.asarray(X, dtype=np.float64), max_rows, rng) for X in (X0, X1))
    make = {
        "linear": lambda: ot.da.LinearTransport(),
        "emd": lambda: ot.da.EMDTransport(max_iter=10_000_000),
        "sinkhorn": lambda: ot.da.SinkhornTransport(reg_e=0.05, norm="median"),
    }
    transport = make[kind]().fit(Xs=X0, Xt=X1)
    note = "" if max_rows is None else f"on {len(X0)} rows a side"
    return Fitted(lambda X: transport.transform(Xs=np.asarray(X, dtype=np.float64)), note=note)


def _thinned(X, max_rows, rng):
    if max_rows is None or len(X) <= max_rows:
        return X
    return X[rng.permutation(len(X))[:max_rows]]
