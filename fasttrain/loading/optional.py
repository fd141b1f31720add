"""Which optional parts of loading are here, found out without importing them."""

import importlib.util
from importlib import metadata

_DALI_PACKAGES = ("nvidia-dali-cuda130", "nvidia-dali-cuda120", "nvidia-dali-cuda110")  # the last ended with 1.x
_OLDEST_DALI = 2

_INSTALL = {
    "native": (
        "install a C++ compiler and libjpeg's headers (apt-get install build-essential libjpeg-dev) and reinstall"
    ),
    "dali": "pip install nvidia-dali-cuda130 (with CUDA 12: nvidia-dali-cuda120)",
    "ffcv": (
        "apt-get install build-essential pkg-config libturbojpeg0-dev libopencv-dev && "
        "pip install ffcv numba opencv-python-headless"
    ),
}


def install(backend: str) -> str:
    """What brings a backend, as a clause."""
    return _INSTALL[backend]


def why_absent(backend: str) -> str | None:
    """Why a loader backend cannot run here and what brings it, without a full stop; None if it can."""
    if backend == "native":
        from fasttrain.kernels.loading import loading_available

        return None if loading_available() else f"the native loader backend was not built; {install('native')}"
    if backend == "dali":
        return _why_no_dali()
    if backend == "ffcv" and not _found("ffcv"):
        return f"the ffcv loader backend needs FFCV, which is not installed; {install('ffcv')}"
    return None


def dali_version() -> str | None:
    """The version of the DALI that is installed, None where there is none or it does not tell."""
    for package in _DALI_PACKAGES:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def _why_no_dali() -> str | None:
    if not _found("nvidia.dali"):
        return f"the dali loader backend needs NVIDIA DALI, which is not installed; {install('dali')}"
    version = dali_version()
    if version is not None and int(version.partition(".")[0]) < _OLDEST_DALI:
        return f"the dali loader backend needs DALI {_OLDEST_DALI}.0 or newer, not {version}; {install('dali')}"
    return None


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
