"""A training run from settings to checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from fasttrain.base.console import say
from fasttrain.base.distributed import average_buffers, process_group, wait_for_all
from fasttrain.base.errors import ConfigError, TrainingError
from fasttrain.base.process import is_main, world_size
from fasttrain.base.runs import RunFolder
from fasttrain.inference.evaluate import evaluate
from fasttrain.inference.forward import resolve_amp
from fasttrain.inference.labels import class_map
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import EvalView, TrainView, train_view
from fasttrain.models.checkpoint import CheckpointInfo, load_state, save_state, save_weights
from fasttrain.models.create import create_model, eval_view_of, has_own_head, zero_head
from fasttrain.models.weights import load_weights
from fasttrain.training.loop import Stepper, StopRequest, train_epoch
from fasttrain.training.monitor import Monitor
from fasttrain.training.optimizers import create_optimizer
from fasttrain.training.schedule import Schedule
from fasttrain.training.settings import TrainSettings

LAST, BEST, STATE = "last.safetensors", "best.safetensors", "last.state.pt"

# Settings that may differ when a run is resumed, because the result does not depend on them.
FREE_ON_RESUME = {"out", "device", "threads", "on_error"}


@dataclass
class Position:
    """How far a run has come, and what it has measured. Stored in the state file.

    Attributes:
        epoch, step: next step to do (`step` counts within `epoch`).
        top1: validation top-1 of the last epoch; None without validation data.
        best_top1, best_epoch: the highest one and its epoch (chosen on the validation set itself, so optimistic).
        images_per_s, data_wait_fraction: figures of the last epoch.
    """

    epoch: int = 0
    step: int = 0
    top1: float | None = None
    best_top1: float | None = None
    best_epoch: int | None = None
    images_per_s: float = 0.0
    data_wait_fraction: float = 0.0


@dataclass(frozen=True)
class TrainResult:
    """What `train` returns; `checkpoint` holds the weights of the last epoch."""

    run: Path
    checkpoint: Path
    epochs: int
    top1: float | None
    best_top1: float | None
    best_epoch: int | None
    images_per_s: float
    data_wait_fraction: float
    skipped: list[dict[str, str]] = field(default_factory=list)


def train(settings: TrainSettings, *, resume: bool = False) -> TrainResult:
    """Train a model; under torchrun every process calls this with the same settings.

    Args:
        settings: see `TrainSettings`.
        resume: go on from the state in the run's folder.

    Raises:
        ConfigError: the folder holds a run already, or one of other settings is to be resumed.
        TrainingError: no labels, a loss that is no longer finite, or stopped by a signal (the state is kept).
    """
    state_path = Path(settings.out) / STATE
    _check_folder(state_path, resume)
    with process_group(settings.device) as device, Trainer(settings, device) as trainer:
        if resume:
            trainer.restore(load_state(state_path))
        result = trainer.run()
        wait_for_all()
        return result


def _check_folder(state_path: Path, resume: bool) -> None:
    if resume and not state_path.exists():
        raise ConfigError(f"{state_path.parent} holds no run to resume; leave --resume out to start one")
    if not resume and state_path.exists():
        raise ConfigError(f"{state_path.parent} holds a run already; add --resume to go on, or name another --out")


class Trainer:
    """One run: owns the loaders, the model and the run's folder. A context manager."""

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.position = Position()
        torch.manual_seed(settings.seed)
        self.eval_view = eval_view_of(settings.model, settings.size)
        # Opened before the model is made: data that cannot be trained on should fail at once.
        self.train_loader = self._loader(settings.data, self._train_view())
        self.class_names = self.train_loader.class_names or None
        self.num_classes = _count_classes(self.train_loader)
        self.val_loader = self._loader(settings.val, self.eval_view) if settings.val is not None else None
        if self.val_loader is not None:
            class_map(self.val_loader.class_names, self.class_names, self.num_classes)
        self.stepper = self._stepper(_create_model(settings, self.num_classes, self.eval_view.size))

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self.train_loader.close()
        if self.val_loader is not None:
            self.val_loader.close()

    def run(self) -> TrainResult:
        """Train from the current position to the last epoch."""
        settings, folder = self.settings, RunFolder(self.settings.out)
        if is_main():
            folder.write_start(settings.model_dump(mode="json"))
            folder.drop_metrics_from(self.position.epoch)
        steps = len(self.train_loader)
        with StopRequest().listening() as stop, Monitor(folder, settings.epochs, steps, settings.batch_size) as monitor:
            while self.position.epoch < settings.epochs:
                self._epoch(monitor, stop, folder)
        return self._result(folder)

    def restore(self, state: dict[str, Any]) -> None:
        """Put a stored state into model, optimizer, average, scaler, loader and position."""
        stored, now = state["settings"], self.settings.model_dump(mode="json")
        changed = [key for key in now if key not in FREE_ON_RESUME and stored.get(key) != now[key]]
        if changed:
            key = changed[0]
            raise ConfigError(
                f"the run in {self.settings.out} was started with {key}={stored.get(key)!r}, not {now[key]!r}; "
                "resume it with its own settings, or start another run"
            )
        self.stepper.unwrapped.load_state_dict(state["model"])
        self.stepper.optimizer.load_state_dict(state["optimizer"])
        self.stepper.scaler.load_state_dict(state["scaler"])
        if self.stepper.ema is not None:
            self.stepper.ema.load_state_dict(state["ema"])
        self.train_loader.load_state_dict(state["loader"])
        self.position = Position(**state["position"])

    def _epoch(self, monitor: Monitor, stop: StopRequest, folder: RunFolder) -> None:
        position = self.position
        if position.step == 0:
            self.train_loader.set_epoch(position.epoch)
        figures = train_epoch(self.stepper, self.train_loader, monitor, position.epoch, position.step, stop)
        position.images_per_s = figures.images_per_s
        position.data_wait_fraction = figures.data_wait_fraction
        if figures.steps < len(self.train_loader):
            position.step = figures.steps
            self._save_state(folder)
            raise _stopped(stop, f"in epoch {position.epoch + 1} after step {figures.steps}")
        self._agree_on_statistics()
        with monitor.paused():
            validation = self._validate()
        improved = self._note_validation(validation.get("val_top1"))
        lr = self.stepper.optimizer.param_groups[0]["lr"]
        monitor.epoch(
            {
                "epoch": position.epoch,
                "train_loss": figures.train_loss,
                "lr": lr,
                **validation,
                "images_per_s": figures.images_per_s,
                "data_wait_fraction": figures.data_wait_fraction,
            }
        )
        position.epoch, position.step = position.epoch + 1, 0
        self._save_epoch(folder, validation, improved)
        if figures.stopped and position.epoch < self.settings.epochs:
            raise _stopped(stop, f"after epoch {position.epoch}")

    def _agree_on_statistics(self) -> None:
        average_buffers(self.stepper.unwrapped)
        if self.stepper.ema is not None:
            average_buffers(self.stepper.ema.module)

    def _validate(self) -> dict[str, Any]:
        """Validation figures of the weights that are kept, and of the raw ones beside averaged ones."""
        if self.val_loader is None:
            return {}
        result = self._evaluate(self._kept_model())
        figures = {f"val_{key}": value for key, value in result.items() if key != "samples"}
        if self.stepper.ema is not None:
            figures["val_top1_raw"] = self._evaluate(self.stepper.unwrapped)["top1"]
        return figures

    def _evaluate(self, model: nn.Module) -> dict[str, Any]:
        assert self.val_loader is not None
        return evaluate(model, self.val_loader, self.num_classes, self.class_names, self.stepper.amp, "validate")

    def _note_validation(self, top1: float | None) -> bool:
        """Remember the epoch's top-1; True if it is the highest so far."""
        position = self.position
        position.top1 = top1
        if top1 is None or (position.best_top1 is not None and top1 <= position.best_top1):
            return False
        position.best_top1, position.best_epoch = top1, position.epoch
        return True

    def _save_epoch(self, folder: RunFolder, validation: dict[str, Any], improved: bool) -> None:
        if is_main():
            info = CheckpointInfo(
                model=self.settings.model,
                num_classes=self.num_classes,
                class_names=self.class_names,
                eval_view=self.eval_view.model_dump(mode="json"),
                epoch=self.position.epoch,
                averaged=self.stepper.ema is not None,
                metrics=self._stated_metrics(validation),
            )
            weights = self._kept_model().state_dict()
            save_weights(folder.path / LAST, weights, info)
            if improved:
                save_weights(folder.path / BEST, weights, info)
        self._save_state(folder)

    def _stated_metrics(self, validation: dict[str, Any]) -> dict[str, Any]:
        if self.val_loader is None:
            return {}
        return {**validation, "data_fingerprint": self.val_loader.dataset.fingerprint}

    def _save_state(self, folder: RunFolder) -> None:
        if not is_main():
            return
        stepper = self.stepper
        save_state(
            folder.path / STATE,
            {
                "settings": self.settings.model_dump(mode="json"),
                "position": dict(self.position.__dict__),
                "model": stepper.unwrapped.state_dict(),
                "optimizer": stepper.optimizer.state_dict(),
                "scaler": stepper.scaler.state_dict(),
                "ema": stepper.ema.state_dict() if stepper.ema is not None else None,
                "loader": self.train_loader.state_dict(),
            },
        )

    def _kept_model(self) -> nn.Module:
        return self.stepper.ema.module if self.stepper.ema is not None else self.stepper.unwrapped

    def _result(self, folder: RunFolder) -> TrainResult:
        position = self.position
        skipped = [{"id": sample, "error": error} for sample, error in dict(self.train_loader.skipped).items()]
        for entry in skipped:
            say(f"skipped {entry['id']}: {entry['error']}")
        return TrainResult(
            run=folder.path,
            checkpoint=folder.path / LAST,
            epochs=position.epoch,
            top1=position.top1,
            best_top1=position.best_top1,
            best_epoch=position.best_epoch,
            images_per_s=position.images_per_s,
            data_wait_fraction=position.data_wait_fraction,
            skipped=skipped,
        )

    def _loader(self, data: str | list[str], view: EvalView | TrainView) -> Loader:
        settings = self.settings
        return Loader(
            data,
            settings.batch_size,
            view=view,
            device=self.device,
            seed=settings.seed,
            threads=settings.threads,
            on_error=settings.on_error,
        )

    def _train_view(self) -> TrainView:
        augment, evaluated = self.settings.augment, self.eval_view
        return train_view(evaluated.size, **augment.model_dump(), mean=evaluated.mean, std=evaluated.std)

    def _stepper(self, model: nn.Module) -> Stepper:
        settings = self.settings
        memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
        model = model.to(device=self.device, memory_format=memory_format)  # type: ignore[call-overload]
        optimizer = create_optimizer(model, settings.optimizer)
        schedule = Schedule(settings.schedule, settings.optimizer.peak_lr, len(self.train_loader), settings.epochs)
        ema = ModelEmaV3(model, decay=settings.ema, use_warmup=True) if settings.ema > 0 else None
        if world_size() > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            model = nn.parallel.DistributedDataParallel(model, device_ids=ids)
        return Stepper(
            model=model,
            optimizer=optimizer,
            schedule=schedule,
            ema=ema,
            device=self.device,
            amp=resolve_amp(settings.amp, self.device),
            label_smoothing=settings.label_smoothing,
            clip_norm=settings.optimizer.clip_norm,
            seed=settings.seed,
        )


def _stopped(stop: StopRequest, where: str) -> TrainingError:
    name = stop.signal_name or "a signal to another process"
    return TrainingError(f"stopped by {name} {where}; add --resume to go on")


def _create_model(settings: TrainSettings, num_classes: int, size: int) -> nn.Module:
    options = {"drop_rate": settings.drop_rate} if settings.drop_rate else {}
    if settings.drop_path_rate:
        options["drop_path_rate"] = settings.drop_path_rate
    model = create_model(settings.model, num_classes, size=size, pretrained=settings.pretrained, **options)
    if settings.pretrained and not has_own_head(settings.model, num_classes):
        zero_head(model)
    if settings.weights is not None:
        loaded = load_weights(model, settings.weights, settings.weights_match)
        head = "with a new head" if loaded.head_replaced else "with their own head"
        say(f"loaded {loaded.tensors} tensors of {settings.weights} {head} for {num_classes} classes")
    return model


def _count_classes(loader: Loader) -> int:
    labels = loader.dataset.labels
    if len(labels) == 0 or int(labels.min()) < 0:
        raise TrainingError("the training data hold samples without a label; build them with labels, or leave them out")
    return loader.num_classes
