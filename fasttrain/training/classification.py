"""Training of classifiers."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError, TrainingError
from fasttrain.inference.evaluate import evaluate
from fasttrain.inference.forward import Amp
from fasttrain.inference.labels import class_map
from fasttrain.loading.batch import Batch
from fasttrain.loading.loader import Loader
from fasttrain.loading.order import Sampling
from fasttrain.loading.views import TrainView, train_view
from fasttrain.models.create import create_model, eval_view_of, has_own_head, zero_head
from fasttrain.models.heads import add_training_parts, put_head
from fasttrain.models.weights import load_weights
from fasttrain.training.distillation import open_teacher
from fasttrain.training.initialisation import whiten
from fasttrain.training.losses.base import Facts
from fasttrain.training.losses.criterion import Criterion, make_criterion, needs_counts
from fasttrain.training.mixing import examples, make_mixer
from fasttrain.training.pictures import mixed_row, sample_grid
from fasttrain.training.settings import TrainSettings
from fasttrain.training.task import Task


class Classification(Task[TrainSettings]):
    """Images to one class each, by a timm model."""

    figures = ("top1", "top5", "loss", "macro_f1")
    main = "top1"

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__(settings, eval_view_of(settings.model, settings.size))

    @property
    def views(self) -> int:
        return self.settings.loss.needs.views

    @property
    def masks(self) -> bool:
        return self.settings.augment.by_masks

    def train_view(self) -> TrainView:
        evaluated, how = self.eval_view, self.settings.augment.of_view()
        how["augment"]["same_crop"] |= self.settings.loss.kind == "jsd"
        return train_view(evaluated.size, **how, mean=evaluated.mean, std=evaluated.std)

    def sampling(self) -> Sampling:
        sampling = self.settings.sampling
        return Sampling(sampling.class_balance, sampling.weights, sampling.draws)

    def order(self) -> dict[str, Any]:
        sampling = self.settings.sampling
        return {"order": sampling.order, "window": sampling.window, "rest": sampling.rest}

    def classes(self, loader: Loader) -> tuple[list[str] | None, int]:
        labels = loader.labels
        if len(labels) == 0 or int(labels.min()) < 0:
            raise TrainingError(
                "the training data hold samples without a label; build them with labels, or leave them out"
            )
        return loader.class_names or None, loader.num_classes

    def check_validation(self, loader: Loader, names: Sequence[str] | None, num_classes: int) -> None:
        if not (loader.labels >= 0).any():
            raise TrainingError(
                f"{loader.dataset.name} holds no labelled sample, so there is nothing to validate on; leave it out, or "
                "build it with labels"
            )
        class_map(loader.class_names, names, num_classes)

    def measure(
        self, model: nn.Module, loader: Loader, names: Sequence[str] | None, num_classes: int, amp: Amp, label: str
    ) -> dict[str, Any]:
        result = evaluate(model, loader, num_classes, names, amp, label)
        return {key: result[key] for key in self.figures}

    def sample_grid(self, batch: Batch, loader: Loader) -> np.ndarray:
        names, view = loader.class_names or None, self.eval_view
        mixed = [mixed_row(*example, names, view.mean, view.std) for example in self.examples(batch, loader)]
        return np.concatenate([sample_grid(batch, names, view.mean, view.std), *mixed])

    def examples(self, batch: Batch, loader: Loader) -> Iterator[tuple[str, Batch, Tensor | None]]:
        """The batch in each of the ways in which the run mixes images: name, batch, and targets (B, C) or None."""
        return examples(self.settings, loader.num_classes, loader, batch)

    def make_model(self, num_classes: int, loader: Loader, begins: bool) -> nn.Module:
        settings = self.settings
        module = create_trained(settings, num_classes, self.eval_view.size)
        if settings.init == "whitening" and begins:
            whiten(module, settings.data, loader, self.eval_view)
        add_training_parts(module, settings.head, settings.batch_former)
        return module

    def step_parts(
        self, module: nn.Module, num_classes: int, loader: Loader, device: torch.device, amp: Amp
    ) -> dict[str, Any]:
        settings = self.settings
        return {
            "loss": _make_loss(settings, device, num_classes, loader),
            "teacher": open_teacher(settings.distill, loader, self.eval_view.size, amp),
            "distill": settings.distill,
            "mixing": make_mixer(settings, num_classes, loader),
            "label_smoothing": settings.label_smoothing,
        }

    def record(self, names: list[str] | None, loader: Loader) -> dict[str, Any]:
        head = self.settings.head
        return {
            "model": self.settings.model,
            "head": None if head.kind == "linear" else head.model_dump(mode="json"),
            "train_counts": np.bincount(loader.labels, minlength=loader.num_classes).tolist(),
        }


def _make_loss(settings: TrainSettings, device: torch.device, num_classes: int, loader: Loader) -> Criterion:
    loss, head, counts, names = settings.loss, settings.head, None, None
    if needs_counts(loss, head):
        counts = torch.from_numpy(np.bincount(loader.labels, minlength=num_classes))  # of all ranks: it knows all rows
    if isinstance(loss.class_weights, str):
        names = loader.class_names
    return make_criterion(loss, head, settings.label_smoothing, Facts(num_classes, counts, device), names)


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
        checkpoint_gradients(model, settings.model)
    if settings.pretrained and not has_own_head(settings.model, num_classes):
        zero_head(model)
    if settings.weights is not None:
        loaded = load_weights(model, settings.weights, settings.weights_match)
        fresh = loaded.head_replaced or (by_order and settings.head.kind != "linear")
        kind = "a new" if fresh else "their own"
        told = f"with {kind} head for {num_classes} classes" if num_classes else "without a head"
        if loaded.resampled:
            told += f", positions resampled to images of {size} pixels"
        say(f"loaded {loaded.tensors} tensors of {settings.weights} {told}")
    if by_order:
        put_head(model, settings.head)
    return model


def checkpoint_gradients(model: nn.Module, name: str) -> None:
    """Have a model compute its activations anew in the backward pass.

    Raises:
        ConfigError: it knows no such thing.
    """
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError):
        raise ConfigError(f"{name} knows no gradient checkpointing; leave grad_checkpointing out") from None
