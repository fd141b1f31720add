import numpy as np
import pytest
import torch
from torchvision.transforms import functional as F

from fasttrain.base.errors import LoaderError
from fasttrain.loading.device_stage import DeviceStage
from fasttrain.loading.plan import plan_batch
from fasttrain.loading.views import eval_view, train_view


@pytest.fixture
def pixels() -> torch.Tensor:
    """(6, 9, 11, 3) uint8, the last ones grey and black: colours without a hue."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 9, 11, 3), dtype=torch.uint8, generator=generator)
    images[4] = images[4, ..., :1]
    images[5] = 0
    return images


def nchw(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2)


def test_pixels_are_normalised_and_channels_last(pixels: torch.Tensor) -> None:
    view = eval_view(8)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)):
        stage = DeviceStage(view, torch.device("cpu"), dtype)
        labels = torch.arange(6)
        images, moved = stage.run(pixels, None, labels)
        assert images.shape == (6, 3, 9, 11) and images.dtype == dtype
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(moved, labels)
        expected = F.normalize(nchw(pixels).float() / 255, list(view.mean), list(view.std))
        torch.testing.assert_close(images.float(), expected, rtol=0, atol=tolerance)


def test_impossible_outputs_are_refused() -> None:
    with pytest.raises(LoaderError, match="floating-point"):
        DeviceStage(eval_view(8), torch.device("cpu"), torch.uint8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told() -> None:
    with pytest.raises(LoaderError, match="no usable GPU"):
        DeviceStage(eval_view(8), torch.device("cuda"), torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_batches_on_a_gpu_are_those_of_the_cpu(pixels: torch.Tensor) -> None:
    view = train_view(8, color_jitter=(0.5, 0.5, 0.5, 0.3))
    jitter = plan_batch(view, np.arange(6), np.arange(6, dtype=np.uint64), np.full((6, 2), 9)).jitter
    cpu = DeviceStage(view, torch.device("cpu"), torch.float32).run(pixels, jitter)[0]
    stage = DeviceStage(view, torch.device("cuda"), torch.float32)
    for _ in range(20):  # memory is re-used between batches: a missing hand-over would show
        host = pixels.pin_memory()
        images, ids = stage.run(host, jitter, torch.arange(6))
        assert images.is_cuda and ids.is_cuda
        torch.testing.assert_close(images.cpu(), cpu, rtol=0, atol=1e-4)
