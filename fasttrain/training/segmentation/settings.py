"""The settings of a segmentation run. `fasttrain segment train` exposes the daily ones; ``--set a.b=c`` reaches all."""

from typing import Any, Literal

from pydantic import Field, model_validator

from fasttrain.base.config import Settings
from fasttrain.inference.segmentation.scores import ViewSettings
from fasttrain.loading.augment.settings import Augment
from fasttrain.loading.segmentation_views import Positive
from fasttrain.loading.views import Share
from fasttrain.models.segmentation.settings import SegmenterSettings
from fasttrain.training.schedule_settings import ScheduleSettings
from fasttrain.training.segmentation.losses import SegmentationLossSettings
from fasttrain.training.settings import OptimizerSettings, RunSettings


class SegmentAugmentSettings(Augment):
    """The train view (see `fasttrain.loading.segmentation_views.SegmentationView`), and what is done to it besides."""

    scale: tuple[Positive, Positive] = (0.5, 2.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    short: int = Field(default=0, ge=0)
    cat_max_ratio: Share = 0.75
    tries: int = Field(default=10, ge=1, le=100)
    min_focus: int = Field(default=0, ge=0)
    hflip: Share | Literal["alternating"] = 0.5
    vflip: Share = 0.0
    color_jitter: float | tuple[float, ...] = 0.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def of_view(self) -> dict[str, Any]:
        """What `segmentation_view` takes."""
        values = self.model_dump()
        inner = {name: values.pop(name) for name in Augment.model_fields}
        return {**values, "augment": inner}


class RareSettings(Settings):
    """Rare class sampling, where `temperature` is given (DAFormer: 0.01); see
    `fasttrain.loading.rare_classes.RareClasses`."""

    temperature: float | None = Field(default=None, gt=0)
    min_pixels: int = Field(default=3000, ge=1)

    @model_validator(mode="after")
    def _all_of_it_counts(self) -> "RareSettings":
        if self.temperature is None and self.min_pixels != 3000:
            raise ValueError("min_pixels belongs to rare class sampling; give its temperature (0.01), or leave it out")
        return self


class SegmentSamplingSettings(Settings):
    """Which samples an epoch goes through, and in which order (see `fasttrain.loading.order.Sampling`).

    Attributes:
        order, window, rest, draws: as in `fasttrain.training.settings.SamplingSettings`.
        rare: images are drawn for the classes of their pixels.
    """

    order: Literal["random", "windowed"] | None = None
    window: int = Field(default=64, ge=1)
    rest: Literal["drop", "wrap"] = "drop"
    draws: int | None = Field(default=None, ge=1)
    rare: RareSettings = RareSettings()


class SegmentSettings(RunSettings, SegmenterSettings):
    """Everything that determines a segmentation run. What the model is made of: see `SegmenterSettings`.

    Attributes:
        weights: file to start from: a classifier's for the backbone, or a segmentation checkpoint.
        batch_size: images per process.
        iterations: length of the run in steps, instead of epochs. It is taken in stretches of `interval` steps, each
            validated and recorded as an epoch; its images are drawn, each as often as the others (within one).
        interval: steps between two validations; None for a tenth of `iterations`.
        warmup_iterations: length of the linear rise of the learning rate, instead of `schedule.warmup_epochs`.
        size: side of the training crops in pixels.
        eval_size: pixels that the shorter side has in evaluation and prediction; 0 for the images' own. `augment.short`
            is the same for training, before the random scale.
        evaluation: how validation images are shown to the model.
    """

    batch_size: int = Field(default=8, ge=1)
    iterations: int | None = Field(default=None, ge=1)
    interval: int | None = Field(default=None, ge=1)
    warmup_iterations: int | None = Field(default=None, ge=0)
    size: int = Field(default=512, ge=1)
    eval_size: int = Field(default=0, ge=0)
    loss: SegmentationLossSettings = SegmentationLossSettings()
    sampling: SegmentSamplingSettings = SegmentSamplingSettings()
    augment: SegmentAugmentSettings = SegmentAugmentSettings()
    evaluation: ViewSettings = ViewSettings()
    optimizer: OptimizerSettings = OptimizerSettings(lr=6e-5, weight_decay=0.01, head_lr=10.0)
    schedule: ScheduleSettings = ScheduleSettings(kind="poly", power=1.0)

    @property
    def segmenter(self) -> SegmenterSettings:
        """What the model is made of."""
        return SegmenterSettings(**{name: getattr(self, name) for name in SegmenterSettings.model_fields})

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_groups(cls, values: Any) -> Any:
        """A group of which a part is given keeps our defaults for the rest."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for name in ("optimizer", "schedule"):
            given = values.get(name)
            if not isinstance(given, dict):
                continue
            ours = cls.model_fields[name].default.model_dump(exclude_defaults=True)
            other = given.get("name" if name == "optimizer" else "kind")
            if other is not None and other != {"optimizer": "adamw", "schedule": "poly"}[name]:
                ours = {"head_lr": ours["head_lr"]} if name == "optimizer" else {}
            values[name] = {**ours, **given}
        return values

    @model_validator(mode="before")
    @classmethod
    def _iterations_are_epochs(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(steps := values.get("iterations"), int):
            return values
        interval = values.get("interval") or max(1, steps // 10)
        if not isinstance(interval, int) or steps < 1 or interval < 1:
            return values  # which the fields themselves say
        if steps % interval:
            raise ValueError(f"{steps} iterations are no multiple of the interval of {interval}; change one of them")
        if values.get("epochs", steps // interval) != steps // interval:
            raise ValueError("iterations and epochs both say how long the run is; leave one out")
        values = {**values, "interval": interval, "epochs": steps // interval}
        warmup, schedule = values.get("warmup_iterations"), values.get("schedule", {})
        if not isinstance(warmup, int) or not isinstance(schedule, dict):
            return values
        epochs = warmup / interval
        if schedule.get("warmup_epochs", epochs) != epochs:
            raise ValueError("warmup_iterations and schedule.warmup_epochs both say how long it is; leave one out")
        return {**values, "schedule": {**schedule, "warmup_epochs": epochs}}

    @model_validator(mode="after")
    def _lengths_fit(self) -> "SegmentSettings":
        if self.iterations is None and (self.interval is not None or self.warmup_iterations is not None):
            name = "interval" if self.interval is not None else "warmup_iterations"
            raise ValueError(f"{name} belongs to a run whose length is given as iterations")
        if self.iterations is not None and self.sampling.draws is not None:
            raise ValueError("iterations say how many samples are drawn; leave sampling.draws out")
        if self.iterations is not None and self.batch_schedule is not None:
            raise ValueError("iterations are of one batch size; give epochs instead, or leave batch_schedule out")
        return self

    @model_validator(mode="after")
    def _validation_is_of_one_scale(self) -> "SegmentSettings":
        if self.evaluation.scales != (1.0,):
            raise ValueError("evaluation.scales is for `segment evaluate` and `predict`; validation takes one scale")
        return self
