"""From settings to everything that a step needs."""

from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.inference.forward import Amp, resolve_amp
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import EvalView
from fasttrain.models.create import create_model, has_own_head, zero_head
from fasttrain.models.heads import add_training_parts, put_head
from fasttrain.models.weights import load_weights
from fasttrain.training.distillation import open_teacher
from fasttrain.training.epochs import EpochTable
from fasttrain.training.freezing import freeze
from fasttrain.training.initialisation import whiten
from fasttrain.training.losses.base import Facts
from fasttrain.training.losses.criterion import Criterion, make_criterion, needs_counts
from fasttrain.training.mixing import make_mixer
from fasttrain.training.optimizers import clips_itself, create_optimizer, peak_lr
from fasttrain.training.parallel import data_parallel
from fasttrain.training.schedule import Schedule
from fasttrain.training.settings import TrainSettings
from fasttrain.training.size_check import check_sizes
from fasttrain.training.speed import compiled, has_fast_bf16, set_precision
from fasttrain.training.stepper import Stepper
from fasttrain.training.swa import WeightAverage


def make_stepper(
    settings: TrainSettings,
    device: torch.device,
    num_classes: int,
    view: EvalView,
    loader: Loader,
    table: EpochTable,
    begins: bool = True,
) -> Stepper:
    """Model, optimizer and all else that a step needs, on `device`.

    Args:
        view: of evaluation; the model is made for images of its size.
        loader: of the training data.
        table: the run's epochs.
        begins: False for a run that is resumed, whose weights come from elsewhere.

    Raises:
        ConfigError, WeightsError: the settings do not fit the model, the weights or the device.
    """
    module = create_trained(settings, num_classes, view.size)
    if settings.init == "whitening" and begins:
        whiten(module, settings.data, loader, view)
    add_training_parts(module, settings.head, settings.batch_former)
    loss = _make_loss(settings, device, num_classes, loader)
    module = placed(module, settings, device)
    freeze(module, settings.freeze)
    amp = training_amp(settings.amp, device)
    teacher = open_teacher(settings.distill, loader, view.size, amp)
    if settings.size_schedule is not None:
        check_sizes(settings.model, module, teacher, (shape.size for shape in table.shapes), device, amp)
    mixing = make_mixer(settings, num_classes, loader)
    return stepper_around(module, loss, settings, device, amp, table, teacher=teacher, mixing=mixing)


def placed(module: nn.Module, settings: TrainSettings, device: torch.device) -> nn.Module:
    """`module` on `device` in its memory format; the process's policy for float32 is set, too."""
    set_precision(settings.tf32)
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    moved: nn.Module = module.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    return moved


def stepper_around(
    module: nn.Module,
    loss: Criterion,
    settings: TrainSettings,
    device: torch.device,
    amp: Amp,
    table: EpochTable,
    **parts: Any,
) -> Stepper:
    """All that a step needs, around a module that stands on `device`.

    Args:
        parts: of the `Stepper`, besides those that come of the settings.
    """
    model = data_parallel(module, device, settings.ddp)
    if settings.compile != "off":
        model = compiled(model, settings.compile)
        _tell_of_compiling_again(table)
    return Stepper(
        module=module,
        model=model,
        optimizer=create_optimizer(module, settings.optimizer),
        schedule=Schedule(settings.schedule, peak_lr(settings.optimizer), table, settings.lr_with_batch),
        ema=_average(module, settings),
        swa=None if settings.swa_start is None else WeightAverage(module, settings.swa_start - 1),
        device=device,
        amp=amp,
        label_smoothing=settings.label_smoothing,
        clip_norm=0.0 if clips_itself(settings.optimizer) else settings.optimizer.clip_norm,
        seed=settings.seed,
        micro_batch=settings.micro_batch,
        sam_rho=settings.sam_rho,
        distill=settings.distill,
        loss=loss,
        **parts,
    )


def _tell_of_compiling_again(table: EpochTable) -> None:
    epochs = [str(epoch + 1) for epoch in table.changes()]
    if epochs:
        more = f" and {len(epochs) - 5} more" if len(epochs) > 5 else ""
        say(
            f"the sizes of images or batches change in epoch {', '.join(epochs[:5])}{more}; torch.compile takes its "
            "time there again, unless what it makes for a second size serves the others, too"
        )


def _make_loss(settings: TrainSettings, device: torch.device, num_classes: int, loader: Loader) -> Criterion:
    loss, head, counts, names = settings.loss, settings.head, None, None
    if needs_counts(loss, head):
        counts = torch.from_numpy(np.bincount(loader.labels, minlength=num_classes))  # of all ranks: it knows all rows
    if isinstance(loss.class_weights, str):
        names = loader.class_names
    return make_criterion(loss, head, settings.label_smoothing, Facts(num_classes, counts, device), names)


def _average(module: nn.Module, settings: TrainSettings) -> ModelEmaV3 | None:
    if settings.ema == 0:
        return None
    copied = settings.ema_buffers == "copy"
    return ModelEmaV3(module, decay=settings.ema, use_warmup=True, exclude_buffers=copied)


def training_amp(setting: str, device: torch.device) -> Amp:
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


def create_trained(settings: TrainSettings, num_classes: int, size: int) -> nn.Module:
    """The model of a run with the weights that it starts from; without a classifier for 0 classes."""
    options: dict[str, Any] = {"drop_rate": settings.drop_rate} if settings.drop_rate else {}
    if settings.dynamic_img_size:
        options["dynamic_img_size"] = True
    if settings.drop_path_rate:
        options["drop_path_rate"] = settings.drop_path_rate
    # A file whose tensors are told by their order holds timm's classifier, so the head comes after it.
    by_order = settings.weights is not None and settings.weights_match == "order"
    head = None if by_order else settings.head
    model = create_model(settings.model, num_classes, size=size, head=head, pretrained=settings.pretrained, **options)
    if settings.grad_checkpointing:
        try:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AttributeError, AssertionError):
            raise ConfigError(
                f"{settings.model} knows no gradient checkpointing; leave grad_checkpointing out"
            ) from None
    if settings.pretrained and not has_own_head(settings.model, num_classes):
        zero_head(model)
    if settings.weights is not None:
        loaded = load_weights(model, settings.weights, settings.weights_match)
        fresh = loaded.head_replaced or (by_order and settings.head.kind != "linear")
        told = f"with {'a new' if fresh else 'their own'} head for {num_classes} classes"
        say(f"loaded {loaded.tensors} tensors of {settings.weights} {told if num_classes else 'without a head'}")
    if by_order:
        put_head(model, settings.head)
    return model
