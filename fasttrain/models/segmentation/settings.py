"""What a segmentation model is made of. A checkpoint stores it, so that its model can be made again."""

from typing import Any

from pydantic import Field, model_validator

from fasttrain.base.config import Settings

SMP = "smp:"
DEFAULT_ENCODER = "resnet34"


class SegmenterSettings(Settings):
    """A backbone and what is put on it.

    Attributes:
        model: timm's name of a backbone, that a `DAFormerHead` is put on; or ``smp:unet``, ``smp:fpn``,
            ``smp:deeplabv3plus``, …: an architecture of segmentation-models-pytorch, with `encoder`.
        encoder: timm's name of the backbone of an ``smp:`` model; None for resnet34.
        head_channels: width of the head's pyramid and of its last layer (DAFormer: 256; VisDA's ConvNeXt-L: 512).
        head_embed: channels that each stage of the backbone is brought to.
        head_dropout: dropout of whole channels before the classes.
        dilations: of the head's pyramid.
        drop_path_rate: stochastic depth of the backbone.
        options: further arguments of ``timm.create_model`` (``ls_init_value``, ``img_size``, …), or, for an ``smp:``
            model, of its class (``decoder_channels``, …).
    """

    model: str = "resnet50"
    encoder: str | None = None
    head_channels: int = Field(default=256, ge=1)
    head_embed: int = Field(default=256, ge=1)
    head_dropout: float = Field(default=0.1, ge=0, lt=1)
    dilations: tuple[int, ...] = Field(default=(1, 6, 12, 18), min_length=1)
    drop_path_rate: float = Field(default=0.0, ge=0, lt=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def smp(self) -> str | None:
        """The architecture of segmentation-models-pytorch; None for a DAFormer head."""
        return self.model.removeprefix(SMP) if self.model.startswith(SMP) else None

    @property
    def backbone(self) -> str:
        """timm's name of the backbone."""
        if self.smp is None:
            return self.model
        return (self.encoder or DEFAULT_ENCODER).removeprefix("tu-")

    @model_validator(mode="after")
    def _all_of_it_counts(self) -> "SegmenterSettings":
        if self.smp is None:
            if self.encoder is not None:
                raise ValueError(f"encoder belongs to an smp: model, and {self.model} is a backbone itself")
            return self
        for name, field in SegmenterSettings.model_fields.items():
            if name not in ("model", "encoder", "options") and getattr(self, name) != field.default:
                raise ValueError(f"{name} means nothing to {self.model}, which has a decoder of its own; leave it out")
        return self
