"""Models of segmentation-models-pytorch, which is optional, with timm's backbones as their encoders."""

import inspect
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.base.config import nearest_name
from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.models.create import known_model
from fasttrain.models.segmentation.segmenter import Segmenter
from fasttrain.models.segmentation.settings import SegmenterSettings


class SmpSegmenter(Segmenter):
    """Encoder, decoder and segmentation head of such a model. `forward_features` gives all that the encoder does, the
    image itself included.

    Images are padded with zeros to what the encoder can divide, and the logits cut to their size.

    Raises:
        ConfigError: the package is missing, or knows no such architecture.
        WeightsError: it cannot make the model.
    """

    def __init__(self, settings: SegmenterSettings, num_classes: int, pretrained: bool = False) -> None:
        super().__init__(num_classes, "network.segmentation_head.0", ("network.decoder", "network.segmentation_head"))
        self.network = _network(settings, num_classes, pretrained)
        self.stride = int(self.network.encoder.output_stride)  # type: ignore[union-attr, arg-type]
        layers = self.network.get_submodule("segmentation_head").named_modules()
        found = [name for name, part in layers if isinstance(part, nn.Conv2d)]
        self.classifier = ".".join(filter(None, ("network.segmentation_head", found[-1])))

    def forward_features(self, images: Tensor) -> list[Tensor]:
        height, width = (-side % self.stride for side in images.shape[-2:])
        features: list[Tensor] = self.network.encoder(F.pad(images, (0, width, 0, height)))  # type: ignore[operator]
        return features

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        decoded = self.network.decoder(features)  # type: ignore[operator]
        logits: Tensor = self.network.segmentation_head(decoded)  # type: ignore[operator]
        return logits[..., : size[0], : size[1]]

    @property
    def backbone(self) -> nn.Module:
        return self.network.encoder.model  # type: ignore[union-attr, return-value]


def _network(settings: SegmenterSettings, num_classes: int, pretrained: bool) -> nn.Module:
    package, wanted = _package(), settings.smp
    assert wanted is not None
    known: dict[str, Any] = package.MODEL_ARCHITECTURES_MAPPING
    if wanted not in known:
        raise ConfigError(f"segmentation-models-pytorch has no {wanted!r}; {nearest_name(wanted, sorted(known))}")
    known_model(settings.backbone, "`fasttrain train --list-models` names timm's")
    taken = inspect.signature(known[wanted].__init__).parameters
    for name in settings.options:
        if name not in taken:
            raise ConfigError(f"options: {settings.model} takes no {name!r}; {nearest_name(name, list(taken)[1:])}")
    try:
        network: nn.Module = known[wanted](
            encoder_name=f"tu-{settings.backbone}",
            encoder_weights="imagenet" if pretrained else None,
            classes=num_classes,
            **settings.options,
        )
    except (TypeError, ValueError, RuntimeError, KeyError, OSError) as error:
        what = f"{settings.model} of {settings.backbone}"
        raise WeightsError(f"segmentation-models-pytorch cannot make {what}: {error}") from None
    return network


def _package() -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError:
        raise ConfigError(
            "smp: models need segmentation-models-pytorch, which is not installed: pip install 'fasttrain[smp]'; or "
            "take a backbone of timm, which gets a DAFormer head"
        ) from None
    return segmentation_models_pytorch
