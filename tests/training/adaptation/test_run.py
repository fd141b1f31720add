"""Whole adaptations on a handful of generated images, and what a step of one adds up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.base.runs import RunFolder
from fasttrain.loading.open_dataset import BetonDataset
from fasttrain.models.segmentation import open_segmenter
from fasttrain.models.weights import read_state_dict
from fasttrain.training.adaptation.class_mix import choose_classes, paste
from fasttrain.training.adaptation.confidence import pseudo_labels
from fasttrain.training.adaptation.feature_distance import downscaled, feature_distance
from fasttrain.training.adaptation.pairs import PairedBatch
from fasttrain.training.adaptation.stepper import AdaptationStepper
from fasttrain.training.adaptation.task import AdaptSettings
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.run import Trainer
from fasttrain.training.segmentation.run import train_segmenter

from ..stopping import stopped_after

Make = Callable[..., AdaptSettings]


@pytest.fixture
def settings(colour_masks: Path, tmp_path: Path) -> Make:
    """Makes the settings of a run of seconds; its target is a folder of images, without masks."""

    def make(name: str = "run", **changes: Any) -> AdaptSettings:
        values = {
            "data": str(colour_masks / "pairs.beton"),
            "target": str(colour_masks / "images"),
            "model": "test_efficientnet",
            "head_channels": 8,
            "head_embed": 8,
            "out": str(tmp_path / name),
            "iterations": 4,
            "interval": 2,
            "batch_size": 3,
            "size": 64,
            "device": "cpu",
            "threads": 1,
            "warmup_iterations": 0,
            "optimizer": {"lr": 2e-3},
            "augment": {"scale": (0.8, 1.2), "cat_max_ratio": 1},
            "adaptation": {"pictures": 3, "threshold": 0.35},
        }
        return load_settings(AdaptSettings, {**values, **changes}, "segment adapt")

    return make


def weights_of(settings: AdaptSettings, resume: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Student and teacher at the end of a run."""
    run = train_segmenter(settings, resume=resume).run
    return read_state_dict(run / "last.safetensors"), read_state_dict(run / "teacher.safetensors")


def test_a_run_and_what_it_leaves(settings: Make, colour_masks: Path) -> None:
    chosen = settings(val=str(colour_masks / "pairs.beton"))
    result = train_segmenter(chosen)
    records = RunFolder(result.run).read_metrics()
    assert len(records) == result.epochs == 2
    figures = {"loss_source", "loss_distance", "loss_mix", "confident", "val_miou", "val_miou_teacher"}
    assert figures <= records[-1].keys()
    assert 0 <= records[-1]["confident"] <= 1
    for name in ("pseudo_shares", "pasted_shares"):
        assert sum(records[-1][name]) == pytest.approx(1, abs=1e-4)
    pictures = sorted(path.name for path in (result.run / "pictures").iterdir())
    assert pictures == ["step_000000.png", "step_000003.png"]
    assert Image.open(result.run / "pictures" / pictures[0]).width > 7 * 64
    student, teacher = (read_state_dict(result.run / f"{name}.safetensors") for name in ("last", "teacher"))
    assert student.keys() == teacher.keys()
    assert not torch.equal(student["head.classify.weight"], teacher["head.classify.weight"])
    for path in (result.run, result.run / "teacher.safetensors"):
        assert open_segmenter(path).class_names == ["red", "green", "blue"]


def test_the_teacher_may_be_what_is_kept(settings: Make) -> None:
    student, teacher = weights_of(settings())
    kept = settings("kept", adaptation={"pictures": 0, "threshold": 0.35, "keep": "teacher"})
    run = train_segmenter(kept).run
    for name, wanted in (("last", teacher), ("student", student)):
        found = read_state_dict(run / f"{name}.safetensors")
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_no_mask_of_the_target_is_read(
    settings: Make, colour_masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have some: the weights are those of a run without."""
    copy = tmp_path / "target.beton"
    copy.write_bytes((colour_masks / "pairs.beton").read_bytes())
    real = BetonDataset.mask

    def mask(self: BetonDataset, row: int) -> Any:
        assert "target" not in str(self.name)
        return real(self, row)

    monkeypatch.setattr(BetonDataset, "mask", mask)
    student, teacher = weights_of(settings(target=str(copy), iterations=2, interval=2))
    assert student and teacher


def test_a_stopped_run_resumes_to_the_same_weights(settings: Make, tmp_path: Path) -> None:
    dropping = {"head_dropout": 0.3, "drop_path_rate": 0.3}
    first = train_segmenter(settings("weights", iterations=2, interval=2))
    dropping["weights"] = str(first.checkpoint)  # with which features are compared, after the resumption, too
    whole = weights_of(settings("whole", **dropping))
    with stopped_after(3, stepper=AdaptationStepper):  # in the midst of the second epoch
        train_segmenter(settings("stopped", **dropping))
    resumed = weights_of(settings("stopped", **dropping), resume=True)
    for ours, theirs in zip(resumed, whole, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    records = [RunFolder(tmp_path / name).read_metrics() for name in ("stopped", "whole")]
    for ours, theirs in zip(*records, strict=True):
        same = [key for key in theirs if key not in ("images_per_s", "data_wait_fraction")]
        assert [ours[key] for key in same] == [theirs[key] for key in same]


def test_a_step_adds_up_the_gradients_of_its_parts(settings: Make) -> None:
    adaptation = {"feature_distance": {"weight": 0.1}, "threshold": 0.334, "weight": 0.7, "pictures": 0}
    chosen = settings(head_dropout=0, adaptation={**adaptation, "strong": {"jitter": 0, "blur": {"prob": 0}}})
    with Trainer(chosen, torch.device("cpu"), RunFolder(chosen.out)) as trainer:
        stepper = trainer.stepper
        assert isinstance(stepper, AdaptationStepper)
        pair = next(iter(trainer.train_loader))
        assert isinstance(pair, PairedBatch)
        model, teacher, frozen = stepper.module, stepper.mean_teacher.module, stepper.frozen
        assert frozen is not None
        stepper.train()
        stepper.optimizer.zero_grad()
        loss = stepper._backward(pair, None, pair.valid.sum())
        found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

        stepper.optimizer.zero_grad()
        model.train()
        labels, share = pseudo_labels(teacher.eval()(pair.target.images), 0.334, pair.target.masks != 255)
        assert share.max() > 0 and share.min() < 1  # the head is fresh, and all classes nearly equally likely
        features = model.forward_features(pair.images)
        logits = model.decode(features, (64, 64))
        source = torch.nn.functional.cross_entropy(logits, pair.masks.long(), ignore_index=255, reduction="none").mean()
        coarse = downscaled(pair.masks, features[-1].shape[-2:], 3)
        distance = feature_distance(features[-1], frozen(pair.images), coarse != 255)
        mixed = paste(
            pair.images, pair.masks, pair.target.images, labels, share, choose_classes(pair.masks, chosen.seed, 0)
        )
        losses = torch.nn.functional.cross_entropy(
            model(mixed.images), mixed.labels.long(), ignore_index=255, reduction="none"
        )
        total = source + 0.1 * distance + 0.7 * (losses * mixed.weights).mean()
        total.backward()
        assert loss.item() == pytest.approx(3 * total.item(), rel=1e-5)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_the_teacher_moves_with_every_step(settings: Make) -> None:
    chosen = settings(adaptation={"alpha": 0.5, "pictures": 0})
    with Trainer(chosen, torch.device("cpu"), RunFolder(chosen.out)) as trainer:
        stepper = trainer.stepper
        assert isinstance(stepper, AdaptationStepper)
        stepper.train()
        seen = []
        for step, pair in zip(range(3), trainer.train_loader, strict=False):
            before = stepper.mean_teacher.module.head.classify.weight.clone()
            student = stepper.module.head.classify.weight.clone()
            stepper.step(pair, step, LaggedLoss(torch.device("cpu")))
            after = stepper.mean_teacher.module.head.classify.weight
            wanted = torch.lerp(before, student, 1 - min(1 - 1 / (step + 1), 0.5))
            torch.testing.assert_close(after, wanted)
            seen.append(not torch.equal(before, after))
        assert seen[1:] == [True] * (len(seen) - 1)
        assert not stepper.mean_teacher.module.training


def test_what_does_not_go_together_is_said(settings: Make) -> None:
    with pytest.raises(ConfigError, match="ema does not go with adaptation"):
        settings(ema=0.9)
    with pytest.raises(ConfigError, match="micro_batch does not go with adaptation"):
        settings(micro_batch=1)
    wrong = {"feature_distance": {"classes": ["red", "gren"]}}
    with pytest.raises(ConfigError, match="'gren' is no class of the masks; did you mean 'green'"):
        train_segmenter(settings(adaptation=wrong))
