"""TorchCFM (Tong et al., "Improving and Generalizing Flow-Based Generative Models with Minibatch OT", TMLR 2024)."""

import time

import numpy as np
import torch
from torchcfm import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher
from torchcfm.models import MLP

from . import Fitted

_MATCHERS = {"ot": ExactOptimalTransportConditionalFlowMatcher, "independent": ConditionalFlowMatcher}
_WIDTH, _BATCH, _RATE, _STEPS = 256, 256, 1e-3, 100


def fit(X0, X1, budget, *, coupling):
    """Train as in the library's two-dimensional examples for `budget` seconds; solve by 100 steps of Euler, or one.

    Width 256, batches of 256, Adam at 1e-3, sigma = 0. The data are centred and divided by one number, which the
    examples' data do not need.
    """
    end = time.perf_counter() + budget
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    center, scale = X0.mean(0), X0.std()
    X0, X1 = (torch.as_tensor((X - center) / scale, dtype=torch.float32) for X in (X0, X1))
    matcher = _MATCHERS[coupling](sigma=0.0)
    model = MLP(dim=X0.shape[1], time_varying=True, w=_WIDTH)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    n_steps = 0
    while time.perf_counter() < end:
        x0, x1 = (X[rng.integers(len(X), size=_BATCH)] for X in (X0, X1))
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(x0, x1)
        loss = (model(torch.cat([x_t, t[:, None]], dim=1)) - u_t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        n_steps += 1

    @torch.no_grad()
    def solve(X, steps):
        x = torch.as_tensor((X - center) / scale, dtype=torch.float32)
        for k in range(steps):
            x = x + model(torch.cat([x, torch.full((len(x), 1), k / steps)], dim=1)) / steps
        return x.numpy() * scale + center

    note = f"{n_steps} steps of training, solved by {_STEPS} x euler"
    return Fitted(lambda X: solve(X, _STEPS), lambda X: solve(X, 1), note)
