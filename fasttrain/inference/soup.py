"""Soups that are measured: chosen greedily on validation data, their batch normalisation estimated anew."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import is_main
from fasttrain.inference.evaluate import evaluate
from fasttrain.inference.forward import Amp
from fasttrain.inference.labels import class_map
from fasttrain.inference.segmentation.classes import mask_map
from fasttrain.inference.segmentation.evaluate import evaluate_masks
from fasttrain.inference.segmentation.scores import by_size
from fasttrain.inference.statistics import estimate_statistics
from fasttrain.loading.loader import Loader
from fasttrain.models.checkpoint import file_hash, save_weights
from fasttrain.models.opened import OpenedModel, open_model
from fasttrain.models.segmentation.opened import OpenedSegmenter, open_segmenter
from fasttrain.models.soup import Ingredient, check_weights, greedy_members, mean_tensors, read_ingredients, soup_info

Method = Literal["uniform", "weighted", "greedy", "last-k"]
FIGURES = ("top1", "top5", "loss", "macro_f1")
MASK_FIGURES = ("miou", "aacc", "macc", "mdice")


@dataclass(frozen=True)
class Tasting:
    """What a soup is measured and finished with.

    Attributes:
        val: data to measure it on, and in the greedy method to choose it on.
        bn_data: training images, from which batch normalisation is estimated anew, in the eval view and random order.
        bn_batches: how many batches of them; None for all.
        batch_size, device, amp, threads: of both passes.
    """

    val: str | Path | None = None
    bn_data: str | Path | None = None
    bn_batches: int | None = None
    batch_size: int = 64
    device: torch.device | str = "cpu"
    amp: Amp = "off"
    threads: int | None = None


def make_soup(
    checkpoints: Sequence[str | Path],
    out: str | Path,
    method: Method = "uniform",
    weights: Sequence[float] | None = None,
    tasting: Tasting = Tasting(),
) -> dict[str, Any]:
    """Write the mean of several checkpoints as a checkpoint of its own.

    Args:
        checkpoints: of one architecture, with the same classes and the same preprocessing.
        out: the safetensors file.
        method: ``uniform``; ``weighted`` by `weights`; ``greedy``, see `greedy_members`, by top-1 (of segmentation
            models: mIoU) on ``tasting.val``; ``last-k`` is a uniform soup of epochs of one run.
        weights: for ``weighted``, one each.
        tasting: validation data, and training data for batch normalisation.

    Returns:
        {out, method, checkpoints: [paths of those in it], weights, tensors, integers (keys kept from the first),
        statistics ("estimated", "averaged", "own" for one checkpoint, None without batch normalisation)}; on the
        validation data top1, top5, loss, macro_f1 (of segmentation models miou, aacc, macc, mdice); for ``greedy``
        tried: [{checkpoint, alone, soup, kept}].

    Raises:
        WeightsError: the checkpoints do not fit together.
        ConfigError: the method lacks what it needs.
    """
    if method not in get_args(Method):
        raise ConfigError(f"a soup is made by {', '.join(get_args(Method))}, not by {method!r}")
    if (weights is not None) != (method == "weighted"):
        raise ConfigError("weights belong to the method weighted, and it needs them")
    if method == "greedy" and tasting.val is None:
        raise ConfigError("a greedy soup is chosen on validation data; say which (--val)")
    if tasting.bn_batches is not None and tasting.bn_data is None:
        raise ConfigError("say which images batch normalisation is to be estimated on (--bn-data)")
    ingredients = read_ingredients(checkpoints)
    check_weights(weights, len(ingredients))
    hashes = [file_hash(entry.path) for entry in ingredients]
    with ExitStack() as stack:
        kitchen = stack.enter_context(_Kitchen(ingredients, tasting)) if tasting.val or tasting.bn_data else None
        members = list(range(len(ingredients)))
        tried: list[dict[str, Any]] = []
        if method == "greedy":
            assert kitchen is not None  # there is validation data
            members, tried = greedy_members(len(ingredients), kitchen.score)
        chosen = [ingredients[number] for number in members]
        figures: dict[str, Any] = {}
        if kitchen is None:
            tensors = dict(mean_tensors(chosen, weights))
        else:
            kitchen.cook(chosen, weights)
            figures = kitchen.figures()
            tensors = kitchen.tensors()
        record = {
            "method": method,
            "checkpoints": [
                {"file": entry.path.name, "hash": hashes[n]} for n, entry in zip(members, chosen, strict=True)
            ],
            "weights": [share / sum(shares) for shares in [check_weights(weights, len(chosen))] for share in shares],
            "chosen_on": str(tasting.val) if method == "greedy" else None,
            "bn_data": str(tasting.bn_data) if tasting.bn_data else None,
        }
        metrics = kitchen.metrics(figures, method) if kitchen is not None else {}
        if is_main():
            save_weights(out, tensors, soup_info(chosen, record, metrics))
    return _report(out, chosen, record, figures, _tell(tried, ingredients), tasting)


class _Classifier:
    """How a soup of classifiers is measured.

    Attributes:
        main: the figure that a greedy soup is chosen by.
    """

    main = "top1"

    def __init__(self, path: Path, device: torch.device | str) -> None:
        self.opened = open_model(path, device=device)

    def indices(self, data: str | Path) -> Any:
        """Which samples of validation data are measured, and in which order, as the `Loader` takes them."""
        return None

    def check(self, loader: Loader) -> None:
        """Refuse data that nothing can be measured on."""
        if not (loader.labels >= 0).any():
            raise ConfigError(f"{loader.dataset.name} holds no labelled sample, so no soup can be measured on it")
        class_map(loader.class_names, self.opened.class_names, self.opened.num_classes)

    def figures(self, loader: Loader, amp: Amp) -> dict[str, Any]:
        """Of the model on validation data."""
        opened = self.opened
        result = evaluate(opened.module, loader, opened.num_classes, opened.class_names, amp, "validate")
        return {key: result[key] for key in FIGURES}


class _Segmenter:
    """How a soup of segmentation models is measured; see `_Classifier`."""

    main = "miou"

    def __init__(self, path: Path, device: torch.device | str) -> None:
        self.opened = open_segmenter(path, device=device)

    def indices(self, data: str | Path) -> Any:
        """Images of one size come one after the other."""
        return by_size(data, None)

    def check(self, loader: Loader) -> None:
        """Refuse data without masks, or of other classes."""
        mask_map(loader.dataset, self.opened.class_names, self.opened.num_classes)

    def figures(self, loader: Loader, amp: Amp) -> dict[str, Any]:
        """Of the model on validation data."""
        opened = self.opened
        result = evaluate_masks(opened.module, [loader], opened.num_classes, opened.class_names, amp=amp)
        return {key: result[key] for key in MASK_FIGURES}


class _Kitchen:
    """A model that takes the weights of one soup after another, and the data to measure them on."""

    def __init__(self, ingredients: Sequence[Ingredient], tasting: Tasting) -> None:
        self.ingredients, self.tasting = ingredients, tasting
        kind = _Classifier if ingredients[0].info.segmenter is None else _Segmenter
        self.taster: _Classifier | _Segmenter = kind(ingredients[0].path, tasting.device)
        self.opened: OpenedModel | OpenedSegmenter = self.taster.opened
        val = tasting.val
        self.val = self._loader(val, indices=self.taster.indices(val)) if val is not None else None
        try:
            self.bn_data = self._loader(tasting.bn_data, order="random") if tasting.bn_data is not None else None
            if self.val is not None:
                self.taster.check(self.val)
        except BaseException:
            self._close(self.val)
            raise

    def __enter__(self) -> "_Kitchen":
        return self

    def __exit__(self, *_: object) -> None:
        self._close(self.val)
        self._close(self.bn_data)

    def cook(self, members: Sequence[Ingredient], weights: Sequence[float] | None = None) -> None:
        """Give the model the mean of some checkpoints, with statistics of its own where there is data for them.

        A single checkpoint keeps those that it came with, so that it is compared as it is.
        """
        state = self.opened.module.state_dict()
        for key, tensor in mean_tensors(members, weights):
            state[key].copy_(tensor)
        if self.bn_data is not None and len(members) > 1:
            self.bn_data.set_epoch(0)  # the same batches for each soup
            estimate_statistics(self.opened.module, self.bn_data, self.tasting.amp, self.tasting.bn_batches)

    def figures(self) -> dict[str, Any]:
        """The model's figures on the validation data; {} without any."""
        return {} if self.val is None else self.taster.figures(self.val, self.tasting.amp)

    def score(self, members: list[int]) -> float:
        """Top-1, or mIoU, of the uniform soup of some checkpoints."""
        self.cook([self.ingredients[number] for number in members])
        return self.figures()[self.taster.main] or 0.0

    def tensors(self) -> dict[str, Tensor]:
        """The model's tensors under the keys and in the types of the checkpoints."""
        state, layout = self.opened.module.state_dict(), self.ingredients[0].layout
        return {key: state[key].to(_TYPES.get(dtype, state[key].dtype)) for key, (dtype, _) in layout.items()}

    def metrics(self, figures: dict[str, Any], method: str) -> dict[str, Any]:
        """For the checkpoint's record: figures, on what they were measured, and whether it was chosen on that."""
        if self.val is None:
            return {}
        told: dict[str, Any] = {f"val_{key}": value for key, value in figures.items()}
        told["data_fingerprint"] = self.val.dataset.fingerprint
        return told | ({"chosen_on": str(self.tasting.val)} if method == "greedy" else {})

    def _loader(self, data: str | Path, **options: Any) -> Loader:
        how: dict[str, Any] = {"device": self.tasting.device, "threads": self.tasting.threads, **options}
        return Loader(data, self.tasting.batch_size, view=self.opened.view, **how)

    @staticmethod
    def _close(loader: Loader | None) -> None:
        if loader is not None:
            loader.close()


_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def _tell(tried: list[dict[str, Any]], ingredients: Sequence[Ingredient]) -> list[dict[str, Any]]:
    return [{**entry, "checkpoint": str(ingredients[entry["checkpoint"]].path)} for entry in tried]


def _report(
    out: str | Path,
    chosen: Sequence[Ingredient],
    record: dict[str, Any],
    figures: dict[str, Any],
    tried: list[dict[str, Any]],
    tasting: Tasting,
) -> dict[str, Any]:
    integers = chosen[0].integers
    if _statistics(chosen, tasting) == "averaged":
        say(
            "batch normalisation has the mean of the checkpoints' statistics, which fits no mean of weights exactly; "
            "--bn-data TRAIN.beton estimates it anew"
        )
    result = {
        "out": str(out),
        "method": record["method"],
        "checkpoints": [str(entry.path) for entry in chosen],
        "weights": record["weights"],
        "tensors": len(chosen[0].layout),
        "integers": integers,
        "statistics": _statistics(chosen, tasting),
        **figures,
    }
    return {**result, "tried": tried} if tried else result


def _statistics(chosen: Sequence[Ingredient], tasting: Tasting) -> str | None:
    """Where the statistics of batch normalisation are from; None where there is none."""
    if not any(key.endswith("running_mean") for key in chosen[0].layout):
        return None
    if len(chosen) == 1:
        return "own"
    return "averaged" if tasting.bn_data is None else "estimated"
