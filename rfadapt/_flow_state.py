"""What a model file holds of a fitted flow, and the flow made of it again."""

from __future__ import annotations

import torch

from ._devices import resolve_device
from .geometry import Geometry
from .velocity import VELOCITIES, AffineVelocity, ConvexPotential, FlowVelocity, PotentialVelocity


def flow_state(flow) -> tuple[dict, dict]:
    """Fitted attributes as (tensors, JSON-serialisable values)."""
    tensors = {f"velocity.{name}": value for name, value in flow.velocity_.state_dict().items()}
    tensors |= {f"geometry.{name}": value for name, value in vars(flow.geometry_).items() if value is not None}
    plain = ("n_features_in_", "n_iter_", "history_", "solver_", "n_steps_")
    values = {name: getattr(flow, name) for name in plain}
    if hasattr(flow, "feature_names_in_"):
        values["feature_names_in_"] = {"array": list(flow.feature_names_in_)}
    # The parameters may say something else by now: what was fitted is what counts.
    learned = flow.velocity_.learned
    values["learned"] = None if learned is None else type(learned).__name__
    values["width"] = getattr(learned, "width", None)
    values["base"] = flow.velocity_.base is not None
    return tensors, values


def restored(flow, tensors: dict, values: dict) -> tuple[Geometry, FlowVelocity]:
    """Geometry and velocity of a flow whose plain attributes are set already."""
    parts = {"velocity": {}, "geometry": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    identity = torch.eye(flow.n_features_in_, dtype=torch.float64)
    base = AffineVelocity(identity, identity, flow._path()) if values["base"] else None
    with torch.random.fork_rng(devices=[]):  # the first weights, which are thrown away, must cost no draws
        field = _blank_field(flow, values["learned"], values["width"])
    velocity = FlowVelocity(base, field).to(resolve_device(flow.device))
    velocity.load_state_dict(parts["velocity"])
    return Geometry(**parts["geometry"]), velocity.eval().requires_grad_(False)


def _blank_field(flow, kind, width):
    """A field of the saved kind and width, whose weights are still to be loaded."""
    if kind is None:
        return None
    if kind == PotentialVelocity.__name__:
        identity = torch.eye(flow.n_features_in_, dtype=torch.float64)
        return PotentialVelocity(ConvexPotential(identity, identity, width))
    known = {field.__name__: field for field in VELOCITIES.values()}
    if kind in known:
        return known[kind](flow.n_features_in_, width)
    return flow._make_velocity(flow.n_features_in_, 1, None)
