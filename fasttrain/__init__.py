"""fasttrain: images to a trained, ensembled, re-distributed submission, as fast as the machine allows.

The public Python API is loaded on first use, so that ``import fasttrain`` (and the command line) starts without torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Loader": "fasttrain.loading.loader",
    "Sampling": "fasttrain.loading.order",
    "Batch": "fasttrain.loading.batch",
    "train_view": "fasttrain.loading.views",
    "eval_view": "fasttrain.loading.views",
    "segmentation_view": "fasttrain.loading.segmentation_views",
    "whole_view": "fasttrain.loading.segmentation_views",
    "RareClasses": "fasttrain.loading.rare_classes",
    "BetonReader": "fasttrain.beton_build.reader",
    "ScoreTable": "fasttrain.scores.table",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'fasttrain' has no attribute {name!r}")
