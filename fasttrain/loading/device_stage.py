"""What is left once pixels are decoded and cropped: to the device, colour, normalise, cast. Plain torch.

Images cross as uint8 on a side stream; the result is handed to the caller's stream with an event, and its memory is
marked as used there, so that the caching allocator does not give it away too early.
"""

import numpy as np
import torch
from torch import Tensor

from fasttrain.base.errors import LoaderError
from fasttrain.loading.backend import Normalisation
from fasttrain.loading.host_memory import HostMemory
from fasttrain.loading.plan import Jitter
from fasttrain.loading.views import View

_FINAL_TYPES = (torch.float32, torch.float16, torch.bfloat16)  # that backends store
# Weights of R, G and B in luma (ITU-R BT.601), as Pillow and torchvision use them.
_LUMA = (0.2989, 0.587, 0.114)


class DeviceStage:
    """Turns batches (B, H, W, 3) on the host, uint8 or finished but for their layout, into model input on a device."""

    def __init__(self, view: View, device: torch.device, dtype: torch.dtype) -> None:
        if not dtype.is_floating_point:
            raise LoaderError(f"images are normalised, so their dtype must be a floating-point one, not {dtype}")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise LoaderError(f"device {device} was asked for, but torch finds no usable GPU; use device='cpu'")
        self.device, self.dtype = device, dtype
        std = torch.tensor(view.std, dtype=torch.float32)
        mean = torch.tensor(view.mean, dtype=torch.float32)
        # (pixel / 255 - mean) / std as one multiplication and one addition
        scale, shift = 1 / (255 * std), -mean / std
        self._scale, self._shift = scale.to(device), shift.to(device)
        self._normalisation = Normalisation(tuple(scale.tolist()), tuple(shift.tolist()))
        self._memory = HostMemory()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def stream(self) -> torch.cuda.Stream | None:
        """The side stream that batches of a GPU are made on."""
        return self._stream

    def normalisation(self, jitter: Jitter | None) -> Normalisation | None:
        """What a backend may do of this stage's work while it stores the pixels: all of it, or nothing (None)."""
        final = self._stream is None and jitter is None and self.dtype in _FINAL_TYPES
        return self._normalisation if final and self.device.type == "cpu" else None

    def empty_batch(self, count: int, size: int, normalised: bool, on_device: bool = False) -> Tensor:
        """An undefined batch (count, size, size, 3): of this stage's dtype if its pixels are to be normalised by the
        backend, else uint8; pinned when the device is a GPU, or `on_device`, to be filled on this stage's stream."""
        shape = (count, size, size, 3)
        if on_device:
            with torch.cuda.stream(self._stream):
                return torch.empty(shape, dtype=torch.uint8, device=self.device)
        if self._stream is not None:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return self._memory.empty(shape, self.dtype if normalised else torch.uint8)

    def blank(self, host: Tensor, entries: np.ndarray) -> None:
        """Make `entries` ((B,) bool) of a batch that `empty_batch` gave black."""
        chosen = torch.from_numpy(np.flatnonzero(entries))
        black = 0 if host.dtype == torch.uint8 else torch.tensor(self._normalisation.shift, dtype=host.dtype)
        if len(chosen):
            with torch.cuda.stream(self._stream):
                host[chosen.to(host.device)] = black

    def run(self, host: Tensor, jitter: Jitter | None, *others: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) in channels-last format, and `others` moved along, ready for the current stream."""
        if self._stream is None:
            return (self._transform(host, jitter), *others)
        with torch.cuda.stream(self._stream):
            pinned = [tensor.pin_memory() for tensor in others]
            moved = [tensor.to(self.device, non_blocking=True) for tensor in pinned]
            images = self._transform(host.to(self.device, non_blocking=True), jitter)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._stream)
        for tensor in (images, *moved):
            tensor.record_stream(current)
        return (images, *moved)

    def _transform(self, pixels: Tensor, jitter: Jitter | None) -> Tensor:
        if pixels.dtype != torch.uint8:  # normalised already
            return pixels.permute(0, 3, 1, 2)
        images = pixels.to(torch.float32)
        if jitter is not None:
            images = apply_jitter(images.div_(255), jitter).mul_(255)
        images = images.mul_(self._scale).add_(self._shift).to(self.dtype)
        return images.permute(0, 3, 1, 2)  # an NHWC tensor seen as NCHW is what channels-last means


def apply_jitter(images: Tensor, jitter: Jitter) -> Tensor:
    """Colour jitter with each sample's own factors and order of operations.

    Args:
        images: (B, H, W, 3) float32 in 0–1; changed in place.
        jitter: factors and order of the batch.
    """
    operations = (_brightness, _contrast, _saturation, _hue)
    neutral = (1.0, 1.0, 1.0, 0.0)
    factors = _upload(jitter.factors, images.device)
    for turn in range(len(operations)):
        for number, operation in enumerate(operations):
            chosen = np.flatnonzero((jitter.order[:, turn] == number) & (jitter.factors[:, number] != neutral[number]))
            if len(chosen):
                index = _upload(chosen, images.device)
                images[index] = operation(images[index], factors[index, number, None, None, None])
    return images


def _upload(array: np.ndarray, device: torch.device) -> Tensor:
    """`array` on `device`, without waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Luma (B, H, W, 1)."""
    red, green, blue = images.split(1, -1)
    return red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factor)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _grey(images), factor)


def _hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue by `shift` turns, through HSV (Smith, "Color gamut transform pairs", SIGGRAPH 1978)."""
    high, low = images.amax(-1, keepdim=True), images.amin(-1, keepdim=True)
    spread = high - low
    safe = torch.where(spread == 0, 1.0, spread)
    red, green, blue = images.split(1, -1)
    sector = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = sector + shift * 6
    # Channel value = high - spread * clamp(min(k, 4 - k), 0, 1) with k = (n + hue in sixths) mod 6 and n = 5, 3, 1.
    k = torch.cat([(hue + n).remainder_(6) for n in (5, 3, 1)], -1)
    return high - spread * torch.minimum(k, 4 - k).clamp_(0, 1)
