"""The time and the memory that a block of code takes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import sys
import time

import torch


class Stopwatch:
    """Wall-clock seconds of a block, work that a GPU was still doing included."""

    def __enter__(self):
        self._start = self._now()
        return self

    def __exit__(self, *_):
        self.seconds = self._now() - self._start

    def _now(self):
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()


class PeakMemory:
    """Peak resident memory of this process during a block, above its start, in MiB.

    The kernel's own high-water mark is read. A thread that samples would miss what is short-lived, and
    everything that happens while compiled code holds the interpreter's lock. NaN where there is no such mark.
    """

    def __enter__(self):
        try:
            _give_memory_back()
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # resets the mark; see proc(5)
            self._start = self._high_water_mark()
        except (OSError, StopIteration):
            self._start = math.nan
        return self

    def __exit__(self, *_):
        self.mebibytes = math.nan if math.isnan(self._start) else self._high_water_mark() - self._start

    def _high_water_mark(self):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def _give_memory_back():
    """Hand freed memory to the system; what was kept would be used again by the block without being seen."""
    gc.collect()
    if sys.platform == "linux":
        # Other C libraries than GNU's keep little, and have no such function.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
