"""What a model file holds of a fitted flow, and the flow made of it again."""

from __future__ import annotations

import torch

from ._devices import resolve_device
from .geometry import Geometry
from .predictions import PREDICTIONS
from .velocity import VELOCITIES, AffineVelocity, ConvexPotential, FlowVelocity, PhasedVelocity, PotentialVelocity

# What a field is made from again, of those of its kind that have it.
_SIZES = ("width", "degree", "sharpest", "n_estimators")
_FIELDS = ("velocity_", "student_", "inverse_student_")


def flow_state(flow) -> tuple[dict, dict]:
    """Fitted attributes as (tensors, JSON-serialisable values)."""
    tensors = {f"geometry.{name}": value for name, value in vars(flow.geometry_).items() if value is not None}
    if flow.step_costs_ is not None:
        tensors["step_costs_."] = flow.step_costs_
    plain = ("n_features_in_", "n_iter_", "history_", "solver_", "n_steps_", "distillation_")
    values = {name: getattr(flow, name) for name in plain}
    if hasattr(flow, "feature_names_in_"):
        values["feature_names_in_"] = {"array": list(flow.feature_names_in_)}
    kinds = {kind: name for name, kind in PREDICTIONS.items()}
    values["prediction"] = kinds[type(flow.velocity_.prediction)]
    values["fields"] = {}
    for attribute in _FIELDS:
        field = getattr(flow, attribute)
        if field is None:
            continue
        tensors |= {f"{attribute}.{name}": value for name, value in field.state_dict().items()}
        # The parameters may say something else by now: what was fitted is what counts.
        learned = field.at_end(0)
        values["fields"][attribute] = {
            "learned": None if learned is None else type(learned).__name__,
            "sizes": {name: getattr(learned, name) for name in _SIZES if hasattr(learned, name)},
            "n_phases": field.n_phases,
            "base": field.base is not None,
        }
    return tensors, values


def restored(flow, tensors: dict, prediction: str, fields: dict) -> dict:
    """Fitted attributes that are not plain values, of a flow whose plain ones are set already."""
    parts = {"geometry": {}, "step_costs_": {}, **{name: {} for name in fields}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    attributes = dict.fromkeys(_FIELDS) | {
        "geometry_": Geometry(**parts["geometry"]),
        "step_costs_": parts["step_costs_"][""].numpy() if parts["step_costs_"] else None,
    }
    for name, description in fields.items():
        velocity = _blank_velocity(flow, prediction, **description).to(resolve_device(flow.device))
        velocity.load_state_dict(parts[name])
        attributes[name] = velocity.eval().requires_grad_(False)
    return attributes


def _blank_velocity(flow, prediction, *, learned, sizes, base, n_phases=1):
    """A velocity of the saved kind and sizes, whose weights are still to be loaded."""
    identity, path = torch.eye(flow.n_features_in_, dtype=torch.float64), flow._path()
    with torch.random.fork_rng(devices=[]):  # the first weights, which are thrown away, must cost no draws
        field = _blank_field(flow, learned, sizes, identity)
    if n_phases > 1:
        field = PhasedVelocity(field, n_phases)
    fixed = AffineVelocity(identity, identity, path) if base else None
    return FlowVelocity(fixed, field, path, PREDICTIONS[prediction]())


def _blank_field(flow, kind, sizes, identity):
    if kind is None:
        return None
    if kind == PotentialVelocity.__name__:
        potentials = (ConvexPotential(identity, identity, sizes["width"]) for _ in range(sizes["n_estimators"]))
        return PotentialVelocity(*potentials)
    known = {field.__name__: field for field in VELOCITIES.values()}
    if kind in known:
        return known[kind](flow.n_features_in_, **sizes)
    return flow._make_velocity(flow.n_features_in_, 1, None)
