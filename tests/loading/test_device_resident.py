import numpy as np
import pytest
import torch

from fasttrain.base.errors import LoaderError
from fasttrain.loading.backend import Normalisation
from fasttrain.loading.device_resident import ResidentImages, load_resident

CPU = torch.device("cpu")
PLAIN = Normalisation((1.0,) * 3, (0.0,) * 3)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), np.uint8)


def test_chunks_of_arrays_and_tensors_become_one_data_set(images: np.ndarray) -> None:
    locked = images[:3].copy()
    locked.flags.writeable = False  # as pixels of a mapped file are
    pixels = load_resident([locked, torch.from_numpy(images[3:4]), images[4:]], 7, 6, 5, CPU)
    np.testing.assert_array_equal(pixels.numpy(), images)


def test_batches_are_windows_of_rows(images: np.ndarray) -> None:
    data = ResidentImages(torch.from_numpy(images), PLAIN, torch.float32)
    assert len(data) == 7
    rows = np.array([6, 0, 0])
    whole = data.batch(rows)
    assert whole.shape == (3, 3, 6, 5) and whole.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(whole.permute(0, 2, 3, 1).numpy(), images[rows])
    corners, flips = np.array([[0, 0], [-1, -2], [2, 1]]), np.array([False, False, True])
    window = data.batch(rows, corners=corners, size=(4, 3), hflip=flips).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(window[0], images[6, :4, :3])
    np.testing.assert_array_equal(window[1, 2:, 1:], images[0, :2, :2])
    assert not window[1, :2].any() and not window[1, :, :1].any()
    np.testing.assert_array_equal(window[2], images[0, 1:5, 2:5][:, ::-1])


def test_what_is_impossible_is_told(images: np.ndarray) -> None:
    data = ResidentImages(torch.from_numpy(images), PLAIN, torch.float32)
    with pytest.raises(LoaderError, match="rows must be 0 to 6"):
        data.batch(np.array([7]))
    with pytest.raises(LoaderError, match="floating-point"):
        ResidentImages(torch.from_numpy(images), PLAIN, torch.uint8)
    for chunks, message in (
        ([images[:5]], "only 5 of the 7"),
        ([images, images[:1]], "more images than the 7"),
        ([images[:, :4]], "of 5 x 6 pixels like the others"),
        ([images.astype(np.float32)], "must be uint8"),
    ):
        with pytest.raises(LoaderError, match=message):
            load_resident(chunks, 7, 6, 5, CPU)


def test_too_little_memory_is_told_before_anything_is_read() -> None:
    def chunks():  # type: ignore[no-untyped-def]
        raise AssertionError("this was read")
        yield

    with pytest.raises(LoaderError, match=r"^1,000,000,000 images of 224 x 224 pixels take 151 TB, but cpu has"):
        load_resident(chunks(), 10**9, 224, 224, CPU)
