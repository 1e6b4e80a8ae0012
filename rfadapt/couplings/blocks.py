"""Exact optimal transport on blocks of rows."""

from __future__ import annotations

import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import joblib
import numpy as np
import torch

from .base import Coupling, Pairs


@dataclass(frozen=True)
class OTCoupling(Coupling):
    """Exact optimal transport, by POT, on large random blocks that are drawn before they are needed.

    A block holds `block_size` rows of each domain (all rows, if they are fewer) and its optimal plan for the
    squared Euclidean cost decides who is paired. A pairing goes once through all rows in blocks; it is drawn
    `n_pairings` times, since every new block averages out some of the arbitrariness of the last. The number
    of blocks does not grow past `max_blocks`, however many rows there are.

    Blocks are solved by a worker thread while training goes on (POT's solver lets go of the interpreter).
    Training waits for a block where it would otherwise run ahead of the plan, so that the result depends on the
    seed and not on the machine's speed.

    Parameters
    ----------
    block_size : int, default=2048
        Rows of each domain in a block. The time of a solve grows faster than its square (about 1 s at 2048).
    n_pairings : int, default=4
        How often all rows are paired anew. One suffices, and is used, where one block holds all rows.
    max_blocks : int, default=64
        Upper bound of the number of solves.
    n_jobs : int, default=None
        Threads used: 1 solves the blocks in the thread that trains, more add workers beside it, -1 is one a core.
        None takes 2 where the machine has a second core.

    References
    ----------
    Pooladian et al., "Multisample Flow Matching", 2023; Tong et al., "Improving and Generalizing Flow-Based
    Generative Models with Minibatch Optimal Transport", 2024. Both pair inside each training batch; a block
    is larger than a batch, which lowers the bias of the pairing.

    Examples
    --------
    >>> from rfadapt import OTCoupling, RectifiedFlowTransport
    >>> flow = RectifiedFlowTransport(coupling=OTCoupling(block_size=4096))
    """

    block_size: int = 2048
    n_pairings: int = 4
    max_blocks: int = 64
    n_jobs: int | None = None

    def __post_init__(self):
        for name in ("block_size", "n_pairings", "max_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"OTCoupling: {name} must be at least 1; got {getattr(self, name)}.")

    def prepare(self, X0, X1, generator):
        blocks = self._draw_blocks(len(X0), len(X1), generator)
        return _BlockPairs(X0, X1, blocks, self._n_workers(len(blocks)))

    def _draw_blocks(self, n0, n1, generator):
        if max(n0, n1) <= self.block_size:
            return [(torch.arange(n0), torch.arange(n1))]
        n_blocks = min(self.n_pairings * -(-max(n0, n1) // self.block_size), self.max_blocks)
        halves = (shuffled_blocks(n, min(n, self.block_size), n_blocks, generator) for n in (n0, n1))
        return list(zip(*halves))

    def _n_workers(self, n_blocks):
        n_jobs = min(joblib.cpu_count(), 2) if self.n_jobs is None else self.n_jobs
        return min(joblib.effective_n_jobs(n_jobs) - 1, n_blocks - 1)


def shuffled_blocks(n, size, n_blocks, generator):
    """Blocks of distinct rows that go through all rows before any comes again."""
    rows = torch.empty(0, dtype=torch.long)
    for _ in range(n_blocks):
        if len(rows) < size:
            # Rows left over from the last pass come first, and must not come twice in the same block.
            fresh = torch.randperm(n, generator=generator)
            rows = torch.cat([rows, fresh[~torch.isin(fresh, rows)]])
        yield rows[:size]
        rows = rows[size:]


class _BlockPairs(Pairs):
    """Pairs of the blocks solved so far: two at the start, then one more for every 16 draws of a pair."""

    def __init__(self, X0, X1, blocks, n_workers):
        self.X0, self.X1 = X0, X1
        self.index0 = self.index1 = torch.empty(0, dtype=torch.long)
        self.mass = torch.empty(0, dtype=torch.float64)  # cumulative
        self._blocks, self._n_workers = deque(blocks), n_workers
        self._solving, self._workers = deque(), None
        if n_workers:
            self._workers = ThreadPoolExecutor(n_workers)
            # A fit that ends early must not wait for blocks that nobody needs.
            weakref.finalize(self, self._workers.shutdown, wait=False, cancel_futures=True)
        self._n_solved, self._n_due = 0, 2.0

    def sample(self, n, generator):
        while self._n_solved < self._n_due and (self._blocks or self._solving):
            self._add_block()
        self._n_due += n / (16 * len(self.index0) / self._n_solved)
        chosen = torch.rand(n, generator=generator, dtype=torch.float64) * self.mass[-1]
        chosen = torch.searchsorted(self.mass, chosen).clamp_max(len(self.mass) - 1)
        return self.X0.rows(self.index0[chosen]), self.X1.rows(self.index1[chosen])

    def _add_block(self):
        while self._blocks and len(self._solving) <= 2 * self._n_workers:
            self._solving.append(self._start(*self._blocks.popleft()))
        rows0, rows1, result = self._solving.popleft()
        local0, local1, mass = result()
        self.index0 = torch.cat([self.index0, rows0[local0]])
        self.index1 = torch.cat([self.index1, rows1[local1]])
        self.mass = torch.cat([self.mass, torch.from_numpy(mass).cumsum(0) + self._n_solved])
        self._n_solved += 1

    def _start(self, rows0, rows1):
        block = self.X0.rows(rows0).cpu().numpy(), self.X1.rows(rows1).cpu().numpy()
        if self._workers is None:
            return rows0, rows1, partial(solve_block, *block)
        return rows0, rows1, self._workers.submit(solve_block, *block).result


def solve_block(x0: np.ndarray, x1: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The optimal pairs of two small samples.

    Returns
    -------
    index0, index1 : ndarray of int
        Rows of either sample that are paired: an assignment where they are equally many.
    mass : ndarray
        Share of each pair in the plan; the shares sum to 1.
    """
    import ot

    cost = ot.dist(x0.astype(np.float64), x1.astype(np.float64), metric="sqeuclidean")
    plan = ot.emd(ot.unif(len(x0)), ot.unif(len(x1)), cost / max(cost.max(), 1e-300), numItermax=10_000_000)
    index0, index1 = np.nonzero(plan)
    mass = plan[index0, index1]
    return index0, index1, mass / mass.sum()
