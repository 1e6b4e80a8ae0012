"""Images are read from whatever holds them, and what cannot be read is named."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from rfadapt.images.reading import Images


def pictures(n=4, height=8, width=10, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(n, height, width, channels), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Four readable files, in one subfolder."""
    (tmp_path / "pets" / "a").mkdir(parents=True)
    for i, image in enumerate(pictures()):
        Image.fromarray(image).save(tmp_path / "pets" / "a" / f"{i}.png")
    return tmp_path / "pets"


def everything(source, **options):
    images = Images(source, "source", **options)
    return images.batch(torch.arange(len(images))).movedim(1, -1).numpy()


def test_every_kind_of_source_gives_the_same_images(folder):
    array = pictures()
    paths = sorted(folder.rglob("*.png"))
    tensor = torch.from_numpy(array).movedim(-1, 1)
    for source in (folder, str(folder), paths, ImageFolder(folder), array, tensor, tensor / 255, array / 255.0):
        np.testing.assert_array_equal(everything(source), array)


def test_gray_images_get_the_channels_and_the_size_that_are_asked_for():
    gray = pictures(channels=1)[..., 0]
    wide = everything(gray, channels=3, size=(8, 10))
    np.testing.assert_array_equal(wide, np.repeat(gray[..., None], 3, axis=-1))
    constant = np.full((2, 6, 6), 77, np.uint8)
    resized = everything(constant, size=(12, 4))
    assert resized.shape == (2, 12, 4, 1) and (resized == 77).all()


def test_an_unreadable_file_is_named_and_refused_or_left_out(folder):
    (folder / "a" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1\.png is not a readable image.*on_bad_image"):
        Images(folder, "source")
    with pytest.warns(UserWarning, match=r"left out 1 images, unreadable: .*1\.png"):
        images = Images(folder, "source", on_bad_image="skip")
    np.testing.assert_array_equal(images.batch(torch.arange(3)).movedim(1, -1).numpy(), pictures()[[0, 2, 3]])
    assert [path.name for path in images.paths] == ["0.png", "2.png", "3.png"]


def test_a_file_of_another_size_is_named_and_treated_as_asked(folder):
    Image.new("RGB", (20, 20)).save(folder / "a" / "9.png")
    assert everything(folder).shape == (5, 8, 10, 3)
    with pytest.raises(ValueError, match=r"9\.png has 20 x 20 pixels instead of 8 x 10"):
        Images(folder, "source", on_odd_size="raise")
    with pytest.warns(UserWarning, match=r"of another size: .*9\.png"):
        assert len(Images(folder, "source", on_odd_size="skip")) == 4


def test_files_are_decoded_only_when_they_are_asked_for(folder, monkeypatch):
    images = Images(folder, "source")
    decoded = []
    decode = images._decode
    monkeypatch.setattr(images, "_decode", lambda i: decoded.append(i) or decode(i))
    images.batch(torch.tensor([2, 0]))
    assert decoded == [2, 0]
    held = [value for value in vars(images).values() if isinstance(value, (np.ndarray, torch.Tensor))]
    assert sum(value.nbytes for value in held) <= 8 * len(images)  # an index, and no pixels


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("/no/such/folder", FileNotFoundError, "there is no folder"),
        (np.zeros((3, 8)), ValueError, r"\(n, height, width, channels\)"),
        (np.zeros((3, 8, 8, 2), np.uint8), ValueError, "1 or 3 channels"),
        (np.zeros((3, 8, 8), np.int64), ValueError, "must hold uint8"),
        (np.full((3, 8, 8), 200.0), ValueError, "between 0 and 1; got 200 to 200"),
        (np.zeros((0, 8, 8, 3), np.uint8), ValueError, "has no images"),
        (7, TypeError, "got int"),
    ],
)
def test_what_holds_no_images_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        Images(source, "source")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no images"):
        Images(tmp_path, "target")
