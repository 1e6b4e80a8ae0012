"""Prediction forms: the same pair said in three ways."""

import itertools

import pytest
import torch

from rfadapt.paths import PATHS, LinearPath
from rfadapt.predictions import PREDICTIONS, convert

TIMES = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


@pytest.fixture(params=PATHS)
def path(request):
    return PATHS[request.param]()


@pytest.fixture
def forms(path):
    """Places on the path of some pairs, and what every form says there."""
    x0, x1 = torch.randn(2, 19, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, v = path.sample(x0, x1, TIMES)
    return x, {"v": v, "x1": x1, "x0": x0}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(PREDICTIONS, PREDICTIONS)))
def test_every_form_turns_into_every_other(source, target, path, forms):
    x, values = forms
    converted = convert(values[source], x, TIMES, path, source=source, target=target)
    torch.testing.assert_close(converted, values[target], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("form", PREDICTIONS)
def test_weight_is_what_the_error_of_an_output_costs(form, path):
    # An output that is off by 1 makes the velocity wrong by `scale`, and the predicted quantity by sqrt(weight).
    prediction = PREDICTIONS[form]()
    x, v = torch.zeros(2, 19, 1, dtype=torch.float64)
    wrong = v + prediction.scale(TIMES, path).unsqueeze(1)
    before, after = (convert(v_, x, TIMES, path, source="v", target=form) for v_ in (v, wrong))
    torch.testing.assert_close((after - before).square().squeeze(1), prediction.weight(TIMES, path))


@pytest.mark.parametrize(("source", "time"), [("x1", 1.0), ("x0", 0.0)])
def test_a_form_that_says_nothing_at_a_time_is_refused_there(source, time, path):
    x, t = torch.zeros(2, 1), torch.tensor([0.5, time])
    with pytest.raises(ValueError, match=f"{source} at t = {time:g} is x itself and says nothing of v"):
        convert(x, x, t, path, source=source, target="v")
    # Where it is only read and not inverted, all times will do.
    assert torch.isfinite(convert(x, x, t, path, source="v", target=source)).all()


def test_an_unknown_form_is_refused():
    x, t = torch.zeros(2, 1), torch.full((2,), 0.5)
    with pytest.raises(ValueError, match="one of v, x1, x0; got 'epsilon'"):
        convert(x, x, t, LinearPath(), source="epsilon", target="v")
