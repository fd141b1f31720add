"""Training of segmentation models: what they do in their own way."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fasttrain.base.console import say
from fasttrain.base.process import world_size
from fasttrain.inference.forward import Amp
from fasttrain.inference.segmentation.classes import count_mask_classes, mask_map, mask_names
from fasttrain.inference.segmentation.evaluate import evaluate_masks
from fasttrain.inference.segmentation.scores import by_size
from fasttrain.loading.batch import Batch, MaskedBatch, split_batch
from fasttrain.loading.loader import Loader
from fasttrain.loading.order import Sampling
from fasttrain.loading.rare_classes import RareClasses
from fasttrain.loading.segmentation_views import WholeView, segmentation_view, whole_view
from fasttrain.loading.views import TrainView
from fasttrain.models.create import eval_view_of, known_model
from fasttrain.models.segmentation.create import create_segmenter
from fasttrain.models.segmentation.weights import load_segmenter_weights
from fasttrain.training.classification import checkpoint_gradients
from fasttrain.training.losses.base import Facts
from fasttrain.training.losses.weights import class_weights
from fasttrain.training.mask_pictures import mask_grid, mask_pictures
from fasttrain.training.segmentation.losses import SegmentationCriterion
from fasttrain.training.segmentation.settings import SegmentSettings
from fasttrain.training.task import Task

_SHOWN = 8  # samples of the grid


class Segmentation(Task[SegmentSettings]):
    """Images to masks, by a timm backbone with a head, or a model of segmentation-models-pytorch."""

    figures = ("miou", "aacc", "macc", "mdice")
    main = "miou"
    eval_view: WholeView

    def __init__(self, settings: SegmentSettings) -> None:
        super().__init__(settings, whole_view_of(settings))

    @property
    def masks(self) -> bool:
        return True

    def train_view(self) -> TrainView:
        how, evaluated = self.settings.augment.of_view(), self.eval_view
        return segmentation_view(self.settings.size, **how, mean=evaluated.mean, std=evaluated.std)

    def sampling(self) -> Sampling:
        settings, rare = self.settings, self.settings.sampling.rare
        draws = settings.sampling.draws
        if settings.interval is not None:
            draws = settings.interval * settings.batch_size * world_size()
        chosen = None if rare.temperature is None else RareClasses(rare.temperature, rare.min_pixels)
        return Sampling(draws=draws, rare_classes=chosen)

    def order(self) -> dict[str, Any]:
        sampling = self.settings.sampling
        return {"order": sampling.order, "window": sampling.window, "rest": sampling.rest}

    def classes(self, loader: Loader) -> tuple[list[str] | None, int]:
        return mask_names(loader.dataset), count_mask_classes(loader.dataset)

    def validation_indices(self, data: str | list[str], ids: Sequence[str] | None) -> Any:
        return by_size(data, ids)

    def check_validation(self, loader: Loader, names: Sequence[str] | None, num_classes: int) -> None:
        mask_map(loader.dataset, names, num_classes)

    def measure(
        self, model: nn.Module, loader: Loader, names: Sequence[str] | None, num_classes: int, amp: Amp, label: str
    ) -> dict[str, Any]:
        settings = self.settings
        how, crop = settings.evaluation, settings.size
        result = evaluate_masks(model, [loader], num_classes, names, how, amp=amp, crop=crop, label=label)
        named = names or [str(number) for number in range(num_classes)]
        by_class = dict(zip(named, result["iou"], strict=True))
        return {**{key: result[key] for key in self.figures}, "iou": by_class}

    def sample_grid(self, batch: Batch, loader: Loader) -> np.ndarray:
        info = loader.dataset.masks
        assert isinstance(batch, MaskedBatch) and info is not None
        part = split_batch(batch, _SHOWN)[0]
        assert isinstance(part, MaskedBatch)
        used = np.unique(part.masks.cpu().numpy())
        pictures = mask_pictures(part, info, self.eval_view.mean, self.eval_view.std)
        return mask_grid(pictures, info, used[used != info.ignore].tolist())

    def make_model(self, num_classes: int, loader: Loader, begins: bool) -> nn.Module:
        settings, made_of = self.settings, self.settings.segmenter
        module = create_segmenter(made_of, num_classes, pretrained=settings.pretrained and begins)
        if settings.grad_checkpointing:
            checkpoint_gradients(module, settings.model)
        if settings.weights is not None and begins:
            loaded = load_segmenter_weights(module, made_of, settings.weights, settings.weights_match)
            part = "the backbone, with a new head" if loaded.backbone_only else "all layers but the last"
            told = part if loaded.head_replaced else "all layers"
            say(f"loaded {loaded.tensors} tensors of {settings.weights} into {told} for {num_classes} classes")
        return module

    def step_parts(
        self, module: nn.Module, num_classes: int, loader: Loader, device: torch.device, amp: Amp
    ) -> dict[str, Any]:
        loss = self.settings.loss
        counts = torch.from_numpy(mask_counts(loader, num_classes)) if loss.corrects_frequencies else None
        facts = Facts(num_classes, counts, device)
        weights = class_weights(loss.class_weights, loss.beta, facts, mask_names(loader.dataset))
        return {"loss": SegmentationCriterion(loss, weights)}

    def record(self, names: list[str] | None, loader: Loader) -> dict[str, Any]:
        settings, info = self.settings, loader.dataset.masks
        assert info is not None
        made_of = settings.segmenter.model_dump(mode="json")
        classes = count_mask_classes(loader.dataset)
        palette = None if info.palette is None else [list(colour) for colour in info.palette]
        return {
            "model": settings.model,
            "segmenter": {**made_of, "palette": palette, "crop": settings.size},
            "train_counts": mask_counts(loader, classes).tolist(),
        }


def whole_view_of(settings: SegmentSettings) -> WholeView:
    """The view of whole images that a model of `settings` is measured in: mean and deviation are its backbone's."""
    backbone = settings.segmenter.backbone
    known_model(backbone, "`fasttrain train --list-models` names timm's; besides there are smp:unet, smp:fpn, …")
    own = eval_view_of(backbone)
    return whole_view(settings.eval_size, mean=own.mean, std=own.std)


def mask_counts(loader: Loader, num_classes: int) -> np.ndarray:
    """(C,) int64: pixels of each class in the masks of a loader's samples, as they are stored."""
    counts: np.ndarray = loader.dataset.mask_pixels()[loader.rows, :-1].sum(0, dtype=np.int64)
    return counts[:num_classes]
