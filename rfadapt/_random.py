"""Sources of randomness: torch's from scikit-learn's, the other way, and those that an estimator was given none of."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils import check_random_state


def make_generator(random_state, device="cpu") -> torch.Generator:
    """The one source of randomness of a call, from scikit-learn's `random_state`."""
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    return torch.Generator(device=device).manual_seed(seed)


def random_state_of(generator) -> np.random.RandomState:
    """The same for code that takes scikit-learn's, drawn from a generator."""
    return np.random.RandomState(int(torch.randint(2**31, (), generator=generator)))


def seeded(estimator, seed):
    """The estimator itself, once every `random_state` in it that was left open is `seed`."""
    params = estimator.get_params(deep=True)
    is_open = [name for name in params if name.split("__")[-1] == "random_state" and params[name] is None]
    return estimator.set_params(**dict.fromkeys(is_open, seed))
