"""Model files: one safetensors file, its description as JSON in the header. Nothing in it can run code."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ._version import __version__

_FORMAT = "rfadapt transport"


def write_model(path, tensors: dict, description: dict) -> None:
    """Write `tensors` and a JSON-serialisable `description`; either the whole file appears or nothing does."""
    header = {"format": _FORMAT, "version": __version__, "description": json.dumps(description, default=_plain)}
    arrays = {}
    for name, value in tensors.items():
        value = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
        arrays[name] = value.detach().cpu().contiguous().clone()
    with atomic_path(path) as temporary:
        save_file(arrays, temporary, metadata=header)


def _plain(value):
    """What JSON does not know by itself: the scalars of numpy."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"A model file holds tensors and plain values; got {type(value).__name__}.")


def read_model(path) -> tuple[dict, dict]:
    """Read what `write_model` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, or is not an rfadapt model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file at {path}. Models are written by transport.save(path).")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable rfadapt model: {error}. It may be truncated (copy it again) or another "
            "kind of file; models are written by transport.save(path)."
        ) from error
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} is a safetensors file but not an rfadapt model; those are written by save(path).")
    return tensors, json.loads(header["description"])


class atomic_path:
    """Context manager: a temporary path beside `path` that replaces it only if the block succeeds.

    Raises
    ------
    OSError
        On entry, if the folder does not exist or cannot be written.
    """

    def __init__(self, path):
        self.path = Path(path)

    def __enter__(self) -> str:
        folder = self.path.parent
        if not folder.is_dir():
            raise FileNotFoundError(f"Cannot write {self.path}: there is no folder {folder}. Create it first.")
        if self.path.is_dir():
            raise IsADirectoryError(f"Cannot write {self.path}: it is a folder. Give a file name inside it.")
        try:
            # The suffix is kept because some writers add one where it is missing.
            handle, self.temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=self.path.suffix)
        except OSError as error:
            raise OSError(f"Cannot write {self.path}: {error.strerror}.") from error
        os.close(handle)
        return self.temporary

    def __exit__(self, kind, error, trace):
        if kind is None:
            # mkstemp makes files for the owner alone; a model file follows the umask like any other.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(self.temporary, 0o666 & ~umask)
            os.replace(self.temporary, self.path)
        elif os.path.exists(self.temporary):
            os.remove(self.temporary)
