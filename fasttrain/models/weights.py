"""Weight files in, without running code: safetensors, or a PyTorch state dict read with ``weights_only=True``."""

import json
import pickle
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fasttrain.base.errors import WeightsError
from fasttrain.models.create import classifier_names, zero_head

Match = Literal["name", "order"]

# Keys under which training scripts nest the weights, averaged ones first.
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")

# Tables with an entry for each place, or distance between two places, of a grid of patches.
_POSITIONS = re.compile(r"(^|[._])(pos_embed|relative_position_bias_table|rel_pos_[hw])$")


@dataclass(frozen=True)
class LoadedWeights:
    """What `load_weights` did: number of tensors taken over, of position tables resampled, whether the head is new."""

    tensors: int
    head_replaced: bool
    resampled: int = 0


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file onto the CPU.

    ``.safetensors`` files, and state dicts saved by ``torch.save`` (nested under ``state_dict``/``model`` or not,
    with a ``module.`` prefix or not). A file that holds anything but tensors and plain containers is refused.

    Raises:
        WeightsError: missing, damaged, or would need code to be run to be read.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights {path} are not a plain state dict and would have to run code to be read; "
            f"save model.state_dict() as safetensors instead ({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(f"weights {path} cannot be read: {str(error).splitlines()[0]}") from error
    return _plain_state_dict(content, path)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The JSON record that our own checkpoints carry in their header, or {} for any other file."""
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"weights {path} cannot be read: {error}") from error
    try:
        return json.loads(metadata.get("fasttrain", "{}"))
    except json.JSONDecodeError as error:
        raise WeightsError(f"weights {path}: the header's fasttrain record is not valid JSON") from error


def load_weights(model: nn.Module, path: str | Path, match: Match = "name", *, new_head: bool = True) -> LoadedWeights:
    """Load a weight file into `model` in place.

    Tables of positions that were made for images of another size are resampled, where timm knows how.

    Args:
        model: a model whose backbone fits the file.
        path: see `read_state_dict`.
        match: ``name`` joins tensors by name; ``order`` joins them by position, for a state dict of the same tensors
            in the same order under other names (``num_batches_tracked`` counters are left out of both).
        new_head: allow a classifier of another shape or kind, or none, in the file; the model's own starts anew then
            (from 0, where it is linear).

    Raises:
        WeightsError: a tensor is missing, left over or of another shape; the message names the first of them.
    """
    source = read_state_dict(path)
    target = model.state_dict()
    if match == "order":
        source = _rename_by_order(source, target, path)
    resampled = _resampled_positions(model, source, target)
    source = source | resampled
    head, theirs = _head_keys(model, target), _head_keys(model, source)
    reshaped = {key for key in head & theirs if source[key].shape != target[key].shape}
    if reshaped and not new_head:
        key = sorted(reshaped)[0]
        raise WeightsError(
            f"weights {path}: {key} is of shape {tuple(source[key].shape)}, the model's {tuple(target[key].shape)}"
        )
    fresh = bool(reshaped or head != theirs) and new_head
    kept = {key: tensor for key, tensor in source.items() if not (fresh and key in theirs)}
    _require_fit(kept, target, head if fresh else set(), path)
    model.load_state_dict(kept, strict=False)
    if fresh:
        zero_head(model)
    return LoadedWeights(tensors=len(kept), head_replaced=fresh, resampled=len(resampled))


def output_count(state: Mapping[str, Tensor], model: nn.Module, match: Match = "name") -> int | None:
    """Number of classes that a state dict was made for, read from its classifier's bias or weight; None if absent."""
    names = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    found = [key for key in state if not key.endswith("num_batches_tracked")]
    renamed = dict(zip(names, found, strict=False)) if match == "order" else {key: key for key in found}
    for classifier in classifier_names(model):
        for suffix in (".bias", ".weight"):
            key = renamed.get(classifier + suffix)
            if key is not None and key in state:
                return int(state[key].shape[0])
    return None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"weights {path} cannot be read: {error}") from error


def _plain_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"weights {path} hold no state dict (a mapping of names to tensors)")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _rename_by_order(source: dict[str, Tensor], target: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    names = [key for key in target if not key.endswith("num_batches_tracked")]
    found = [key for key in source if not key.endswith("num_batches_tracked")]
    if len(names) != len(found):
        raise WeightsError(
            f"weights {path} hold {len(found)} tensors, the model {len(names)}: they cannot be matched by order"
        )
    return {name: source[key] for name, key in zip(names, found, strict=True)}


def _resampled_positions(
    model: nn.Module, source: dict[str, Tensor], target: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tables of positions that were made for another size of images than the model's, as timm resamples them."""
    tables = [key for key in source.keys() & target.keys() if _POSITIONS.search(key)]
    others = [key for key in tables if source[key].shape != target[key].shape]
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)  # timm's, for its own weights
    if not others or adapt is None:
        return {}
    made = adapt(dict(source), model)
    return {key: made[key] for key in others if key in made and made[key].shape == target[key].shape}


def _head_keys(model: nn.Module, target: Mapping[str, Tensor]) -> set[str]:
    prefixes = tuple(name + "." for name in classifier_names(model))
    return {key for key in target if prefixes and key.startswith(prefixes)}


def _require_fit(source: Mapping[str, Tensor], target: Mapping[str, Tensor], fresh: set[str], path: str | Path) -> None:
    optional = {key for key in target if key.endswith("num_batches_tracked")} | fresh
    missing = [key for key in target if key not in source and key not in optional]
    unexpected = [key for key in source if key not in target]
    if missing or unexpected:
        problem = f"lack {missing[0]!r} ({len(missing)} missing)" if missing else ""
        extra = f"hold {unexpected[0]!r} that the model has not ({len(unexpected)} such)" if unexpected else ""
        raise WeightsError(
            f"weights {path} do not fit the model: they {' and '.join(filter(None, (problem, extra)))}; "
            "name the model they were made for, or use --weights-match order if only the names differ"
        )
    for key, tensor in source.items():
        if tensor.shape != target[key].shape:
            raise WeightsError(
                f"weights {path}: {key} is of shape {tuple(tensor.shape)}, the model's {tuple(target[key].shape)}"
            )
