"""Where to compute, and how many rows at once."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import torch

# Intermediate results of a batch: this much on the CPU, and this share of what is free on a GPU.
_BATCH_BYTES = 64 * 2**20
_SHARE_OF_GPU = 1 / 8
# Larger batches gain nothing, and leave the caches.
_MOST_BATCH_ROWS = 32768


def resolve_device(device):
    """The torch device that `device` names; "auto" is CUDA where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f'device must be "auto" or a torch device such as "cpu" or "cuda:0"; got {device!r}.'
        ) from error


def batch_rows(n_features: int, width: int = 0, device: torch.device | None = None) -> int:
    """Rows to move together, by the memory that is needed on the way.

    A row is counted as 16 n_features + 6 width numbers of 4 bytes. There are at least as many rows as features:
    a field's own matrices are no smaller then, and what it computes once a batch is shared by enough rows.
    """
    budget = _BATCH_BYTES
    if device is not None and device.type == "cuda":
        budget = max(budget, int(_SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]))
    rows = budget // (4 * (16 * n_features + 6 * width))
    return min(max(rows, n_features, 256), _MOST_BATCH_ROWS)


def replayed(function, device: torch.device):
    """The function itself or, where it runs on a CUDA device, as a whole (`Replayed`)."""
    return Replayed(function) if device.type == "cuda" else function


class Replayed:
    """A function of tensors on a CUDA device, recorded when it is first called and from then on launched as a whole.

    A few hundred small kernels, launched one by one, take the host longer than the device. Every call does what the
    recorded one did, in the same places in memory: the function must not look at values, and inputs keep their shapes.

    Parameters
    ----------
    function : callable
        function(*inputs) -> Tensor. What else it leaves behind is written anew by every call.
    """

    def __init__(self, function):
        self._function, self._graph = function, None

    def __call__(self, *inputs):
        with torch.cuda.device(inputs[0].device):
            if self._graph is None:
                self._record(inputs)
            for place, value in zip(self._inputs, inputs):
                place.copy_(value)
            self._graph.replay()
            return self._output.clone()

    def _record(self, inputs):
        self._inputs = [value.clone() for value in inputs]
        beside, present = torch.cuda.Stream(), torch.cuda.current_stream()
        beside.wait_stream(present)
        with torch.cuda.stream(beside):
            # What libraries set up when they are first used cannot be recorded.
            self._function(*self._inputs)
        present.wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        recording = torch.cuda.graph(self._graph, stream=beside, capture_error_mode="thread_local")
        with _without_garbage_collection(), recording:
            self._output = self._function(*self._inputs)


@contextmanager
def _without_garbage_collection():
    """A recording of an earlier fit that is thrown away while another one is made would spoil it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
