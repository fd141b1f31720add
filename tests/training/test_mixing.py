"""Mixed batches in training: what the step learns from, and what does not go together."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, LoaderError
from fasttrain.base.runs import RunFolder
from fasttrain.loading.augment.mixing import Mixer, Mixing
from fasttrain.loading.batch import Batch, MaskedBatch
from fasttrain.loading.open_dataset import BetonDataset
from fasttrain.models.create import create_model
from fasttrain.models.weights import read_state_dict
from fasttrain.training.classification import Classification
from fasttrain.training.losses.criterion import plain_criterion
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.run import Trainer, train
from fasttrain.training.settings import AugmentSettings, TrainSettings

from .stepper_cases import CPU, make_stepper


def a_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((6, 3, 32, 32), generator=generator).contiguous(memory_format=torch.channels_last)
    return Batch(images, torch.arange(6) % 3, torch.arange(6), torch.tensor([True] * 5 + [False]))


def stepped(mixing: Mixer | None, **options: Any) -> tuple[torch.nn.Module, float]:
    """A model after a step, and the loss of that."""
    torch.manual_seed(0)
    module = create_model("test_vit", 3, size=32)
    stepper = make_stepper(module, loss=plain_criterion(0.1), mixing=mixing, **options)
    loss = LaggedLoss(CPU)
    stepper.step(a_batch(), 7, loss)
    total, samples = loss.totals().tolist()
    return module, total / samples


def mixer() -> Mixer:
    return Mixer(Mixing(mixup=1.0), 3, smoothing=0.1)


def test_a_step_learns_from_mixed_images_and_targets() -> None:
    module, loss = stepped(mixer())
    torch.manual_seed(0)
    plain = create_model("test_vit", 3, size=32).train()
    batch, targets = mixer()(a_batch(), 7)
    assert targets is not None
    losses = -(targets * F.log_softmax(plain(batch.images), 1)).sum(1)[:5]
    assert loss == pytest.approx(losses.mean().item(), rel=1e-5)
    losses.mean().backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter -= 0.1 * parameter.grad
    for (name, ours), other in zip(module.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert abs(loss - stepped(None)[1]) > 1e-3


def test_parts_of_a_batch_are_mixed_as_the_whole() -> None:
    whole, parts = stepped(mixer())[0], stepped(mixer(), micro_batch=2)[0]
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


def settings(data: Path, out: Path, **more: object) -> TrainSettings:
    values = {"data": str(data), "out": str(out), "model": "test_vit", "size": 32, "batch_size": 6, "epochs": 2}
    return load_settings(TrainSettings, {**values, "device": "cpu", "threads": 1, **more}, "train")


AUGMENT = {"policy": "rand-m9-n2-mstd0.5-inc1", "erasing": {"prob": 0.5}, "mixup": 0.8, "cutmix": 1.0}


def test_a_run_with_all_of_it_is_other_than_without_and_repeats(colour_tree: Path, tmp_path: Path) -> None:
    states = []
    for name, augment in (("a", AUGMENT), ("b", AUGMENT), ("c", {}), ("d", {"policy": AUGMENT["policy"]})):
        result = train(settings(colour_tree, tmp_path / name, augment=augment))
        states.append(read_state_dict(result.checkpoint))
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key])
    for other in states[2:]:
        assert any(not torch.equal(value, other[key]) for key, value in states[0].items())


def test_jsd_sees_one_clean_view_and_two_augmented_ones(colour_tree: Path, tmp_path: Path) -> None:
    chosen = settings(colour_tree, tmp_path / "a", augment={"policy": "augmix-m3-w3"}, loss={"kind": "jsd"}, epochs=1)
    assert train(chosen).epochs == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"head": {"kind": "arcface"}}, "head arcface needs one label"),
        ({"loss": {"kind": "jsd"}}, "views of one image"),
        ({"distill": {"teacher": "scores.arrow"}}, "knows no mixed images"),
    ],
)
def test_what_mixing_does_not_go_with_is_said_at_once(more: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        settings(tmp_path, tmp_path, augment={"mixup": 0.2}, **more)
    settings(tmp_path, tmp_path, augment={"policy": "rand"}, **more)


def test_settings_of_the_view_and_of_the_mixing_are_told_apart() -> None:
    chosen = AugmentSettings(policy="trivial", mixup=0.3, hflip=0.1)
    view = chosen.of_view()
    assert view["hflip"] == 0.1 and view["augment"]["policy"] == "trivial"
    assert not set(view) & set(Mixing.model_fields)
    with pytest.raises(ConfigError, match=r"did you mean 'augment\.mixup'"):
        load_settings(TrainSettings, {"data": "x", "augment": {"mixupp": 1}}, "train")


DECOUPLED = {"spatial": {"prob": 0.5}, "spectral": {"prob": 0.5}, "policy": "augmix-m1-w2-d2", "vflip": 0.5}


def test_a_run_is_mixed_by_the_masks_of_its_data(masked_tree: Path, tmp_path: Path) -> None:
    states = []
    for name, augment in (("a", DECOUPLED), ("b", {**DECOUPLED, "spatial": {"prob": 0}})):
        result = train(settings(masked_tree, tmp_path / name, augment=augment, epochs=1, val=str(masked_tree)))
        assert result.top1 is not None
        states.append(read_state_dict(result.checkpoint))
    assert any(not torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_masks_are_read_where_the_mixing_asks_for_them_alone(
    masked_tree: Path, colour_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LoaderError, match="holds no masks"):
        train(settings(colour_tree, tmp_path / "a", augment=DECOUPLED))

    def mask(self: BetonDataset, row: int) -> Any:
        raise AssertionError("no mask is needed")

    monkeypatch.setattr(BetonDataset, "mask", mask)
    train(settings(masked_tree, tmp_path / "b", augment={"spectral": {"prob": 0.5}}, epochs=1, val=str(masked_tree)))


def test_what_a_run_learns_from_is_shown_mixed_in_all_its_ways(masked_tree: Path, tmp_path: Path) -> None:
    chosen = settings(masked_tree, tmp_path / "a", augment={**DECOUPLED, "mixup": 0.2})
    with Trainer(chosen, CPU, RunFolder(chosen.out)) as trainer:
        batch = next(iter(trainer.train_loader))
        before = batch.images.clone()
        task = trainer.task
        assert isinstance(task, Classification) and isinstance(batch, MaskedBatch)
        examples = {name: (mixed, targets) for name, mixed, targets in task.examples(batch, trainer.train_loader)}
        assert list(examples) == ["mixup", "spatial", "spectral"]
        assert torch.equal(batch.images, before)
        for mixed, targets in examples.values():
            assert not torch.equal(mixed.images, before) and targets is not None
        grid = task.sample_grid(batch, trainer.train_loader)
        assert grid.shape == (192 + 3 * 212, 1002, 3)
