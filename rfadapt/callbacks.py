"""Callbacks: what a fit can do at every check besides training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Checkpoint:
    """Save the flow as it is at every check, so that a fit that is killed can be resumed.

    The file is replaced as a whole: there is a complete model at every moment. Resume by loading it and
    fitting again with a warm start, which keeps its weights, scaling and base.

    Parameters
    ----------
    path : str or Path
        The model file, as `RectifiedFlowTransport.save` writes it.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from pathlib import Path
    >>> from rfadapt import Checkpoint, RectifiedFlowTransport
    >>> X0 = np.random.default_rng(0).normal(size=(200, 2))
    >>> path = Path(tempfile.mkdtemp()) / "flow.safetensors"
    >>> flow = RectifiedFlowTransport(max_iter=100, callbacks=[Checkpoint(path)]).fit(X0, 2 * X0)
    >>> resumed = RectifiedFlowTransport.load(path, warm_start=True).fit(X0, 2 * X0)
    """

    path: object

    def __call__(self, state) -> None:
        state.snapshot().save(self.path)
