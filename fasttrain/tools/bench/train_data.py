"""The same images, and the same weights to start from, for every contestant of the training benchmark."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from fasttrain.base.errors import ConfigError
from fasttrain.beton_build.sources import SampleList
from fasttrain.models.create import create_model
from fasttrain.models.weights import Match, load_weights
from fasttrain.tools.bench import loader_data as data

EVERY = 1 << 62


def labelled(source: Path) -> SampleList:
    """All samples of a source, in one and the same random order.

    Raises:
        ConfigError: some have no class.
        SourceError: it cannot be read.
    """
    samples = data.choose_samples(source, EVERY)
    without = np.flatnonzero(samples.labels < 0)
    if len(without):
        raise ConfigError(
            f"{source}: {samples.ids[without[0]]!r} and {len(without) - 1} others have no class; to train, give a "
            "folder with one sub-folder a class, or a list with labels"
        )
    return samples


def join_classes(samples: SampleList, names: list[str], what: str) -> SampleList:
    """The samples with their labels renumbered to `names`.

    Raises:
        ConfigError: they have a class that is not among these.
    """
    unknown = [name for name in samples.class_names if name not in names]
    if unknown:
        raise ConfigError(f"{what} has the class {unknown[0]!r}, which the training images have not")
    numbers = np.array([names.index(name) for name in samples.class_names], np.int64)
    joined = samples.take(range(len(samples)))
    joined.labels, joined.class_names = numbers[samples.labels], list(names)
    return joined


def write_images(samples: SampleList, folder: Path, name: str, workers: int) -> tuple[str, str, int]:
    """The `.beton` file, a folder of the same bytes by class, and bytes an image."""
    beton, files = folder / f"{name}.beton", folder / name
    data.write_beton(samples, beton, raw=False, workers=workers)
    return str(beton), str(files), data.write_files(beton, files)


def write_start(path: Path, model: str, classes: int, size: int, seed: int, weights: Path | None, match: Match) -> None:
    """Weights that all start from: of the seed, or those of a file, a head of another size set to 0.

    Raises:
        WeightsError: there is no such model, or the file does not fit it.
    """
    torch.manual_seed(seed)
    module = create_model(model, classes, size=size)
    if weights is not None:
        load_weights(module, weights, match)
    save_file({key: value.contiguous().clone() for key, value in module.state_dict().items()}, path)
