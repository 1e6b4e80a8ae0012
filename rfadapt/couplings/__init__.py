"""Couplings: who goes where. They say which row of domain 0 is paired with which row of domain 1.

A coupling is configured once and used in two steps, `prepare(X0, X1, generator)` and then, on what that
returned, `sample(n, generator) -> (x0, x1)` as often as training asks. Your own coupling is any object with
these two methods; `X0` and `X1` have a length, `rows(index) -> Tensor`, and `labels`.
"""

from .base import Coupling, IndependentCoupling, PairedCoupling, Pairs, Rows
from .blocks import OTCoupling, solve_block
from .class_aware import ClassAwareCoupling
from .joint import JointCoupling

__all__ = [
    "COUPLINGS",
    "ClassAwareCoupling",
    "Coupling",
    "IndependentCoupling",
    "JointCoupling",
    "OTCoupling",
    "PairedCoupling",
    "Pairs",
    "Rows",
    "solve_block",
]

COUPLINGS = {
    "independent": IndependentCoupling,
    "ot": OTCoupling,
    "class_aware": ClassAwareCoupling,
    "joint": JointCoupling,
}
