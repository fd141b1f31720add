"""Heads: what a model ends in instead of timm's linear classifier, and what is done to features in training alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from fasttrain.base.config import Settings, refuse_idle
from fasttrain.base.errors import ConfigError
from fasttrain.models.batch_former import BatchFormer, BatchFormerSettings

_IN_TRAINING = "in_training"


class HeadSettings(Settings):
    """What a model ends in. A checkpoint stores it, so that its model can be made again.

    Attributes:
        kind: ``linear`` is timm's own classifier; ``cosine`` gives scaled cosines between features and a direction of
            each class; ``arcface`` is the same with a margin in training (see `fasttrain.training.losses.margins`).
        scale: of the cosines.
        centres: directions of each class, of which the nearest counts (Deng et al., "Sub-center ArcFace", ECCV 2020).
        margin: angle in radians that the true class has to be ahead by.
        adaptive: rarer classes have larger margins, between the two of `margin_range`, instead of `margin`.
        easy_margin: the margin only counts for angles below 90 degrees.
        dropout_samples: features are dropped in so many ways for each image, and the losses averaged (Inoue,
            "Multi-Sample Dropout", arXiv 1905.09788).
        dropout_rate: of these; a model's own ``drop_rate`` comes before them.
    """

    kind: Literal["linear", "cosine", "arcface"] = "linear"
    scale: float = Field(default=30.0, gt=0)
    centres: int = Field(default=1, ge=1)
    margin: float = Field(default=0.5, ge=0, lt=3.14)
    adaptive: bool = False
    margin_range: tuple[float, float] = (0.05, 0.5)
    easy_margin: bool = False
    dropout_samples: int = Field(default=1, ge=1)
    dropout_rate: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _all_of_it_counts(self) -> "HeadSettings":
        used = {"kind", "dropout_samples"}
        used |= {"dropout_rate"} if self.dropout_samples > 1 else set()
        used |= {"scale", "centres"} if self.kind != "linear" else set()
        used |= {"adaptive", "easy_margin"} if self.kind == "arcface" else set()
        used |= {"margin_range" if self.adaptive else "margin"} if self.kind == "arcface" else set()
        refuse_idle(self, used, f"head {self.kind}" + (" with adaptive margins" if self.adaptive else ""))
        least, most = self.margin_range
        if not 0 <= least <= most < 3.14:
            raise ValueError("margin_range must be two rising angles between 0 and pi")
        return self


class CosineHead(nn.Module):
    """Scaled cosines ``s cos(x, w_c)``; of several directions of a class the largest counts.

    In float32, whatever autocast says: in bfloat16 a cosine near 1 would be off by more than a small margin.

    Args:
        features: D, the length of an image's features.
        classes: C.
    """

    in_training: "InTraining | None"

    def __init__(self, features: int, classes: int, scale: float, centres: int) -> None:
        super().__init__()
        self.in_features, self.out_features = features, classes
        self.scale, self.centres = scale, centres
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes * centres, features)))
        self.in_training = None

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) to (B, C) float32; centre k of class c lies in row ``c * centres + k`` of the weights."""
        features = _expanded(self, features)
        kind = features.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self._cosines(features)
        return self._cosines(features)

    def _cosines(self, features: Tensor) -> Tensor:
        cosines = F.linear(F.normalize(features.float()), F.normalize(self.weight.float()))
        if self.centres > 1:
            cosines = cosines.unflatten(1, (self.out_features, self.centres)).amax(2)
        return self.scale * cosines


class LinearHead(nn.Module):
    """timm's own classifier, a linear layer or a convolution of one pixel, with room for what is done in training.

    Its parameters have the names and shapes that they had, so that its weights are those of the plain model.
    """

    in_training: "InTraining | None"

    def __init__(self, classifier: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.in_features, self.out_features = _widths(classifier)
        self.weight, self.bias = classifier.weight, classifier.bias
        self.in_training = None

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) or (B, D, 1, 1) to (B, C)."""
        return F.linear(_expanded(self, features), self.weight.flatten(1), self.bias)


class InTraining(nn.Module):
    """What a head does to the features in training: (B, D) to (K * B, D), one block of B rows after the other.

    The head gives K rows of logits for each image then, and the loss of an image is the mean over them. The first block
    is that of the features themselves (dropped, with several samples of dropout).
    """

    def __init__(self, batch_former: BatchFormer | None, samples: int, rate: float) -> None:
        super().__init__()
        self.batch_former, self.samples, self.rate = batch_former, samples, rate

    def forward(self, features: Tensor) -> Tensor:
        if self.batch_former is not None:  # the two share the classifier, so that the encoder can be left out later
            features = torch.cat([features, self.batch_former(features)])
        if self.samples > 1:
            features = torch.cat([F.dropout(features, self.rate) for _ in range(self.samples)])
        return features


def _expanded(head: CosineHead | LinearHead, features: Tensor) -> Tensor:
    features = features.flatten(1)
    return head.in_training(features) if head.training and head.in_training is not None else features


def put_head(model: nn.Module, settings: HeadSettings) -> None:
    """Replace a timm model's classifier by a fresh head, in place; the linear one is timm's own and stays.

    Raises:
        ConfigError: the model has not the one linear classifier that a head could replace.
    """
    if settings.kind == "linear":
        return
    name, classifier = _classifier(model, f"head {settings.kind}")
    features, classes = _widths(classifier)
    head = CosineHead(features, classes, settings.scale, settings.centres).to(classifier.weight.device)
    model.set_submodule(name, head)


def add_training_parts(model: nn.Module, head: HeadSettings, former: BatchFormerSettings) -> None:
    """Give a model's head what it does in training alone: BatchFormer, several samples of dropout.

    Raises:
        ConfigError: the model has not one linear classifier, or its features do not suit the encoder.
    """
    if former.layers == 0 and head.dropout_samples == 1:
        return
    name, classifier = _classifier(model, "batch_former" if former.layers else "head.dropout_samples")
    replaced = classifier if isinstance(classifier, CosineHead) else LinearHead(classifier)
    model.set_submodule(name, replaced)
    encoder = BatchFormer(replaced.in_features, former) if former.layers else None
    replaced.in_training = InTraining(encoder, head.dropout_samples, head.dropout_rate)


def kept_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model without what it needs in training alone."""
    return {key: value for key, value in model.state_dict().items() if _IN_TRAINING not in key.split(".")}


@contextmanager
def alone(model: nn.Module) -> Iterator[None]:
    """Inside, this rank's forward passes do not wait for other ranks."""
    together = [module for module in model.modules() if hasattr(module, "across_ranks")]
    before = [module.across_ranks for module in together]
    for module in together:
        module.across_ranks = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, across in zip(together, before, strict=True):
            module.across_ranks = across


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that hold the classifier's weights, as timm records them (``fc``, ``head.fc``, …)."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier", ())
    return (names,) if isinstance(names, str) else tuple(names or ())


def _classifier(model: nn.Module, wanted: str) -> tuple[str, nn.Linear | nn.Conv2d | CosineHead]:
    names = classifier_names(model)
    modules = [model.get_submodule(name) for name in names]
    if len(modules) == 1:
        found_one = modules[0]
        if isinstance(found_one, nn.Linear | CosineHead):
            return names[0], found_one
        if isinstance(found_one, nn.Conv2d) and found_one.kernel_size == (1, 1):
            return names[0], found_one
    found = f"{len(names)} classifiers" if len(names) != 1 else f"a {type(modules[0]).__name__} as its classifier"
    raise ConfigError(f"{wanted} needs a model with one linear classifier, and {type(model).__name__} has {found}")


def _widths(classifier: nn.Linear | nn.Conv2d | CosineHead) -> tuple[int, int]:
    if isinstance(classifier, nn.Conv2d):
        return classifier.in_channels, classifier.out_channels
    return classifier.in_features, classifier.out_features
