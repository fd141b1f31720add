"""A training run from settings to checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fasttrain.base.console import say
from fasttrain.base.distributed import average_buffers, process_group, require_agreement, wait_for_all
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import check_launch, is_main, restarts
from fasttrain.base.runs import RunFolder
from fasttrain.beton_build.lists import read_ids
from fasttrain.inference.skipped import report_skipped
from fasttrain.loading.batch import Batch
from fasttrain.loading.loader import Loader
from fasttrain.models.checkpoint import CheckpointInfo, keep_epoch, load_state, save_weights
from fasttrain.models.heads import kept_weights
from fasttrain.models.winograd import Passes
from fasttrain.training.assemble import make_stepper
from fasttrain.training.best_rule import BestRule
from fasttrain.training.cores import CoreSplit
from fasttrain.training.epochs import EpochTable
from fasttrain.training.loop import EpochProgress, train_epoch
from fasttrain.training.monitor import LaggedLoss, Monitor
from fasttrain.training.optimizers import check_optimizer
from fasttrain.training.requests import Requests
from fasttrain.training.settings import RunSettings
from fasttrain.training.state import Position, check_state, restore_state, stored_winograd, write_state
from fasttrain.training.tasks import task_of
from fasttrain.training.trackers import check_trackers, open_trackers
from fasttrain.training.validation import MAIN, Validation

LAST, BEST, STATE, AVERAGED = "last.safetensors", "best.safetensors", "last.state.pt", "swa.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """What `train` returns; `checkpoint` holds the last epoch's weights, `swa_top1` is that of the mean ones. In
    segmentation the three figures are mIoU (see `fasttrain.training.segmentation.run`)."""

    run: Path
    checkpoint: Path
    epochs: int
    top1: float | None
    best_top1: float | None
    best_epoch: int | None
    swa_top1: float | None
    images_per_s: float
    data_wait_fraction: float
    skipped: list[dict[str, str]] = field(default_factory=list)


def train(settings: RunSettings, *, resume: bool = False) -> TrainResult:
    """Train a model; under torchrun every process calls this with the same settings.

    Args:
        settings: see `TrainSettings`, `SegmentSettings`, `PretrainSettings`; they say what is learned.
        resume: go on from the state in the run's folder; where there is none yet, begin. Processes that torchrun
            starts again after a failure go on by themselves.

    Raises:
        ConfigError: the folder holds a run already, or one of other settings is to be resumed.
        LaunchError: the processes of the job do not find each other, or have different files before them.
        TrainingError: no labels, or a loss that is no longer finite.
        StoppedError: stopped by a signal; the state is kept.
    """
    check_launch()  # before anything that every process would say or do for itself
    check_optimizer(settings.optimizer)
    check_trackers(settings.trackers)
    folder = RunFolder(settings.out)
    state = _state_to_resume(folder, resume)
    if state is not None:
        check_state(state, settings)
    with process_group(settings.device) as device:
        # A dictionary with a NaN would not equal itself.
        stands = state and (state["position"]["epoch"], state["position"]["step"])
        require_agreement({"configuration": settings.model_dump(), "saved state": stands})
        winograd = None if state is None else stored_winograd(state)
        with Trainer(settings, device, folder, begins=state is None, winograd=winograd) as trainer:
            require_agreement({"data set": trainer.data_fingerprints})
            if state is not None:
                trainer.restore(state)
                state = None  # as large as all weights and averages together
            result = trainer.run()
            wait_for_all()
            return result


def _state_to_resume(folder: RunFolder, resume: bool) -> dict[str, Any] | None:
    """The state to go on from, None to begin.

    Raises:
        ConfigError: the folder holds a run that is not to be resumed.
    """
    path = folder.path / STATE
    again = restarts() > 0 and folder.is_of_this_job()
    if not resume and not again and (path.exists() or (folder.path / LAST).exists()):
        raise ConfigError(f"{folder.path} holds a run already; add --resume to go on, or name another --out")
    if path.exists():
        return load_state(path)
    if resume and is_main():
        say(f"{folder.path} holds nothing to resume, so the run begins")
    return None


class Trainer:
    """One run: owns the loaders, the model and the run's folder. A context manager."""

    def __init__(
        self,
        settings: RunSettings,
        device: torch.device,
        folder: RunFolder,
        begins: bool = True,
        winograd: Mapping[str, Passes] | None = None,
    ) -> None:
        self.settings, self.device, self.folder = settings, device, folder
        self.position = Position()
        self.progress = EpochProgress(0, 0, LaggedLoss(device))
        self.requests = Requests(60 * settings.checkpoint_minutes)
        self._skipped_before: list[tuple[str, str]] = []  # by this rank, before the run was resumed
        self.cores = CoreSplit.of(settings)
        torch.set_num_threads(self.cores.model)
        if is_main():
            say(str(self.cores))
        torch.manual_seed(settings.seed)
        self.task = task_of(settings)
        # Opened before the model is made: data that cannot be trained on should fail at once.
        self.train_loader = self._train_loader()
        self.class_names, self.num_classes = self.task.classes(self.train_loader)
        self.validation = Validation(
            self._validation_sources(), self._open_validation, self.task, self.class_names, self.num_classes
        )
        self.best_rule = self._best_rule()
        self.table = self._table()
        self.stepper = make_stepper(
            self.task, device, self.num_classes, self.train_loader, self.table, begins, winograd
        )

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self.train_loader.close()
        self.validation.close()

    @property
    def data_fingerprints(self) -> tuple[str, ...]:
        """Of training and validation data."""
        return (self.train_loader.dataset.fingerprint, *self.validation.fingerprints)

    def run(self) -> TrainResult:
        """Train from the current position to the last epoch."""
        settings, position = self.settings, self.position
        if is_main():
            self.folder.write_start(settings.model_dump(mode="json"), threads=asdict(self.cores))
            self.folder.drop_metrics_from(position.epoch)
        monitor = Monitor(
            self.folder,
            self.table,
            self._sample_grid,
            lambda: open_trackers(settings.trackers, self.folder.path, settings.model_dump(mode="json")),
        )
        with self.requests.listening(), monitor:
            while position.epoch < settings.epochs:
                if not position.trained:
                    self._train_epoch(monitor)
                self._finish_epoch(monitor)
                if position.epoch < settings.epochs and self.requests.agreed(0, True, self.device).stop:
                    raise self.requests.stopped(f"after epoch {position.epoch}")
            with monitor.paused():
                averaged = self._finish_average()
        return self._result(averaged)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        restored = restore_state(state, self.stepper, self.train_loader, self.progress)
        self.position, self._skipped_before = restored

    def _train_epoch(self, monitor: Monitor) -> None:
        """All steps of an epoch that are left to do.

        Raises:
            StoppedError: a stop was asked for before the last one.
        """
        position, progress = self.position, self.progress

        def save() -> None:
            position.step = progress.step
            self._save_state(progress)

        figures = train_epoch(self.stepper, self.train_loader, monitor, progress, self.requests, save)
        position.train_loss, position.images_per_s = figures.train_loss, figures.images_per_s
        position.data_wait_fraction = figures.data_wait_fraction
        if not figures.complete:
            save()
            raise self.requests.stopped(f"in epoch {position.epoch + 1} after step {progress.step}")
        self._agree_on_statistics()
        self.stepper.schedule.end_epoch(figures.train_loss)
        if self.stepper.swa is not None:
            self.stepper.swa.end_epoch(self.stepper.module, position.epoch)
        position.trained = True
        self.progress = EpochProgress(position.epoch + 1, 0, LaggedLoss(self.device))
        if figures.wishes.save and self.validation:
            self._save_state()  # validating may take long

    def _finish_epoch(self, monitor: Monitor) -> None:
        """Validate, record and save."""
        position = self.position
        with monitor.paused():
            validation = self._validate()
        record = {
            "epoch": position.epoch,
            "train_loss": position.train_loss,
            "lr": self.stepper.schedule.lr(self.table.first[position.epoch + 1] - 1),
            **self.table.figures(position.epoch),
            **self.stepper.take_figures(),
            **validation,
            "images_per_s": position.images_per_s,
            "data_wait_fraction": position.data_wait_fraction,
        }
        improved = self._note_figures(record)
        monitor.epoch(record)
        position.epoch, position.step, position.trained = position.epoch + 1, 0, False
        self._save_epoch(validation, improved)

    def _agree_on_statistics(self) -> None:
        average_buffers(self.stepper.module)
        if self.stepper.ema is not None:
            average_buffers(self.stepper.ema.module)

    def _validate(self) -> dict[str, Any]:
        """Validation figures of the weights that are kept, and the main figure of those beside them."""
        figures = self.validation.measure(self.stepper.kept, self.stepper.amp)
        if self.stepper.beside is not None and MAIN in self.validation.loaders:
            name, module = self.stepper.beside
            figures[f"{self._main}_{name}"] = self.validation.measure_one(MAIN, module, self.stepper.amp)[self._main]
        return figures

    def _note_figures(self, record: dict[str, Any]) -> bool:
        """Remember the epoch's main figure; True if the epoch is the best so far."""
        position = self.position
        position.main = record.get(self._main)
        score = self.best_rule.score(record) if self.best_rule is not None else None
        if score is None or (position.best_score is not None and score <= position.best_score):
            return False
        position.best_score, position.best_main, position.best_epoch = score, position.main, position.epoch
        return True

    def _finish_average(self) -> dict[str, Any]:
        """Make the mean of the last epochs' weights usable, measure and save it; its figures."""
        average = self.stepper.swa
        if average is None:
            return {}
        self.train_loader.set_epoch(self.settings.epochs)
        average.estimate_statistics(self.train_loader, self.stepper.amp)
        figures = self.validation.measure(average.model.module, self.stepper.amp)
        if is_main():
            info = self._checkpoint_info({**figures, "epochs_averaged": average.count}, averaged=True)
            save_weights(self.folder.path / AVERAGED, self._weights(average.model.module), info)
            say(f"mean of {average.count} epochs' weights: {self.folder.path / AVERAGED}")
        return figures

    def _checkpoint_info(self, figures: dict[str, Any], averaged: bool) -> CheckpointInfo:
        return CheckpointInfo(
            num_classes=self.num_classes,
            class_names=self.class_names,
            eval_view=self.task.eval_view.model_dump(mode="json"),
            epoch=self.position.epoch,
            averaged=averaged,
            metrics=self._stated_metrics(figures),
            **self.task.record(self.class_names, self.train_loader),
        )

    def _save_epoch(self, validation: dict[str, Any], improved: bool) -> None:
        if is_main():
            kept, module = self.stepper.kept, self.stepper.module
            info = self._checkpoint_info(validation, averaged=kept is not module)
            weights = self._weights(kept)
            save_weights(self.folder.path / LAST, weights, info)
            if improved:
                save_weights(self.folder.path / BEST, weights, info)
            if self.settings.keep_last:
                keep_epoch(self.folder.path, weights, info, self.settings.keep_last)
            if self.stepper.beside is not None and self.stepper.saves_beside:
                name, other = self.stepper.beside
                own = self._checkpoint_info({}, averaged=other is not module)
                save_weights(self.folder.path / f"{name}.safetensors", self._weights(other), own)
        self._save_state()

    def _stated_metrics(self, validation: dict[str, Any]) -> dict[str, Any]:
        if not self.validation:
            return {}
        return {**validation, "data_fingerprint": self.validation.fingerprints[0]}

    def _save_state(self, progress: EpochProgress | None = None) -> None:
        path, loader = self.folder.path / STATE, self.train_loader
        write_state(path, self.settings, self.position, self.stepper, loader, progress, self._skipped())
        self.requests.saved()

    def _skipped(self) -> list[tuple[str, str]]:
        """Samples that this rank has left out in the whole run, with the reasons."""
        return [*self._skipped_before, *self.train_loader.skipped, *self.validation.skipped]

    def _weights(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of a model that was trained."""
        return kept_weights(self.task.network(module))

    def _result(self, averaged: dict[str, Any]) -> TrainResult:
        position = self.position
        return TrainResult(
            run=self.folder.path,
            checkpoint=self.folder.path / LAST,
            epochs=position.epoch,
            top1=position.main,
            best_top1=position.best_main,
            best_epoch=position.best_epoch,
            swa_top1=averaged.get(self._main),
            images_per_s=position.images_per_s,
            data_wait_fraction=position.data_wait_fraction,
            skipped=report_skipped(self._skipped()),
        )

    def _train_loader(self) -> Loader:
        settings, task = self.settings, self.task
        how: dict[str, Any] = {**task.order(), "masks": task.masks, "views": task.views}
        how |= {"memory_budget": settings.memory_budget, "resident": settings.resident, "backend": settings.backend}
        how |= {"batch_size": settings.batch_schedule or settings.batch_size, "size": settings.size_schedule}

        def open_loader(data: str | list[str], ids: str | None, **options: Any) -> Loader:
            return self._loader(data, _ids(ids), **{**how, **options})

        loader = open_loader(settings.data, settings.ids, view=task.train_view(), sampling=task.sampling())
        return task.batches(loader, open_loader)

    def _table(self) -> EpochTable:
        """The run's epochs.

        Raises:
            LoaderError: one of them is impossible.
        """
        rules = {"size": self.settings.size_schedule, "batch_size": self.settings.batch_schedule}
        shown = tuple(name for name, rule in rules.items() if rule is not None)
        return EpochTable.of(self.train_loader.shape_of, self.settings.epochs, shown)

    def _validation_sources(self) -> dict[str, str | list[str]]:
        settings = self.settings
        main = {MAIN: settings.val} if settings.val is not None else {}
        return main | {f"{MAIN}_{name}": data for name, data in settings.extra_val.items()}

    def _open_validation(self, name: str, data: str | list[str]) -> Loader:
        # FFCV notices no broken image, and has not the filter of every model's view.
        backend = "auto" if self.settings.backend == "ffcv" else self.settings.backend
        ids = _ids(self.settings.val_ids if name == MAIN else None)
        return self._loader(data, self.task.validation_indices(data, ids), view=self.task.eval_view, backend=backend)

    @property
    def _main(self) -> str:
        """The figure that the best epoch is known by."""
        return f"{MAIN}_{self.task.main}"

    def _best_rule(self) -> BestRule | None:
        """The rule of the settings; by default the main figure, or its mean over the named sets."""
        known = ["epoch", "train_loss", *self.validation.figures]
        default = next((name for name in (self._main, self.validation.mean) if name in known), None)
        text = self.settings.best or default
        if text is None:
            return None
        rule = BestRule(text)
        rule.check_names(known)
        return rule

    def _loader(self, data: str | list[str], indices: Any, **options: Any) -> Loader:
        settings = self.settings
        return Loader(
            data,
            options.pop("batch_size", settings.batch_size),
            device=self.device,
            seed=options.pop("seed", settings.seed),
            threads=self.cores.loading,
            nice=self.cores.nice,
            decode=settings.decode,
            index=settings.index,
            on_error=settings.on_error,
            indices=indices,
            **options,
        )

    def _sample_grid(self, batch: Batch) -> np.ndarray:
        return self.task.sample_grid(batch, self.train_loader)


def _ids(path: str | None) -> list[str] | None:
    return None if path is None else read_ids(Path(path))
