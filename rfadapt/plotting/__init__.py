"""Pictures of a fitted transport or adapter, as scikit-learn's displays: `Display.from_estimator(...)`, then `plot`.

matplotlib is imported when something is drawn, not before.
"""

from .evidence import EvidenceDisplay
from .few_steps import FewStepDisplay
from .history import HistoryDisplay
from .trajectory import TrajectoryDisplay
from .transport import TransportDisplay

__all__ = ["EvidenceDisplay", "FewStepDisplay", "HistoryDisplay", "TrajectoryDisplay", "TransportDisplay"]
