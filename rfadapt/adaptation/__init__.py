"""Estimators that are trained on one domain and work on another, with any transport between them."""

from .adapter import DomainAdapter
from .classifier import AdaptedClassifier
from .pot import POTOrder
from .regressor import AdaptedRegressor

__all__ = ["AdaptedClassifier", "AdaptedRegressor", "DomainAdapter", "POTOrder"]
