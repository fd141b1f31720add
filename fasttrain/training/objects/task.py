"""Mapping of objects as a task of the training loop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fasttrain.base.console import say
from fasttrain.inference.forward import Amp
from fasttrain.loading.loader import Loader
from fasttrain.loading.segmentation_views import whole_view
from fasttrain.loading.views import TrainView, train_view
from fasttrain.models.create import eval_view_of
from fasttrain.models.objects.mapper import MapperSettings, ObjectMapper
from fasttrain.models.objects.weights import load_mapper_weights
from fasttrain.training.classification import Classification, checkpoint_gradients
from fasttrain.training.objects.losses import ObjectCriterion
from fasttrain.training.objects.settings import ObjectSettings
from fasttrain.training.stepper import Stepper


class ObjectStepper(Stepper):
    """Steps whose epochs end with a look at the maps' borders."""

    def take_figures(self) -> dict[str, Any]:
        """See `fasttrain.training.objects.borders.Borders`."""
        assert isinstance(self.criterion, ObjectCriterion)
        borders = self.criterion.borders
        figures = borders.take()
        if figures:
            say(borders.described())
        return dict(figures)

    def rank_state(self) -> dict[str, Any]:
        assert isinstance(self.criterion, ObjectCriterion)
        return {"borders": self.criterion.borders.state_dict()}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        assert isinstance(self.criterion, ObjectCriterion)
        self.criterion.borders.load_state_dict(state["borders"], self.device)


class ObjectMapping(Classification):
    """Maps that are high on objects or on background: what it learns from is the images themselves."""

    settings: ObjectSettings
    stepper = ObjectStepper

    def __init__(self, settings: ObjectSettings) -> None:
        super().__init__(settings)
        own = eval_view_of(settings.model)
        self.eval_view = whole_view(settings.eval_size, mean=own.mean, std=own.std)
        self._criterion: ObjectCriterion | None = None

    @property
    def made_of(self) -> MapperSettings:
        """What the model is made of."""
        return MapperSettings(model=self.settings.model, stride=self.settings.stride)

    def train_view(self) -> TrainView:
        evaluated, size = self.eval_view, self.settings.size
        assert size is not None  # by the published settings
        return train_view(size, **self.settings.augment.of_view(), mean=evaluated.mean, std=evaluated.std)

    def classes(self, loader: Loader) -> tuple[list[str] | None, int]:
        return None, 0  # whatever labels there are

    def make_model(self, num_classes: int, loader: Loader, begins: bool) -> nn.Module:
        settings = self.settings
        module = ObjectMapper(self.made_of, pretrained=settings.pretrained and begins)
        if settings.grad_checkpointing:
            checkpoint_gradients(module, settings.model)
        if settings.weights is not None and begins:
            tensors, whole = load_mapper_weights(module, self.made_of, settings.weights, settings.weights_match)
            say(f"loaded {tensors} tensors of {settings.weights} into {'all layers' if whole else 'the backbone'}")
        return module

    def step_parts(
        self, module: nn.Module, num_classes: int, loader: Loader, device: torch.device, amp: Amp
    ) -> dict[str, Any]:
        assert isinstance(module, ObjectMapper)
        self._criterion = ObjectCriterion(self.settings.contrast, module)
        return {"loss": self._criterion}

    def record(self, names: Sequence[str] | None, loader: Loader) -> dict[str, Any]:
        assert self._criterion is not None
        borders = self._criterion.borders
        return {
            "model": self.settings.model,
            "objects": {**self.made_of.model_dump(), "shows": borders.shows, **borders.figures},
        }
