"""The public loader: a plain iterable of batches, for any training loop."""

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch

from fasttrain.base import process
from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.loading.batch import Batch
from fasttrain.loading.dataset import Data, ImageDataset, open_dataset
from fasttrain.loading.device_stage import DeviceStage
from fasttrain.loading.plan import BatchPlan, plan_batch
from fasttrain.loading.portable import PortableBackend
from fasttrain.loading.sampler import Order, Partition, shuffled
from fasttrain.loading.views import TrainView, View, train_view

BACKENDS: dict[str, Callable[[ImageDataset, int], PortableBackend]] = {"portable": PortableBackend}


@dataclass
class _InFlight:
    """A batch that is being filled."""

    plan: BatchPlan
    pixels: torch.Tensor
    futures: list[Future[None]]


class Loader:
    """Batches of decoded, augmented, normalised images.

    >>> with Loader("train.beton", 256, view=train_view(224), device="cuda") as loader:
    ...     for epoch in range(90):
    ...         loader.set_epoch(epoch)
    ...         for images, labels, ids, valid in loader:
    ...             ...

    Args:
        data: a `.beton` file, a folder or list of images, or several of them as one data set.
        batch_size: samples a batch and rank.
        view: `train_view` or `eval_view`; ``train_view(224)`` if None.
        order: ``random`` or ``sequential``; by default the former for a train view, the latter for an eval view. What
            each means for the last batch and for several ranks: see `fasttrain.loading.sampler.Partition`.
        device, dtype: of the images.
        seed: of order and views.
        threads: decoding threads; by default the cores this process may use, divided by the ranks of the machine.
        on_error: ``raise`` an `ImageError`, or ``skip``: the sample is masked by ``valid`` and listed in `skipped`.
        indices: part of the data set, as rows or as string ids.
        rank, world: this process among how many; by default torchrun's.
        prefetch: batches filled ahead.
        backend: what carries the plan out; one of `BACKENDS`.

    Attributes:
        dataset, view, device, batch_size: as given.
        class_names: names of the labels, None if unknown.
        num_samples: samples of the data set or of `indices`.
        skipped: (string id, error) of each sample left out so far.

    Raises:
        LoaderError: an argument is impossible; the sentence says what to use instead.
    """

    def __init__(
        self,
        data: Data,
        batch_size: int,
        *,
        view: View | None = None,
        order: Order | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        threads: int | None = None,
        on_error: Literal["raise", "skip"] | str = "raise",
        indices: Sequence[int] | Sequence[str] | np.ndarray | None = None,
        rank: int | None = None,
        world: int | None = None,
        prefetch: int = 2,
        backend: str = "portable",
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise LoaderError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        if backend not in BACKENDS:
            raise LoaderError(f"there is no loader backend {backend!r}; choose one of {', '.join(BACKENDS)}")
        self.view = view if view is not None else train_view()
        self.device = torch.device(device)
        self.batch_size, self.seed, self.on_error = batch_size, seed, on_error
        self._prefetch = max(1, prefetch)
        self.dataset = open_dataset(data)
        try:
            self._rows = _select(self.dataset, indices)
            self._partition = Partition(
                samples=len(self._rows),
                batch_size=batch_size,
                order=order or ("random" if isinstance(self.view, TrainView) else "sequential"),
                rank=process.rank() if rank is None else rank,
                world=process.world_size() if world is None else world,
            )
        except BaseException:
            self.dataset.close()
            raise
        self._epoch = 0
        self._offset = 0
        self.skipped: list[tuple[str, str]] = []
        self._stage = DeviceStage(self.view, self.device, dtype)
        self._backend = BACKENDS[backend](self.dataset, threads or process.default_threads())
        # Threads must not outlive a loader that was never closed.
        self._finaliser = weakref.finalize(self, self._backend.close, wait=False)

    # --- what it is -------------------------------------------------------------------------------------------------

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
    def num_samples(self) -> int:
        return len(self._rows)

    def __len__(self) -> int:
        """Batches an epoch: constant, and the same on every rank."""
        return self._partition.steps

    def string_ids(self, ids: np.ndarray | torch.Tensor | Sequence[int]) -> list[str]:
        """The string ids of a batch's ``ids``."""
        return self.dataset.string_ids(np.asarray(ids.cpu() if isinstance(ids, torch.Tensor) else ids, np.int64))

    # --- where it stands --------------------------------------------------------------------------------------------

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch. Without it, each full pass is followed by the next epoch."""
        self._epoch, self._offset = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: after the batches that it has handed out."""
        return {
            "fingerprint": self.dataset.fingerprint,
            "order": self._partition.order,
            "seed": self.seed,
            "epoch": self._epoch,
            "offset": self._offset,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; the world size may be another one.

        Raises:
            LoaderError: it was taken on another data set, order or seed.
        """
        own = self.state_dict()
        for key in ("fingerprint", "order", "seed"):
            if state[key] != own[key]:
                what = "data set" if key == "fingerprint" else key
                raise LoaderError(f"the loader's state was taken with another {what}; resume with the same one")
        self._epoch, self._offset = state["epoch"], state["offset"]

    # --- batches ----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch (all of it, unless a state was loaded), batches filled ahead in the background."""
        if not self._finaliser.alive:
            raise LoaderError("the loader was closed; make a new one")
        epoch, offset = self._epoch, self._offset
        plans = self._plans(epoch, offset)
        in_flight: deque[_InFlight] = deque()
        try:
            while True:
                while len(in_flight) <= self._prefetch and (plan := next(plans, None)) is not None:
                    in_flight.append(self._start(plan))
                if not in_flight:
                    break
                batch = self._finish(in_flight.popleft())
                offset += self._partition.global_batch
                # The position is that of the batches handed out, so it moves before the caller gets this one.
                self._epoch, self._offset = (epoch + 1, 0) if not in_flight else (epoch, offset)
                yield batch
        finally:
            for waiting in in_flight:
                for future in waiting.futures:
                    future.cancel()

    def _plans(self, epoch: int, offset: int) -> Iterator[BatchPlan]:
        rows = self._rows
        if self._partition.order == "random":
            rows = shuffled(rows, self.dataset.keys[rows], self.seed, epoch)
        for batch in self._partition.batches(rows, offset):
            real = batch >= 0
            sizes = np.ones((len(batch), 2), np.int64)
            sizes[real] = self._sizes(batch[real])
            yield plan_batch(self.view, batch, self.dataset.keys[batch], sizes, self.seed, epoch)

    def _sizes(self, rows: np.ndarray) -> np.ndarray:
        try:
            return self.dataset.sizes(rows)
        except ImageError:
            if self.on_error == "raise":
                raise
            # Unreadable ones are planned as one pixel; decoding them fails again and is accounted for there.
            return np.stack([self._size_or_one(row) for row in rows])

    def _size_or_one(self, row: int) -> np.ndarray:
        try:
            return self.dataset.sizes(np.array([row]))[0]
        except ImageError:
            return np.ones(2, np.int64)

    def _start(self, plan: BatchPlan) -> _InFlight:
        pixels = self._stage.empty_batch(len(plan.rows), plan.size)
        return _InFlight(plan, pixels, self._backend.submit(plan, pixels.numpy()))

    def _finish(self, filled: _InFlight) -> Batch:
        """Wait for a batch, deal with its errors, send it through the device stage."""
        plan = filled.plan
        valid = ~plan.padded
        for index, future in enumerate(filled.futures):
            try:
                future.result()
            except ImageError as error:
                if self.on_error == "raise":
                    _cancel(filled.futures)
                    raise
                valid[index] = False
                filled.pixels[index] = 0
                self.skipped.append((error.sample_id, error.reason))
            except BaseException:
                _cancel(filled.futures)
                raise
        labels = np.where(plan.padded, -1, self.dataset.labels[plan.rows])
        images, *rest = self._stage.run(
            filled.pixels,
            plan.jitter,
            torch.from_numpy(labels.astype(np.int64)),
            torch.from_numpy(plan.rows),
            torch.from_numpy(valid),
        )
        return Batch(images, *rest)

    # --- lifetime ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the threads and release the files. A second call does nothing."""
        if self._finaliser.detach() is not None:
            self._backend.close()
            self.dataset.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cancel(futures: list[Future[None]]) -> None:
    for future in futures:
        future.cancel()


def _select(dataset: ImageDataset, indices: Sequence[int] | Sequence[str] | np.ndarray | None) -> np.ndarray:
    """Rows (n,) int64 of the data set that `indices` names, as rows or as string ids."""
    everything = np.arange(dataset.num_samples, dtype=np.int64)
    if indices is None:
        return everything
    if len(indices) and isinstance(indices[0], str):
        position = {name: row for row, name in enumerate(dataset.string_ids(everything))}
        unknown = [name for name in indices if name not in position]
        if unknown:
            raise LoaderError(f"{dataset.name} has no sample {unknown[0]!r} ({len(unknown)} such)")
        return np.array([position[str(name)] for name in indices], np.int64)
    rows = np.asarray(indices, np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= dataset.num_samples):
        raise LoaderError(f"indices must be rows 0 to {dataset.num_samples - 1} of {dataset.name}")
    if len(np.unique(rows)) != len(rows):
        raise LoaderError("indices name a sample twice; every sample may be listed once")
    return rows
