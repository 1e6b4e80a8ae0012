"""The images of one domain, with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .reading import Images


@dataclass
class Domain:
    """Images, and labels (Tensor of int) and conditions (Tensor of shape (n, n_conditions)) where there are any."""

    images: Images
    labels: torch.Tensor | None = None
    conditions: torch.Tensor | None = None

    @property
    def n_conditions(self):
        return 0 if self.conditions is None else self.conditions.shape[1]

    def rows(self, index, device):
        """Conditions of some images, on the device."""
        return None if self.conditions is None else self.conditions[index].to(device)


def shared_labels(labels, sets):
    """Labels of both domains as numbers (Tensor of int) of the same classes; None unless both are given.

    Those of images that were left out are left out.

    Raises
    ------
    ValueError
        If there are not as many labels as images.
    """
    kept = [None if y is None else _of_kept(np.asarray(y), images, f"y{k}")
            for k, (y, images) in enumerate(zip(labels, sets))]  # fmt: skip
    if any(y is None for y in kept):
        return None, None
    codes = np.unique(np.concatenate(kept), return_inverse=True)[1]
    return torch.from_numpy(codes).split([len(y) for y in kept])


def check_conditions(conditions, images, name, classes):
    """Conditions as vectors: labels become indicators of `classes`, embeddings stay as they are.

    Raises
    ------
    ValueError
        If there are not as many conditions as images, or a label is not among the classes.
    """
    if conditions is None:
        return None
    conditions = np.asarray(conditions)
    if classes is not None:
        unknown = set(conditions.ravel().tolist()) - set(classes.tolist())
        if conditions.ndim != 1 or unknown:
            raise ValueError(f"{name} must be labels among {classes.tolist()}; got {sorted(unknown, key=str)[:5]}.")
        conditions = (conditions[:, None] == classes).astype(np.float32)
    if conditions.ndim != 2 or not np.isfinite(conditions).all():
        raise ValueError(f"{name} must be labels, or finite embeddings of shape (n, n_features); got shape "
                         f"{conditions.shape}.")  # fmt: skip
    return _of_kept(torch.as_tensor(conditions, dtype=torch.float32), images, name)


def _of_kept(values, images, name):
    if len(values) != len(images.items):
        raise ValueError(f"{name} must have one entry for each of the {len(images.items)} images; got {len(values)}.")
    return values[images.index.numpy()]
