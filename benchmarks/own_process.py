"""A measurement in a process of its own, on as many cores as it may have threads, with limits of time and memory."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import time

_POLL_SECONDS = 0.1


def run(command, threads, *, seconds=None, mebibytes=None):
    """Run a Python script that prints dicts as lines of JSON, and merge them into one.

    The process is pinned to the first `threads` cores that this one may use, so that no library starts more. Past
    `seconds` or `mebibytes` of resident memory it is killed; what it had printed by then counts. A "note" says
    why it ended, where it did not end well.

    Parameters
    ----------
    command : list of str
        Script and arguments.
    threads : int
    seconds, mebibytes : float, optional

    Returns
    -------
    row : dict
    """
    limits = f"{threads}"
    environment = os.environ | {f"{name}_NUM_THREADS": limits for name in ("OMP", "MKL", "OPENBLAS")}
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: _pin(threads),
    )
    reasons = []
    watcher = threading.Thread(target=_watch, args=(process, seconds, mebibytes, reasons))
    watcher.start()
    out, err = process.communicate()
    watcher.join()
    row = {}
    for line in out.splitlines():
        if line.startswith("{"):
            row |= json.loads(line)
    if reasons:
        row["note"] = reasons[0]
    elif process.returncode:
        row["note"] = (err.strip().splitlines() or [f"ended with status {process.returncode}"])[-1]
    return row


def report(row):
    """Print a dict for `run` to read."""
    print(json.dumps(row), flush=True)


def _pin(threads):
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _watch(process, seconds, mebibytes, reasons):
    start = time.monotonic()
    while process.poll() is None:
        if seconds is not None and time.monotonic() - start > seconds:
            reasons.append(f"out of time ({seconds:g} s)")
        elif mebibytes is not None and _resident(process.pid) > mebibytes:
            reasons.append(f"out of memory ({mebibytes:g} MiB)")
        if reasons:
            process.kill()
            return
        time.sleep(_POLL_SECONDS)


def _resident(pid):
    return memory_status(pid).get("VmRSS", 0.0)


def memory_status(pid="self"):
    """MiB of a process by the kernel's names: VmRSS, VmHWM (its peak), RssFile (of it pages of mapped files) ...

    Empty where there is no /proc.
    """
    try:
        with open(f"/proc/{pid}/status") as file:
            lines = [line.split() for line in file if line.rstrip().endswith("kB")]
    except OSError:
        return {}
    return {name.rstrip(":"): int(number) / 1024 for name, number, _ in lines}


def peak_memory():
    """Largest resident memory of this process so far, in MiB."""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def machine(threads, packages, device="cpu"):
    """A sentence that names the machine, its GPU if that is used, the threads and the versions of what is installed."""
    import torch

    gpu = "" if torch.device(device).type == "cpu" else f"{torch.cuda.get_device_name(device)}, "
    versions = ", ".join(f"{name} {version}" for name in packages if (version := version_of(name)))
    python = f"Python {platform.python_version()}"
    return f"{gpu}{_processor()}, {os.cpu_count()} cores, {threads} thread(s) a process; {python}, {versions}."


def version_of(package):
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
