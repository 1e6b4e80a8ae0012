"""Domain adaptation and unpaired translation by rectified flow, in scikit-learn's style.

Public names are loaded when they are first used: `import rfadapt` alone does not wait for torch and scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from . import (
        adaptation,
        couplings,
        datasets,
        images,
        metrics,
        model_selection,
        paths,
        plotting,
        predictions,
        schedules,
        solvers,
        tables,
        velocity,
    )
    from .adaptation import AdaptedClassifier, AdaptedRegressor, DomainAdapter
    from .base import BaseTransport, InvertibleTransport
    from .baselines import (
        AffineTransport,
        ClassRegularizedSinkhornTransport,
        CoralTransport,
        EMDTransport,
        IdentityTransport,
        KernelMappingTransport,
        SinkhornTransport,
        UnbalancedSinkhornTransport,
    )
    from .callbacks import Checkpoint
    from .compare import compare_transports
    from .couplings import ClassAwareCoupling, IndependentCoupling, JointCoupling, OTCoupling, PairedCoupling
    from .images import ImageTranslator
    from .transport import RectifiedFlowTransport

_HOMES = {
    "AdaptedClassifier": "adaptation",
    "AdaptedRegressor": "adaptation",
    "DomainAdapter": "adaptation",
    "BaseTransport": "base",
    "InvertibleTransport": "base",
    "AffineTransport": "baselines",
    "ClassRegularizedSinkhornTransport": "baselines",
    "CoralTransport": "baselines",
    "EMDTransport": "baselines",
    "IdentityTransport": "baselines",
    "JointCoupling": "couplings",
    "KernelMappingTransport": "baselines",
    "SinkhornTransport": "baselines",
    "UnbalancedSinkhornTransport": "baselines",
    "Checkpoint": "callbacks",
    "compare_transports": "compare",
    "ClassAwareCoupling": "couplings",
    "ImageTranslator": "images",
    "IndependentCoupling": "couplings",
    "OTCoupling": "couplings",
    "PairedCoupling": "couplings",
    "RectifiedFlowTransport": "transport",
}
_MODULES = [
    "adaptation",
    "couplings",
    "datasets",
    "images",
    "metrics",
    "model_selection",
    "paths",
    "plotting",
    "predictions",
    "schedules",
    "solvers",
    "tables",
    "velocity",
]

__all__ = [
    "AdaptedClassifier",
    "AdaptedRegressor",
    "AffineTransport",
    "BaseTransport",
    "Checkpoint",
    "ClassAwareCoupling",
    "ClassRegularizedSinkhornTransport",
    "CoralTransport",
    "DomainAdapter",
    "EMDTransport",
    "IdentityTransport",
    "ImageTranslator",
    "IndependentCoupling",
    "InvertibleTransport",
    "JointCoupling",
    "KernelMappingTransport",
    "OTCoupling",
    "PairedCoupling",
    "RectifiedFlowTransport",
    "SinkhornTransport",
    "UnbalancedSinkhornTransport",
    "__version__",
    "adaptation",
    "compare_transports",
    "couplings",
    "datasets",
    "images",
    "metrics",
    "model_selection",
    "paths",
    "plotting",
    "predictions",
    "schedules",
    "solvers",
    "tables",
    "velocity",
]


def __getattr__(name):
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__():
    return sorted({*globals(), *__all__})
