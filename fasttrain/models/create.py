"""timm models by name, and the eval view that a model was made for."""

import difflib
from typing import Any

import timm
from torch import nn

from fasttrain.base.errors import WeightsError
from fasttrain.loading.views import EvalView, eval_view
from fasttrain.models import airbench as airbench  # which tells timm of its models
from fasttrain.models import small_images as small_images
from fasttrain.models.heads import CosineHead, HeadSettings, classifier_names, put_head

IMAGENET_OUTPUTS = 1000


def list_models(pattern: str = "") -> list[str]:
    """Names of the models that `create_model` knows, those that match a wildcard `pattern` if one is given."""
    return timm.list_models(pattern)


def create_model(
    name: str, num_classes: int, *, size: int | None = None, head: HeadSettings | None = None, **options: Any
) -> nn.Module:
    """Build a timm model with a fresh head of `num_classes` outputs.

    Args:
        name: timm's name, as `list_models` gives it.
        num_classes: outputs of the classifier.
        size: image side in pixels that the model will see; only models of a fixed size (ViTs) are built differently.
        head: what it ends in; None for timm's own classifier.
        options: passed on to ``timm.create_model`` (``drop_rate``, ``drop_path_rate``, ``pretrained``, …).

    Raises:
        WeightsError: timm has no such model (the message names the nearest ones), or refuses an option.
        ConfigError: the head does not suit the model.
    """
    config = _pretrained_config(name)
    if size is not None and config.get("fixed_input_size") and size != config["input_size"][-1]:
        options["img_size"] = size
    try:
        model: nn.Module = timm.create_model(name, num_classes=num_classes, **options)
    except (TypeError, RuntimeError, OSError, ValueError) as error:
        raise WeightsError(f"timm cannot create {name!r} with {options or 'its defaults'}: {error}") from error
    if head is not None:
        put_head(model, head)
    return model


def zero_head(model: nn.Module) -> None:
    """Set the classifier's weights and biases to 0, the start of a fresh head on trained features.

    All classes begin equally likely (loss ln C), so that the first steps do not push the noise of a random head into
    the features (Kolesnikov et al., "Big Transfer", ECCV 2020). The head itself learns from the first step on.
    Directions, of which cosines are taken, have no zero; they stay as they are.
    """
    for name in classifier_names(model):
        classifier = model.get_submodule(name)
        if not isinstance(classifier, CosineHead):
            for parameter in classifier.parameters():
                nn.init.zeros_(parameter)


def has_own_head(name: str, num_classes: int) -> bool:
    """Whether timm's weights of a model come with a head of `num_classes`, which is kept then."""
    return _pretrained_config(name).get("num_classes") == num_classes


def eval_view_of(name: str, size: int | None = None) -> EvalView:
    """The eval view that timm states for a model (crop share, filter, mean, std), at `size` pixels if given."""
    config = timm.data.resolve_data_config({}, pretrained_cfg=_pretrained_config(name))
    return eval_view(
        size or config["input_size"][-1],
        crop_pct=min(config["crop_pct"], 1.0),  # VOLO's 1.15 would show black borders
        crop_mode="squash" if config["crop_mode"] == "squash" else "center",
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def known_model(name: str, otherwise: str = "`fasttrain train --list-models` names them") -> None:
    """Refuse a name that timm does not know.

    Args:
        otherwise: what to say where no name is like it.

    Raises:
        WeightsError: naming the nearest ones.
    """
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else otherwise
        raise WeightsError(f"timm has no model named {name!r}; {hint}")


def _pretrained_config(name: str) -> dict[str, Any]:
    """timm's record of a model's weights; {} for a model that has none."""
    known_model(name)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return config.to_dict() if config is not None else {}
