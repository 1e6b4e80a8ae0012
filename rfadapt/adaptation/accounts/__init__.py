"""Simple accounts of a shift between domains: none, other class proportions, other weights, a map."""

from .base import Account
from .maps import AffineAccount, TransportAccount
from .offset import OffsetClasses
from .weights import ClassWeights, ImportanceWeights

__all__ = ["Account", "AffineAccount", "ClassWeights", "ImportanceWeights", "OffsetClasses", "TransportAccount"]
