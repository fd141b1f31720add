"""The public loader: a plain iterable of batches, for any training loop."""

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
import xxhash

from fasttrain.base import process
from fasttrain.base.console import say
from fasttrain.base.errors import LoaderError
from fasttrain.loading.backend import Circumstances, check_nice, choose_backend
from fasttrain.loading.batch import Batch
from fasttrain.loading.delivery import Delivery, InFlight
from fasttrain.loading.device_stage import DeviceStage
from fasttrain.loading.masks import Masks, fitted_view, mask_maker, original_masks
from fasttrain.loading.memory_plan import MemoryPlan, plan_memory
from fasttrain.loading.open_dataset import Data, open_dataset
from fasttrain.loading.order import Order, Sampling
from fasttrain.loading.per_epoch import EpochShape, EpochShapes, PerEpoch, value_of
from fasttrain.loading.planner import PlannedBatch, Planner
from fasttrain.loading.position import stored_position
from fasttrain.loading.resident import ResidentDataset
from fasttrain.loading.resident_backend import ResidentBackend, check_resident
from fasttrain.loading.sampler import Partition, Rest
from fasttrain.loading.selection import select_rows
from fasttrain.loading.views import TrainView, View, train_view


class Loader:
    """Batches of decoded, augmented, normalised images.

    >>> with Loader("train.beton", 256, view=train_view(224), device="cuda") as loader:
    ...     for epoch in range(90):
    ...         loader.set_epoch(epoch)
    ...         for images, labels, ids, valid in loader:
    ...             ...

    Args:
        data: a `.beton` file, a folder or list of images, or several of them as one data set.
        batch_size: samples a batch and rank; or a function that gives it for each epoch, counted from 0.
        view: `train_view` or `eval_view`; ``train_view(224)`` if None.
        size: the side of the images in pixels, where it changes from epoch to epoch: a function of the epoch, that
            stands for the view's. Like that of `batch_size` it must give the same on every rank.
            `fasttrain.loading.per_epoch` has a ramp and stages. Data set, threads and what lies in memory stay.
        order: ``random``, ``windowed`` or ``sequential``; by default the first for a train view, the last for an eval
            view. ``windowed`` is random too, but reads `window` pages of the file at a time, for files that do not fit
            into memory. What each means for the last batch and for several ranks: see
            `fasttrain.loading.sampler.Partition`.
        device, dtype: of the images.
        window: pages (of a `.beton`; 64 files of a folder count as one) that ``windowed`` reads at a time.
        rest: what becomes of samples too few for another global batch, in training: ``drop`` or ``wrap`` (see
            `fasttrain.loading.sampler.Partition`).
        sampling: balance of classes, weights of samples and length of an epoch, in training; see
            `fasttrain.loading.order.Sampling`. None: each sample once.
        seed: of order and views.
        threads: decoding threads; by default the cores this process may use, divided by the ranks of the machine.
        nice: how much lower than the process's the priority of the decoding threads is, 0 to 19, as of the command
            ``nice``: a model on the same cores comes first then, and they fill the queue in what it leaves. For Linux,
            and backends whose threads are ours (``native``, ``portable``).
        on_error: ``raise`` an `ImageError`, or ``skip``: the sample is masked by ``valid`` and listed in `skipped`.
        indices: part of the data set, as rows or as string ids.
        rank, world: this process among how many; by default torchrun's.
        prefetch: batches filled ahead.
        views: different views of each sample, all from one decoding of it, as contrastive learning wants them; the
            images of a batch are then (views, B, 3, H, W). The first is what a loader with one view gives.
        memory_budget: memory of this machine for images, in bytes, as ``8GB``, or ``auto`` for three quarters of what
            is available. What fits decides: decoded images that stay in memory, the page cache, or the windowed order;
            one line says which (see `fasttrain.loading.memory_plan.MemoryPlan`). None: the page cache, as it comes.
        masks: the batches are `fasttrain.loading.batch.MaskedBatch`: with the masks of a `.beton` that has some, or
            (``extent``) with masks that only tell where the images are, by 0: no mask is read, or has to be there.
        resident: ``gpu`` decodes all images at once, when the loader is made, into the memory of the GPU that `device`
            names; from then on a batch is a kernel or two there, and the CPU does next to nothing.
        backend: what carries the plan out: ``native``, ``portable`` (Pillow), or ``auto``, which is the first where it
            was built; ``dali`` (NVIDIA DALI, on the GPU where the images go there) or ``ffcv`` where those are
            installed. Order and views are the same, bit for bit; pixels agree within rounding. Only ``ffcv`` crops and
            flips by itself, at random, and takes no more than one `.beton`; see `fasttrain.loading.ffcv`. These two
            decode an image anew for each of several views, and keep no decoded images in memory.
        decode: ``exact``, or ``fast``: the native backend then decodes JPEGs that are at least twice as large as their
            view at a half, quarter or eighth of their size, and chroma without interpolation. PSNR against Pillow on
            ImageNet photos (224 pixels, RandomResizedCrop): exact 57 dB, worst image 53; fast 55, worst 37; at 128
            pixels fast 50, worst 31. It halves the time for photos of many megapixels, and gains little for small ones.
        index: use the random-access index of JPEGs that have one, as `fasttrain build` makes it: only the stretches of
            their code are decoded that the view shows, and chroma comes to the view's size in one step. False decodes
            them like all others. Only the native backend has this way, and images that stay in memory decoded go
            without it. PSNR against Pillow on 60 ImageNet photos (224 pixels, RandomResizedCrop): 55 dB, worst image
            52; without the index 57 and 57.

    Attributes:
        dataset, view, device: as given.
        class_names: names of the labels, None if unknown.
        num_samples: samples of an epoch: of the data set or of `indices`, or `Sampling.draws`.
        memory_plan: what `memory_budget` came to, None without one.

    Raises:
        LoaderError: an argument is impossible; the sentence says what to use instead.
    """

    def __init__(
        self,
        data: Data,
        batch_size: int | PerEpoch,
        *,
        view: View | None = None,
        size: PerEpoch | None = None,
        order: Order | None = None,
        window: int = 64,
        rest: Rest = "drop",
        sampling: Sampling | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        threads: int | None = None,
        nice: int = 0,
        on_error: Literal["raise", "skip"] | str = "raise",
        indices: Sequence[int] | Sequence[str] | np.ndarray | None = None,
        rank: int | None = None,
        world: int | None = None,
        prefetch: int = 2,
        views: int = 1,
        memory_budget: int | str | None = None,
        resident: Literal["gpu"] | None = None,
        masks: Masks = False,
        backend: Literal["auto", "native", "portable", "dali", "ffcv"] | str = "auto",
        decode: Literal["exact", "fast"] | str = "exact",
        index: bool = True,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise LoaderError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        make_backend = choose_backend(backend, decode)
        if resident is not None:
            check_resident(resident, torch.device(device), backend, memory_budget)
        threads = process.default_threads() if threads is None else threads
        for name, value in {"threads": threads, "prefetch": prefetch, "window": window, "views": views}.items():
            if value < 1:
                raise LoaderError(f"{name} must be at least 1, not {value}")
        if nice:
            check_nice(nice, backend)
        self.view = view if view is not None else train_view()
        if views > 1 and not isinstance(self.view, TrainView):
            raise LoaderError("an eval view is the same each time; use views with a train view")
        self.device = torch.device(device)
        self.seed, self.on_error = seed, on_error
        self._prefetch, self._window = prefetch, window
        self._stage = DeviceStage(self.view, self.device, dtype)
        self.dataset = open_dataset(data)
        try:
            self._rows = select_rows(self.dataset, indices)
            if order is None and not isinstance(self.view, TrainView):
                order = "sequential"
            self.memory_plan: MemoryPlan | None = None
            if memory_budget is not None:
                order = self._use_memory(memory_budget, order)
            order = order or "random"
            sampling = sampling or Sampling()
            pool = sampling.pool_of(self.dataset, self._rows)
            if order == "sequential" and (pool is not None or rest != "drop"):
                raise LoaderError("the sequential order gives each sample once; leave sampling and rest out")
            batch_sizes = batch_size if callable(batch_size) else None
            partition = Partition(
                samples=len(self._rows) if sampling.draws is None else sampling.draws,
                batch_size=value_of(batch_size, 0, "batch_size") if callable(batch_size) else batch_size,
                order=order,
                rank=process.rank() if rank is None else rank,
                world=process.world_size() if world is None else world,
                rest=rest,
            )
            self.view = fitted_view(self.view, self.dataset, self._rows)
            self._shapes = EpochShapes(self.view, partition, size, batch_sizes)
            stream, fast = self._stage.stream, decode == "fast"
            made_for = Circumstances(self.dataset, threads, self.view, stream, fast, index, nice)
            self._masks = mask_maker(made_for, backend, masks)
            if resident is None:
                self._backend = make_backend(made_for)
            else:
                self._backend = ResidentBackend(made_for, self._rows, self.device, make_backend)
        except BaseException:
            self.dataset.close()
            raise
        self._weights_digest = None if pool is None else xxhash.xxh3_64_hexdigest(pool.weights.tobytes())
        self._planner = Planner(
            self.dataset, self._rows, pool, partition, self.view, seed, on_error == "skip", self._window, views, masks
        )
        self._delivery = Delivery(self.dataset, self._stage, on_error)
        self._position = self._start = (0, 0)  # epoch and global offset: of the batches handed out, of the next pass
        # Threads must not outlive a loader that was never closed.
        closing = [self._backend, *([] if self._masks is None else [self._masks])]
        self._finaliser = weakref.finalize(self, _close_all, closing, wait=False)

    def _use_memory(self, budget: int | str, order: Order | None) -> Order | None:
        """Plan the use of memory, say how, and begin with it: the order that the plan wants."""
        self.memory_plan = plan = plan_memory(self.dataset, self._rows, budget, order)
        say(str(plan))
        if plan.mode == "resident":
            self.dataset = ResidentDataset(self.dataset, self._rows)
        if plan.window is not None:
            self._window = plan.window
        return "windowed" if plan.mode == "windowed" else order

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(string id, error) of each sample left out so far."""
        return self._delivery.skipped

    @property
    def class_names(self) -> list[str] | None:
        return self.dataset.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes: of the names, or of the labels if there are no names."""
        if self.class_names is not None:
            return len(self.class_names)
        return int(self.dataset.labels.max(initial=-1)) + 1

    @property
    def rows(self) -> np.ndarray:
        """(n,) int64: the rows of the data set that `indices` name, in their order."""
        return self._rows

    @property
    def num_samples(self) -> int:
        return self._shapes.partition.samples

    def __len__(self) -> int:
        """Batches of the epoch that the next ``iter`` begins, the same on every rank; all epochs have as many, unless
        the batch size changes."""
        return self.shape_of(self._start[0]).steps

    @property
    def batch_size(self) -> int:
        """Samples a batch and rank, in the epoch that the next ``iter`` begins."""
        return self.shape_of(self._start[0]).batch_size

    @property
    def steps_left(self) -> int:
        """Batches of the pass that the next ``iter`` begins: fewer than ``len`` after `load_state_dict`."""
        epoch, offset = self._start
        return self._shapes.partition_of(epoch).steps_from(offset)

    def shape_of(self, epoch: int) -> EpochShape:
        """Size of images and batches, and number of batches, in an epoch.

        Raises:
            LoaderError: `size` or `batch_size` gives nothing that is possible.
        """
        return self._shapes.of(epoch)

    @property
    def labels(self) -> np.ndarray:
        """(n,) int64 labels of the samples that were chosen (all, or those of `indices`), -1 where unknown."""
        return self.dataset.labels[self._rows]

    @property
    def uses_index(self) -> bool:
        """Whether JPEGs are decoded by their random-access index where they have one."""
        return self._backend.uses_index

    @property
    def indexed(self) -> int:
        """How many of the samples that were chosen are decoded by their random-access index."""
        return int(self.dataset.are_indexed(self._rows).sum()) if self.uses_index else 0

    def string_ids(self, ids: np.ndarray | torch.Tensor | Sequence[int]) -> list[str]:
        """The string ids of a batch's ``ids`` (``ids[valid]`` where a batch may be padded).

        Raises:
            LoaderError: one is not a row of the data set, as the -1 of padded entries.
        """
        return self.dataset.string_ids(self.dataset.rows_of(_on_host(ids)))

    def masks_of(self, ids: np.ndarray | torch.Tensor | Sequence[int]) -> list[np.ndarray]:
        """The masks of a batch's ``ids`` as they are stored, (H, W) uint8 of their images' own sizes, for exact scores.

        Raises:
            LoaderError: the data set has none, or one of `ids` is no row of it.
        """
        return original_masks(self.dataset, self.dataset.rows_of(_on_host(ids)))

    # --- where it stands --------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch. Without it, each full pass is followed by the next epoch."""
        if epoch < 0:
            raise LoaderError(f"epochs are counted from 0, {epoch} is none")
        self._position = self._start = (epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: after the batches that it has handed out. Plain values, the same on every rank."""
        epoch, offset = self._position
        return {**self._identity(), "epoch": epoch, "offset": offset}

    def _identity(self) -> dict[str, Any]:
        """What the order of an epoch depends on."""
        order = self._shapes.partition.order
        return {
            "fingerprint": self.dataset.fingerprint,
            "rows": xxhash.xxh3_64_hexdigest(self._rows.tobytes()),
            "order": order + (f" {self._window}" if order == "windowed" else ""),
            "seed": self.seed,
            "sampling": None if self._weights_digest is None else f"{self._weights_digest} {self.num_samples}",
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; batch size, world size and view may be others.

        Raises:
            LoaderError: it was taken on another data set, order, sampling or seed, or is no state of a loader.
        """
        self._position = self._start = stored_position(state, self._identity(), self.num_samples)

    # --- batches ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        """All batches of the epoch, filled ahead in the background; after `load_state_dict` the rest of it.

        A pass that is left half-way does not count: the next one begins the same epoch again.
        """
        self._check_open()
        (epoch, offset), self._start = self._start, (self._start[0], 0)
        self._position = (epoch, offset)
        return self._batches(epoch, offset)

    def _batches(self, epoch: int, offset: int) -> Iterator[Batch]:
        partition = self._shapes.partition_of(epoch)
        planned = self._planner.adapted(partition, self._shapes.view_of(epoch)).epoch(epoch, offset)
        in_flight: deque[InFlight] = deque()
        try:
            while True:
                self._check_open()
                while len(in_flight) <= self._prefetch and (following := next(planned, None)) is not None:
                    in_flight.append(self._begin(following))
                if not in_flight:
                    self._position = self._start = (epoch + 1, 0)  # nothing was left of the epoch
                    return
                batch = self._delivery.deliver(in_flight[0])
                in_flight.popleft()
                offset += partition.global_batch
                # The position is that of the batches handed out, so it moves before the caller gets this one.
                self._position = (epoch, offset)
                if not in_flight:
                    self._position = self._start = (epoch + 1, 0)
                yield batch
                del batch  # else its memory could not serve the next one, whatever the caller does
                if not in_flight:
                    return
        finally:
            for waiting in in_flight:
                waiting.filling.cancel()
                if waiting.masks is not None:
                    waiting.masks.cancel()

    def _begin(self, planned: PlannedBatch) -> InFlight:
        plan, wanted = planned.plan, planned.wanted
        normalisation = self._stage.normalisation(plan.jitter, plan.shift) if self._backend.normalises else None
        on_device = self._backend.on_device
        shape = plan.height, plan.width
        pixels = self._stage.empty_batch(len(plan.rows), shape, normalisation is not None, on_device)
        if plan.frame is not None and not on_device:
            self._stage.paint(pixels, plan.frame.fill)
        masks = None if self._masks is None else self._masks.submit(plan, wanted)
        return InFlight(planned, pixels, self._backend.submit(plan, wanted, pixels, normalisation), masks)

    # --- lifetime ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the threads and release the files. A second call does nothing."""
        if self._finaliser.detach() is not None:
            self._backend.close()
            if self._masks is not None:
                self._masks.close()
            self.dataset.close()

    def _check_open(self) -> None:
        if not self._finaliser.alive:
            raise LoaderError("the loader was closed; make a new one")

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _on_host(ids: np.ndarray | torch.Tensor | Sequence[int]) -> np.ndarray | torch.Tensor | Sequence[int]:
    return ids.cpu() if isinstance(ids, torch.Tensor) else ids


def _close_all(closing: Sequence[Any], wait: bool) -> None:
    for one in closing:
        one.close(wait)
