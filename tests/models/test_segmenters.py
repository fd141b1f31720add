"""Segmentation models: shapes, groups of parameters, weights in and out."""

import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.models.checkpoint import CheckpointInfo, save_weights
from fasttrain.models.opened import open_model
from fasttrain.models.segmentation import SegmenterSettings, create_segmenter, open_segmenter
from fasttrain.models.segmentation.weights import load_segmenter_weights
from fasttrain.training.optimizers.groups import parameter_groups

SMALL = {"head_channels": 16, "head_embed": 8}


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
@pytest.mark.parametrize("size", [(64, 64), (50, 37)])
def test_logits_have_the_size_of_the_images(name, size):
    model = create_segmenter(SegmenterSettings(model=name, **SMALL), 5).eval()
    images = torch.randn(2, 3, *size)
    features = model.forward_features(images)
    for maps, stride in zip(features, (4, 8, 16, 32), strict=True):
        assert maps.shape[2:] in [
            (size[0] // stride, size[1] // stride),
            (-(-size[0] // stride), -(-size[1] // stride)),
        ]
    logits = model(images)
    assert logits.shape == (2, 5, *size)
    assert torch.equal(logits, model.decode(features, size))


def test_the_head_is_as_the_paper_has_it():
    settings = SegmenterSettings(model="test_convnext", head_channels=24, head_embed=16)
    head = create_segmenter(settings, 5).head
    assert [embed.out_channels for embed in head.embeds] == [16] * 4
    dilations = [
        [part.dilation[0] for part in branch.modules() if isinstance(part, torch.nn.Conv2d)] for branch in head.pyramid
    ]
    assert dilations == [[1], [6, 1], [12, 1], [18, 1]]
    assert [branch[0][0].groups for branch in list(head.pyramid)[1:]] == [64] * 3  # depthwise
    assert head.bottleneck[0].in_channels == 4 * 24 and head.bottleneck[0].kernel_size == (3, 3)


def test_the_head_learns_faster_and_vectors_are_not_decayed():
    model = create_segmenter(SegmenterSettings(model="test_resnet", **SMALL), 5)
    groups = parameter_groups(model, 0.01, head_lr=10)
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert of[id(parameter)]["lr_scale"] == (10 if name.startswith("head.") else 1)
        assert of[id(parameter)]["weight_decay"] == (0.01 if parameter.ndim > 1 else 0)


@pytest.mark.parametrize("match", ["name", "order"])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet", "test_vit"])
def test_a_classifiers_weights_go_into_the_backbone(name, match, tmp_path):
    torch.manual_seed(0)
    classifier = timm.create_model(name, num_classes=7)
    state = classifier.state_dict()
    if match == "order":
        kept = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
        state = {f"other.{number}": value for number, value in enumerate(kept)}
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    settings = SegmenterSettings(model=name, **SMALL)
    model = create_segmenter(settings, 5)
    fresh = {key: value.clone() for key, value in model.head.state_dict().items()}
    loaded = load_segmenter_weights(model, settings, path, match)
    assert loaded.backbone_only and loaded.tensors == len(model.encoder.state_dict())
    first = next(iter(classifier.parameters()))
    assert any(torch.equal(first, parameter) for parameter in model.encoder.parameters())
    assert all(torch.equal(value, fresh[key]) for key, value in model.head.state_dict().items())


def checkpoint(tmp_path, classes=5, name="test_resnet"):
    settings = SegmenterSettings(model=name, **SMALL)
    model = create_segmenter(settings, classes)
    record = {**settings.model_dump(mode="json"), "palette": [[1, 2, 3]] * classes, "crop": 64}
    info = CheckpointInfo(name, classes, None, {"kind": "whole", "size": 40}, segmenter=record)
    save_weights(tmp_path / "last.safetensors", model.state_dict(), info)
    return settings, model


def test_a_checkpoint_opens_as_it_was(tmp_path):
    settings, model = checkpoint(tmp_path)
    opened = open_segmenter(tmp_path)
    assert opened.settings == settings and opened.view.size == 40 and opened.crop == 64
    assert opened.palette == ((1, 2, 3),) * 5
    images = torch.randn(1, 3, 40, 40)
    assert torch.allclose(opened.module(images), model.eval()(images), atol=1e-5)
    with pytest.raises(WeightsError, match=r"segmentation model.*segment evaluate"):
        open_model(tmp_path)


def test_other_classes_keep_all_but_the_last_layer(tmp_path):
    settings, model = checkpoint(tmp_path)
    other = create_segmenter(settings, 9)
    loaded = load_segmenter_weights(other, settings, tmp_path / "last.safetensors")
    assert loaded.head_replaced and not loaded.backbone_only
    assert torch.equal(other.head.bottleneck[0].weight, model.head.bottleneck[0].weight)
    wider = SegmenterSettings(model="test_resnet", head_channels=32, head_embed=8)
    with pytest.raises(WeightsError, match="is of shape"):
        load_segmenter_weights(create_segmenter(wider, 5), wider, tmp_path / "last.safetensors")


def test_what_does_not_fit_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="test_resnet"):
        create_segmenter(SegmenterSettings(model="test_resnett"), 5)
    classifier = timm.create_model("test_resnet", num_classes=3)
    save_file(classifier.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="no checkpoint of fasttrain"):
        open_segmenter(tmp_path / "bare.safetensors")
    info = CheckpointInfo("test_resnet", 3, None, {"kind": "eval", "size": 40})
    save_weights(tmp_path / "classifier.safetensors", classifier.state_dict(), info)
    with pytest.raises(WeightsError, match=r"holds another kind of model \(test_resnet\)"):
        open_segmenter(tmp_path / "classifier.safetensors")
    with pytest.raises(WeightsError, match="no such file"):
        open_segmenter(tmp_path / "none.safetensors")
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'fasttrain\[smp\]'"):
        create_segmenter(SegmenterSettings(model="smp:unet"), 5)


@pytest.mark.parametrize("architecture", ["unet", "fpn", "deeplabv3plus"])
def test_models_of_the_other_library(architecture, tmp_path):
    pytest.importorskip("segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed")
    settings = SegmenterSettings(model=f"smp:{architecture}", encoder="test_efficientnet")
    model = create_segmenter(settings, 5).eval()
    images = torch.randn(2, 3, 70, 50)
    assert model(images).shape == (2, 5, 70, 50)
    groups = parameter_groups(model, 0.01, head_lr=10)
    tens = sum(parameter.numel() for group in groups if group["lr_scale"] == 10 for parameter in group["params"])
    assert tens == sum(p.numel() for name, p in model.named_parameters() if not name.startswith("network.encoder."))
    classifier = timm.create_model("test_efficientnet", num_classes=3)
    save_file(classifier.state_dict(), tmp_path / "bare.safetensors")
    load_segmenter_weights(model, settings, tmp_path / "bare.safetensors")
    assert torch.equal(model.backbone.conv_stem.weight, classifier.conv_stem.weight)
    with pytest.raises(ConfigError, match="did you mean 'unet'"):
        create_segmenter(SegmenterSettings(model="smp:unett"), 5)
