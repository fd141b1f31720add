"""From settings to everything that a step needs."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.inference.forward import Amp, resolve_amp
from fasttrain.loading.loader import Loader
from fasttrain.models.depthwise import use_depthwise
from fasttrain.models.winograd import Passes
from fasttrain.training.epochs import EpochTable
from fasttrain.training.freezing import freeze
from fasttrain.training.optimizers import clips_itself, create_optimizer, peak_lr
from fasttrain.training.parallel import data_parallel
from fasttrain.training.schedule import Schedule
from fasttrain.training.settings import RunSettings
from fasttrain.training.size_check import check_sizes
from fasttrain.training.speed import compiled, has_fast_bf16, set_precision
from fasttrain.training.stepper import Stepper
from fasttrain.training.swa import WeightAverage
from fasttrain.training.task import Task
from fasttrain.training.winograd import apply_winograd, choose_winograd


def make_stepper(
    task: Task[Any],
    device: torch.device,
    num_classes: int,
    loader: Loader,
    table: EpochTable,
    begins: bool = True,
    winograd: Mapping[str, Passes] | None = None,
) -> Stepper:
    """Model, optimizer and all else that a step needs, on `device`.

    Args:
        loader: of the training data.
        table: the run's epochs.
        begins: False for a run that is resumed, whose weights come from elsewhere.
        winograd: the convolutions that take Winograd's way; None to choose them by the settings.

    Raises:
        ConfigError, WeightsError: the settings do not fit the model, the weights or the device.
    """
    settings: RunSettings = task.settings
    module = task.make_model(num_classes, loader, begins)
    set_precision(settings.tf32)
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    module = module.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    freeze(task.network(module), settings.freeze)
    amp = _training_amp(settings.amp, device)
    parts = task.step_parts(module, num_classes, loader, device, amp)
    if settings.size_schedule is not None:
        sizes = (shape.size for shape in table.shapes)
        check_sizes(settings.model, module, parts.get("teacher"), sizes, device, amp)
    if winograd is None:
        winograd = _choose_winograd(module, task, device, amp, table)
    apply_winograd(module, winograd)
    if _in_plain_float32(settings, device, amp):
        use_depthwise(module)
    model = data_parallel(task.trained(module), device, settings.ddp)
    if settings.compile != "off":
        model = compiled(model, settings.compile)
        _tell_of_compiling_again(table)
    return task.stepper(
        module=module,
        model=model,
        optimizer=create_optimizer(module, settings.optimizer),
        schedule=Schedule(settings.schedule, peak_lr(settings.optimizer), table, settings.lr_with_batch),
        ema=_average(module, settings),
        swa=None if settings.swa_start is None else WeightAverage(module, settings.swa_start - 1),
        device=device,
        amp=amp,
        clip_norm=0.0 if clips_itself(settings.optimizer) else settings.optimizer.clip_norm,
        seed=settings.seed,
        micro_batch=settings.micro_batch,
        sam_rho=settings.sam_rho,
        **parts,
    )


def _choose_winograd(
    module: nn.Module, task: Task[Any], device: torch.device, amp: Amp, table: EpochTable
) -> dict[str, Passes]:
    """By the largest images and batches of the run. Nothing where convolutions would not go that way after all."""
    settings: RunSettings = task.settings
    if not _in_plain_float32(settings, device, amp):
        if not isinstance(settings.winograd, str):
            say("winograd is for a CPU, in float32 and without torch.compile, so it is left out here")
        return {}
    size = max(shape.size for shape in table.shapes)
    images = task.images_together(max(shape.batch_size for shape in table.shapes))
    return choose_winograd(module, settings.winograd, images, size)


def _in_plain_float32(settings: RunSettings, device: torch.device, amp: Amp) -> bool:
    """Whether convolutions may go by the kernels that are made for a CPU."""
    return device.type == "cpu" and amp == "off" and settings.compile == "off"


def _tell_of_compiling_again(table: EpochTable) -> None:
    epochs = [str(epoch + 1) for epoch in table.changes()]
    if epochs:
        more = f" and {len(epochs) - 5} more" if len(epochs) > 5 else ""
        say(
            f"the sizes of images or batches change in epoch {', '.join(epochs[:5])}{more}; torch.compile takes its "
            "time there again, unless what it makes for a second size serves the others, too"
        )


def _average(module: nn.Module, settings: RunSettings) -> ModelEmaV3 | None:
    if settings.ema == 0:
        return None
    copied = settings.ema_buffers == "copy"
    return ModelEmaV3(module, decay=settings.ema, use_warmup=True, exclude_buffers=copied)


def _training_amp(setting: str, device: torch.device) -> Amp:
    """The precision of a training.

    Raises:
        ConfigError: the device has not the setting's.
    """
    amp = resolve_amp(setting, device)
    if amp == "fp16" and device.type == "cpu":
        raise ConfigError("fp16 needs a GPU to train; on a CPU use --amp bf16 or off")
    if amp == "bf16" and device.type == "cpu" and not has_fast_bf16():
        say("this CPU computes bf16 in float32, so --amp bf16 saves memory and no time")
    return amp
