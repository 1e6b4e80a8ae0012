import pytest
import torch

from rfadapt.velocity import UNetVelocity


def make(shape=(3, 16, 12), **options):
    torch.manual_seed(0)
    return UNetVelocity(shape, 8, generator=torch.Generator().manual_seed(0), **options)


def shaken(net):
    """The field with weights that are not zero anywhere."""
    with torch.no_grad():
        for value in net.parameters():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    return net


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 8), (3, 32, 48), (4, 10, 14)])
@pytest.mark.parametrize("patch", [1, 2])
def test_it_keeps_the_shape_and_starts_at_zero(shape, patch):
    v = make(shape, patch=patch)(torch.randn(2, *shape), torch.rand(2))
    assert v.shape == (2, *shape) and (v == 0).all()


def test_time_and_condition_change_it_and_a_condition_can_be_left_out():
    net, x = shaken(make(n_conditions=5)), torch.randn(2, 3, 16, 12)
    t, c = torch.full((2,), 0.3), torch.randn(2, 5)
    assert not torch.allclose(net(x, t, c), net(x, t + 0.5, c))
    assert not torch.allclose(net(x, t, c), net(x, t, -c))
    none, left_out = net(x, t), net(x, t, c, torch.tensor([False, True]))
    torch.testing.assert_close(left_out[0], none[0])
    torch.testing.assert_close(left_out[1], net(x, t, c)[1])


def test_it_sees_the_whole_image():
    net, x = shaken(make((1, 32, 32))), torch.zeros(1, 1, 32, 32)
    other = x.clone()
    other[..., 0, 0] = 5
    change = (net(other, torch.zeros(1)) - net(x, torch.zeros(1))).abs()
    assert change[..., -1, -1] > 0


def test_the_same_seed_makes_the_same_weights():
    a, b = make(n_conditions=2), make(n_conditions=2)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_sides_must_be_multiples_of_the_patch():
    with pytest.raises(ValueError, match="multiples of patch=4"):
        make((3, 18, 16), patch=4)


def test_a_map_is_put_beside_the_image_and_may_be_left_out():
    net = shaken(make((2, 8, 8), n_conditions=3 * 64 + 5, map_channels=3))
    x, t, c = torch.randn(2, 2, 8, 8), torch.rand(2), torch.randn(2, 3 * 64 + 5)
    out, none = net(x, t, c, torch.tensor([True, False])), net(x, t)
    torch.testing.assert_close(out[0], net(x, t, c)[0])
    torch.testing.assert_close(out[1], none[1])
    assert not torch.allclose(out[0], none[0])
    seen = []
    net.inner.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0]))
    net(x, t, c)
    torch.testing.assert_close(seen[0], torch.cat([x, c[:, : 3 * 64].view(2, 3, 8, 8)], dim=1))


def test_conditions_must_hold_the_map():
    with pytest.raises(ValueError, match="n_conditions must be at least 192"):
        make((3, 8, 8), n_conditions=191, map_channels=3)
