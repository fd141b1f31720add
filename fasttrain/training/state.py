"""What a run can go on from: everything that its next step depends on, as one file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fasttrain.base.config import load_settings
from fasttrain.base.console import say
from fasttrain.base.distributed import gather_on_main
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import is_main, rank, world_size
from fasttrain.loading.loader import Loader
from fasttrain.models.checkpoint import save_state
from fasttrain.training.loop import EpochProgress
from fasttrain.training.settings import TrainSettings
from fasttrain.training.stepper import Stepper

VERSION = 3  # of what the file holds
# Settings that may differ when a run is resumed, because the result does not depend on them, but for the rounding of
# pixels: images that stay in memory are decoded as wholes, without their index.
FREE_ON_RESUME = {
    *("out", "device", "threads", "loader_nice", "model_threads", "memory_budget", "resident", "on_error"),
    *("keep_last", "checkpoint_minutes", "trackers"),
}


@dataclass
class Position:
    """How far a run has come, and what it has measured.

    Attributes:
        epoch, step: next step to do (`step` counts within `epoch`).
        trained: whether all steps of `epoch` are done, and validation is what comes next.
        train_loss: of the epoch that was trained last.
        top1: validation top-1 of the last epoch; None without validation data.
        best_score: what the rule for the best epoch gave for it.
        best_top1, best_epoch: its top-1 and number (chosen on the validation data itself, so optimistic).
        images_per_s, data_wait_fraction: figures of the last epoch.
    """

    epoch: int = 0
    step: int = 0
    trained: bool = False
    train_loss: float = float("nan")
    top1: float | None = None
    best_score: float | None = None
    best_top1: float | None = None
    best_epoch: int | None = None
    images_per_s: float = 0.0
    data_wait_fraction: float = 0.0


def check_state(state: dict[str, Any], settings: TrainSettings) -> None:
    """Refuse to go on with other settings than a run was started with.

    Raises:
        ConfigError: one that the result depends on has changed, or another version has saved the state.
    """
    if state.get("version") != VERSION:
        raise ConfigError(
            f"the run in {settings.out} was saved by another version of fasttrain; resume it with that one"
        )
    # Read anew, so that settings which came with a later version have the values that they had by default.
    stored = load_settings(type(settings), state["settings"], "the stored run").model_dump(mode="json")
    now = settings.model_dump(mode="json")
    changed = [key for key in now if key not in FREE_ON_RESUME and stored[key] != now[key]]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"the run in {settings.out} was started with {key}={stored[key]!r}, not {now[key]!r}; "
            "resume it with its own settings, or start another run"
        )


def write_state(
    path: Path,
    settings: TrainSettings,
    position: Position,
    stepper: Stepper,
    loader: Loader,
    progress: EpochProgress | None,
    skipped: list[tuple[str, str]],
) -> None:
    """Save a run's state. All ranks call it; the main one writes, in one atomic step.

    Args:
        progress: of the epoch that is being trained, None between two epochs.
        skipped: samples that this rank left out so far, with the reasons.
    """
    ranks = gather_on_main(
        {
            "loss": progress.loss.totals().cpu() if progress is not None else torch.zeros(2, dtype=torch.float64),
            "buffers": [_own_buffers(module) for module in _modules(stepper)],
            "skipped": skipped,
        }
    )
    if ranks is None:
        return
    state = {
        "version": VERSION,
        "settings": settings.model_dump(mode="json"),
        "position": asdict(position),
        "model": stepper.module.state_dict(),
        "optimizer": stepper.optimizer.state_dict(),
        "schedule": stepper.schedule.state_dict(),
        "scaler": stepper.scaler.state_dict(),
        "loss": stepper.criterion.state_dict(),
        "swa": stepper.swa.state_dict() if stepper.swa is not None else None,
        "ema": stepper.ema.state_dict() if stepper.ema is not None else None,
        "loader": loader.state_dict(),
        "ranks": ranks,
    }
    save_state(path, state)


def restore_state(
    state: dict[str, Any], stepper: Stepper, loader: Loader, progress: EpochProgress
) -> tuple[Position, list[tuple[str, str]]]:
    """Put a saved state into model, optimizer, average, scaler, loader and the epoch's progress.

    In the world that saved it the run goes on to the same bits. In another one the order of samples and their views
    stay the same; global batches have another size then, and so the epoch another number of steps.

    Returns:
        where the run stands, and the samples that this rank has left out.

    Raises:
        LoaderError: the data set is not the one that it was.
    """
    loader.load_state_dict(state["loader"])
    stepper.module.load_state_dict(state["model"])
    stepper.optimizer.load_state_dict(state["optimizer"])
    stepper.schedule.load_state_dict(state["schedule"])
    stepper.scaler.load_state_dict(state["scaler"])
    if state.get("loss"):  # absent from runs that were saved before there were losses with a state
        stepper.criterion.load_state_dict(state["loss"])
    if stepper.ema is not None:
        stepper.ema.load_state_dict(state["ema"])
    if stepper.swa is not None:
        stepper.swa.load_state_dict(state["swa"])
    position, ranks = Position(**state["position"]), state["ranks"]
    if len(ranks) == world_size():
        mine = ranks[rank()]
        buffers = mine["buffers"]
        progress.loss.start_at(mine["loss"])
        skipped = mine["skipped"]
    else:
        position.step = state["loader"]["offset"] // (loader.batch_size * world_size())
        buffers = [_mean(parts) for parts in zip(*(entry["buffers"] for entry in ranks), strict=True)]
        if is_main():
            say(f"saved by {len(ranks)} processes, and going on with {world_size()}: batches have another size now")
            progress.loss.start_at(sum(entry["loss"] for entry in ranks))
        skipped = [pair for entry in ranks for pair in entry["skipped"]] if is_main() else []
    for module, own in zip(_modules(stepper), buffers, strict=True):
        module.load_state_dict(own, strict=False)
    trained = position.trained
    progress.epoch, progress.step = (position.epoch + 1, 0) if trained else (position.epoch, position.step)
    return position, skipped


def _modules(stepper: Stepper) -> list[nn.Module]:
    """The model, and its moving average if there is one."""
    return [stepper.module] if stepper.ema is None else [stepper.module, stepper.ema.module]


def _own_buffers(module: nn.Module) -> dict[str, Tensor]:
    """What DDP does not keep in step: a rank's own statistics (BatchNorm)."""
    if world_size() == 1:
        return {}  # they are in the model's state dict
    return {name: buffer.cpu() for name, buffer in module.named_buffers() if buffer.is_floating_point()}


def _mean(ranks: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of the buffers of all ranks; nothing if there was only one, whose buffers are in its model's state dict."""
    return {name: torch.stack([entry[name] for entry in ranks]).mean(0) for name in ranks[0]}
