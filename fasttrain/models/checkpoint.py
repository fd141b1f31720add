"""Checkpoints: weights as safetensors with what `predict` needs in the header, and a state file to resume from."""

import json
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors.torch import save_file
from torch import Tensor

from fasttrain.base.atomic import atomic_path
from fasttrain.base.errors import WeightsError


@dataclass(frozen=True)
class CheckpointInfo:
    """The record in a checkpoint's header.

    Attributes:
        model: timm's name of the model.
        num_classes: outputs of the classifier.
        class_names: their names in order, None where the training data had none.
        eval_view: the view that the weights are to be used with (`fasttrain.loading.views.parse_view` reads it).
        epoch: epochs trained.
        averaged: True when the weights are an exponential moving average.
        metrics: validation figures of these weights, and on which data they were measured.
        head: what the model ends in, as `fasttrain.models.heads.HeadSettings`; None for timm's own classifier.
        train_counts: samples of each class in the training data (segmentation: pixels); None if unknown.
        segmenter: what a segmentation model is made of, as `fasttrain.models.segmentation.SegmenterSettings`, with the
            `palette` of its classes and the `crop` that it was trained on; None for a classifier.
        objects: what a mapper of objects is made of, as `fasttrain.models.objects.mapper.MapperSettings`, with what its
            maps show (`shows`: ``objects`` or ``background``), and by which figures; None for other models.
        soup: of which checkpoints these weights are the mean, and what they were chosen on; None for those of training.
    """

    model: str
    num_classes: int
    class_names: list[str] | None
    eval_view: dict[str, Any]
    epoch: int = 0
    averaged: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] | None = None
    soup: dict[str, Any] | None = None
    train_counts: list[int] | None = None
    segmenter: dict[str, Any] | None = None
    objects: dict[str, Any] | None = None

    @classmethod
    def from_record(cls, record: dict[str, Any], path: str | Path) -> "CheckpointInfo":
        """Read the header's record.

        Raises:
            WeightsError: it lacks a field, or has one that this version does not know.
        """
        try:
            return cls(**record)
        except TypeError as error:
            raise WeightsError(f"checkpoint {path} was written by another version of fasttrain: {error}") from None


def save_weights(path: str | Path, state: dict[str, Tensor], info: CheckpointInfo) -> None:
    """Write a state dict and its record as one safetensors file, atomically."""
    # Contiguous in the default format: safetensors stores plain row-major tensors, and shared storage is refused.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    with atomic_path(path) as part:
        save_file(tensors, part, metadata={"format": "pt", "fasttrain": json.dumps(asdict(info))})
        _order_metadata(part)


def _order_metadata(path: Path) -> None:
    """Put the header's metadata into the order of their names: safetensors writes them in a random one, and equal
    weights should be equal files."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:  # always, unless safetensors writes JSON in another way one day
            file.seek(8)
            file.write(text.ljust(length))


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write everything that resuming needs (tensors, numbers, strings and plain containers only), atomically.

    One file, so that weights, optimizer and position can never be of different steps after a crash.
    """
    with atomic_path(path) as part:
        torch.save(state, part)


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a file of `save_state` without running code.

    Raises:
        WeightsError: missing, damaged, or not such a file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; there is nothing to resume") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"{path} cannot be resumed from: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} is not a training state")
    return state


def epoch_files(run: str | Path) -> list[Path]:
    """The weights of single epochs that a run keeps, oldest first."""
    return [path for _, path in sorted(_epochs(run).items())]


def keep_epoch(run: str | Path, state: dict[str, Tensor], info: CheckpointInfo, count: int) -> None:
    """Write the weights of an epoch beside those of the epochs before it, of which `count` - 1 stay."""
    save_weights(Path(run) / f"epoch_{info.epoch:04d}.safetensors", state, info)
    for epoch, path in _epochs(run).items():
        if epoch <= info.epoch - count:
            path.unlink()


def _epochs(run: str | Path) -> dict[int, Path]:
    found = {path.stem.removeprefix("epoch_"): path for path in Path(run).glob("epoch_*.safetensors")}
    return {int(number): path for number, path in found.items() if number.isdigit()}


def file_hash(path: str | Path) -> str:
    """xxh3-64 of a file's bytes, as 16 hexadecimal digits."""
    digest = xxhash.xxh3_64()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
