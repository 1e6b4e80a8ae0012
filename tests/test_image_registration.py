"""Registration: known moves are found, images that lie well already stay, and colours stay with what they colour."""

import pytest
import torch

from rfadapt.images.registration import registered


def bars(places, size=(32, 32)):
    """One upright bar an image, a sixth of its width, white on black, at these shares of the width."""
    x = -torch.ones(len(places), 1, *size)
    for image, place in zip(x, places):
        left, width = round(place * size[1]), size[1] // 6
        image[:, size[0] // 8 : -size[0] // 8, left : left + width] = 1
    return x


def difference(x, y):
    return (x - y).square().mean((1, 2, 3))


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (64, 64), (16, 16)])
def test_a_bar_that_was_moved_is_brought_to_its_place(size):
    x, wanted = bars([0.3, 0.6], size), bars([0.4, 0.5], size)
    assert (difference(registered(x, x, wanted), wanted) < 0.3 * difference(x, wanted)).all()


def test_images_that_lie_well_stay_where_they_are():
    x, moved = bars([0.3, 0.4, 0.6]), bars([0.33, 0.43, 0.63])
    assert (difference(registered(x, x, x), x) < 0.05 * difference(x, moved)).all()


def test_images_move_by_their_contents_and_not_by_their_values():
    content, wanted = bars([0.3]), bars([0.4])
    colour = torch.tensor([0.9, -0.2, 0.4])
    x = torch.where(content > 0, colour.view(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.1))
    inside = registered(x, content, wanted)[..., 8:-8, 14:17].mean((0, 2, 3))
    assert torch.allclose(inside, colour, atol=0.1)


def test_registration_leaves_gradients_and_chance_alone():
    x, wanted = bars([0.3]), bars([0.4])
    state = torch.default_generator.get_state()
    with torch.no_grad():
        first = registered(x, x, wanted)
    assert torch.equal(first, registered(x, x, wanted)) and not first.requires_grad
    assert torch.equal(state, torch.default_generator.get_state())
