"""The settings of pre-training: those of training, without labels, and with the published values of each method."""

from typing import Any, Literal

from pydantic import Field, model_validator

from fasttrain.base.config import Settings
from fasttrain.base.process import world_size
from fasttrain.loading.augment.mixing import Mixing
from fasttrain.training.schedule_settings import epochs_of
from fasttrain.training.settings import TrainSettings

_REFERENCE_BATCH = 256
_MOCO_RATE = 0.03
_MAE_RATE = 1.5e-4  # for a batch of 256
_WARMUP_EPOCHS, _WARMUP_SHARE = 40.0, 0.05  # of MAE: 40 of 800 epochs


class MocoSettings(Settings):
    """MoCo v2 (see `fasttrain.training.pretraining.contrastive`).

    Attributes:
        dim: length of queries and keys.
        queue: keys that a query is compared with; None for 65536, or for the largest power of 2 that is at most half of
            the samples: a queue that is longer than an epoch holds earlier keys of the same image.
        momentum: share of the second encoder that each step leaves.
        temperature: of the softmax over the keys.
        groups: parts of a process's batch that are normalised apart, for shuffle-BN; None for 1 where several processes
            deal samples among each other, else for 8 of at least 4 images.
    """

    dim: int = Field(default=128, ge=2)
    queue: int | None = Field(default=None, ge=1)
    momentum: float = Field(default=0.999, ge=0, lt=1)
    temperature: float = Field(default=0.2, gt=0)
    groups: int | None = Field(default=None, ge=1)


class MaeSettings(Settings):
    """Masked autoencoder (see `fasttrain.training.pretraining.masked`).

    Attributes:
        mask_ratio: share of the patches that are hidden.
        norm_pix: pixels are to be told after each patch was normalised.
        decoder_width, decoder_depth, decoder_heads: of the decoder.
    """

    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    norm_pix: bool = True
    decoder_width: int = Field(default=512, ge=4)
    decoder_depth: int = Field(default=8, ge=1)
    decoder_heads: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> "MaeSettings":
        if self.decoder_width % self.decoder_heads:
            raise ValueError(f"decoder_heads {self.decoder_heads} must divide decoder_width {self.decoder_width}")
        return self


# What the authors took. MoCo v2: its README, and "aug-plus"; MAE: PRETRAIN.md and appendix A.1.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "moco": {
        "model": "resnet50",
        "epochs": 200,
        "batch_size": 256,
        "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "options": {"nesterov": False}},
        "schedule": {"kind": "cosine", "warmup_epochs": 0.0},
        "augment": {
            "scale": (0.2, 1.0),
            "color_jitter": (0.4, 0.4, 0.4, 0.1),
            "jitter_prob": 0.8,
            "grey": 0.2,
            "blur": {"prob": 0.5, "sigma": (0.1, 2.0)},
        },
    },
    "mae": {
        "model": "vit_base_patch16_224",
        "epochs": 800,
        "batch_size": 256,
        "optimizer": {"name": "adamw", "betas": (0.9, 0.95), "weight_decay": 0.05},
        "schedule": {"kind": "cosine"},
        "augment": {"scale": (0.2, 1.0), "interpolation": "bicubic"},
    },
}
# Settings of training that labels, or whole images alone, give a meaning.
_IDLE = (
    *("val", "val_ids", "extra_val", "best", "init", "label_smoothing", "loss", "head", "batch_former", "distill"),
    *("sam_rho", "swa_start", "drop_rate", "co_teacher"),
)


class PretrainSettings(TrainSettings):
    """Everything that determines a run of pre-training: `TrainSettings`, where what is not given has the values that
    the method's authors took, and what needs labels is refused.

    The learning rate that is not given is 0.03 for MoCo, and for MAE 1.5e-4 for each 256 images of a step, over all
    processes. MAE warms up for 40 epochs, or a twentieth of the run if that is less.

    Attributes:
        method: ``moco`` (v2; also ``mocov2``) or ``mae``.
        moco, mae: what they have of their own.
    """

    method: Literal["moco", "mae"]
    out: str = "runs/pretrain"
    moco: MocoSettings = MocoSettings()
    mae: MaeSettings = MaeSettings()

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        method = {"mocov2": "moco"}.get(str(values.get("method")), values.get("method"))
        defaults = _DEFAULTS.get(str(method))
        if defaults is None:
            return values
        if _kind(values.get("optimizer")) not in (None, defaults["optimizer"]["name"]):
            defaults = {**defaults, "optimizer": {}}  # what an optimizer was given means nothing to another one
        length = epochs_of(_kind(values.get("schedule"), "kind") or "")
        if length is not None:
            defaults = {**defaults, "epochs": length}
        if _kind(values.get("schedule"), "kind") not in (None, defaults["schedule"]["kind"]):
            defaults = {**defaults, "schedule": {}}
        return _under({**values, "method": method}, defaults)

    @model_validator(mode="after")
    def _only_what_counts(self) -> "PretrainSettings":
        fields = type(self).model_fields
        other = "mae" if self.method == "moco" else "moco"
        mixing = [f"augment.{name}" for name in Mixing.model_fields if _differs(self.augment, name)]
        defaults = {name: fields[name].get_default(call_default_factory=True) for name in (*_IDLE, other)}
        idle = [name for name, default in defaults.items() if getattr(self, name) != default] + mixing
        if idle:
            raise ValueError(f"{idle[0]} means nothing to pre-training with {self.method}; leave it out")
        if self.method == "moco" and self.moco.groups is not None and 2 * self.moco.groups > self._together:
            raise ValueError(f"moco.groups {self.moco.groups} leaves less than 2 of {self._together} images a group")
        if self.method == "mae" and self.size_schedule is not None:
            raise ValueError("mae has positions for images of one size; leave size_schedule out")
        return self

    @property
    def groups(self) -> int:
        """Parts of a process's batch that MoCo normalises apart."""
        if self.moco.groups is not None:
            return self.moco.groups
        return 1 if world_size() > 1 else max(1, min(8, self._together // 4))

    @property
    def views(self) -> int:
        """Views of each sample that a step compares."""
        return 2 if self.method == "moco" else 1

    @property
    def _together(self) -> int:
        """Images that pass through the model at a time."""
        return min(self.batch_size, self.micro_batch or self.batch_size)

    def queue_for(self, samples: int) -> int:
        """Length of MoCo's queue, of an epoch of so many samples."""
        if self.moco.queue is not None:
            return self.moco.queue
        return max(1, min(65536, 1 << max(0, (samples // 2).bit_length() - 1)))

    def here(self) -> "PretrainSettings":
        """These settings with what they leave to the method: warm-up, and a learning rate for as many processes as
        there are."""
        optimizer, schedule = self.optimizer, self.schedule
        if optimizer.lr is None and optimizer.name == _DEFAULTS[self.method]["optimizer"]["name"]:
            images = self.batch_size * world_size()
            rate = _MOCO_RATE if self.method == "moco" else _MAE_RATE * images / _REFERENCE_BATCH
            optimizer = optimizer.model_copy(update={"lr": rate})
        if schedule.warmup_epochs is None and self.method == "mae":
            epochs = min(_WARMUP_EPOCHS, _WARMUP_SHARE * self.epochs)
            schedule = schedule.model_copy(update={"warmup_epochs": epochs})
        return self.model_copy(update={"optimizer": optimizer, "schedule": schedule})


def _kind(group: Any, key: str = "name") -> str | None:
    value = group.get(key) if isinstance(group, dict) else getattr(group, key, None)
    return None if value is None else str(value)


def _differs(settings: Settings, name: str) -> bool:
    return bool(getattr(settings, name) != type(settings).model_fields[name].default)


def _under(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`values`, and from `defaults` what they lack, group by group."""
    filled = dict(values)
    for key, default in defaults.items():
        if key not in filled:
            filled[key] = default
        elif isinstance(default, dict) and isinstance(filled[key], dict):
            filled[key] = _under(filled[key], default)
    return filled
