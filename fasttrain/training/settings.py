"""The settings of a training run. `fasttrain train` exposes the daily ones; ``--set a.b=c`` reaches all."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from fasttrain.base.config import Settings
from fasttrain.base.process import LOWEST_PRIORITY
from fasttrain.loading.augment.mixing import Mixing
from fasttrain.loading.augment.settings import Augment
from fasttrain.loading.per_epoch import EpochRule
from fasttrain.loading.views import Padding, Share
from fasttrain.models.batch_former import BatchFormerSettings
from fasttrain.models.heads import HeadSettings
from fasttrain.training.co_teacher.settings import CoTeacherSettings, co_teacher_conflict
from fasttrain.training.losses.settings import LossSettings, conflict
from fasttrain.training.mixing import mixing_conflict
from fasttrain.training.schedule_settings import LrWithBatch, ScheduleSettings, epochs_of


class OptimizerSettings(Settings):
    """The optimizer (`fasttrain train --list-optimizers`). What is None takes the optimizer's own default.

    Norms, biases, position tables and tokens are never decayed.

    Attributes:
        name: as listed; ``lookahead:NAME`` puts Lookahead around it.
        lr: peak learning rate.
        weight_decay: decoupled or L2, as the optimizer has it.
        betas, momentum, eps: for optimizers that have them.
        clip_norm: largest L2 norm of all gradients together; 0 leaves it to the optimizer (LAMB clips at 1).
        layer_decay: share of the learning rate from each layer to the one below it.
        head_lr: the classifier's multiple of the learning rate.
        bias_lr: the multiple for all other vectors: biases, and scales of normalisation layers.
        options: further arguments of the optimizer, by name.
    """

    name: str = "adamw"
    lr: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    betas: tuple[float, ...] | None = None
    momentum: float | None = Field(default=None, ge=0, lt=1)
    eps: float | None = Field(default=None, gt=0)
    clip_norm: float = Field(default=0.0, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    head_lr: float = Field(default=1.0, gt=0)
    bias_lr: float = Field(default=1.0, gt=0)
    options: dict[str, Any] = Field(default_factory=dict)


class AugmentSettings(Mixing, Augment):
    """The train view: RandomResizedCrop, flips, translation, jitter (see `fasttrain.loading.views.TrainView`), what is
    done to it besides (see `Augment`), and how the images of a batch are mixed (see `Mixing`)."""

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: Share | Literal["alternating"] = 0.5
    vflip: Share = 0.0
    translate: int = Field(default=0, ge=0)
    padding: Padding = "reflect"
    color_jitter: float | tuple[float, ...] = 0.0
    jitter_prob: Share = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def of_view(self) -> dict[str, Any]:
        """What `train_view` takes."""
        values = self.model_dump()
        inner = {name: values.pop(name) for name in Augment.model_fields}
        return {**{name: value for name, value in values.items() if name not in Mixing.model_fields}, "augment": inner}


class SamplingSettings(Settings):
    """Which samples an epoch goes through, and in which order (see `fasttrain.loading.order.Sampling`).

    Attributes:
        order: ``random``, or ``windowed`` for files that do not fit into memory, then `window` pages at a time; None
            for random, unless the memory budget asks for windows.
        rest: samples too few for another global batch are left out (``drop``), or filled up (``wrap``).
        class_balance: 0 takes classes as frequent as they are, 1 makes them equally frequent.
        weights: field of the `.beton` that says how often each sample is drawn.
        draws: length of an epoch in samples; None for as many as there are.
    """

    order: Literal["random", "windowed"] | None = None
    window: int = Field(default=64, ge=1)
    rest: Literal["drop", "wrap"] = "drop"
    class_balance: float = Field(default=0.0, ge=0, le=1)
    weights: str | None = None
    draws: int | None = Field(default=None, ge=1)


class DdpSettings(Settings):
    """How several processes bring their gradients together.

    Attributes:
        static_graph: the model calls the same parts in every step, which DDP then relies on.
        compression: gradients are sent as bfloat16, half of their bytes.
    """

    static_graph: bool = False
    compression: Literal["none", "bf16"] = "none"


class DistillSettings(Settings):
    """A teacher whose scores are learned beside the labels (see `fasttrain.training.distillation`).

    Attributes:
        teacher: a checkpoint or run folder, which sees the student's own views, or a score table (``.arrow``) of the
            training samples; None for none.
        weight: of the teacher's part in the loss; the labels have the rest.
        temperature: of both softmaxes in that part.
    """

    teacher: str | None = None
    weight: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0)


class RunSettings(Settings):
    """What determines a run, whatever it learns.

    Attributes:
        data: `.beton` file(s), folder or list to train on.
        val: the same to validate on after each epoch, or None.
        extra_val: further validation data by name; each has its own figures (``val_NAME_top1``), and their top-1 a mean
            (``val_mean_top1``).
        best: which epoch's weights are kept as the best: the one with the highest value of this expression of an
            epoch's figures, and of its number ``epoch`` from 0 on (see `BestRule`); None for ``val_top1``, or
            ``val_mean_top1`` without `val`.
        ids, val_ids: files of ids, one a line or a table's column; only these samples are taken.
        out: the run's folder.
        weights: file to start from; its head is replaced if the classes differ in number.
        weights_match: join its tensors by ``name`` or by ``order``.
        pretrained: start from timm's own weights (needs its hub).
        epochs, batch_size: the batch size is per process.
        size_schedule: the side in training, where it changes: the value from each epoch on (``{0: 224, 60: 448}``, the
            first epoch being 0), or a ramp (``{kind: ramp, from: 160, to: 192, start: 0, end: 35}``, see
            `fasttrain.loading.per_epoch`). Evaluation stays at `size`.
        batch_schedule: the same for the batch size in training; validation stays at `batch_size`.
        lr_with_batch: the learning rates are for the batch size of the first epoch; in epochs with another one they
            stay (``none``), or change in proportion to it (``linear``) or to its square root (``sqrt``).
        seed: of weights, order and augmentation.
        device: ``cpu``, ``cuda`` or None for the best one there is.
        amp: ``auto`` is bf16 on CUDA and off on CPU.
        channels_last: memory format of the model.
        tf32: float32 products and convolutions of a GPU may round their factors to 10 bits, several times as fast.
        compile: mode of torch.compile, which takes a minute or more at the start. It compiles the model; loss, clipping
            and optimizer stay outside. ``reduce-overhead`` and ``max-autotune`` replay the model's passes as CUDA
            graphs, whose gradients cannot be added up (torch issue 169545), so not with `micro_batch`.
        winograd: convolutions of 3 x 3 on a CPU in float32 may go by Winograd's way, with fewer operations. ``auto``
            takes those that should gain by it, by their shapes; shell patterns of their names (``layer1.*``) choose;
            ``off``.
        micro_batch: images that pass through the model at a time, where a batch is too large for the memory.
        grad_checkpointing: compute activations anew in the backward pass: less memory, a third more time.
        freeze: shell patterns of parameter names that do not learn (``stem.*``).
        sam_rho: radius of sharpness-aware minimisation, which takes two passes a step; 0 turns it off.
        ema: decay of the weights' moving average; 0 turns it off. Its weights are validated and kept.
        ema_buffers: statistics of normalisation layers are averaged like weights, or taken as they are (``copy``).
        swa_start: from this epoch on (the first is 1), the weights at the end of each epoch are averaged; the mean, its
            normalisation statistics estimated anew, is kept as ``swa.safetensors``. None: not.
        threads: decoding threads; None divides the available cores among the ranks.
        loader_nice: how much lower their priority is than the model's, 0 to 19 (see `Loader`); None for the default.
        model_threads: torch's threads for an operation on the CPU; None for ``OMP_NUM_THREADS``, or else the cores,
            divided likewise.
        memory_budget: memory of the machine for training images, as ``8GB`` or ``auto``; None: the page cache, as it
            comes.
        resident: ``gpu`` keeps all training images, decoded, in each GPU's memory.
        backend, decode, index: of the loader (see `fasttrain.loading.loader.Loader`); with ``ffcv`` validation takes
            ``auto``.
        on_error: a broken image ends the run (``raise``) or is left out of its batch and reported (``skip``).
        trackers: ``wandb`` and ``mlflow`` get each epoch's figures, besides ``metrics.jsonl`` and TensorBoard.
        keep_last: the weights of so many last epochs are kept as well, as ``epoch_0007.safetensors``, for
            ``fasttrain soup --run``.
        checkpoint_minutes: the state is saved this often within an epoch, besides after each; 0: only after each.
    """

    data: str | list[str]
    val: str | list[str] | None = None
    extra_val: dict[str, str | list[str]] = Field(default_factory=dict)
    best: str | None = None
    ids: str | None = None
    val_ids: str | None = None
    model: str = "resnet50"
    out: str = "runs/train"
    weights: str | None = None
    weights_match: Literal["name", "order"] = "name"
    pretrained: bool = False
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=64, ge=1)
    size_schedule: EpochRule | None = None
    batch_schedule: EpochRule | None = None
    lr_with_batch: LrWithBatch = "none"
    seed: int = Field(default=0, ge=0)
    device: str | None = None
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    tf32: bool = True
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    winograd: Literal["auto", "off"] | tuple[str, ...] = "auto"
    micro_batch: int | None = Field(default=None, ge=1)
    grad_checkpointing: bool = False
    freeze: tuple[str, ...] = ()
    sam_rho: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    ema_buffers: Literal["average", "copy"] = "average"
    swa_start: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    loader_nice: int | None = Field(default=None, ge=0, le=LOWEST_PRIORITY)
    model_threads: int | None = Field(default=None, ge=1)
    memory_budget: int | str | None = None
    resident: Literal["gpu"] | None = None
    backend: str = "auto"
    decode: Literal["exact", "fast"] = "exact"
    index: bool = True
    on_error: Literal["raise", "skip"] = "raise"
    trackers: tuple[Literal["wandb", "mlflow"], ...] = ()
    keep_last: int = Field(default=0, ge=0)
    checkpoint_minutes: float = Field(default=10.0, ge=0)
    ddp: DdpSettings = DdpSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()

    @field_validator("winograd", mode="before")
    @classmethod
    def _off_in_yaml(cls, value: Any) -> Any:
        """YAML reads ``off`` as false."""
        return "off" if value is False else value

    @model_validator(mode="before")
    @classmethod
    def _length_of_the_schedule(cls, values: Any) -> Any:
        """A schedule that states the run's length sets it."""
        schedule = values.get("schedule") if isinstance(values, dict) else None
        kind = schedule.get("kind") if isinstance(schedule, dict) else getattr(schedule, "kind", None)
        length = epochs_of(kind) if isinstance(kind, str) else None
        if length is None:
            return values
        if values.get("epochs", length) != length:
            raise ValueError(f"schedule {kind} is {length} epochs long; leave out --epochs, or take another schedule")
        return {**values, "epochs": length}

    @model_validator(mode="after")
    def _swa_begins_in_the_run(self) -> "RunSettings":
        if self.swa_start is not None and self.swa_start > self.epochs:
            raise ValueError(f"swa_start {self.swa_start} lies behind the last of {self.epochs} epochs")
        return self

    @model_validator(mode="after")
    def _schedules_lie_in_the_run(self) -> "RunSettings":
        for name, rule in (("size_schedule", self.size_schedule), ("batch_schedule", self.batch_schedule)):
            if rule is not None and rule.last_epoch >= self.epochs:
                raise ValueError(
                    f"{name} speaks of epoch {rule.last_epoch}, but the last of {self.epochs}, counted from 0, is "
                    f"{self.epochs - 1}"
                )
        if self.lr_with_batch != "none" and self.batch_schedule is None:
            raise ValueError("lr_with_batch says how the learning rate follows batch_schedule, which is not given")
        return self

    @model_validator(mode="after")
    def _replayed_gradients_are_not_added_up(self) -> "RunSettings":
        if self.batch_schedule is None:
            largest = self.batch_size
        else:
            largest = max(map(self.batch_schedule, range(self.epochs)))
        parts = self.micro_batch is not None and self.micro_batch < largest
        if parts and self.compile in ("reduce-overhead", "max-autotune"):
            raise ValueError(
                f"compile {self.compile} replays CUDA graphs, which overwrite the gradients that micro_batch adds up; "
                "with micro_batch take compile=default"
            )
        return self

    @field_validator("extra_val")
    @classmethod
    def _plain_names(cls, sets: dict[str, Any]) -> dict[str, Any]:
        for name in sets:
            if not name.isidentifier() or name == "mean":
                raise ValueError(f"{name!r} cannot name a data set; use letters, digits and _")
        return sets

    @field_validator("pretrained")
    @classmethod
    def _one_source_of_weights(cls, pretrained: bool, info: object) -> bool:
        if pretrained and getattr(info, "data", {}).get("weights"):
            raise ValueError("--weights and --pretrained exclude each other")
        return pretrained


class TrainSettings(RunSettings):
    """Everything that determines the run of a classifier.

    Attributes:
        model: timm's name.
        init: what a model without weights starts from: random weights (``default``), or those with a first convolution
            that whitens patches of the training images (see `fasttrain.models.whitening`); ``freeze`` may keep it.
        size: image side in pixels for training and evaluation; None takes the model's own.
        dynamic_img_size: timm's option of models made for one size, ViTs and others, with which they take any.
        label_smoothing: share of the target spread over all classes.
        drop_rate, drop_path_rate: dropout before the head, stochastic depth.
        co_teacher: a moving average that learns beside the model, for domains that are not there yet (see
            `fasttrain.training.co_teacher`); each step takes twice `batch_size` images then, in two versions each.
    """

    init: Literal["default", "whitening"] = "default"
    size: int | None = Field(default=None, ge=1)
    dynamic_img_size: bool = False
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    drop_rate: float = Field(default=0.0, ge=0, lt=1)
    drop_path_rate: float = Field(default=0.0, ge=0, lt=1)
    loss: LossSettings = LossSettings()
    head: HeadSettings = HeadSettings()
    batch_former: BatchFormerSettings = BatchFormerSettings()
    sampling: SamplingSettings = SamplingSettings()
    distill: DistillSettings = DistillSettings()
    co_teacher: CoTeacherSettings = CoTeacherSettings()
    augment: AugmentSettings = AugmentSettings()

    @model_validator(mode="after")
    def _one_start(self) -> "TrainSettings":
        if self.init != "default" and (self.weights or self.pretrained):
            raise ValueError(f"init {self.init} is for models that start without weights; leave out one of the two")
        return self

    @model_validator(mode="after")
    def _loss_fits(self) -> "TrainSettings":
        problem = conflict(self) or mixing_conflict(self) or co_teacher_conflict(self)
        if problem is not None:
            raise ValueError(problem)
        return self
