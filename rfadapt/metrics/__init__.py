"""How far two samples are from each other, and how a transport moves one onto the other.

All of it is computed in float64 on the CPU, and takes arrays, data frames, sparse matrices or tensors.
"""

from .classifier import domain_auc
from .discrepancy import energy_distance, maximum_mean_discrepancy, sliced_wasserstein
from .displacement import first_orderness, l2_uvp, round_trip_error, straightness, transport_cost

__all__ = [
    "domain_auc",
    "energy_distance",
    "first_orderness",
    "l2_uvp",
    "maximum_mean_discrepancy",
    "round_trip_error",
    "sliced_wasserstein",
    "straightness",
    "transport_cost",
]
