"""The commands ``objects train`` and ``objects masks``."""

from pathlib import Path

import pytest

from .called import fasttrain

CPU = ("--device", "cpu", "--threads", 1)


def test_from_photos_to_a_data_set_with_masks(things: Path, tmp_path: Path) -> None:
    images, run, masks = things / "images", tmp_path / "run", tmp_path / "masks"
    small = ("--model", "test_resnet", "--size", 64, "--epochs", 1, "--batch-size", 8, *CPU)
    made = fasttrain("objects", "train", "--data", images, *small, "--out", run)
    assert made["epochs"] == 1 and made["shows"] in ("objects", "background")
    assert {"checkpoint", "train_loss", "border", "inside"} <= made.keys()
    options = ("--scales", "1", "--no-hflip", "--crf", "off", *CPU)
    written = fasttrain("objects", "masks", run, images, "--out", masks, *options, "--pictures", 2)
    assert written["made"] == written["samples"] == 24 and Path(written["pictures"]).is_file()
    assert fasttrain("objects", "masks", run, images, "--out", masks, *options)["made"] == 0
    beton = tmp_path / "pairs.beton"
    names = ("--mask-classes", masks / "classes.txt")
    built = fasttrain("build", images, beton, "--masks", masks, *names, "--workers", 1)
    assert built["samples"] == 24
    assert "mask" in str(fasttrain("info", beton)["fields"])


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("masks", "nowhere", "photos", "--out", "m", "--scales", "1;2"), 2, "no list such as"),
        (("masks", "nowhere", "photos", "--out", "m", "--threshold", "1.5"), 1, "threshold"),
        (("masks", "nowhere", "photos", "--out", "m", "--set", "crf.iteration=3"), 1, "did you mean 'crf.iterations'"),
        (("masks", "nowhere.safetensors", "photos", "--out", "m", "--device", "cpu"), 1, "no such file"),
        (("train",), 2, "say what to train on"),
        (("train", "--data", "x", "--set", "micro_batch=4"), 1, "smaller batch_size"),
        (("train", "--data", "x", "--stride", "12"), 1, "stride"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments: tuple[str, ...], code: int, told: str) -> None:
    failed = fasttrain("objects", *arguments, ok=False)
    assert failed["code"] == code and told in failed["error"]
