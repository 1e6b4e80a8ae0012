"""Known transports with the contract of the flow: what a new method should be compared with.

Their regularisation parameters are in units of the data, so that the defaults fit any scale: plans are solved for
squared distances divided by their median, and ridges are shares of the features' variances.
"""

from .class_regularized import ClassRegularizedSinkhornTransport
from .kernel import KernelMappingTransport
from .linear import AffineTransport, CoralTransport, IdentityTransport
from .plan import EMDTransport
from .sinkhorn import SinkhornTransport
from .unbalanced import UnbalancedSinkhornTransport

__all__ = [
    "BASELINES",
    "AffineTransport",
    "ClassRegularizedSinkhornTransport",
    "CoralTransport",
    "EMDTransport",
    "IdentityTransport",
    "KernelMappingTransport",
    "SinkhornTransport",
    "UnbalancedSinkhornTransport",
]

#: The baselines by the short names that `compare_transports` and the command line accept.
BASELINES = {
    "identity": IdentityTransport,
    "coral": CoralTransport,
    "affine": AffineTransport,
    "emd": EMDTransport,
    "sinkhorn": SinkhornTransport,
    "unbalanced": UnbalancedSinkhornTransport,
    "class-sinkhorn": ClassRegularizedSinkhornTransport,
    "kernel": KernelMappingTransport,
}
