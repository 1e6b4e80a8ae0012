"""OTT-JAX's expectile-regularised neural dual (Buzun et al., "Expectile Regularization for Fast and Accurate Training
of Neural Optimal Transport", NeurIPS 2024)."""

import time

import jax
import numpy as np
from ott.neural.methods.expectile_neural_dual import ExpectileNeuralDual

from . import Fitted

_BATCH = 256
_NEVER = 10**9


class _OutOfTime(Exception):
    """Ends the library's training loop, which has no time limit of its own."""


def fit(X0, X1, budget):
    """Train the library's default potentials (four layers of 128, Adam at 3e-4) for `budget` seconds.

    Compilation counts. The data are centred and divided by one number.
    """
    end = time.perf_counter() + budget
    center, scale = X0.mean(0), X0.std()
    X0, X1 = (((X - center) / scale).astype(np.float32) for X in (X0, X1))
    solver = ExpectileNeuralDual(X0.shape[1], num_train_iters=_NEVER, valid_freq=_NEVER, rng=jax.random.key(0))
    rng = np.random.default_rng(0)
    batches0, batches1 = _batches(X0, rng, end), _batches(X1, rng, end)
    try:
        solver(batches0, batches1, batches0, batches1)
    except _OutOfTime:
        pass
    push = jax.jit(solver.to_dual_potentials().transport)

    def transform(X):
        return np.asarray(push(((X - center) / scale).astype(np.float32))) * scale + center

    return Fitted(transform, note=f"{int(solver.state_f.step)} steps of training")


def _batches(X, rng, end):
    while True:
        if time.perf_counter() > end:
            raise _OutOfTime
        yield X[rng.integers(len(X), size=_BATCH)]
