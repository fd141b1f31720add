"""What is installed: versions, GPUs, codecs, optional parts and the command that brings each."""

import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("fasttrain", "torch", "torchvision", "timm", "numpy", "pillow")
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Part:
    """An optional part.

    Attributes:
        purpose: what it is good for.
        present: whether it can be used.
        found: version or kind, where it tells.
        remedy: the command that brings it, None where it is present or nothing would.
    """

    name: str
    purpose: str
    present: bool
    found: str | None
    remedy: str | None


def examine() -> dict[str, Any]:
    """Facts about this installation.

    Returns:
        versions (of packages and Python), machine (processor, cores, memory_gib, system), gpus (name, memory_gib,
        capability), codecs (native, simd, pillow), parts (as `Part`), backends (of the loader; the first is ``auto``).
    """
    from fasttrain.loading.backend import available_backends
    from fasttrain.tools.bench.measure import machine_facts

    machine = machine_facts()
    versions = {"python": machine.pop("python"), **{name: _version(name) for name in PACKAGES}}
    del machine["packages"]
    return {
        "versions": versions,
        "machine": machine,
        "gpus": _gpus(),
        "codecs": _codecs(),
        "parts": [asdict(part) for part in optional_parts()],
        "backends": list(available_backends()),
    }


def optional_parts() -> list[Part]:
    """The parts that may be missing."""
    from fasttrain.kernels.jpeg import jpeg_library
    from fasttrain.loading.optional import dali_version, install, why_absent

    found = {"native": jpeg_library(), "dali": dali_version(), "ffcv": _version("ffcv")}
    purposes = {
        "native": "fast loading, conversion and checks",
        "dali": "loader backend: decoding by NVIDIA DALI, also on the GPU",
        "ffcv": "loader backend: FFCV's own decoding, for comparison",
    }
    names = {"native": "native kernels", "dali": "NVIDIA DALI", "ffcv": "FFCV"}
    parts = []
    for key, purpose in purposes.items():
        present = why_absent(key) is None
        parts.append(Part(names[key], purpose, present, found[key], None if present else install(key)))
    return [*parts, _cuda(), _triton(), _cleanlab(), _smp()]


def _cuda() -> Part:
    import torch

    purpose = "training and prediction on the GPU"
    if torch.cuda.is_available():
        return Part("CUDA", purpose, True, str(torch.version.cuda), None)
    if torch.version.cuda is None and _DRIVER.exists():
        remedy: str | None = "pip install --force-reinstall torch torchvision (from https://pytorch.org, for CUDA)"
    elif _DRIVER.exists():
        remedy = f"update the NVIDIA driver to one for CUDA {torch.version.cuda} (nvidia-smi tells which it is for)"
    else:
        remedy = None
    return Part("CUDA", purpose, False, None if _DRIVER.exists() else "no NVIDIA GPU in sight", remedy)


def _triton() -> Part:
    import torch

    from fasttrain.kernels.device_stage import triton_works

    purpose, found = "crop, flip, colour and normalisation on the GPU in one pass", _version("triton")
    if not torch.cuda.is_available():
        return Part("Triton", purpose, found is not None, found, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        works = triton_works(torch.device("cuda", torch.cuda.current_device()))
    remedy = "pip install triton" if found is None else "apt-get install build-essential python3-dev"
    return Part("Triton", purpose, works, found, None if works else remedy)


def _cleanlab() -> Part:
    found = _version("cleanlab")
    remedy = None if found else "pip install cleanlab"
    return Part("cleanlab", "fasttrain clean: labels that are probably wrong", found is not None, found, remedy)


def _smp() -> Part:
    found = _version("segmentation-models-pytorch")
    remedy = None if found else "pip install segmentation-models-pytorch"
    purpose = "fasttrain segment: smp:unet, smp:fpn and others"
    return Part("segmentation-models-pytorch", purpose, found is not None, found, remedy)


def _gpus() -> list[dict[str, Any]]:
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(index)
        capability = f"{facts.major}.{facts.minor}"
        found.append({"name": facts.name, "memory_gib": round(facts.total_memory / 2**30, 1), "capability": capability})
    return found


def _codecs() -> dict[str, str | None]:
    """JPEG libraries of the native kernels and of Pillow, and the instruction set that the kernels use."""
    from PIL import features

    from fasttrain.kernels.jpeg import jpeg_library
    from fasttrain.kernels.loading import current_simd, loading_available

    turbo = features.version("libjpeg_turbo")
    return {
        "native": jpeg_library(),
        "simd": current_simd() if loading_available() else None,
        "pillow": f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
