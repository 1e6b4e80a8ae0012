"""Couplings: who goes where. They say which row of domain 0 is paired with which row of domain 1.

A coupling is configured once and used in two steps, `prepare(X0, X1, generator)` and then, on what that
returned, `sample(n, generator) -> (x0, x1)` as often as training asks. Your own coupling is any object with
these two methods; `X0` and `X1` have a length and `rows(index) -> Tensor`.
"""

from .base import Coupling, IndependentCoupling, PairedCoupling, Pairs, Rows
from .blocks import OTCoupling, solve_block

__all__ = [
    "COUPLINGS",
    "Coupling",
    "IndependentCoupling",
    "OTCoupling",
    "PairedCoupling",
    "Pairs",
    "Rows",
    "solve_block",
]

COUPLINGS = {"independent": IndependentCoupling, "ot": OTCoupling}
