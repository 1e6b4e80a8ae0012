"""Pictures of a fitted transport, as scikit-learn's displays: `Display.from_estimator(...)`, then `plot`.

matplotlib is imported when something is drawn, not before.
"""

from .history import HistoryDisplay
from .trajectory import TrajectoryDisplay
from .transport import TransportDisplay

__all__ = ["HistoryDisplay", "TrajectoryDisplay", "TransportDisplay"]
