"""Velocity fields: callables v(x, t) with x of shape (n, n_features) and t of shape (n,)."""

from .affine import AffineVelocity, gaussian_map, shrunk_covariances
from .flow import FlowVelocity
from .gradient import GradientVelocity
from .mlp import MLPVelocity

__all__ = ["AffineVelocity", "FlowVelocity", "GradientVelocity", "MLPVelocity", "gaussian_map", "shrunk_covariances"]
