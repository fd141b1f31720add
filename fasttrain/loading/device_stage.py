"""What is left once pixels are decoded and cropped: to the device, colour, normalise, cast.

Images cross as uint8 on a side stream; the result is handed to the caller's stream with an event, and its memory is
marked as used there (`record_stream`), so that the caching allocator does not give it away too early.

The pinned memory that they come from may be forgotten as soon as the copy was asked for: it is of torch's caching
allocator for pinned memory, each non-blocking copy records an event on the stream that it was put on (here the side
stream), and a block is handed out again only when its events have occurred (ATen/core/CachingHostAllocator.h). That
protects from the allocator, not from an owner who writes to the memory again; so each batch takes an allocation of its
own (in truth a re-used block), not a buffer of a ring of ours.
"""

import numpy as np
import torch
from torch import Tensor

from fasttrain.base import process
from fasttrain.base.errors import LoaderError
from fasttrain.kernels import device_stage
from fasttrain.kernels.pixels import FAST_TYPES, Crops, Target
from fasttrain.loading.backend import Normalisation
from fasttrain.loading.host_memory import HostMemory
from fasttrain.loading.plan import Jitter, Shift
from fasttrain.loading.views import View


class DeviceStage:
    """Turns batches (B, H, W, 3) on the host, uint8 or finished but for their layout, into model input on a device."""

    def __init__(self, view: View, device: torch.device, dtype: torch.dtype, threads: int | None = None) -> None:
        if not dtype.is_floating_point:
            raise LoaderError(f"images are normalised, so their dtype must be a floating-point one, not {dtype}")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise LoaderError(f"device {device} was asked for, but torch finds no usable GPU; use device='cpu'")
        self.device, self.dtype = device, dtype
        self._normalisation = normalisation_of(view)
        self._target = Target(self._normalisation.scale, self._normalisation.shift, dtype)
        self._threads = process.default_threads() if threads is None else threads
        self._memory = HostMemory()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def stream(self) -> torch.cuda.Stream | None:
        """The side stream that batches of a GPU are made on."""
        return self._stream

    def normalisation(self, jitter: Jitter | None, shift: Shift | None = None) -> Normalisation | None:
        """What a backend may do of this stage's work while it stores the pixels: all of it, or nothing (None)."""
        final = self.device.type == "cpu" and jitter is None and shift is None and self.dtype in FAST_TYPES
        return self._normalisation if final else None

    @torch.inference_mode(False)  # else threads that are in no such mode may not fill what a caller in one asked for
    def empty_batch(self, count: int, size: int | tuple[int, int], normalised: bool, on_device: bool = False) -> Tensor:
        """An undefined batch (count, height, width, 3), `size` being both or (height, width): of this stage's dtype if
        its pixels are to be normalised by the backend, else uint8; pinned when the device is a GPU, or `on_device`, to
        be filled on this stage's stream."""
        shape = (count, *((size, size) if isinstance(size, int) else size), 3)
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

    def paint(self, host: Tensor, colour: tuple[int, int, int]) -> None:
        """Give all of a batch that `empty_batch` gave one colour (of levels 0 to 255)."""
        value = torch.tensor(colour, dtype=torch.float32)
        if host.dtype != torch.uint8:
            value = value * torch.tensor(self._normalisation.scale) + torch.tensor(self._normalisation.shift)
        with torch.cuda.stream(self._stream):
            host[:] = value.to(host.dtype).to(host.device)

    def run(
        self, host: Tensor, jitter: Jitter | None, *others: Tensor, shift: Shift | None = None
    ) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) in channels-last format, and `others` moved along, ready for the current stream."""
        if self._stream is None:
            return (self._transform(host, jitter, shift), *others)
        with torch.cuda.stream(self._stream):
            pinned = [tensor.pin_memory() for tensor in others]
            moved = [tensor.to(self.device, non_blocking=True) for tensor in pinned]
            images = self._transform(host.to(self.device, non_blocking=True), jitter, shift)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._stream)
        for tensor in (images, *moved):
            tensor.record_stream(current)
        return (images, *moved)

    def _transform(self, pixels: Tensor, jitter: Jitter | None, shift: Shift | None) -> Tensor:
        if pixels.dtype != torch.uint8:  # normalised already
            return pixels.permute(0, 3, 1, 2)
        if shift is not None:
            crops = _windows(pixels, shift)
            return device_stage.gather(pixels, crops, self._target, jitter, threads=self._threads)
        out = self._memory.empty(tuple(pixels.shape), self.dtype) if pixels.device.type == "cpu" else None
        return device_stage.finish(pixels, self._target, jitter, out=out, threads=self._threads)


def _windows(pixels: Tensor, shift: Shift) -> Crops:
    """What a shift shows of each image of a batch."""
    count, height, width, _ = pixels.shape
    straight = np.zeros(count, bool)
    return Crops(np.arange(count), shift.corners, height, width, straight, straight, shift.padding)


def normalisation_of(view: View) -> Normalisation:
    """(pixel / 255 - mean) / std of a view, as one multiplication and one addition."""
    std, mean = (torch.tensor(values, dtype=torch.float32) for values in (view.std, view.mean))
    red, green, blue = (1 / (255 * std)).tolist()
    first, second, third = (-mean / std).tolist()
    return Normalisation((red, green, blue), (first, second, third))
