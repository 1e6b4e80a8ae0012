"""The call order of POT's domain adaptation classes."""

from __future__ import annotations

from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted


class POTOrder(BaseEstimator):
    """A transport that is called as the classes of `ot.da` are, for code that is written for those.

    Parameters
    ----------
    transport : BaseTransport
        The transport.

    Attributes
    ----------
    transport_ : BaseTransport
        Fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from rfadapt import AffineTransport
    >>> from rfadapt.adaptation import POTOrder
    >>> Xs, Xt = np.array([[0.0], [2.0]]), np.array([[10.0], [14.0]])
    >>> POTOrder(AffineTransport()).fit(Xs=Xs, Xt=Xt).transform(Xs=Xs).round(3).ravel()
    array([10., 14.])
    """

    def __init__(self, transport):
        self.transport = transport

    def fit(self, Xs=None, ys=None, Xt=None, yt=None):
        """`fit(X0, X1, y0=..., y1=...)` of the transport: source, its labels, target, its labels."""
        self.transport_ = clone(self.transport).fit(Xs, Xt, y0=ys, y1=yt)
        return self

    def fit_transform(self, Xs=None, ys=None, Xt=None, yt=None):
        """`fit`, and the source moved."""
        return self.fit(Xs, ys, Xt, yt).transform(Xs)

    def transform(self, Xs=None, ys=None, Xt=None, yt=None, batch_size=None):
        """Rows of the source moved to the target. Only `Xs` is used: rows move the same way in any batch."""
        check_is_fitted(self)
        return self.transport_.transform(Xs)

    def inverse_transform(self, Xs=None, ys=None, Xt=None, yt=None, batch_size=None):
        """Rows of the target moved to the source, where the transport has an inverse. Only `Xt` is used."""
        check_is_fitted(self)
        return self.transport_.inverse_transform(Xt)
