"""Adaptation as a task of the training loop: a segmentation run whose batches have a target beside the source."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import nn

from fasttrain.base.config import nearest_name
from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import is_main
from fasttrain.inference.forward import Amp
from fasttrain.inference.segmentation.classes import mask_names
from fasttrain.loading.loader import Loader
from fasttrain.loading.order import Sampling
from fasttrain.models.segmentation import Segmenter
from fasttrain.training.adaptation.pairs import PairedLoader
from fasttrain.training.adaptation.pictures import Pictures
from fasttrain.training.adaptation.settings import AdaptationSettings
from fasttrain.training.adaptation.stepper import AdaptationStepper, WithFeatures
from fasttrain.training.adaptation.strong import StrongAugmentation
from fasttrain.training.segmentation.settings import SegmentSettings
from fasttrain.training.segmentation.task import Segmentation

PICTURES = "pictures"


class AdaptSettings(SegmentSettings):
    """Everything that determines an adaptation: a segmentation run on the source, and what is done with the target.

    Attributes:
        target: `.beton` file(s), folder or list of images; no labels of theirs are read, nor have to be there.
        target_ids: file of ids; only these images are taken.
        adaptation: how.
    """

    target: str | list[str]
    target_ids: str | None = None
    adaptation: AdaptationSettings = Field(default=AdaptationSettings())

    @model_validator(mode="after")
    def _a_step_is_of_one_kind(self) -> "AdaptSettings":
        unfit = {
            "ema": (self.ema > 0, "the teacher is a moving average itself, see adaptation.alpha"),
            "swa_start": (self.swa_start is not None, "the teacher is an average itself, see adaptation.alpha"),
            "sam_rho": (self.sam_rho > 0, "a step has two backward passes of its own"),
            "micro_batch": (self.micro_batch is not None, "take a smaller batch_size"),
            "loss.dice": (self.loss.dice > 0, "it cannot weigh the pixels of mixed images"),
            "ddp.static_graph": (self.ddp.static_graph, "a step calls the model twice"),
            "resident": (self.resident is not None, "it is for one data set"),
        }
        for name, (given, why) in unfit.items():
            if given:
                raise ValueError(f"{name} does not go with adaptation: {why}; leave it out")
        return self


class Adaptation(Segmentation):
    """Masks of a target that nobody has labelled."""

    settings: AdaptSettings
    stepper = AdaptationStepper

    def batches(self, loader: Loader, open_loader: Callable[..., Loader]) -> Any:
        """Source and target side by side. The target's crops are made as the source's, but that no labels choose."""
        settings = self.settings
        view = self.train_view().model_copy(update={"cat_max_ratio": 1.0, "min_focus": 0})
        try:
            beside = open_loader(
                settings.target,
                settings.target_ids,
                view=view,
                sampling=Sampling(draws=loader.num_samples),
                masks="extent",
            )
        except BaseException:
            loader.close()
            raise
        return PairedLoader(loader, beside)

    def make_model(self, num_classes: int, loader: Loader, begins: bool) -> nn.Module:
        settings = self.settings
        random = settings.weights is None and not settings.pretrained
        if settings.adaptation.feature_distance.weight and random and is_main():
            say("the distance of features is one from random weights; give --weights, or pretrained=true")
        # A run that goes on has to know the weights that it began with: features are compared with theirs.
        return super().make_model(num_classes, loader, True)

    def trained(self, module: nn.Module) -> nn.Module:
        """The model as steps call it."""
        assert isinstance(module, Segmenter)
        return WithFeatures(module)

    def step_parts(
        self, module: nn.Module, num_classes: int, loader: Loader, device: torch.device, amp: Amp
    ) -> dict[str, Any]:
        settings, adaptation, view = self.settings, self.settings.adaptation, self.eval_view
        things = class_numbers(adaptation.feature_distance.classes, mask_names(loader.dataset), num_classes)
        info = loader.dataset.masks
        assert info is not None
        pictures = Pictures(Path(settings.out) / PICTURES, info, view.mean, view.std)
        return {
            **super().step_parts(module, num_classes, loader, device, amp),
            "settings": adaptation,
            "things": things,
            "strong": StrongAugmentation(adaptation.strong, settings.seed, view.mean, view.std),
            "show": pictures if is_main() and adaptation.pictures else None,
        }


def class_numbers(wanted: Sequence[str | int] | None, names: Sequence[str] | None, num_classes: int) -> list[int]:
    """Numbers of classes that are given by name or number; all of them for None.

    Raises:
        ConfigError: one is no class.
    """
    if wanted is None:
        return list(range(num_classes))
    found = []
    for entry in wanted:
        if isinstance(entry, int) and 0 <= entry < num_classes:
            found.append(entry)
        elif isinstance(entry, str) and names is not None and entry in names:
            found.append(list(names).index(entry))
        else:
            hint = nearest_name(str(entry), list(names)) if names is not None else f"there are {num_classes}, unnamed"
            raise ConfigError(f"adaptation.feature_distance.classes: {entry!r} is no class of the masks; {hint}")
    return found
