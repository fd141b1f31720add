"""WebDataset archives through DALI's own reader, with DALI's own order, crops and flips."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasttrain.base import process
from fasttrain.base.errors import LoaderError
from fasttrain.beton_build.braces import expand_braces
from fasttrain.beton_build.webdataset import DESCRIPTION, read_description
from fasttrain.loading.batch import Batch
from fasttrain.loading.device_stage import DeviceStage
from fasttrain.loading.optional import why_absent
from fasttrain.loading.views import EvalView, TrainView, View, train_view

IMAGES = ("jpg", "jpeg", "JPG", "JPEG", "png")  # members that are taken for the image, the first there is
SHUFFLED = 4096  # samples that DALI's reader keeps to draw from


class DaliTars:
    """Batches as those of `Loader`, from archives that `build --format webdataset` or others wrote.

    For data that lie in archives already, and are to be read from the first to the last byte. A train view comes in
    DALI's random order (drawn from 4096 samples at hand), with DALI's crops and flips; samples too few for another
    batch go into the next epoch. An eval view comes in the order of the archives, each sample once over all ranks, the
    tail padded, and is that of `Loader`.

    Args:
        paths: archives (also as ``train-{000..012}.tar``), or a folder that `build --format webdataset` wrote. Each
            needs DALI's index beside it, ``NAME.idx``.
        view: without colour jitter, augmentation, translation, shift and alternating flips; ``train_view(224)`` if
            None.
        device, dtype: of the images; on a GPU DALI decodes there.
        seed: of DALI's generators; the same gives the same batches while nothing else is changed.
        threads: DALI's; by default the cores this process may use, divided by the ranks of the machine.
        rank, world: this process among how many; by default torchrun's.

    Attributes:
        num_samples: of all archives.
        class_names: from the folder's ``dataset.json``, None if unknown.

    Raises:
        LoaderError: DALI is missing, an archive or index is, or the view cannot be made.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        batch_size: int,
        *,
        view: View | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        threads: int | None = None,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        if (reason := why_absent("dali")) is not None:
            raise LoaderError(reason)
        self.view, self.device, self.batch_size = view or train_view(), torch.device(device), batch_size
        if batch_size < 1:
            raise LoaderError(f"batch_size must be at least 1, not {batch_size}")
        if isinstance(self.view, TrainView) and any(self.view.color_jitter):
            raise LoaderError("DaliTars has no colour jitter; leave it out of the view, or read a .beton with Loader")
        if isinstance(self.view, TrainView) and (self.view.translate or self.view.hflip == "alternating"):
            raise LoaderError("DaliTars cannot translate or flip in turns; use hflip=0.5, or read a .beton with Loader")
        if isinstance(self.view, EvalView) and any(self.view.shift):
            raise LoaderError("DaliTars cannot shift an eval view; read a .beton with Loader")
        if isinstance(self.view, TrainView) and self.view.augment.active:
            raise LoaderError("DaliTars has no augmentation; leave it out of the view, or read a .beton with Loader")
        self._stage = DeviceStage(self.view, self.device, dtype)
        self._dtype, self._seed, self._threads = dtype, seed, threads or process.default_threads()
        self._rank = process.rank() if rank is None else rank
        self._world = process.world_size() if world is None else world
        archives, self.class_names = _archives(paths)
        self._archives = {str(archive): _Index(archive) for archive in archives}
        self._starts = dict(
            zip(self._archives, _starts([len(i.offsets) for i in self._archives.values()]), strict=True)
        )
        self.num_samples = sum(len(index.offsets) for index in self._archives.values())
        if not len(self):
            raise LoaderError(
                f"a batch of {batch_size} on {self._world} process(es) needs more than the {self.num_samples} samples "
                f"of {archives[0]} …; use a smaller batch size"
            )
        self._pipeline: Any = None  # made for the first pass, and again after one that was left half-way

    def __len__(self) -> int:
        """Batches an epoch: constant, and the same on every rank."""
        if isinstance(self.view, TrainView):
            return self.num_samples // (self.batch_size * self._world)
        return math.ceil(math.ceil(self.num_samples / self._world) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        pipeline, self._pipeline = self._pipeline or self._make_pipeline(), None
        mine = self._of_this_rank()
        for step in range(len(self)):
            valid = np.arange(step * self.batch_size, (step + 1) * self.batch_size) < mine
            yield self._batch(pipeline, valid)
        self._pipeline = pipeline

    def _of_this_rank(self) -> int:
        """Samples of an epoch that this rank sees, before padding."""
        if isinstance(self.view, TrainView):
            return len(self) * self.batch_size
        return self.num_samples * (self._rank + 1) // self._world - self.num_samples * self._rank // self._world

    def _batch(self, pipeline: Any, valid: np.ndarray) -> Batch:
        try:
            images, labels, sources = pipeline.run(self._stage.stream)
        except RuntimeError as error:
            raise LoaderError(f"DALI cannot go on with {next(iter(self._archives))} …: {_essence(error)}") from error
        ids = np.array([self._row(_text(sources[index])) for index in range(len(valid))])
        numbers = np.array([self._label(_text(labels[index])) for index in range(len(valid))])
        others = (np.where(valid, numbers, -1), np.where(valid, ids, -1), valid)
        return Batch(*self._stage.run(self._taken(images), None, *(torch.from_numpy(array) for array in others)))

    def _taken(self, images: Any) -> Tensor:
        """(B, size, size, 3) of DALI's images, on a GPU in torch's own memory.

        DALI's is DALI's again as soon as the tensor is dropped, though a model's kernels may not have read it by then.
        """
        if self._stage.stream is None:
            return torch.from_dlpack(images.as_tensor()).to(self._dtype)
        with torch.cuda.stream(self._stage.stream):
            pixels = torch.from_dlpack(images.as_tensor()).to(self._dtype, copy=True)
            copied = torch.cuda.Event()
            copied.record()
        copied.synchronize()  # waits for DALI and this copy alone, and not for what the model has queued
        return pixels

    def _row(self, source: str) -> int:
        """Row of a sample from what DALI tells of its image: ``archive:offset:name``."""
        archive, offset, _ = source.rsplit(":", 2)
        return self._starts[archive] + int(np.searchsorted(self._archives[archive].offsets, int(offset)))

    def _label(self, text: str) -> int:
        try:
            return int(text) if text else -1
        except ValueError:
            raise LoaderError(
                f"a .cls member holds {text[:40]!r}, which is no number; build the archives anew"
            ) from None

    def _make_pipeline(self) -> Any:
        from nvidia.dali import Pipeline

        pipeline = Pipeline(
            batch_size=self.batch_size,
            num_threads=self._threads,
            device_id=None if self._stage.stream is None else self._stage.stream.device.index,
            seed=self._seed,
            prefetch_queue_depth=2,
        )
        with pipeline:
            pipeline.set_outputs(*self._graph())
        pipeline.build()
        return pipeline

    def _graph(self) -> tuple[Any, Any, Any]:
        """Images (size, size, 3) normalised, labels and sources as text."""
        from nvidia.dali import fn

        training = isinstance(self.view, TrainView)
        read: Any = fn.readers.webdataset  # whose type hints know of no outputs
        streams, labels = read(
            paths=list(self._archives),
            index_paths=[str(index.path) for index in self._archives.values()],
            ext=[";".join(IMAGES), "cls"],
            missing_component_behavior="empty",
            random_shuffle=training,
            initial_fill=min(SHUFFLED, self.num_samples),
            shard_id=self._rank,
            num_shards=self._world,
            pad_last_batch=not training,
            stick_to_shard=not training,
        )
        decoder = "mixed" if self.device.type == "cuda" else "cpu"
        if isinstance(self.view, TrainView):
            images = _train_images(self.view, streams, decoder, self._dtype)
        else:
            images = _eval_images(self.view, streams, decoder, self._dtype)
        return images, labels, fn.get_property(streams, key="source_info")

    def close(self) -> None:
        """Release DALI's threads and files. A second call does nothing; another pass opens them again."""
        self._pipeline = None

    def __enter__(self) -> "DaliTars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Index:
    """DALI's index of an archive.

    Attributes:
        path: of the index.
        offsets: (n,) int64 where the image of each sample starts, in the order of the archive.
    """

    def __init__(self, archive: Path) -> None:
        self.path = archive.with_suffix(".idx")
        try:
            lines = self.path.read_text().splitlines()[1:]
            members = [line.split() for line in lines]
            self.offsets = np.array([int(words[_image_at(words) + 1]) for words in members], np.int64)
        except OSError:
            raise LoaderError(f"{archive} has no index; wds2idx {archive} {self.path} makes it") from None
        except (ValueError, IndexError):
            raise LoaderError(f"{self.path} is no index of images; wds2idx {archive} {self.path} makes one") from None


def _image_at(words: list[str]) -> int:
    """Where a line of an index (``suffix offset size name`` of each member) tells of the image."""
    suffixes = words[::4]
    return 4 * suffixes.index(next((suffix for suffix in IMAGES if suffix in suffixes), IMAGES[0]))


def _archives(paths: str | Path | Sequence[str | Path]) -> tuple[list[Path], list[str] | None]:
    """The archives that are meant, and the names of the classes if they are known."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    archives: list[Path] = []
    names: list[str] | None = None
    for path in map(Path, (name for entry in given for name in expand_braces(str(entry)))):
        if (path / DESCRIPTION).is_file():
            description = read_description(path)
            names = description.get("class_names")
            archives += [path / entry["name"] for entry in description["archives"]]
        else:
            archives.append(path)
    missing = [path for path in archives if not path.is_file() or path.suffix != ".tar"]
    if missing or not archives:
        which = missing[0] if missing else paths
        raise LoaderError(f"{which} is neither an archive nor a folder that `build --format webdataset` wrote")
    return archives, names


def _starts(counts: list[int]) -> list[int]:
    return np.cumsum([0, *counts])[:-1].tolist()


def _train_images(view: TrainView, streams: Any, decoder: str, dtype: torch.dtype) -> Any:
    from nvidia.dali import fn, types

    images = fn.decoders.image_random_crop(
        streams,
        device=decoder,
        output_type=types.RGB,
        random_area=list(view.scale),
        random_aspect_ratio=list(view.ratio),
        jpeg_fancy_upsampling=True,
    )
    images = fn.resize(images, size=[view.size, view.size], interp_type=_filter(view), antialias=True)
    if view.vflip:
        images = fn.flip(images, horizontal=0, vertical=fn.random.coin_flip(probability=view.vflip))
    return _normalised(view, images, dtype, mirror=fn.random.coin_flip(probability=view.hflip))


def _eval_images(view: EvalView, streams: Any, decoder: str, dtype: torch.dtype) -> Any:
    """The geometry of `fasttrain.loading.plan`, in DALI's arithmetic."""
    from nvidia.dali import fn, types
    from nvidia.dali import math as dali_math

    shape = fn.peek_image_shape(streams, dtype=types.INT64)
    height, width = shape[0], shape[1]
    side = math.floor(view.size / view.crop_pct)
    short = dali_math.min(width, height)
    starts, ends = [], []
    for length, far in ((height, "bottom"), (width, "right")):
        resized = side if view.crop_mode == "squash" else side * length // short
        room = resized - view.size
        half = room // 2
        to_even = (room - 2 * half) * (half - half // 2 * 2)  # of an odd room's half
        first = half + to_even if view.anchor == "center" else room * int(far in view.anchor)
        scale = fn.cast(length, dtype=types.FLOAT) / resized
        starts.append(first * scale)
        ends.append((first + view.size) * scale)
    if view.hflip:  # a region that runs backwards
        starts[1], ends[1] = ends[1], starts[1]
    images = fn.resize(
        fn.decoders.image(streams, device=decoder, output_type=types.RGB, jpeg_fancy_upsampling=True),
        size=[view.size, view.size],
        roi_start=fn.stack(*starts),
        roi_end=fn.stack(*ends),
        interp_type=_filter(view),
        antialias=True,
    )
    return _normalised(view, images, dtype)


def _normalised(view: View, images: Any, dtype: torch.dtype, mirror: Any = 0) -> Any:
    from nvidia.dali import fn, types

    return fn.crop_mirror_normalize(
        images,
        mean=[255 * value for value in view.mean],
        std=[255 * value for value in view.std],
        dtype=types.FLOAT16 if dtype == torch.float16 else types.FLOAT,
        output_layout="HWC",
        mirror=mirror,
    )


def _filter(view: View) -> Any:
    from nvidia.dali import types

    return types.INTERP_CUBIC if view.interpolation == "bicubic" else types.INTERP_LINEAR


def _text(tensor: Any) -> str:
    return bytes(np.asarray(tensor)).decode()


def _essence(error: RuntimeError) -> str:
    """What DALI says at the heart of a message of many lines."""
    after = str(error).partition("encountered:")[2].split("Current pipeline")[0]
    return " ".join((after or str(error)).split())
