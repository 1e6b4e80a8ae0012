"""Domain adaptation and unpaired translation by rectified flow, in scikit-learn's style."""

from ._version import __version__
from .base import BaseTransport
from .compare import compare_transports
from .couplings import IndependentCoupling, OTCoupling, PairedCoupling
from .transport import RectifiedFlowTransport

__all__ = [
    "compare_transports",
    "BaseTransport",
    "IndependentCoupling",
    "OTCoupling",
    "PairedCoupling",
    "RectifiedFlowTransport",
    "__version__",
]
