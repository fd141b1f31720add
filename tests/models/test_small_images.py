"""Encoders for images of 32 pixels."""

import pytest
import torch

from fasttrain.models.create import create_model, eval_view_of


@pytest.mark.parametrize(("name", "features"), [("resnet10_32", 128), ("vit_tiny_patch4_32", 128)])
def test_they_are_timm_models_with_and_without_a_classifier(name: str, features: int) -> None:
    images = torch.randn(2, 3, 32, 32)
    assert create_model(name, 7, size=32)(images).shape == (2, 7)
    encoder = create_model(name, 0, size=32)
    assert encoder(images).shape == (2, features) and encoder.num_features == features
    assert eval_view_of(name).size == 32


def test_small_images_are_not_shrunk_to_nothing() -> None:
    assert create_model("resnet10_32", 0).forward_features(torch.randn(1, 3, 32, 32)).shape[-2:] == (2, 2)
    assert create_model("vit_tiny_patch4_32", 0).patch_embed.num_patches == 64  # type: ignore[union-attr]
    larger = create_model("vit_tiny_patch4_32", 0, size=64)
    assert larger.patch_embed.num_patches == 256  # type: ignore[union-attr]
