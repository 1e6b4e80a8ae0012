"""Translated images, given back as what they were given as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .._persistence import atomic_path


class ArrayWriter:
    """Collects images in an array or a tensor like the one that they came from.

    Parameters
    ----------
    images : Images
    shape : tuple (channels, height, width)
    """

    def __init__(self, images, shape):
        channels, height, width = shape
        source = images.items
        self.is_tensor = isinstance(source, torch.Tensor)
        self.layout = images.layout
        if self.layout == "gray" and channels == 3:
            self.layout = "channels first" if self.is_tensor else "channels last"
        sides = {"gray": (height, width), "channels last": (height, width, channels)}
        shape = (len(images), *sides.get(self.layout, shape))
        if self.is_tensor:
            self.result = torch.empty(shape, dtype=source.dtype, device=source.device)
        else:
            self.result = np.empty(shape, source.dtype)
        self.is_float = self.result.is_floating_point() if self.is_tensor else self.result.dtype.kind == "f"

    def write(self, index, batch):
        batch = batch if self.layout == "channels first" else batch.movedim(1, -1)
        batch = batch.squeeze(-1) if self.layout == "gray" else batch
        batch = batch.float() / 255 if self.is_float else batch
        index = index.numpy()
        self.result[index] = batch.to(self.result) if self.is_tensor else batch.numpy()


class FolderWriter:
    """Writes images as PNG files, under the names of the files that they came from.

    Parameters
    ----------
    images : Images
    folder : str or Path
        Made where there is none. A file is replaced by a complete one or not at all.
    """

    def __init__(self, images, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if images.kind == "files":
            names = [path.with_suffix(".png").name for path in images.paths]
            if len(set(names)) < len(names):  # files of one name in different folders
                names = [f"{i:06d}_{name}" for i, name in enumerate(names)]
        else:
            names = [f"{i:06d}.png" for i in range(len(images))]
        self.result = [self.folder / name for name in names]

    def write(self, index, batch):
        from torchvision.transforms.v2.functional import to_pil_image

        for i, image in zip(index.tolist(), batch):
            with atomic_path(self.result[i]) as temporary:
                to_pil_image(image).save(temporary, format="PNG")
