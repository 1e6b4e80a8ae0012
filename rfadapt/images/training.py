"""The training of one stage, as it goes on and as a checkpoint holds it; and the precision of its products."""

from __future__ import annotations

import contextlib
import copy
import time
from functools import partial

import torch

from .._optimisation import Average, LearningRate

_CLIP = 1.0
# Share of the flow's steps that a later round takes, which starts from the flow.
_LATER_SHARE = 0.5


class Training:
    """Weights, their average, the optimiser and its step size, as they go on and as they are saved."""

    def __init__(self, model, translator, *, later):
        n_steps = translator.planned_steps()
        n_steps = max(1, round(n_steps * _LATER_SHARE)) if later else n_steps
        self.model, self.accumulate, self.iteration = model, translator.accumulate, 0
        peak = translator.learning_rate
        peak = getattr(model, "learning_rate", 3e-4) if peak == "auto" else peak
        self.rate = LearningRate(peak, n_steps, translator.max_time)
        self.start = time.perf_counter()
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.average = Average(model.parameters(), list(self.averaged.parameters()))
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-3)

    def step(self, loss_of_batch):
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for _ in range(self.accumulate):
            loss = loss_of_batch() / self.accumulate
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.iteration)
        self.optimizer.step()
        self.average.update(self.iteration, self.rate.last)
        for mine, theirs in zip(self.averaged.buffers(), self.model.buffers()):
            mine.copy_(theirs)
        self.iteration += 1
        self.rate.foresee(self.iteration)
        return total

    def state(self):
        tensors = {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for k, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{k}.{name}": value for name, value in state.items()}
        return tensors

    def progress(self):
        return {"iteration": self.iteration, "last": self.rate.last, "seconds": time.perf_counter() - self.start}

    def restore(self, saved):
        progress = saved.values["rate"]
        self.model.load_state_dict(saved.model)
        self.iteration, self.rate.last = progress["iteration"], progress["last"]
        self.rate.begin_earlier(progress["seconds"])
        self.start = time.perf_counter() - progress["seconds"]
        averaged, states = {}, {}
        for name, value in saved.training.items():
            kind, _, rest = name.partition(".")
            if kind == "averaged":
                averaged[rest] = value
            else:
                k, _, what = rest.partition(".")
                states.setdefault(int(k), {})[what] = value
        self.averaged.load_state_dict(averaged)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})


def make_autocast(precision, device):
    """autocast() for the precision that is asked for; "auto" is bfloat16 where the device has instructions for it."""
    if precision == "auto":
        has = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
        precision = "bfloat16" if has else "float32"
    if precision == "float32":
        return contextlib.nullcontext
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


def _cpu_has_bfloat16():
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
