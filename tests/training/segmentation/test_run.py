"""Whole segmentation runs on a handful of generated images."""

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, LoaderError
from fasttrain.base.runs import RunFolder
from fasttrain.inference.labels import ClassMismatchError
from fasttrain.models.segmentation import open_segmenter
from fasttrain.models.weights import read_state_dict
from fasttrain.report.runs import summary
from fasttrain.training.run import Trainer
from fasttrain.training.segmentation.run import train_segmenter
from fasttrain.training.segmentation.settings import SegmentSettings

from ..stopping import stopped_after


@pytest.fixture
def settings(colour_masks, tmp_path):
    """Makes the settings of a run of seconds."""

    def make(name="run", **changes):
        values = {
            "data": str(colour_masks / "pairs.beton"),
            "model": "test_efficientnet",
            "head_channels": 16,
            "head_embed": 16,
            "out": str(tmp_path / name),
            "epochs": 2,
            "batch_size": 4,
            "size": 32,
            "device": "cpu",
            "threads": 1,
            "optimizer": {"lr": 2e-3},
            "augment": {"scale": (0.8, 1.2)},
        }
        return load_settings(SegmentSettings, {**values, **changes}, "segment train")

    return make


def test_a_run_learns_which_colour_is_which_class(settings, colour_masks):
    beton = str(colour_masks / "pairs.beton")
    chosen = settings(iterations=60, interval=30, warmup_iterations=5, val=beton, ema=0.8)
    assert chosen.epochs == 2 and chosen.schedule.warmup_epochs == pytest.approx(5 / 30)
    result = train_segmenter(chosen)
    assert result.miou is not None and result.miou > 0.9
    run = RunFolder(result.run)
    names = {path.name for path in result.run.iterdir()}
    assert {"config.json", "metrics.jsonl", "last.safetensors", "best.safetensors", "last.state.pt"} <= names
    last = run.read_metrics()[-1]
    assert {"train_loss", "val_miou", "val_aacc", "val_macc", "val_mdice", "val_miou_raw", "lr"} <= last.keys()
    assert last["val_iou"].keys() == {"red", "green", "blue"}
    facts = summary("run", run)
    assert (facts["miou"], facts["state"], facts["top1"]) == (result.miou, "finished", None)
    opened = open_segmenter(result.run)
    assert opened.class_names == ["red", "green", "blue"] and opened.crop == 32
    assert opened.metrics["val_miou"] == result.miou


def weights_of(settings):
    return read_state_dict(train_segmenter(settings).checkpoint)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("changes", "stop_after"),
    [
        ({"ema": 0.5, "head_dropout": 0.3}, 4),
        ({"iterations": 6, "interval": 3, "sampling": {"rare": {"temperature": 0.1, "min_pixels": 10}}}, 2),
    ],
)
def test_a_stopped_run_resumes_to_the_same_weights(settings, changes, stop_after):
    whole = weights_of(settings(**changes))
    interrupted = settings("stopped", **changes)
    with stopped_after(stop_after):
        train_segmenter(interrupted)
    resumed = read_state_dict(train_segmenter(interrupted, resume=True).checkpoint)
    assert equal(whole, resumed)
    with pytest.raises(ConfigError, match=r"started with size=32"):
        train_segmenter(settings("stopped", **{**changes, "size": 48}), resume=True)


def test_parts_of_a_batch_and_hard_pixels_and_dice_train(settings):
    parts = settings(micro_batch=2, loss={"average": "counted", "dice": 0.5, "class_weights": "inverse"}, epochs=1)
    assert train_segmenter(parts).epochs == 1
    hard = settings("hard", loss={"ohem_min_kept": 100, "ohem_threshold": 0.7}, epochs=1, swa_start=1)
    assert train_segmenter(hard).epochs == 1
    sizes = settings("sizes", size_schedule={0: 32, 1: 48}, grad_checkpointing=True)
    assert train_segmenter(sizes).epochs == 2


def test_epochs_of_iterations_draw_each_image_as_often(settings):
    chosen = settings(iterations=6, interval=6, epochs=1)
    with Trainer(chosen, torch.device("cpu"), RunFolder(chosen.out)) as trainer:
        assert len(trainer.train_loader) == 6
        ids = torch.cat([batch.ids for batch in trainer.train_loader])
        assert sorted(torch.bincount(ids, minlength=12).tolist()) == [2] * 12
        grid = trainer._sample_grid(next(iter(trainer.train_loader)))
    assert grid.dtype == np.uint8 and grid.shape[2] == 3


def test_a_run_goes_on_from_the_weights_of_another(settings, tmp_path):
    first = train_segmenter(settings(epochs=1))
    second = settings("second", epochs=1, weights=str(first.checkpoint), optimizer={"lr": 1e-12})
    assert torch.allclose(
        weights_of(second)["head.classify.weight"], read_state_dict(first.checkpoint)["head.classify.weight"]
    )


def test_wrong_data_is_one_sentence(settings, colour_masks, tmp_path):
    with pytest.raises(LoaderError, match="holds no masks"):
        train_segmenter(settings(data=str(colour_masks / "images")))
    with pytest.raises(LoaderError, match="holds no masks"):
        train_segmenter(settings(val=str(colour_masks / "images")))
    with pytest.raises(LoaderError):
        train_segmenter(settings(batch_size=64))
    other = tmp_path / "other.beton"
    build_others(tmp_path, other)
    with pytest.raises(ClassMismatchError, match="other"):
        train_segmenter(settings(val=str(other)))
    with pytest.raises(ConfigError, match="val_miou"):
        train_segmenter(settings(val=str(colour_masks / "pairs.beton"), best="val_mio"))
    assert not (tmp_path / "run" / "last.safetensors").exists()


def build_others(root, out):
    """A `.beton` of one image, whose mask has classes of other names."""
    from fasttrain.beton_build.build import build
    from fasttrain.beton_build.mask_lists import find_masks
    from fasttrain.beton_build.mask_rules import MaskRule
    from fasttrain.beton_build.options import BuildOptions
    from fasttrain.beton_build.sources import read_source

    for folder, mode in (("images", "RGB"), ("labels", "L")):
        (root / folder).mkdir()
        Image.new(mode, (40, 40)).save(root / folder / "0.png")
    samples = read_source(root / "images", labelled=False)
    masks = find_masks(samples, MaskRule(("red", "cat", "dog", "cow")), root=root / "labels")
    build(samples, out, BuildOptions.model_validate({"mode": "raw", "workers": 1}), masks)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"iterations": 10, "interval": 3, "epochs": 1}, "no multiple"),
        ({"iterations": 10, "epochs": 3}, "leave one out"),
        ({"interval": 3}, "given as iterations"),
        ({"encoder": "resnet18"}, "encoder belongs to an smp: model"),
        ({"evaluation": {"scales": [0.5, 1]}}, "segment evaluate"),
        ({"evaluation": {"crop": 5}}, "mode whole"),
        ({"mixup": 1}, "unknown key 'mixup'"),
        ({"sampling": {"rare": {"min_pixels": 5}}}, "temperature"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, changes, what):
    with pytest.raises(ConfigError, match=what):
        settings(**changes)


def test_groups_keep_the_defaults_of_segmentation(settings):
    chosen = settings(optimizer={"lr": 1e-3}, schedule={"warmup_epochs": 0})
    assert chosen.optimizer.head_lr == 10 and chosen.optimizer.weight_decay == 0.01
    assert chosen.schedule.kind == "poly" and chosen.schedule.power == 1
    other = settings(optimizer={"name": "sgd", "lr": 0.1}, schedule={"kind": "cosine"})
    assert other.optimizer.head_lr == 10 and other.optimizer.weight_decay is None and other.schedule.kind == "cosine"
    assert load_settings(SegmentSettings, chosen.model_dump(mode="json")) == chosen
