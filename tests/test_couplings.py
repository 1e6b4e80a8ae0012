"""Couplings: who is paired with whom, seen through the pairs they draw."""

from itertools import permutations

import numpy as np
import ot
import pytest
import torch

from rfadapt import IndependentCoupling, OTCoupling, PairedCoupling, RectifiedFlowTransport
from rfadapt.geometry import TensorRows


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n, seed, d=2):
    return torch.randn(n, d, generator=generator(seed))


def drawn_pairs(coupling, x0, x1, n_draws, seed=0):
    """Draw `n_draws` pairs in batches, as training does; rows of the two domains by their numbers."""
    pairs = coupling.prepare(TensorRows(x0), TensorRows(x1), generator(seed))
    draw = generator(seed + 1)
    parts = [pairs.sample(min(256, n_draws - start), draw) for start in range(0, n_draws, 256)]
    return tuple(numbers(torch.cat(part), x) for part, x in zip(zip(*parts), (x0, x1)))


def numbers(drawn, x):
    distance = torch.cdist(drawn, x, compute_mode="donot_use_mm_for_euclid_dist")
    assert distance.min(1).values.max() == 0, "a coupling draws rows as they are"
    return distance.argmin(1)


def test_ot_in_one_block_is_the_best_of_all_assignments():
    x0, x1 = cloud(6, 1), cloud(6, 2) + 1
    cost = torch.cdist(x0, x1).square()
    best = min(permutations(range(6)), key=lambda order: sum(cost[i, j] for i, j in enumerate(order)))
    index0, index1 = drawn_pairs(OTCoupling(n_jobs=1), x0, x1, 500)
    assert set(zip(index0.tolist(), index1.tolist())) == set(enumerate(best))


def test_ot_in_blocks_pairs_every_block_optimally():
    x0, x1 = cloud(40, 1), cloud(40, 2)
    index0, index1 = drawn_pairs(OTCoupling(block_size=10, n_pairings=1, n_jobs=1), x0, x1, 20_000)
    pairs = sorted(set(zip(index0.tolist(), index1.tolist())))
    i, j = (torch.tensor(side) for side in zip(*pairs))
    # Four blocks of ten, each an optimal assignment: no cycle within a block lowers its cost. Blocks are not
    # named in what is drawn, but two pairs of one block never cross, which is rare between blocks.
    cost = torch.cdist(x0, x1).square()[i][:, j]
    gain = cost.diagonal()[:, None] + cost.diagonal()[None] - cost - cost.T
    swaps_that_pay = int((gain > 1e-5).sum()) // 2
    in_one_block = 4 * (10 * 9 // 2)
    assert 0 < swaps_that_pay <= 40 * 39 // 2 - in_one_block
    mean_cost = cost.diagonal().mean()
    best = ot.emd2([], [], torch.cdist(x0, x1).double().square().numpy())
    assert best < mean_cost < 0.5 * torch.cdist(x0, x1).square().mean()


@pytest.mark.parametrize("n", [32, 30])
def test_blocks_go_through_all_rows_before_any_comes_again(n):
    index0, index1 = drawn_pairs(OTCoupling(block_size=8, n_pairings=1, n_jobs=1), cloud(n, 1), cloud(n, 2), 20_000)
    for index in (index0, index1):
        assert set(index.tolist()) == set(range(n))
    partners = [len(set(index1[index0 == row].tolist())) for row in range(n)]
    # The last block of 30 rows is filled up with two that have been before.
    assert sorted(partners, reverse=True)[: 32 - n] == [2] * (32 - n)
    assert set(partners[: n - (32 - n)] if n == 32 else sorted(partners)[: n - 2]) == {1}


def test_pairings_give_rows_new_partners():
    index0, index1 = drawn_pairs(OTCoupling(block_size=8, n_pairings=4, n_jobs=1), cloud(32, 1), cloud(32, 2), 30_000)
    partners = [len(set(index1[index0 == row].tolist())) for row in range(32)]
    assert max(partners) <= 4 and np.mean(partners) > 2


def test_max_blocks_bounds_the_rows_that_are_paired():
    coupling = OTCoupling(block_size=8, n_pairings=1, max_blocks=2, n_jobs=1)
    index0, _ = drawn_pairs(coupling, cloud(32, 1), cloud(32, 2), 20_000)
    assert len(set(index0.tolist())) == 16


@pytest.mark.parametrize("sizes", [(4, 6), (7, 3), (1, 5)])
def test_unequal_sizes_split_mass_as_the_optimal_plan_does(sizes):
    x0, x1 = (cloud(n, n) for n in sizes)
    cost = torch.cdist(x0, x1).double().square().numpy()
    plan = ot.emd([], [], cost)
    index0, index1 = drawn_pairs(OTCoupling(n_jobs=1), x0, x1, 40_000)
    drawn = np.zeros(sizes)
    np.add.at(drawn, (index0.numpy(), index1.numpy()), 1 / 40_000)
    np.testing.assert_array_equal(drawn > 0, plan > 0)
    np.testing.assert_allclose(drawn, plan, atol=0.02)
    np.testing.assert_allclose(drawn.sum(1), 1 / sizes[0], atol=0.02)
    np.testing.assert_allclose(drawn.sum(0), 1 / sizes[1], atol=0.02)


def test_ot_is_cheaper_than_independence():
    x0, x1 = cloud(200, 1), cloud(150, 2) + 3
    costs = []
    for coupling in (OTCoupling(n_jobs=1), IndependentCoupling()):
        index0, index1 = drawn_pairs(coupling, x0, x1, 4000)
        costs.append((x0[index0] - x1[index1]).square().sum(1).mean())
    # The means alone cost 18.
    assert 17 < costs[0] < 19.5 < 21 < costs[1]


def test_independent_pairs_are_independent_and_uniform():
    index0, index1 = drawn_pairs(IndependentCoupling(), cloud(3, 1), cloud(4, 2), 40_000)
    counts = np.zeros((3, 4))
    np.add.at(counts, (index0.numpy(), index1.numpy()), 1 / 40_000)
    np.testing.assert_allclose(counts, 1 / 12, atol=0.01)


def test_workers_change_nothing_in_the_pairs():
    x0, x1 = cloud(120, 1), cloud(100, 2)
    alone, helped = (drawn_pairs(OTCoupling(block_size=16, n_jobs=n), x0, x1, 4000) for n in (1, 2))
    assert torch.equal(alone[0], helped[0]) and torch.equal(alone[1], helped[1])


def test_the_seed_decides_the_pairs():
    x0, x1 = cloud(60, 1), cloud(60, 2)
    first, again, other = (drawn_pairs(OTCoupling(block_size=16, n_jobs=1), x0, x1, 500, seed) for seed in (0, 0, 7))
    assert torch.equal(first[1], again[1]) and not torch.equal(first[1], other[1])


def test_known_pairs_stay_pairs():
    x0, x1 = cloud(50, 1), cloud(50, 2)
    index0, index1 = drawn_pairs(PairedCoupling(), x0, x1, 3000)
    assert torch.equal(index0, index1) and len(set(index0.tolist())) == 50


def test_known_pairs_need_equally_many_rows():
    with pytest.raises(ValueError, match=r"got 50 and 40.*coupling=\"ot\""):
        PairedCoupling().prepare(TensorRows(cloud(50, 1)), TensorRows(cloud(40, 2)), generator())


@pytest.mark.parametrize("name", ["block_size", "n_pairings", "max_blocks"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got {value}"):
        OTCoupling(**{name: value})


class Opposite:
    """The user's own: pairs the largest with the smallest, which no coupling here would do."""

    def prepare(self, X0, X1, generator):
        rows0, rows1 = (X.rows(torch.arange(len(X))) for X in (X0, X1))
        self.x0, self.x1 = rows0.sort(0).values, rows1.sort(0, descending=True).values
        return self

    def sample(self, n, generator):
        place = torch.rand(n, generator=generator)
        return tuple(x[(place * len(x)).long()] for x in (self.x0, self.x1))


def test_the_flow_accepts_a_coupling_of_the_users_own():
    rng = np.random.default_rng(0)
    X0, X1 = rng.uniform(1, 2, size=(300, 1)), rng.uniform(11, 12, size=(200, 1))
    flow = RectifiedFlowTransport(Opposite(), base=None, velocity="mlp", width=32, max_iter=300, batch_size=128,
                                  learning_rate=3e-3, random_state=0)
    flow.fit(X0, X1)
    # A flow cannot reverse the order of a line; paths of opposite pairs meet in the middle.
    middle = flow.trajectory(np.array([[1.1], [1.9]]), 3)[1]
    straight = RectifiedFlowTransport("ot", n_jobs=1, max_iter=20, random_state=0).fit(X0, X1)
    assert np.ptp(middle) < 0.5 * np.ptp(straight.trajectory(np.array([[1.1], [1.9]]), 3)[1])
