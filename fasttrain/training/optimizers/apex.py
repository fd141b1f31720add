"""NVIDIA apex's fused optimizers: looked for when they are asked for, never required."""

import importlib
import importlib.util
from collections.abc import Callable

from torch.optim import Optimizer

from fasttrain.base.errors import ConfigError

BUILD = (
    "build it from its source, with the CUDA version that torch was built with: git clone "
    "https://github.com/NVIDIA/apex && cd apex && APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install -v --no-build-isolation . "
    "(not `pip install apex`, which brings another project of that name)"
)


def apex_class(name: str) -> Callable[..., Optimizer]:
    """A class of ``apex.optimizers``.

    Raises:
        ConfigError: apex is not there, is another project of that name, or was built without CUDA.
    """
    if importlib.util.find_spec("apex") is None:
        raise ConfigError(f"NVIDIA apex is not installed; {BUILD}")
    try:
        optimizers = importlib.import_module("apex.optimizers")
        found: Callable[..., Optimizer] = getattr(optimizers, name)
    except (ImportError, AttributeError):
        raise ConfigError(f"the installed package `apex` is not NVIDIA's; remove it and {BUILD}") from None
    try:
        importlib.import_module("amp_C")
    except ImportError:
        raise ConfigError(f"NVIDIA apex was built without its CUDA extensions; {BUILD}") from None
    return found
