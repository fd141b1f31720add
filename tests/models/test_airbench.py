import pytest
import torch
import torch.nn.functional as F

from fasttrain.base.errors import ConfigError
from fasttrain.models.create import classifier_names, create_model, eval_view_of, list_models
from fasttrain.models.whitening import whiten_first_convolution


@pytest.mark.parametrize(("name", "features"), [("airbench_small", 256), ("airbench94", 256), ("airbench95", 384)])
def test_it_is_a_model_like_those_of_timm(name, features):
    assert name in list_models("airbench*")
    view = eval_view_of(name)
    assert (view.size, view.crop_pct) == (32, 1.0)
    model = create_model(name, 7, drop_rate=0.1).eval()
    assert classifier_names(model) == ("head",)
    images = torch.randn(2, 3, 32, 32)
    assert model(images).shape == (2, 7)
    assert model.forward_features(images).shape == (2, features, 3, 3)
    assert model(torch.randn(2, 3, 24, 24)).shape == (2, 7)
    model.reset_classifier(0)
    assert model(images).shape == (2, features)


def test_groups_begin_by_passing_channels_on():
    group = create_model("airbench94", 10).groups[1]
    images = torch.randn(2, 64, 8, 8)
    assert torch.equal(group.conv1(images)[:, :64], images)
    assert not any(norm.weight.requires_grad for norm in (group.norm1, group.norm2))


def noise(count=40, channels=3):
    """Images whose pixels and channels depend on each other."""
    images = torch.randn(count, channels, 12, 12, generator=torch.Generator().manual_seed(0))
    images = F.avg_pool2d(images, 3, 1) + 0.3 * images[:, :, 1:-1, 1:-1]
    return images + 0.5 * images.roll(1, dims=1)


def test_whitened_patches_are_uncorrelated_and_of_one_power():
    model, images = create_model("airbench94", 10), noise()
    bias = model.whiten.bias.clone()
    assert whiten_first_convolution(model, images, eps=0.0) == 12
    assert torch.equal(model.whiten.bias, bias)
    filtered = F.conv2d(images, model.whiten.weight).permute(1, 0, 2, 3).reshape(24, -1)
    torch.testing.assert_close(filtered[:12] @ filtered[:12].T / filtered.shape[1], torch.eye(12), atol=1e-3, rtol=0)
    assert torch.equal(filtered[12:], -filtered[:12])


def test_a_narrow_convolution_takes_the_strongest_components_and_a_wide_one_keeps_its_own_filters():
    images = noise()
    whole, narrow, wide = (torch.nn.Sequential(torch.nn.Conv2d(3, filters, 2)) for filters in (24, 9, 30))
    before = wide[0].weight.detach().clone()
    assert whiten_first_convolution(whole, images) == 12
    assert whiten_first_convolution(narrow, images) == 4
    assert whiten_first_convolution(wide, images) == 12
    torch.testing.assert_close(narrow[0].weight[:4], whole[0].weight[:4])
    torch.testing.assert_close(narrow[0].weight[4:8], whole[0].weight[12:16])
    assert torch.equal(wide[0].weight[24:], before[24:])
    powers = F.conv2d(images, narrow[0].weight[:4]).square().mean((0, 2, 3))  # x / (x + eps) of each
    assert (powers.diff() <= 1e-6).all()


def test_what_cannot_be_whitened_is_said():
    with pytest.raises(ConfigError, match="leave out init"):
        whiten_first_convolution(torch.nn.Linear(2, 2), noise())
    with pytest.raises(ConfigError, match="no image"):
        whiten_first_convolution(create_model("airbench94", 10), [])
