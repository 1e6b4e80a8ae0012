"""Velocity fields: callables v(x, t) with x of shape (n, n_features) and t of shape (n,)."""

from .affine import AffineVelocity, gaussian_map, shrunk_covariances
from .flow import FlowVelocity
from .gradient import GradientVelocity
from .mlp import MLPVelocity
from .potential import ConvexPotential, PotentialVelocity

__all__ = [
    "AffineVelocity",
    "ConvexPotential",
    "FlowVelocity",
    "GradientVelocity",
    "MLPVelocity",
    "PotentialVelocity",
    "gaussian_map",
    "shrunk_covariances",
]
