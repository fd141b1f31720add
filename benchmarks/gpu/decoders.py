"""Images a second of every decoder of JPEG that is there, from bytes in memory; a section, so a process, for each.

A process of its own keeps the figures of GPU memory apart, and one that crashes or hangs from ending the others.
"""

import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fasttrain.base.process import available_cores
from gpu.common import Row, Task, jpegs, psnr_row
from gpu.inputs import target_of, views_of
from gpu.verdict import BESIDE_PILLOW

SIZE = 224
WHOLE, VIEWS = "whole images", "views"
# GPU decoding beside Pillow's, in dB: of the mean image, and of the worst.
LEAST_PSNR = (38.0, 30.0)


class Decoder(Protocol):
    """Decodes batch after batch on a GPU, each beginning where the last one ended."""

    def whole(self) -> list[Tensor]:
        """The next batch, (H, W, 3) uint8 each."""

    def views(self) -> object:
        """The next batch: random boxes, resized to 224 pixels, normalised, 16 bits."""


def nvjpeg(task: Task) -> None:
    """torchvision's batched nvJPEG, and our kernel behind it."""
    _rows(task, lambda found, batch: _NvJpeg(task.device, found, batch))


def nvimagecodec(task: Task) -> None:
    """nvImageCodec, and our kernel behind it."""
    _rows(task, lambda found, batch: _NvImageCodec(task.device, found, batch))


def dali(task: Task) -> None:
    """DALI's ``mixed`` decoder, which decodes the box alone, and DALI's resize."""
    _rows(task, lambda found, batch: _Dali(task.device, found, batch))


def cpu(task: Task) -> None:
    """The Loader's threads, with batches for the CPU and for the device."""
    for device in dict.fromkeys((torch.device("cpu"), task.device)):
        share = 0.4 * task.left()
        task.attempt(
            f"{available_cores()} CPU threads, {VIEWS}, batches on {device.type}",
            lambda d=device, s=share: _loader(task, d, s),
        )


def _rows(task: Task, make: Callable[[list[bytes], int], Decoder]) -> None:
    """Views first: their figure of memory is then theirs alone."""
    if task.device.type != "cuda":
        task.add({"name": VIEWS, "missing": "it decodes on GPUs only"})
        return
    found = jpegs(task)
    batch = 128
    decoders: list[Decoder] = []

    def views() -> Row:
        torch.zeros(1, device=task.device)  # CUDA's own memory is not the decoder's
        before, _ = torch.cuda.mem_get_info(task.device)
        decoders.append(make(found, batch))
        row = _rate(task, decoders[0].views, batch, 0.3 * task.left())
        after, _ = torch.cuda.mem_get_info(task.device)
        return {**row, "gpu_memory_mib": (before - after) / 2**20}

    def whole() -> Row:
        if not decoders:
            decoders.append(make(found, batch))
        decoder = decoders.pop()
        return _rate(task, decoder.whole, batch, 0.5 * task.left())

    task.attempt(VIEWS, views)
    task.attempt(BESIDE_PILLOW, lambda: _beside_pillow(make(found[:16], min(16, len(found))), found))
    task.attempt(WHOLE, whole)


def _rate(task: Task, decode: Callable[[], object], batch: int, budget: float) -> Row:
    """Batches up to the number of images or the budget; the first four, with all that is made once, are not counted."""
    for _ in range(4):
        decode()
    torch.cuda.synchronize(task.device)
    start, counted = time.perf_counter(), 0
    while counted < task.images and time.perf_counter() - start < budget:
        decode()
        counted += batch
    torch.cuda.synchronize(task.device)
    return {"images_per_s": counted / (time.perf_counter() - start), "images": counted, "batch": batch}


def _beside_pillow(decoder: Decoder, found: list[bytes]) -> Row:
    from io import BytesIO

    from PIL import Image

    ours = [image.cpu().double() / 255 for image in decoder.whole()]
    theirs = [torch.from_numpy(np.array(Image.open(BytesIO(data)))).double() / 255 for data in found[: len(ours)]]
    row = psnr_row(ours, theirs, LEAST_PSNR)
    row["right_pixels"] = row.pop("ok")  # of a library, which is no check of ours
    return row


def _in_batches(found: list[Any], batch: int) -> Iterator[list[Any]]:
    photos = cycle(found)
    while True:
        yield list(islice(photos, batch))


def _resized(images: list[Tensor], planar: bool) -> Tensor:
    """Views of images that lie on the device, by our kernel."""
    from fasttrain.kernels import device_stage
    from fasttrain.kernels.pixels import FlatImages

    sizes = np.array([image.shape[:0:-1] if planar else image.shape[1::-1] for image in images])
    offsets = np.concatenate([[0], np.cumsum(3 * sizes.prod(1))[:-1]])
    flat = FlatImages(torch.cat([image.reshape(-1) for image in images]), offsets, sizes, planar)
    return device_stage.resample(flat, views_of(sizes, "bilinear", SIZE), SIZE, target_of(torch.float16))


class _NvJpeg:
    def __init__(self, device: torch.device, found: list[bytes], batch: int) -> None:
        self._device = device
        self._batches = _in_batches([torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in found], batch)

    def _decode(self) -> list[Tensor]:
        from torchvision.io import ImageReadMode, decode_jpeg

        return decode_jpeg(next(self._batches), mode=ImageReadMode.RGB, device=self._device)

    def whole(self) -> list[Tensor]:
        return [image.permute(1, 2, 0) for image in self._decode()]

    def views(self) -> Tensor:
        return _resized(self._decode(), planar=True)


class _NvImageCodec:
    def __init__(self, device: torch.device, found: list[bytes], batch: int) -> None:
        from nvidia import nvimgcodec

        self._device = device
        self._batches = _in_batches(found, batch)
        index = torch.cuda.current_device() if device.index is None else device.index
        self._decoder = nvimgcodec.Decoder(device_id=index, options=":fancy_upsampling=1")
        self._params = nvimgcodec.DecodeParams(apply_exif_orientation=False)

    def whole(self) -> list[Tensor]:
        stream = torch.cuda.current_stream(self._device).cuda_stream
        images = self._decoder.decode(next(self._batches), params=self._params, cuda_stream=stream)
        if any(image is None for image in images):
            raise RuntimeError("it cannot decode one of the photos")
        return [torch.as_tensor(image, device=self._device) for image in images]

    def views(self) -> Tensor:
        return _resized(self.whole(), planar=False)


class _Dali:
    """A pipeline for each kind of output, made when it is first asked for."""

    def __init__(self, device: torch.device, found: list[bytes], batch: int) -> None:
        self._device = torch.cuda.current_device() if device.index is None else device.index
        self._found, self._batch = [np.frombuffer(data, np.uint8) for data in found], batch
        self._pipelines: dict[str, Any] = {}

    def whole(self) -> list[Tensor]:
        images = self._run(WHOLE)
        return [torch.from_dlpack(images[index]) for index in range(len(images))]

    def views(self) -> object:
        return self._run(VIEWS)

    def _run(self, kind: str) -> Any:
        if kind not in self._pipelines:
            self._pipelines[kind] = self._make(kind)
        return self._pipelines[kind].run()[0]

    def _make(self, kind: str) -> Any:
        from nvidia.dali import Pipeline, fn

        batches = _in_batches(self._found, self._batch)
        pipeline = Pipeline(
            batch_size=self._batch, num_threads=available_cores(), device_id=self._device, prefetch_queue_depth=2
        )
        with pipeline:
            streams = fn.external_source(source=batches, batch=True, no_copy=True)
            pipeline.set_outputs(_dali_whole(streams) if kind == WHOLE else _dali_views(streams))
        pipeline.build()
        return pipeline


def _dali_whole(streams: Any) -> Any:
    from nvidia.dali import fn, types

    return fn.decoders.image(
        streams, device="mixed", output_type=types.RGB, adjust_orientation=False, jpeg_fancy_upsampling=True
    )


def _dali_views(streams: Any) -> Any:
    from nvidia.dali import fn, types

    images = fn.decoders.image_random_crop(
        streams, device="mixed", output_type=types.RGB, adjust_orientation=False, jpeg_fancy_upsampling=True
    )
    images = fn.resize(images, size=[SIZE, SIZE], interp_type=types.INTERP_LINEAR, antialias=True)
    mean, std = [[255 * value for value in values] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    return fn.crop_mirror_normalize(images, dtype=types.FLOAT16, mean=mean, std=std, output_layout="HWC")


def _loader(task: Task, device: torch.device, budget: float) -> Row:
    from fasttrain import Loader, Sampling, train_view
    from fasttrain.loading.backend import available_backends

    size, batch = (32, 4) if task.small else (SIZE, 256)
    with TemporaryDirectory(prefix="fasttrain_gpu_") as folder:
        beton = write_beton(task, Path(folder))
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        draws = max(task.images, 8 * batch)
        options = {"view": train_view(size), "device": device, "dtype": dtype, "sampling": Sampling(draws=draws)}
        with Loader(beton, batch, **options) as loader:
            batches = iter(loader)
            for _ in range(4):  # what was filled ahead
                next(batches)
            start, counted = time.perf_counter(), 0
            for images, *_ in batches:
                counted += len(images)
                if time.perf_counter() - start > budget:
                    break
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent = time.perf_counter() - start
    rate = {"images_per_s": counted / spent, "images": counted, "batch": batch}
    return {**rate, "backend": available_backends()[0], "threads": available_cores()}


def write_beton(task: Task, folder: Path, most: int | None = None) -> Path:
    """The photos as they are, in one file."""
    from fasttrain.beton_build.sources import read_source
    from fasttrain.tools.bench.loader_data import write_beton as write

    samples = read_source(task.photos)
    out = folder / "photos.beton"
    write(samples.take(list(range(min(len(samples), most or task.images)))), out, raw=False, workers=available_cores())
    return out
