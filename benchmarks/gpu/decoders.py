"""Images a second of every decoder of JPEG that is there, from bytes in memory."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch

from fasttrain.base.process import available_cores
from gpu.common import Row, Task, jpegs, seconds_of
from gpu.inputs import target_of, views_of

Data = TypeVar("Data")


def decoders(task: Task) -> None:
    """One row a decoder: whole images, or as far as a training view of 224 pixels (32 when small)."""
    found = jpegs(task)
    batch = 4 if task.small else 128
    share = task.left() / 8
    if task.device.type == "cuda":
        task.attempt("torchvision nvJPEG, whole images", lambda: _nvjpeg(task, found, batch, share, view=False))
        task.attempt("torchvision nvJPEG, resample to a view", lambda: _nvjpeg(task, found, batch, share, view=True))
        task.attempt("nvImageCodec, whole images", lambda: _nvimgcodec(task, found, batch, share))
        task.attempt("DALI mixed, whole images", lambda: _dali(task, found, batch, share, view=False))
        task.attempt("DALI mixed, view", lambda: _dali(task, found, batch, share, view=True))
    for device in dict.fromkeys((torch.device("cpu"), task.device)):
        task.attempt(f"CPU threads, view, batches on {device.type}", lambda d=device: _loader(task, d, share))


def _rate(task: Task, decode: Callable[[list[Data]], object], found: list[Data], batch: int, budget: float) -> Row:
    """Batches of the photos, repeated up to the number of images or the budget; the first two are not counted."""
    batches = _batches(found, batch)
    for _ in range(2):
        decode(next(batches))
    counted, spent = 0, 0.0
    while counted < task.images and spent < budget:
        group = [next(batches) for _ in range(4)]
        spent += seconds_of(lambda g=group: [decode(part) for part in g], task.device)
        counted += 4 * batch
    return {"images_per_s": counted / spent, "images": counted, "batch": batch}


def _batches(found: list[Data], batch: int) -> Iterator[list[Data]]:
    position = 0
    while True:
        yield [found[(position + k) % len(found)] for k in range(batch)]
        position += batch


def _nvjpeg(task: Task, found: list[bytes], batch: int, budget: float, view: bool) -> Row:
    from torchvision.io import ImageReadMode, decode_jpeg

    from fasttrain.kernels import device_stage
    from fasttrain.kernels.pixels import FlatImages

    def decode(streams: list[torch.Tensor]) -> object:
        images = decode_jpeg(streams, mode=ImageReadMode.RGB, device=task.device)
        if not view:
            return images
        sizes = np.array([image.shape[:0:-1] for image in images])
        offsets = np.concatenate([[0], np.cumsum(3 * sizes.prod(1))[:-1]])
        flat = FlatImages(torch.cat([image.reshape(-1) for image in images]), offsets, sizes, planar=True)
        return device_stage.resample(flat, views_of(sizes, "bilinear", 224), 224, target_of(torch.bfloat16))

    tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in found]
    return _rate(task, decode, tensors, batch, budget)


def _nvimgcodec(task: Task, found: list[bytes], batch: int, budget: float) -> Row:
    from nvidia import nvimgcodec

    decoder = nvimgcodec.Decoder()
    return _rate(task, decoder.decode, found, batch, budget)


def _dali(task: Task, found: list[bytes], batch: int, budget: float, view: bool) -> Row:
    from nvidia.dali import fn, pipeline_def, types

    arrays = [np.frombuffer(data, np.uint8) for data in found]
    position = 0

    def source() -> list[np.ndarray]:
        nonlocal position
        part = [arrays[(position + k) % len(arrays)] for k in range(batch)]
        position += batch
        return part

    @pipeline_def(batch_size=batch, num_threads=available_cores(), device_id=task.device.index or 0)
    def pipeline() -> object:
        data = fn.external_source(source=source, batch=True)
        if not view:
            return fn.decoders.image(data, device="mixed", output_type=types.RGB)
        images = fn.decoders.image_random_crop(data, device="mixed", output_type=types.RGB)
        images = fn.resize(images, size=224, interp_type=types.INTERP_LINEAR, antialias=True)
        mean, std = [[value * 255 for value in values] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        return fn.crop_mirror_normalize(images, dtype=types.FLOAT16, mean=mean, std=std, output_layout="HWC")

    pipe = pipeline()
    pipe.build()
    # DALI works on streams and threads of its own: the clock is the wall's.
    for _ in range(4):
        pipe.run()
    torch.cuda.synchronize()
    start, counted = time.perf_counter(), 0
    while counted < task.images and time.perf_counter() - start < budget:
        pipe.run()
        counted += batch
    torch.cuda.synchronize()
    return {"images_per_s": counted / (time.perf_counter() - start), "images": counted, "batch": batch}


def _loader(task: Task, device: torch.device, budget: float) -> Row:
    from fasttrain import Loader, Sampling, train_view
    from fasttrain.loading.backend import available_backends

    size, batch = (32, 4) if task.small else (224, 256)
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


def write_beton(task: Task, folder: Path) -> Path:
    """The photos as they are, in one file."""
    from fasttrain.beton_build.sources import read_source
    from fasttrain.tools.bench.loader_data import write_beton as write

    samples = read_source(task.photos)
    out = folder / "photos.beton"
    write(samples.take(list(range(min(len(samples), task.images)))), out, raw=False, workers=available_cores())
    return out
