"""Scores of an adapted model that need no label of the target, for `GridSearchCV(scoring=...)` and the like."""

from .circular import CircularValidationScorer
from .entropy import PredictionEntropyScorer
from .importance import DeepEmbeddedValidationScorer, ImportanceWeightedScorer
from .mixval import MixValScorer
from .neighbourhood import SoftNeighbourhoodDensityScorer

__all__ = [
    "CircularValidationScorer",
    "DeepEmbeddedValidationScorer",
    "ImportanceWeightedScorer",
    "MixValScorer",
    "PredictionEntropyScorer",
    "SoftNeighbourhoodDensityScorer",
]
