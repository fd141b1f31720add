"""Soups: the weighted mean of several checkpoints of one architecture, key by key (Wortsman et al., ICML 2022)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fasttrain.base.errors import WeightsError
from fasttrain.models.checkpoint import CheckpointInfo, epoch_files
from fasttrain.models.weights import read_metadata

# What all checkpoints of a soup have in common, and how a message calls it.
_SHARED = {
    "model": "layers",
    "num_classes": "classes",
    "class_names": "classes",
    "eval_view": "preprocessing",
    "head": "layers at its head",
    "segmenter": "layers",
}
_OF_TRAINING = ("crop", "drop_path_rate", "head_dropout")


@dataclass(frozen=True)
class Ingredient:
    """A checkpoint of which only the header was read.

    Attributes:
        path: of the safetensors file.
        info: its record.
        layout: data type, as safetensors calls it, and shape of each tensor.
    """

    path: Path
    info: CheckpointInfo
    layout: dict[str, tuple[str, tuple[int, ...]]]

    @property
    def integers(self) -> list[str]:
        """Keys of the tensors that hold no floating-point numbers, of which there is no mean."""
        return [key for key, (dtype, _) in self.layout.items() if not dtype.startswith(("F", "BF"))]


def read_ingredients(paths: Sequence[str | Path]) -> list[Ingredient]:
    """Read the headers of checkpoints (a run's folder means its last one) and check that they can be averaged.

    Raises:
        WeightsError: one is missing, given twice, or differs from the first in architecture, classes, preprocessing,
            keys or shapes; the message names the file and the key.
    """
    if not paths:
        raise WeightsError("a soup needs at least one checkpoint")
    ingredients = [_read_ingredient(Path(path)) for path in paths]
    seen: set[Path] = set()
    for ingredient in ingredients:
        if ingredient.path.resolve() in seen:
            raise WeightsError(f"checkpoint {ingredient.path} is given twice; give it once, or a larger weight")
        seen.add(ingredient.path.resolve())
        _require_same(ingredients[0], ingredient)
    return ingredients


def run_checkpoints(run: str | Path, last: int) -> list[Path]:
    """The checkpoints of the last so many epochs of a run.

    Raises:
        WeightsError: it keeps fewer.
    """
    found = epoch_files(run)
    if len(found) < last:
        raise WeightsError(
            f"{run} keeps the checkpoints of {len(found)} epochs, not of {last}; train with --set keep_last={last}"
        )
    return found[-last:]


def mean_tensors(
    ingredients: Sequence[Ingredient], weights: Sequence[float] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield each key with the weighted mean of its tensors, in the first one's data type.

    Sums are in float32 (float64 for float64). Tensors of integers are the first checkpoint's. One tensor of one file is
    read at a time, so that no checkpoint is ever whole in memory.

    Args:
        ingredients: as `read_ingredients` gives them.
        weights: one each, at least 0, of any sum above 0; all alike by default.

    Raises:
        WeightsError: the weights do not fit, or a tensor holds a value that is not finite.
    """
    shares = check_weights(weights, len(ingredients))
    kept = set(ingredients[0].integers)
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(entry.path, framework="pt")) for entry in ingredients]
        for key in ingredients[0].layout:
            first = files[0].get_tensor(key)
            if key in kept:
                yield key, first
                continue
            total = torch.zeros(first.shape, dtype=torch.promote_types(first.dtype, torch.float32))
            for entry, file, share in zip(ingredients, files, shares, strict=True):
                tensor = file.get_tensor(key)
                if not torch.isfinite(tensor).all():
                    raise WeightsError(f"checkpoint {entry.path}: {key} holds values that are not finite; leave it out")
                total.add_(tensor.to(total.dtype), alpha=share)
            yield key, total.div_(sum(shares)).to(first.dtype)


def check_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights of `count` checkpoints, 1 each by default.

    Raises:
        WeightsError: they are not as many, or not numbers of at least 0 that are not all 0.
    """
    if weights is None:
        return [1.0] * count
    if len(weights) != count:
        raise WeightsError(f"{len(weights)} weights do not fit {count} checkpoints; give one each")
    if not all(0 <= weight < float("inf") for weight in weights) or sum(weights) <= 0:
        raise WeightsError("weights must be numbers of at least 0, and not all 0")
    return [float(weight) for weight in weights]


def greedy_members(count: int, score: Callable[[list[int]], float]) -> tuple[list[int], list[dict[str, Any]]]:
    """Choose checkpoints for a uniform soup: the best one, then each next best that makes the soup no worse.

    The greedy soup of Wortsman et al., "Model soups", ICML 2022, recipe 1.

    Args:
        count: of checkpoints.
        score: of the uniform soup of some of them, higher is better; it is asked 2 × `count` - 1 times.

    Returns:
        the numbers of those chosen, best first, and what was tried: {checkpoint, alone, soup, kept} each.
    """
    alone = [score([number]) for number in range(count)]
    first, *others = sorted(range(count), key=lambda number: -alone[number])  # stable: the first given of equals
    members, best = [first], alone[first]
    tried = [{"checkpoint": first, "alone": best, "soup": best, "kept": True}]
    for number in others:
        together = score([*members, number])
        kept = together >= best
        tried.append({"checkpoint": number, "alone": alone[number], "soup": together, "kept": kept})
        if kept:
            members, best = [*members, number], together
    return members, tried


def soup_info(
    ingredients: Sequence[Ingredient], record: dict[str, Any], metrics: dict[str, Any] | None = None
) -> CheckpointInfo:
    """The record of a soup: what its checkpoints share, the latest epoch, how it was made, and its own figures."""
    epoch, first = max(entry.info.epoch for entry in ingredients), ingredients[0].info
    counts = first.train_counts if all(entry.info.train_counts == first.train_counts for entry in ingredients) else None
    return replace(first, epoch=epoch, averaged=True, metrics=metrics or {}, soup=record, train_counts=counts)


def _read_ingredient(path: Path) -> Ingredient:
    path = path / "last.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise WeightsError(f"checkpoint {path}: no such file")
    record = read_metadata(path)
    if not record:
        raise WeightsError(f"{path} is not a fasttrain checkpoint; a soup is made of what `fasttrain train` writes")
    info = CheckpointInfo.from_record(record, path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            layout = {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"checkpoint {path} cannot be read: {error}") from error
    return Ingredient(path, info, layout)


def _require_same(first: Ingredient, other: Ingredient) -> None:
    """Raise a WeightsError that names where `other` differs from the first checkpoint."""
    ours, theirs = _compared(first.info), _compared(other.info)
    for field, called in _SHARED.items():
        if ours[field] != theirs[field]:
            where, one, two = _difference(field, ours[field], theirs[field])
            raise WeightsError(
                f"checkpoint {other.path} has other {called} than {first.path}: its {where} is {two!r}, not {one!r}"
            )
    for key in [*first.layout, *other.layout]:
        if key not in other.layout or key not in first.layout:
            lacking, having = (other, first) if key in first.layout else (first, other)
            raise WeightsError(f"checkpoint {lacking.path} has no {key!r}, which {having.path} has")
        (dtype, shape), (their_dtype, their_shape) = first.layout[key], other.layout[key]
        if shape != their_shape:
            raise WeightsError(
                f"checkpoint {other.path}: {key} is of shape {their_shape}, that of {first.path} of {shape}"
            )
        if (key in first.integers) != (key in other.integers):
            raise WeightsError(f"checkpoint {other.path}: {key} is of type {their_dtype}, that of {first.path} {dtype}")


def _compared(info: CheckpointInfo) -> dict[str, Any]:
    """A record without what training alone knows of a segmentation model."""
    record = asdict(info)
    if info.segmenter is not None:
        record["segmenter"] = {key: value for key, value in info.segmenter.items() if key not in _OF_TRAINING}
    return record


def _difference(name: str, ours: Any, theirs: Any) -> tuple[str, Any, Any]:
    """The first place where two values differ: its dotted name, and both values there."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        key = next(key for key in [*ours, *theirs] if ours.get(key) != theirs.get(key))
        return _difference(f"{name}.{key}", ours.get(key), theirs.get(key))
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        index = next(index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        return _difference(f"{name}[{index}]", ours[index], theirs[index])
    return name, ours, theirs
