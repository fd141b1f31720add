"""The settings of a run that learns to map objects: those of training, without labels, with the published values."""

from typing import Any, Literal

from pydantic import Field, model_validator

from fasttrain.base.config import Settings
from fasttrain.training.published import OF_LABELS, refuse_unlabelled, with_published
from fasttrain.training.settings import TrainSettings

FEWEST_PLACES = 4  # along a side of a map: a border, and something within


class ContrastSettings(Settings):
    """What is compared, and how (see `fasttrain.training.objects.losses`).

    Attributes:
        alpha: how fast pairs of the same side count less, the less alike they are.
        area: weight of the mean of the map.
        least, most: cosines are taken to lie between.
    """

    alpha: float = Field(default=0.25, ge=0)
    area: float = Field(default=0.1, ge=0)
    least: float = Field(default=0.0005, gt=0, lt=1)
    most: float = Field(default=0.9995, gt=0, lt=1)

    @model_validator(mode="after")
    def _rising(self) -> "ContrastSettings":
        if self.least >= self.most:
            raise ValueError("contrast.least must be less than contrast.most")
        return self


# Those of C2AM as the NICO system ran it. Its optimizer was given the weight decay as momentum by mistake, and its head
# the rate of all else; here momentum is 0.9, and the head learns at ten times the rate, as was meant.
_DEFAULTS: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 32,
    "size": 448,
    "optimizer": {
        "name": "sgd",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "head_lr": 10.0,
        "options": {"nesterov": False},
    },
    "schedule": {"kind": "poly", "power": 0.9, "warmup_epochs": 0.0},
    "augment": {"scale": (0.8, 1.0)},
}


class ObjectSettings(TrainSettings):
    """Everything that determines a run: `TrainSettings`, where what is not given has the published values, and what
    needs labels is refused.

    Attributes:
        weights: file to start from: a classifier's or an encoder's for the backbone, or another mapper.
        size: side of the training crops in pixels.
        stride: see `fasttrain.models.objects.mapper.MapperSettings`.
        eval_size: pixels of the images' shorter side when masks are made; 0 for their own.
        contrast: the loss.
    """

    out: str = "runs/objects"
    stride: Literal[8, 16, 32] = 16
    eval_size: int = Field(default=0, ge=0)
    contrast: ContrastSettings = ContrastSettings()

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("size", 0) is None:
            values = {key: value for key, value in values.items() if key != "size"}
        return with_published(values, _DEFAULTS)

    @model_validator(mode="after")
    def _only_what_counts(self) -> "ObjectSettings":
        refuse_unlabelled(self, (*OF_LABELS, "drop_path_rate", "dynamic_img_size"), "mapping objects")
        if self.micro_batch is not None:
            raise ValueError("micro_batch would compare the images of a part alone; take a smaller batch_size")
        return self

    @model_validator(mode="after")
    def _maps_have_a_border(self) -> "ObjectSettings":
        assert self.size is not None
        sides = [self.size] if self.size_schedule is None else map(self.size_schedule, range(self.epochs))
        side = min(sides)
        if side < FEWEST_PLACES * self.stride:
            raise ValueError(
                f"crops of {side} pixels have maps of {side // self.stride} places a side at a stride of "
                f"{self.stride}; take crops of at least {FEWEST_PLACES * self.stride}"
            )
        return self
