"""A convex potential at fixed parameters: its gradient, its curvature, and the means of its derivatives."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from .displacement import DisplacementEquations

# Intermediate results of this many numbers stay in a core's cache. Far larger ones made an evaluation three times
# slower.
_CACHED_NUMBERS = 131072
# Numbers in the largest intermediate result where curvatures are computed, which have one matrix for each row.
_CURVATURE_NUMBERS = 2**23


class FrozenPotential(DisplacementEquations):
    """A `ConvexPotential` at fixed parameters, in whitened coordinates, with what evaluations share computed once.

    The linear functions see, in this order, the ridge functions times two, z, and a one: their offsets are a column of
    `linear`. As the shares of a group add up to one, what is the same for all members can be added to their weights.
    Inside, every row of the data is a column, so that sums over a group, and parts of the inputs, are contiguous.
    """

    def __init__(self, potential):
        self.potential = potential
        self.n_ridges, self.n_groups = len(potential.ridge_offsets), len(potential.log_heights)
        width, on_cpu = len(potential.offsets), potential.offsets.device.type == "cpu"
        self.rows = max(32, _CACHED_NUMBERS // width) if on_cpu else 65536
        self.one = potential.offsets.new_ones(())
        self._space, self._layers_of = potential.offsets.new_empty(0), None
        self.refresh()

    @torch.no_grad()
    def refresh(self):
        """Take the parameters as they are now."""
        potential = self.potential
        root = math.sqrt(potential.directions.shape[1])
        self.ridge_directions = potential.ridge_directions @ potential.varying / root
        self.ridges = torch.cat([self.ridge_directions, potential.ridge_offsets[:, None]], dim=1)
        ridge_heights = nn.functional.softplus(potential.log_ridge_heights) / 2
        constant = potential.constant @ potential.varying
        weights = nn.functional.softplus(potential.log_weights - math.log(self.n_ridges)) / 2
        directions = potential.directions @ potential.varying / root
        self.linear = torch.cat([weights, directions, potential.offsets[:, None]], dim=1)
        # Powers of two are taken in less than half of the time of exponentials.
        self.linear_bits = self.linear / math.log(2)
        self.heights = nn.functional.softplus(potential.log_heights)
        # Members of a group lie len(heights) apart.
        self.member_heights = self.heights.repeat(potential.group_size)
        # The potential is linear in the inputs with these slopes, beside the soft maxima.
        self.slope = torch.cat([ridge_heights, constant, constant.new_zeros(1)])
        self.weighted = (self.linear * self.member_heights[:, None] + self.slope / self.n_groups).T.contiguous()
        learned = potential.varying @ potential.factor
        still = potential.curvature - potential.varying @ potential.curvature @ potential.varying
        self.quadratic = learned @ learned.T + (1 - potential.min_curvature) * still
        self.quadratic += potential.min_curvature * potential.curvature

    def double(self):
        """The same in float64."""
        return FrozenPotential(copy.deepcopy(self.potential).double())

    def map(self, z):
        """Gradient of the potential, of shape (n, n_features)."""
        out = torch.empty_like(z)
        for rows, part in zip(z.split(self.rows), out.split(self.rows)):
            self._map(self._layers(rows), part)
        return out

    def value(self, z):
        """The potential, of shape (n,)."""
        return torch.cat([self._value(self._layers(rows)) for rows in z.split(self.rows)])

    def value_and_map(self, z):
        """The potential and its gradient, in little more time than the one takes alone."""
        values, out = [], torch.empty_like(z)
        for rows, part in zip(z.split(self.rows), out.split(self.rows)):
            layers = self._layers(rows)
            values.append(self._value(layers))
            self._map(layers, part)
        return torch.cat(values), out

    def _map(self, layers, out):
        torch.mm(self.weighted, layers.shares, out=layers.pulls)
        ridge_pulls, moves = layers.ridge_pulls.mul_(layers.slopes), layers.z_pulls
        # The gradient is made as columns: adding transposed results to rows takes several times as long.
        moves.addmm_(self.ridge_directions.T, ridge_pulls).addmm_(self.quadratic, layers.z)
        out.copy_(moves.T)

    def _value(self, layers):
        convex = math.log(2) * self.heights @ layers.bits() + self.slope @ layers.inputs
        return convex + (self.quadratic @ layers.z).mul_(layers.z).sum(0) / 2

    def mean_differences(self, z0, z1):
        """Means over rows `z0` of the potential's derivatives in what it is computed with, minus those over `z1`.

        Rows are of shapes (n0, n_features) and (n1, n_features), derivatives, by name, of those of what they are in.
        """
        linear, heights = torch.zeros_like(self.linear), torch.zeros_like(self.heights)
        ridges, quadratic = torch.zeros_like(self.ridges), torch.zeros_like(self.quadratic)
        for z, weight in ((z0, 1 / len(z0)), (z1, -1 / len(z1))):
            for rows in z.split(self.rows):
                layers = self._layers(rows)
                linear.addmm_(layers.shares, layers.inputs.T, alpha=weight)
                heights.add_(layers.bits().sum(1), alpha=weight)
                # Fewer rows of the product than `_map` needs, which saves a tenth of the time in many features.
                torch.mm(self.weighted[: self.n_ridges], layers.shares, out=layers.ridge_pulls)
                ridges.addmm_(layers.ridge_pulls.mul_(layers.slopes), layers.coordinates.T, alpha=weight)
            quadratic.addmm_(z.T, z, alpha=weight / 2)
        slope = linear.sum(0) / self.n_groups
        linear *= self.member_heights[:, None]
        changes = {"linear": linear, "slope": slope, "heights": math.log(2) * heights}
        return changes | {"ridges": ridges, "quadratic": quadratic}

    def curvatures(self, z):
        """Second derivative at every row, of shape (n, n_features, n_features)."""
        n_rows = max(1, _CURVATURE_NUMBERS // (len(self.linear) * z.shape[1]))
        return torch.cat([self._curvatures(rows) for rows in z.split(n_rows)])

    def _curvatures(self, z):
        layers = self._layers(z)
        slopes, shares = layers.slopes.T, layers.shares.T
        # The gradients of the linear functions at each row, and how much they differ within a group.
        gradients = self.linear[:, : self.n_ridges] @ (slopes[:, :, None] * self.ridge_directions)
        gradients += self.linear[:, self.n_ridges : -1]
        weighted = (shares * self.member_heights)[:, :, None] * gradients
        means = (shares[:, :, None] * gradients).view(len(z), -1, self.n_groups, z.shape[1]).sum(1)
        within = weighted.mT @ gradients - (means * self.heights[:, None]).mT @ means
        u = torch.addmm(self.ridges[:, -1], z, self.ridge_directions.T)
        bends = (self.weighted[: self.n_ridges] @ layers.shares).T / (1 + u.square()) ** 1.5
        return self.quadratic + within + (bends[:, :, None] * self.ridge_directions).mT @ self.ridge_directions

    def mean_curvature(self, z):
        """Mean over rows of the second derivative, of shape (n_features, n_features)."""
        return self.curvatures(z).mean(0)

    def _layers(self, z):
        """What all derivatives at rows `z` are made of, in memory that the next call takes again."""
        layers = self._memory(len(z))
        layers.z.copy_(z.T)
        u, slopes, groups = layers.ridges, layers.slopes, layers.groups
        torch.mm(self.ridges, layers.coordinates, out=u)
        # 1 + u^2, where the pulls will be, and the inverse of its root, which is quicker than the root.
        square = torch.addcmul(self.one, u, u, out=layers.ridge_pulls)
        torch.rsqrt(square, out=slopes)
        slopes.mul_(u.addcmul_(square, slopes))
        torch.mm(self.linear_bits, layers.inputs, out=layers.shares)
        torch.amax(groups, 0, out=layers.peaks)
        groups.sub_(layers.peaks).exp2_()
        torch.sum(groups, 0, out=layers.sums)
        groups.div_(layers.sums)
        return layers

    def _memory(self, n):
        """Where the results for `n` rows go: the same places again and again, as others are not in the caches."""
        if self._layers_of is None or self._layers_of.n != n:
            n_ridges, (width, n_inputs) = self.n_ridges, self.linear.shape
            numbers = {"inputs": n_inputs, "slopes": n_ridges, "shares": width, "pulls": n_inputs}
            numbers |= {"peaks": self.n_groups, "sums": self.n_groups}
            sizes = [n * number for number in numbers.values()]
            if sum(sizes) > len(self._space):
                self._space = self.linear.new_empty(sum(sizes))
            places = self._space[: sum(sizes)].split(sizes)
            self._layers_of = _Layers(n, n_ridges, **{name: place.view(-1, n) for name, place in zip(numbers, places)})
        return self._layers_of


class _Layers:
    """Intermediate results at some rows, one column for each.

    Attributes
    ----------
    inputs : Tensor of shape (n_ridges + n_features + 1, n)
        Ridge functions 2 s(u) = u + sqrt(1 + u^2), z, and ones.
    ridges, coordinates : Tensor
        The first of them, and the others.
    slopes : Tensor of shape (n_ridges, n)
        Derivatives 2 s'(u).
    shares : Tensor of shape (width, n)
        Shares of the linear functions in their groups (softmax).
    groups : Tensor of shape (group_size, n_groups, n)
        The same.
    peaks, sums : Tensor of shape (n_groups, n)
        The largest function of a group, in units of log(2), and the sum of all their exponentials, relative to its.
    pulls : Tensor of shape (n_ridges + n_features + 1, n)
        Derivatives in the inputs.
    ridge_pulls, z_pulls : Tensor
        Those in the ridge functions and in z.
    """

    def __init__(self, n, n_ridges, *, inputs, slopes, shares, pulls, peaks, sums):
        self.n, self.inputs, self.slopes, self.shares, self.pulls = n, inputs, slopes, shares, pulls
        self.ridges, self.coordinates = inputs[:n_ridges], inputs[n_ridges:]
        self.z, self.ridge_pulls, self.z_pulls = inputs[n_ridges:-1], pulls[:n_ridges], pulls[n_ridges:-1]
        self.peaks, self.sums, self.groups = peaks, sums, shares.view(-1, *peaks.shape)
        inputs[-1] = 1

    def bits(self):
        """Soft maxima of the groups, in units of log(2), of shape (n_groups, n)."""
        return self.sums.log2().add_(self.peaks)


class FrozenMean(DisplacementEquations):
    """The mean of frozen potentials in the same coordinates; equations are solved in the metric of the first."""

    def __init__(self, members):
        self.members, self.potential, self.rows = members, members[0].potential, members[0].rows

    def map(self, z):
        """Gradient of the potential, of shape (n, n_features)."""
        return self._mean("map", z)

    def value(self, z):
        """The potential, of shape (n,)."""
        return self._mean("value", z)

    def value_and_map(self, z):
        """Both of the above."""
        values, maps = zip(*(member.value_and_map(z) for member in self.members))
        return sum(values) / len(values), sum(maps) / len(maps)

    def curvatures(self, z):
        """Second derivative at every row, of shape (n, n_features, n_features)."""
        return self._mean("curvatures", z)

    def double(self):
        """The same in float64."""
        return FrozenMean([member.double() for member in self.members])

    def _mean(self, name, z):
        return sum(getattr(member, name)(z) for member in self.members) / len(self.members)
