"""Stratified batches against what is known of their chances, their regions and their variance."""

import numpy as np
import torch

from rfadapt._strata import drawn_across, in_order_of_place


def generator():
    return torch.Generator().manual_seed(0)


def test_every_entry_is_equally_likely_and_no_stretch_is_left_out():
    order, draws = torch.randperm(50, generator=generator()), generator()
    batches = torch.stack([drawn_across(order, 20, draws) for _ in range(4000)])
    shares = torch.bincount(batches.flatten(), minlength=50) / batches.numel()
    # The standard error of a share is at most sqrt(0.02 / 80000).
    torch.testing.assert_close(shares, torch.full((50,), 0.02), atol=0.0025, rtol=0)
    place = torch.empty(50, dtype=torch.long)
    place[order] = torch.arange(50)
    # Stretch k is from place 2.5 k to 2.5 (k + 1).
    stretch = torch.arange(20)
    assert (place[batches] >= (2.5 * stretch).floor()).all() and (place[batches] < (2.5 * (stretch + 1)).ceil()).all()


def test_a_short_order_is_drawn_from_independently():
    drawn = drawn_across(torch.randperm(3000, generator=generator()), 3000, generator())
    # Of as many independent draws, 1 - 1/e of the entries are among them, up to a standard error of 0.006.
    assert abs(len(drawn.unique()) / 3000 - 0.632) < 0.025


def test_the_variance_of_a_mean_is_that_within_the_strata():
    x = torch.linspace(0, 1, 640, dtype=torch.float64)[torch.randperm(640, generator=generator())]
    order, draws = in_order_of_place(x[:, None], 64), generator()
    means = torch.stack([x[drawn_across(order, 64, draws)].mean() for _ in range(4000)])
    within = x.sort().values.view(64, 10).var(1, correction=0).mean() / 64
    assert abs(means.mean() - 0.5) < 4 * (within / 4000).sqrt()
    # The variance of 4000 draws is known to 2 %.
    torch.testing.assert_close(means.var(), within, rtol=0.1, atol=0)


def test_strata_are_regions():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4096, 2))).float()
    order = in_order_of_place(x, 256)
    assert torch.equal(order.sort().values, torch.arange(4096))
    # Squares of the same number would leave 1/256 of the variance, or so.
    within = x[order].view(256, 16, 2).var(1).mean()
    assert within < 0.02


def test_clusters_are_kept_apart():
    centers = 50 * torch.arange(8)[:, None] * torch.randn(8, generator=generator())
    x = centers.repeat_interleave(32, dim=0) + torch.randn(256, 8, generator=generator())
    shuffled = torch.randperm(256, generator=generator())
    cluster = shuffled[in_order_of_place(x[shuffled], 8)] // 32
    assert all(len(part.unique()) == 1 for part in cluster.view(8, 32))


def test_rows_that_are_all_the_same():
    assert torch.equal(in_order_of_place(torch.ones(40, 3), 10).sort().values, torch.arange(40))
