"""What benchmarks/stages.py times in Python: the Loader as a whole, and how it hands batches over."""

import queue
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import SampleList
from fasttrain.kernels.loading import force_simd, usable_simd
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.device_stage import DeviceStage
from fasttrain.loading.loader import Loader
from fasttrain.loading.native import NativeBackend
from fasttrain.loading.open_dataset import open_dataset
from fasttrain.loading.planner import PlannedBatch, Planner
from fasttrain.loading.sampler import Partition
from fasttrain.loading.views import train_view

SEED = 0
BATCH = 256
PIXEL_IMAGES = 16 * BATCH
CPU = torch.device("cpu")


def batch_of(images: int) -> int:
    """At most `BATCH`, and such that hardly an image of an epoch is left out."""
    return images // -(-images // BATCH)


def planned(dataset: ImageDataset, batch: int, size: int, epoch: int) -> Iterator[PlannedBatch]:
    """The batches of an epoch as the Loader has them."""
    count = dataset.num_samples
    partition = Partition(count, batch, "random", rank=0, world=1)
    rows = np.arange(count)
    return Planner(dataset, rows, None, partition, train_view(size), SEED, tolerant=False, window=64).epoch(epoch)


def write_plan(beton: Path, size: int, path: Path) -> None:
    """What ``native/stages.cpp`` reads: the samples of the first epoch with their boxes and flips."""
    dataset = open_dataset(beton)
    with path.open("w") as file:
        file.write(f"{beton}\n{size}\n")
        for batch in planned(dataset, batch_of(dataset.num_samples), size, 0):
            sources, plan = dataset.stored(batch.plan.rows), batch.plan
            columns = (sources.offsets, sources.lengths, sources.sizes, plan.boxes, plan.hflip)
            np.savetxt(file, np.column_stack(columns), "%d")
    dataset.close()


def loader_pass(beton: Path, images: int, size: int, threads: int, simd: str) -> tuple[float, float]:
    """The first epoch, from asking for it to its last batch; memory and pages were used before.

    Returns:
        images/s, and microseconds of all cores an image.
    """
    force_simd(simd)
    view = train_view(size)
    with Loader(beton, batch_of(images), view=view, seed=SEED, threads=threads, backend="native") as loader:
        for _ in range(2):
            deque(loader, maxlen=0)  # which holds no batch, whose memory the next pass would miss
        loader.set_epoch(0)
        begun, worked = time.perf_counter(), time.process_time()
        shown = sum(len(batch.images) for batch in loader)
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - worked
    force_simd(usable_simd()[-1])
    return shown / seconds, cpu_seconds / shown * 1e6


# --- handing over -----------------------------------------------------------------------------------------------------


def write_pixels(folder: Path) -> Path:
    """A `.beton` of images of one pixel, which take no time to decode."""
    picture = folder / "pixel.png"
    Image.new("RGB", (1, 1)).save(picture)
    names = [f"{number:06d}" for number in range(PIXEL_IMAGES)]
    samples = SampleList(names, [picture] * PIXEL_IMAGES, np.zeros(PIXEL_IMAGES, np.int64), ["pixel"])
    out = folder / "pixels.beton"
    build(samples, out, BuildOptions(mode="raw", workers=1))
    return out


def hand_over_us(beton: Path) -> dict[str, float]:
    """Microseconds a batch, mean over the batches of `write_pixels`.

    Returns:
        planning, submit, result, device_stage: one after the other, nothing done meanwhile; `result` waits for a thread
        to store 256 pixels. loader: a pass of the Loader, where these overlap. queue: handing an object to a thread and
        back through two of Python's queues, which is the least that threads of Python would take. loader_work: of all
        cores, in the pass of the Loader.
    """
    dataset = open_dataset(beton)
    backend, stage = NativeBackend(dataset, threads=1), DeviceStage(train_view(1), CPU, torch.float32)
    figures = _parts_us(dataset, backend, stage)
    backend.close()
    dataset.close()
    return {**figures, **_loader_us(beton), "queue": _queue_us()}


def _parts_us(dataset: ImageDataset, backend: NativeBackend, stage: DeviceStage) -> dict[str, float]:
    parts = ("planning", "submit", "result", "device_stage")
    taken = np.zeros(len(parts))
    batches = planned(dataset, BATCH, 1, 0)
    next(batches)  # the order of the epoch, which is made once
    count = 0
    while True:
        begun = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return dict(zip(parts, (taken / count * 1e6).tolist(), strict=True))
        at = [begun, time.perf_counter()]
        plan, wanted = batch.plan, batch.wanted
        normalisation = stage.normalisation(plan.jitter)
        pixels = stage.empty_batch(BATCH, plan.size, normalisation is not None)
        filling = backend.submit(plan, wanted, pixels, normalisation)
        at.append(time.perf_counter())
        filling.result()
        at.append(time.perf_counter())
        labels = dataset.labels[plan.rows]
        stage.run(pixels, plan.jitter, *map(torch.from_numpy, (labels, plan.rows, wanted)))
        at.append(time.perf_counter())
        taken += np.diff(at)
        count += 1


def _loader_us(beton: Path) -> dict[str, float]:
    with Loader(beton, BATCH, view=train_view(1), seed=SEED, threads=1, backend="native") as loader:
        deque(loader, maxlen=0)
        begun, worked = time.perf_counter(), time.process_time()
        deque(loader, maxlen=0)
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - worked
    return {"loader": seconds / len(loader) * 1e6, "loader_work": cpu_seconds / len(loader) * 1e6}


def _queue_us(turns: int = 2000) -> float:
    there: queue.Queue[int | None] = queue.Queue()
    back: queue.Queue[int] = queue.Queue()

    def echo() -> None:
        while (item := there.get()) is not None:
            back.put(item)

    thread = threading.Thread(target=echo)
    thread.start()
    taken = []
    for turn in range(turns):
        begun = time.perf_counter()
        there.put(turn)
        back.get()
        taken.append(time.perf_counter() - begun)
    there.put(None)
    thread.join()
    return statistics.median(taken) * 1e6
