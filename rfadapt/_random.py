"""Sources of randomness: torch's from scikit-learn's, and the other way."""

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
