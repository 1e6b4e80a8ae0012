"""Who goes where among images: optimal transport, in blocks, in the space of some features; labels are kept."""

from __future__ import annotations

import joblib
import torch

from ..couplings.blocks import shuffled_blocks, solve_block

# A block is one assignment; the time of a solve grows faster than its square (about 1 s at 2048).
_BLOCK_SIZE = 2048
_MOST_BLOCKS = 64
_MOST_WORKERS = 8


def pair_by_transport(features0, features1, labels0, labels1, *, n_pairings, generator):
    """Pairs that are optimal for the squared distance of features, on random blocks.

    Parameters
    ----------
    features0, features1 : Tensor of shape (n0, n_features), (n1, n_features), or Features
    labels0, labels1 : Tensor of int of shape (n0,), (n1,), or None
        Where both are given, only images of one class are paired; -1 is a class of its own.
    n_pairings : int
        How often all images are paired anew.
    generator : torch.Generator

    Returns
    -------
    index0, index1 : Tensor of int
        Pair k is image index0[k] of the source and index1[k] of the target.
    """
    pairs = [
        (rows0[index0], rows1[index1])
        for rows0, rows1 in _classes(len(features0), len(features1), labels0, labels1)
        for index0, index1 in _paired((features0, rows0), (features1, rows1), n_pairings, generator)
    ]
    return tuple(torch.cat(index) for index in zip(*pairs))


def pair_independently(n0, n1, labels0, labels1, *, n_pairs, generator):
    """Random pairs, of one class where both sides have labels."""
    pairs = []
    for rows0, rows1 in _classes(n0, n1, labels0, labels1):
        n = max(1, n_pairs * len(rows0) // n0)
        drawn = (rows[torch.randint(len(rows), (n,), generator=generator)] for rows in (rows0, rows1))
        pairs.append(tuple(drawn))
    return tuple(torch.cat(index) for index in zip(*pairs))


class Features:
    """Features of images, computed for those rows that are asked for, so that nothing grows with their number."""

    def __init__(self, images, function):
        self.images, self.function = images, function

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return torch.cat([self.function(self.images, part) for part in index.split(64)])


def _classes(n0, n1, labels0, labels1):
    if labels0 is None or labels1 is None:
        return [(torch.arange(n0), torch.arange(n1))]
    shared = sorted(set(labels0.tolist()) & set(labels1.tolist()))
    if not shared:
        raise ValueError(
            f"Source and target have no label in common: {sorted(set(labels0.tolist()))[:5]} and "
            f"{sorted(set(labels1.tolist()))[:5]}. Leave the labels of one side out to translate without."
        )
    return [((labels0 == label).nonzero()[:, 0], (labels1 == label).nonzero()[:, 0]) for label in shared]


def _paired(sample0, sample1, n_pairings, generator):
    """Index pairs of blocks that go through both samples of (features, rows), the smaller one again and again."""
    samples = sample0, sample1
    most = max(len(rows) for _, rows in samples)
    size = min(_BLOCK_SIZE, most)
    n_blocks = -(-most // size)
    n_blocks = min(n_blocks * (n_pairings if n_blocks > 1 else 1), _MOST_BLOCKS)
    halves = (shuffled_blocks(len(rows), min(len(rows), size), n_blocks, generator) for _, rows in samples)
    parts = list(zip(*halves))
    blocks = ([features[rows[part]].numpy() for (features, rows), part in zip(samples, both)] for both in parts)
    # In threads, as the solver releases Python's lock; a block takes 100 MB.
    solve = joblib.Parallel(min(joblib.cpu_count(), _MOST_WORKERS, n_blocks), prefer="threads", return_as="generator")
    solved = solve(joblib.delayed(solve_block)(*block) for block in blocks)
    for (rows0, rows1), (index0, index1, mass) in zip(parts, solved):
        n_pairs = max(len(rows0), len(rows1))
        if len(rows0) == len(rows1):
            yield rows0[index0], rows1[index1]
            continue
        drawn = torch.multinomial(torch.from_numpy(mass), n_pairs, replacement=True, generator=generator).numpy()
        yield rows0[index0[drawn]], rows1[index1[drawn]]
