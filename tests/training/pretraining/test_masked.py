"""Masked autoencoders: what is hidden is hidden, and what is hidden counts."""

from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.base.errors import ConfigError
from fasttrain.models.create import create_model
from fasttrain.training.pretraining.masked import MaskedAutoencoder
from fasttrain.training.pretraining.patches import random_order
from fasttrain.training.pretraining.settings import MaeSettings

SMALL = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}


def autoencoder(model: str = "test_vit", size: int = 64, options: dict[str, Any] | None = None, **settings: Any):
    torch.manual_seed(0)
    encoder = create_model(model, 0, size=size, **(options or {}))
    return MaskedAutoencoder(encoder, MaeSettings(**SMALL, **settings))


def changed(images: torch.Tensor, patch: int, side: int, columns: int) -> torch.Tensor:
    """`images` with other pixels in one patch."""
    row, column = divmod(patch, columns)
    result = images.clone()
    result[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side] += 1
    return result


def test_the_encoder_sees_what_is_shown_and_nothing_else() -> None:
    module, images = autoencoder(), torch.randn(2, 3, 64, 64)
    order = random_order(1, 16, images.device).expand(2, -1)
    chosen = order[:, : module.shown]
    assert module.shown == 4
    with torch.no_grad():
        tokens = module.encode(images, chosen)
        assert tokens.shape == (2, module.prefix + 4, module.encoder.embed_dim)
        for patch in range(16):
            same = torch.allclose(module.encode(changed(images, patch, 16, 4), chosen), tokens)
            assert same == (patch not in chosen[0].tolist())


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("test_vit", {}),
        ("test_vit", {"global_pool": "avg"}),
        ("test_vit", {"dynamic_img_size": True}),
        ("test_vit", {"no_embed_class": True, "reg_tokens": 2}),
        ("vit_tiny_patch4_32", {}),
    ],
)
def test_without_a_mask_it_is_timms_encoder(model: str, options: dict[str, Any]) -> None:
    size = 32 if "32" in model else 64
    module, images = autoencoder(model, size, options).eval(), torch.randn(2, 3, size, size)
    count = module.grid[0] * module.grid[1]
    with torch.no_grad():
        expected = module.encoder.forward_features(images)
        if module._norm == "fc_norm":
            expected = module.encoder.fc_norm(expected)
        torch.testing.assert_close(module.encode(images, torch.arange(count).expand(2, -1)), expected)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_loss_is_that_of_the_hidden_patches_in_numpy(norm_pix: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    module, images = autoencoder(norm_pix=norm_pix), torch.randn(3, 3, 64, 64)
    order = random_order(3, 16, images.device)
    monkeypatch.setattr("fasttrain.training.pretraining.masked.random_order", lambda *_: order)
    predicted = module.decode(module.encode(images, order[:, :4]), order)
    losses = module(images)[:, 0]
    pixels, told = images.numpy().astype(np.float64), predicted.detach().numpy()
    for sample in range(3):
        errors = []
        for patch in order[sample, 4:].tolist():
            row, column = divmod(patch, 4)
            cut = pixels[sample, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            target = cut.transpose(1, 2, 0).ravel()
            if norm_pix:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            errors.append(np.square(told[sample, patch] - target).mean())
        assert losses[sample].item() == pytest.approx(np.mean(errors), rel=1e-4)
    # What is shown need not be told: no gradient comes from there.
    slopes = torch.autograd.grad(module._loss(images, predicted, order).sum(), predicted)[0].abs().sum(-1)
    assert torch.equal(slopes.gather(1, order[:, :4]), torch.zeros(3, 4))
    assert (slopes.gather(1, order[:, 4:]) > 0).all()


def test_every_image_and_every_step_has_a_mask_of_its_own() -> None:
    module, image = autoencoder(), torch.randn(1, 3, 64, 64)
    losses = module(image.expand(6, -1, -1, -1)).flatten()
    assert len(set(losses.tolist())) == 6
    torch.manual_seed(5)
    again = module(image)
    assert not torch.equal(module(image), again)
    torch.manual_seed(5)
    assert torch.equal(module(image), again)


def test_all_that_learns_gets_a_gradient_and_positions_do_not_learn() -> None:
    for options in ({}, {"global_pool": "avg"}):
        module = autoencoder(options=options)
        module(torch.randn(4, 3, 64, 64)).mean().backward()
        without = [name for name, value in module.named_parameters() if value.requires_grad and value.grad is None]
        assert not without  # which DDP would wait for
        frozen = {name for name, value in module.named_parameters() if not value.requires_grad}
        assert {"encoder.pos_embed", "decoder_positions"} <= frozen


def test_bf16_leaves_the_loss_in_float32() -> None:
    module = autoencoder()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(torch.randn(2, 3, 64, 64)).dtype == torch.float32


def test_models_and_settings_that_do_not_suit_are_refused() -> None:
    with pytest.raises(ConfigError, match="VisionTransformers, and this is a ResNet"):
        MaskedAutoencoder(create_model("test_resnet", 0), MaeSettings(**SMALL))
    with pytest.raises(ConfigError, match="without attention pooling"):
        autoencoder("test_vit3")
    with pytest.raises(ConfigError, match="leaves 0 of 4 patches"):
        autoencoder(size=32, mask_ratio=0.9)
    with pytest.raises(ConfigError, match="4 divides, not 34"):
        MaskedAutoencoder(create_model("test_vit", 0, size=64), MaeSettings(**{**SMALL, "decoder_width": 34}))


def test_hidden_patches_are_learned_to_be_told() -> None:
    module = autoencoder()
    torch.manual_seed(1)
    images = torch.randn(8, 3, 1, 1) * torch.linspace(-1, 1, 64)[:, None] + torch.linspace(-1, 1, 64)  # plain ramps
    optimizer, losses = torch.optim.AdamW(module.parameters(), lr=3e-3), []
    for _ in range(30):
        losses.append(module(images).mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
