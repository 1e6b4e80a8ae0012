"""Velocity fields: callables v(x, t) with x of shape (n, n_features) and t of shape (n,)."""

from .affine import AffineVelocity, gaussian_map, shrunk_covariances, varying_directions
from .flow import FlowVelocity
from .gradient import GradientVelocity
from .mlp import MLPVelocity
from .phased import PhasedVelocity
from .potential import ConvexPotential, PotentialVelocity
from .unet import UNetVelocity

#: The regressed fields that `velocity=` names.
VELOCITIES = {"gradient": GradientVelocity, "mlp": MLPVelocity}

__all__ = [
    "VELOCITIES",
    "AffineVelocity",
    "ConvexPotential",
    "FlowVelocity",
    "GradientVelocity",
    "MLPVelocity",
    "PhasedVelocity",
    "PotentialVelocity",
    "UNetVelocity",
    "gaussian_map",
    "shrunk_covariances",
    "varying_directions",
]
