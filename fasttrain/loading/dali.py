"""The DALI backend: NVIDIA DALI carries our plan out, on the CPU or with its GPU decoder."""

import os
from collections import OrderedDict
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasttrain.base.errors import LoaderError
from fasttrain.beton_build.images import opened, orientation
from fasttrain.kernels.jpeg_markers import read_header
from fasttrain.kernels.loading import JPEG, JPEG_FILE, Sources
from fasttrain.loading.backend import Normalisation
from fasttrain.loading.dali_pipeline import DaliPipeline, Output
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.left_over import LeftOver, LeftOverFilling
from fasttrain.loading.plan import BatchPlan

_KEPT_PIPELINES = 4  # of as many kinds of output; each holds threads
_UNKNOWN, _SUITS, _ODD = range(3)  # what is known of a row


@dataclass
class _Job:
    """A batch on its way.

    Attributes:
        left: the samples that go the portable way.
        samples: those that DALI decodes.
        streams: their bytes, which DALI reads where they lie.
        pipeline: what they run through.
        failures: by sample.
    """

    plan: BatchPlan
    wanted: np.ndarray
    out: Tensor
    normalisation: Normalisation | None
    left: LeftOverFilling
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    streams: list[np.ndarray] = field(default_factory=list)
    pipeline: DaliPipeline | None = None
    failures: dict[int, Exception] = field(default_factory=dict)

    def entries(self, samples: np.ndarray) -> np.ndarray:
        """(V * n,) all views of `samples` ((n,) int64), the first views first."""
        plan = self.plan
        return (samples + len(plan.samples) * np.arange(plan.views)[:, None]).ravel()

    @property
    def output(self) -> Output:
        return Output.of(self.plan, self.out, self.normalisation)


class DaliBackend:
    """DALI's decoder and resize, fed with the streams where they lie; samples it does not take go the portable way.

    These are images that do not fill their frame, stored pixels, anything but JPEG files in folders, JPEGs that are to
    be turned, CMYK and other rare kinds, and what DALI refuses though Pillow decodes it. PSNR against Pillow on 500
    ImageNet photos (RandomResizedCrop, on the CPU): 56 dB, worst 49 at 224 pixels, 45 at 128; with `fast` 44, worst 39.
    Damage in the middle of a JPEG is bridged with grey, as by Pillow; rows below the crop box are not looked at.
    Results do not depend on the number of threads.

    Each of several views is decoded by itself.

    DALI gives a whole batch up when one of its images is broken. Its samples are then run one by one, so that the
    error names the right one, and the others are as they would have been.

    Args:
        stream: of the GPU that is to decode, and on which `submit` finds and leaves ``out``, uint8; None for the CPU.

    Attributes:
        handed_over: samples that went the portable way so far.
    """

    augments = False
    uses_index = False

    def __init__(
        self, dataset: ImageDataset, threads: int, stream: torch.cuda.Stream | None = None, fast: bool = False
    ) -> None:
        if dataset.keeps_images:
            raise LoaderError(
                "the dali backend keeps no decoded images; leave memory_budget out, or use backend='auto'"
            )
        self.on_device = stream is not None
        self.normalises = not self.on_device  # on a GPU the device stage does that in any case
        self._dataset, self._threads, self._stream, self._fast = dataset, threads, stream, fast
        self._kinds = np.zeros(dataset.num_samples, np.uint8)
        self._pipelines: OrderedDict[Output, DaliPipeline] = OrderedDict()
        self._running: _Job | None = None
        self._left = LeftOver(dataset, threads)
        # One thread has the pipelines; DALI's own threads do the work.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="fasttrain-dali")

    @property
    def handed_over(self) -> int:
        return self._left.samples

    def submit(
        self, plan: BatchPlan, wanted: np.ndarray, out: Tensor, normalisation: Normalisation | None = None
    ) -> "DaliFilling":
        left = LeftOverFilling(self._left, plan, out, normalisation, self._stream)
        job = _Job(plan, wanted, out, normalisation, left)
        return DaliFilling(job, self._worker.submit(self._begin, job))

    def close(self, wait: bool = True) -> None:
        self._worker.shutdown(wait=wait, cancel_futures=True)
        self._left.close(wait)
        if wait:
            self._running = None
            self._pipelines.clear()

    # --- on the worker thread ---------------------------------------------------------------------------------------

    def _begin(self, job: _Job) -> "Future[None] | None":
        """Have a batch begun; what it is finished by, None if the backend was closed meanwhile."""
        self._prepare(job)
        before, images = self._running, self._collect()
        error = self._start(job)
        if before is not None:
            self._deliver(before, images)  # while DALI works on the next
        if error is not None:
            self._deliver(job, error)
        try:
            return self._worker.submit(self._finish, job)
        except RuntimeError:
            return None

    def _start(self, job: _Job) -> RuntimeError | None:
        """Give a batch to DALI: None, or the error that it was refused with."""
        if not len(job.samples):
            return None
        try:
            job.pipeline = self._pipeline(job)
            job.pipeline.start(job.streams * job.plan.views, job.plan, job.entries(job.samples))
        except RuntimeError as error:
            self._pipelines.clear()
            return error
        self._running = job
        return None

    def _finish(self, job: _Job) -> None:
        if self._running is job:
            self._deliver(job, self._collect())
        job.failures |= job.left.result()

    def _prepare(self, job: _Job) -> None:
        """Find the streams of a batch, and have the rest done the portable way."""
        rows = job.plan.samples
        # An image that does not fill its frame is left to be placed in it.
        frame = job.plan.frame
        filled = np.ones(len(rows), bool) if frame is None else frame.filled.reshape(job.plan.views, -1).all(0)
        found = np.flatnonzero(job.wanted & filled)
        if not len(found):
            job.left.add(job.wanted)
            return
        sources = self._dataset.stored(rows[found])
        samples, streams = [], []
        for index, sample in enumerate(found.tolist()):
            stream = self._stream_of(sources, index, int(rows[sample]))
            if stream is not None:
                samples.append(sample)
                streams.append(stream)
        job.samples, job.streams = np.array(samples, np.int64), streams
        others = job.wanted.copy()
        others[job.samples] = False
        job.left.add(others)

    def _stream_of(self, sources: Sources, index: int, row: int) -> np.ndarray | None:
        """(bytes,) uint8 of a sample that DALI decodes, None for one of the others."""
        stored, kind = sources.stored[index], self._kinds[row]
        if stored not in (JPEG, JPEG_FILE) or kind == _ODD:
            return None
        offset, length = int(sources.offsets[index]), int(sources.lengths[index])
        if stored == JPEG:
            stream = np.frombuffer(sources.buffers[sources.buffer[index]], np.uint8, length, offset)
        else:
            try:
                stream = _read(sources.paths[index], offset, length)
            except OSError:
                return None  # what is wrong the portable way will say
        if stored == JPEG_FILE or kind == _UNKNOWN:  # files may have changed
            if not suits(stream, tuple(sources.sizes[index].tolist()), upright=stored == JPEG_FILE):
                return None
            self._kinds[row] = _SUITS
        return stream

    def _pipeline(self, job: _Job) -> DaliPipeline:
        """The pipeline that a batch runs through."""
        pipeline = self._pipelines.pop(job.output, None)
        if pipeline is None or pipeline.capacity < len(job.plan.rows):
            pipeline = self._make_pipeline(job.output, len(job.plan.rows))
        self._pipelines[job.output] = pipeline
        if len(self._pipelines) > _KEPT_PIPELINES:
            self._pipelines.popitem(last=False)
        return pipeline

    def _make_pipeline(self, output: Output, capacity: int) -> DaliPipeline:
        device = None if self._stream is None else self._stream.device.index
        return DaliPipeline(output, capacity, self._threads, device, self._fast)

    def _collect(self) -> Any:
        """Wait for the batch that is being worked on: its images, or the error that DALI gave it up with."""
        job, self._running = self._running, None
        if job is None or job.pipeline is None:
            return None
        try:
            return job.pipeline.outputs(self._stream)
        except RuntimeError as error:
            self._pipelines.clear()
            return error

    def _deliver(self, job: _Job, images: Any) -> None:
        """Copy images into their batch; if DALI gave it up, find out why."""
        try:
            if isinstance(images, RuntimeError):
                self._one_by_one(job, images)
            else:
                self._copy(job, job.entries(job.samples), images)
        except Exception as error:  # it is this batch's, and not of the one that was begun meanwhile
            job.failures |= dict.fromkeys(job.samples.tolist(), error)
        job.streams, job.pipeline = [], None

    def _copy(self, job: _Job, entries: np.ndarray, images: Any) -> None:
        whole = len(entries) == len(job.out)
        if self._stream is None:
            values = torch.from_numpy(np.asarray(images.as_tensor()))
            if whole:
                job.out.copy_(values)
            else:
                job.out[torch.from_numpy(entries)] = values.to(job.out.dtype)
            return
        with torch.cuda.stream(self._stream):
            values = torch.from_dlpack(images.as_tensor())
            if whole:
                job.out.copy_(values)
            else:
                job.out[torch.from_numpy(entries).to(job.out.device)] = values
            copied = torch.cuda.Event()
            copied.record()
        copied.synchronize()  # DALI's memory and the streams are free from here on; no thread but this one waits

    def _one_by_one(self, job: _Job, error: RuntimeError) -> None:
        """Run the samples of a batch alone, those that DALI fails on the portable way.

        These are remembered, unless they were all: then it is not the images' fault.
        """
        failed = np.zeros(len(job.wanted), bool)
        pipeline = None  # of its own: the others may be at work
        for sample, stream in zip(job.samples.tolist(), job.streams, strict=True):
            views = job.entries(np.array([sample]))
            try:
                pipeline = pipeline or self._make_pipeline(job.output, len(views))
                pipeline.start([stream] * len(views), job.plan, views)
                self._copy(job, views, pipeline.outputs(self._stream))
            except RuntimeError:
                failed[sample], pipeline = True, None
        broken = job.left.add(failed).result()  # those that Pillow cannot decode either
        if failed.sum() == len(job.samples) > 1 and not broken:
            job.left.forget_last()
            job.failures |= dict.fromkeys(job.samples.tolist(), error)
        else:
            self._kinds[job.plan.samples[failed]] = _ODD


class DaliFilling:
    """A batch in the hands of the backend's thread."""

    def __init__(self, job: _Job, begun: "Future[Future[None] | None]") -> None:
        self._job, self._begun = job, begun

    def result(self) -> dict[int, Exception]:
        try:
            finished = self._begun.result()
            if finished is None:
                raise CancelledError
            finished.result()
        except CancelledError:
            return {sample: CancelledError() for sample in np.flatnonzero(self._job.wanted).tolist()}
        except Exception as error:  # ours or DALI's, but of no image
            return dict.fromkeys(np.flatnonzero(self._job.wanted).tolist(), error)
        return self._job.failures

    def cancel(self) -> None:
        self._begun.cancel()


def suits(stream: np.ndarray, size: tuple[int, int], upright: bool) -> bool:
    """Whether DALI may decode a stream: a common JPEG of `size` (width, height).

    Args:
        upright: it is a file that is to be shown by its EXIF orientation, so that must be none.
    """
    header = read_header(stream.data)
    if header is None or not header.frame.is_common or (header.frame.width, header.frame.height) != size:
        return False
    if not (upright and header.has_metadata):
        return True
    try:
        return orientation(opened(stream.data)) == 1
    except ValueError:
        return False


def _read(path: bytes | None, offset: int, length: int) -> np.ndarray:
    """Bytes of a file; length 0 means all of it."""
    assert path is not None
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        data = os.pread(descriptor, length or os.fstat(descriptor).st_size, offset)
    finally:
        os.close(descriptor)
    return np.frombuffer(data, np.uint8)
