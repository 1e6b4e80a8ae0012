"""Images from wherever they are: folders, files, torchvision datasets, arrays and tensors, read as they are needed."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

#: Files that are taken from a folder.
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif"}
# Bytes of images that are held as floats, wherever a part of a domain stands for the whole.
_HELD_BYTES = 2**28
_ADVICE = 'Mend or remove it, or leave out what cannot be read with on_bad_image="skip".'


class Images:
    """A set of images of one shape; those of files are decoded only when they are asked for.

    Parameters
    ----------
    source : str, Path, list of paths, torchvision Dataset, ndarray or Tensor
        See `ImageTranslator.fit`.
    name : str
        What errors call it.
    size : tuple (height, width) or None
        What images are resized to; None takes the size of the first one.
    channels : int or None
        1 or 3; None takes those of the first image.
    on_bad_image : {"raise", "skip"}
        What to do with files that cannot be decoded.
    on_odd_size : {"resize", "raise", "skip"}
        What to do with images of another size.
    """

    def __init__(self, source, name, *, size=None, channels=None, on_bad_image="raise", on_odd_size="resize"):
        self.name, self.on_bad_image, self.on_odd_size = name, on_bad_image, on_odd_size
        self.kind, self.items, self.layout = _opened(source, name)
        if len(self.items) == 0:
            raise ValueError(f"{name} has no images.")
        self.index = torch.arange(len(self.items))
        self.size = None
        if self.kind in ("files", "dataset"):
            self._leave_out_bad_ones(size)
        first = self._decode(int(self.index[0]))
        self.own_channels, self.own_size = len(first), tuple(first.shape[1:])
        self.size, self.channels = size or self.own_size, channels or self.own_channels

    def __len__(self):
        return len(self.index)

    @property
    def paths(self):
        """Where the images that were kept lie."""
        return [Path(self.items[i]) for i in self.index.tolist()]

    def batch(self, index: torch.Tensor) -> torch.Tensor:
        """Images as a Tensor of shape (n, channels, height, width) and type uint8."""
        if self.kind == "array":
            images = self._many(self.index[index])
        else:
            images = torch.stack([self._fitted(self._decode(i)) for i in self.index[index].tolist()])
        return self._fitted(images)

    def _fitted(self, images):
        from torchvision.transforms.v2 import functional

        if tuple(images.shape[-2:]) != self.size:
            images = functional.resize(images, list(self.size), antialias=True)
        if images.shape[-3] == self.channels:
            return images
        if self.channels == 3:
            return images.expand(*images.shape[:-3], 3, *images.shape[-2:])
        return functional.rgb_to_grayscale(images)

    def _many(self, index):
        if isinstance(self.items, torch.Tensor):
            images = self.items[index.to(self.items.device)].detach().cpu()
        else:
            images = torch.from_numpy(np.ascontiguousarray(self.items[index.numpy()]))
        images = images.unsqueeze(-1) if self.layout == "gray" else images
        images = images if self.layout == "channels first" else images.movedim(-1, 1)
        if images.is_floating_point():
            images = (images * 255).round().clamp(0, 255).to(torch.uint8)
        return images

    def _decode(self, i):
        if self.kind == "array":
            return self._many(torch.tensor([i]))[0]
        if self.kind == "files":
            image = _decoded(self.items[i])
        else:
            from torchvision.transforms.v2 import functional

            image = self.items[i]
            image = image[0] if isinstance(image, tuple) else image
            image = image if isinstance(image, torch.Tensor) else functional.pil_to_tensor(image)
        if image.is_floating_point():
            image = image * 255
        image = image.clamp(0, 255).to(torch.uint8)
        return image[:3] if len(image) >= 3 else image[:1]  # without transparency

    def _leave_out_bad_ones(self, size):
        """Read every file once: what cannot be decoded, or has another size, is named, and refused or left out."""
        kept, bad, odd = [], [], []
        for i in range(len(self.items)):
            try:
                image = self._decode(i)
            except (RuntimeError, OSError, ValueError) as error:
                if self.on_bad_image == "raise":
                    raise ValueError(
                        f"{self.name}: {self._called(i)} is not a readable image: {error}. {_ADVICE}"
                    ) from error
                bad.append(self._called(i))
                continue
            size = size or tuple(image.shape[1:])
            if self.on_odd_size != "resize" and tuple(image.shape[1:]) != tuple(size):
                if self.on_odd_size == "raise":
                    raise ValueError(
                        f"{self.name}: {self._called(i)} has {image.shape[1]} x {image.shape[2]} pixels instead of "
                        f'{size[0]} x {size[1]}. Resize such images with on_odd_size="resize", or leave them out with '
                        '"skip".'
                    )
                odd.append(self._called(i))
                continue
            kept.append(i)
        for names, what in ((bad, "unreadable"), (odd, "of another size")):
            if names:
                warnings.warn(f"{self.name}: left out {len(names)} images, {what}: {_list(names)}.", stacklevel=5)
        if not kept:
            raise ValueError(f"{self.name}: none of the {len(self.items)} images can be used.")
        self.index = torch.tensor(kept)

    def _called(self, i):
        return self.items[i] if self.kind == "files" else f"item {i}"


def as_floats(images: torch.Tensor, device="cpu") -> torch.Tensor:
    """uint8 images as floats between -1 and 1, on a device."""
    return images.to(device).float().div_(127.5).sub_(1)


def as_bytes(x: torch.Tensor) -> torch.Tensor:
    """The way back of `as_floats`, on the CPU."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()


def held_at_once(shape, most):
    """How many images of a shape are held in memory as floats: `most`, or as many as a bound of bytes allows."""
    return max(64, min(most, _HELD_BYTES // (4 * math.prod(shape))))


def _decoded(path):
    """One file. (Pillow decodes it: the decoders of torchvision.io are deprecated.)"""
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    with Image.open(path) as image:
        if image.mode == "I;16":  # 16 bits of gray
            return torch.from_numpy(np.asarray(image) // 257)[None].to(torch.uint8)
        return pil_to_tensor(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def _list(names):
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _opened(source, name):
    """(kind, what can be indexed, layout)."""
    if isinstance(source, (str, Path)):
        folder = Path(source)
        if not folder.is_dir():
            raise FileNotFoundError(f"{name}: there is no folder {folder}.")
        # As strings, which take a fraction of the memory of paths: there may be millions.
        found = (os.path.join(parent, file) for parent, _, files in os.walk(folder) for file in files)
        files = sorted(file for file in found if os.path.splitext(file)[1].lower() in SUFFIXES)
        if not files:
            raise ValueError(f"{name}: the folder {folder} has no images ({', '.join(sorted(SUFFIXES))}).")
        return "files", files, None
    if isinstance(source, (list, tuple)) and source and all(isinstance(path, (str, Path)) for path in source):
        return "files", [os.fspath(path) for path in source], None
    if isinstance(source, Dataset):
        return "dataset", source, None
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return "array", source, _layout(source, name)
    raise TypeError(
        f"{name} must be a folder, a list of paths, a torchvision dataset, an array of shape (n, height, width, "
        f"channels) and type uint8, or a tensor of shape (n, channels, height, width); got {type(source).__name__}."
    )


def _layout(array, name):
    is_tensor = isinstance(array, torch.Tensor)
    channel_axis = 1 if is_tensor else -1
    if array.ndim != 3 and (array.ndim != 4 or array.shape[channel_axis] not in (1, 3)):
        wanted = "(n, channels, height, width)" if is_tensor else "(n, height, width, channels)"
        raise ValueError(f"{name} must have shape {wanted} with 1 or 3 channels, or (n, height, width); "
                         f"got {tuple(array.shape)}.")  # fmt: skip
    is_float = array.is_floating_point() if is_tensor else array.dtype.kind == "f"
    if not is_float and array.dtype not in (torch.uint8, np.uint8):
        raise ValueError(f"{name} must hold uint8 from 0 to 255, or floats from 0 to 1; got {array.dtype}.")
    if is_float and len(array) and not (float(array.min()) >= 0 and float(array.max()) <= 1):
        raise ValueError(f"{name} holds floats, which must lie between 0 and 1; got {float(array.min()):.3g} to "
                         f"{float(array.max()):.3g}.")  # fmt: skip
    if array.ndim == 3:
        return "gray"
    return "channels first" if is_tensor else "channels last"
