import copy

import numpy as np
import pytest
import torch
from torch import nn

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.models.batch_former import BatchFormer, BatchFormerSettings
from fasttrain.models.checkpoint import CheckpointInfo, save_weights
from fasttrain.models.create import create_model, eval_view_of, zero_head
from fasttrain.models.export import export_model
from fasttrain.models.heads import CosineHead, HeadSettings, LinearHead, add_training_parts, kept_weights
from fasttrain.models.opened import open_model
from fasttrain.models.weights import load_weights, read_metadata

COSINE = HeadSettings(kind="arcface", scale=16.0, centres=3)


def saved(path, head, model_name="test_resnet", **changes):
    torch.manual_seed(0)
    model = create_model(model_name, 3, size=32, head=head)
    view = eval_view_of(model_name, 32).model_dump(mode="json")
    record = None if head is None else head.model_dump(mode="json")
    save_weights(path, model.state_dict(), CheckpointInfo(model_name, 3, list("abc"), view, head=record, **changes))
    return model.eval()


def test_cosines_are_those_of_the_nearest_centre():
    torch.manual_seed(0)
    head, features = CosineHead(5, 4, 10.0, 3), torch.randn(7, 5)
    x, w = features.numpy(), head.weight.detach().numpy()
    cosines = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T
    expected = 10 * cosines.reshape(7, 4, 3).max(2)
    np.testing.assert_allclose(head(features).detach(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(head(100 * features).detach(), expected, rtol=1e-5, atol=1e-5)
    one = CosineHead(5, 12, 10.0, 1)
    one.load_state_dict(head.state_dict())
    np.testing.assert_allclose(one(features).detach(), 10 * cosines, rtol=1e-5, atol=1e-5)


def test_cosines_are_exact_under_autocast():
    torch.manual_seed(0)
    head, features = CosineHead(64, 9, 30.0, 2), torch.randn(4, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(features)
    assert found.dtype == torch.float32 and torch.equal(found, head(features))


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "resnetv2_50x1_bit", "mobilenetv3_small_050"]
)
def test_a_head_takes_the_place_of_the_classifier(name):
    model = create_model(name, 3, size=32 if name == "test_vit" else None, head=COSINE).eval()
    images = torch.randn(2, 3, 64 if name != "test_vit" else 32, 64 if name != "test_vit" else 32)
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        found = model(images)
    head = model.get_classifier()
    assert isinstance(head, CosineHead) and found.shape == (2, 3)
    torch.testing.assert_close(found, head(features))


def test_a_model_of_two_classifiers_is_refused():
    with pytest.raises(ConfigError, match=r"head arcface needs a model with one linear classifier, and .* has 2 class"):
        create_model("deit_tiny_distilled_patch16_224", 3, head=COSINE)


def test_a_checkpoint_brings_its_head_along(tmp_path):
    model = saved(tmp_path / "a.safetensors", COSINE)
    images = torch.randn(2, 3, 32, 32)
    opened = open_model(tmp_path / "a.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(opened.module(images), model(images))
    assert opened.num_classes == 3 and model(images).abs().max() <= 16.001
    wrong = read_metadata(tmp_path / "a.safetensors")
    wrong["head"]["later"] = 1
    save_weights(tmp_path / "b.safetensors", model.state_dict(), CheckpointInfo(**wrong))
    with pytest.raises(WeightsError, match="written by another version of fasttrain"):
        open_model(tmp_path / "b.safetensors")


def test_a_checkpoint_from_before_there_were_heads_opens(tmp_path):
    model = saved(tmp_path / "a.safetensors", None)
    record = read_metadata(tmp_path / "a.safetensors")
    del record["head"]
    assert CheckpointInfo.from_record(record, "a").head is None
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(open_model(tmp_path / "a.safetensors").module(images), model(images))


@pytest.mark.parametrize("ending", ["pt2", "ts", "onnx"])
def test_a_head_is_exported(tmp_path, ending):
    if ending == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    saved(tmp_path / "a.safetensors", COSINE)
    result = export_model(open_model(tmp_path / "a.safetensors"), tmp_path / f"out.{ending}")
    assert result["largest_difference"] < 1e-3


def test_weights_of_another_head_leave_a_fresh_one(tmp_path):
    linear, cosine = saved(tmp_path / "linear.safetensors", None), saved(tmp_path / "cosine.safetensors", COSINE)
    one_centre = HeadSettings(kind="cosine")
    for head, file, source in (
        (COSINE, "linear", linear),
        (one_centre, "linear", linear),
        (one_centre, "cosine", cosine),
        (None, "cosine", cosine),
    ):
        torch.manual_seed(1)
        model = create_model("test_resnet", 3, head=head)
        before = model.fc.weight.detach().clone()
        assert load_weights(model, tmp_path / f"{file}.safetensors").head_replaced
        torch.testing.assert_close(model.conv1[0].weight, source.conv1[0].weight)
        assert torch.equal(model.fc.weight, before if head else torch.zeros_like(before))
    model = create_model("test_resnet", 3, head=COSINE)
    assert not load_weights(model, tmp_path / "cosine.safetensors").head_replaced
    assert torch.equal(model.fc.weight, cosine.fc.weight)


def with_parts(name="test_resnet", head=None, **former):
    torch.manual_seed(0)
    head = head or HeadSettings()
    model = create_model(name, 3, size=32 if "vit" in name else None, head=head)
    plain = copy.deepcopy(model)
    add_training_parts(model, head, load_settings(BatchFormerSettings, former))
    return model, plain


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "resnetv2_50x1_bit"])
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_what_is_done_in_training_alone_is_gone_afterwards(name, kind):
    model, plain = with_parts(name, HeadSettings(kind=kind, dropout_samples=3), layers=1)
    images = torch.randn(4, 3, 32, 32)
    model.train(), plain.eval()
    assert model(images).shape == (2 * 3 * 4, 3)
    model.eval()
    plain.load_state_dict(kept_weights(model))  # the very names of timm, or of the head
    torch.testing.assert_close(model(images), plain(images))
    assert len(kept_weights(model)) < len(model.state_dict())


def test_the_encoder_relates_the_images_of_a_batch():
    """One post-norm layer of attention over the batch, by hand."""
    torch.manual_seed(0)
    model, plain = with_parts(layers=1, dropout=0.0)
    former = model.fc.in_training.batch_former
    features = torch.randn(6, model.fc.in_features)
    layer, x = former.encoder.layers[0], features
    d, h = x.shape[1], 4
    q, k, v = (x @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).chunk(3, 1)
    heads = [(part.view(6, h, d // h).transpose(0, 1)) for part in (q, k, v)]
    mixed = (torch.softmax(heads[0] @ heads[1].transpose(1, 2) / (d // h) ** 0.5, 2) @ heads[2]).transpose(0, 1)
    x = layer.norm1(x + layer.self_attn.out_proj(mixed.reshape(6, d)))
    x = layer.norm2(x + layer.linear2(torch.relu(layer.linear1(x))))
    torch.testing.assert_close(former(features), x, rtol=1e-4, atol=1e-5)
    assert layer.linear1.out_features == d
    rows = model.train().fc(features)
    torch.testing.assert_close(rows[:6], plain.fc(features))
    torch.testing.assert_close(rows[6:], plain.fc(x), rtol=1e-4, atol=1e-5)
    others = former(torch.cat([features[:1], torch.randn(5, d)]))
    assert not torch.allclose(others[0], x[0], atol=1e-3)


def test_several_samples_of_dropout_differ_and_share_the_classifier():
    torch.manual_seed(0)
    model, plain = with_parts(head=HeadSettings(dropout_samples=4, dropout_rate=0.25))
    features = torch.rand(5, model.fc.in_features) + 1
    torch.manual_seed(3)
    rows = model.train().fc(features)
    torch.manual_seed(3)
    expected = torch.cat([plain.fc(nn.functional.dropout(features, 0.25)) for _ in range(4)])
    torch.testing.assert_close(rows, expected)
    assert not torch.allclose(rows[:5], rows[5:10])


def test_a_linear_head_keeps_the_classifiers_parameters():
    model, plain = with_parts(layers=1)
    assert isinstance(model.fc, LinearHead)
    assert torch.equal(model.fc.weight, plain.fc.weight) and torch.equal(model.fc.bias, plain.fc.bias)
    zero_head(create_model("test_resnet", 3, head=COSINE))


def test_settings_that_cannot_be_are_refused():
    for values, words in (
        ({"kind": "linear", "scale": 5}, "scale means nothing to head linear"),
        ({"kind": "cosine", "margin": 0.1}, "margin means nothing to head cosine"),
        ({"dropout_rate": 0.3}, "dropout_rate means nothing"),
        ({"kind": "arcface", "adaptive": True, "margin_range": (0.5, 0.1)}, "two rising angles"),
        ({"kind": "arc"}, "'linear', 'cosine' or 'arcface'"),
        ({"knd": "cosine"}, "did you mean 'kind'"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_settings(HeadSettings, values)
    with pytest.raises(ConfigError, match=r"batch_former.heads 7 must divide the model's \d+ features"):
        with_parts(layers=1, heads=7)
    with pytest.raises(ConfigError, match="batch_former needs a model with one linear classifier"):
        with_parts("deit_tiny_distilled_patch16_224", layers=1)


def test_an_encoder_for_one_process_needs_no_others():
    settings = BatchFormerSettings(layers=1, across_ranks=True)
    assert BatchFormer(8, settings)(torch.randn(3, 8)).shape == (3, 8)


def test_what_is_done_in_training_compiles():
    model, _ = with_parts("test_resnet", HeadSettings(kind="cosine"), layers=1, dropout=0.0, across_ranks=True)
    images = torch.randn(4, 3, 32, 32)
    model.train()
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager")(images), model(images), rtol=1e-3, atol=1e-4)
