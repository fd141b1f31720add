"""Backends that may be missing: how that is said, and that nothing is imported before it is wanted."""

import subprocess
import sys
from pathlib import Path

import pytest

from fasttrain import Loader
from fasttrain.base.errors import LoaderError
from fasttrain.loading import backend, optional
from fasttrain.loading.views import eval_view


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dali", r"needs NVIDIA DALI, which is not installed; pip install nvidia-dali-cuda130.*backend='auto'"),
        ("ffcv", r"needs FFCV, which is not installed; apt-get install .*pip install ffcv"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(
    name: str, message: str, keep_beton: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optional, "_found", lambda module: False)
    assert name not in backend.available_backends()
    with pytest.raises(LoaderError, match=message):
        Loader(keep_beton, 4, view=eval_view(8), backend=name)


def test_an_old_dali(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "_found", lambda module: True)
    monkeypatch.setattr(optional, "dali_version", lambda: "1.53.0")
    assert "dali" not in backend.available_backends()
    with pytest.raises(LoaderError, match=r"needs DALI 2\.0 or newer, not 1\.53\.0; pip install"):
        Loader(keep_beton, 4, view=eval_view(8), backend="dali")


def test_an_old_dali_for_cuda_11(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package != "nvidia-dali-cuda110":
            raise optional.metadata.PackageNotFoundError
        return "1.49.0"

    monkeypatch.setattr(optional, "_found", lambda module: True)
    monkeypatch.setattr(optional.metadata, "version", version)
    assert "needs DALI 2.0 or newer, not 1.49.0; pip install" in (optional.why_absent("dali") or "")


def test_a_package_that_cannot_be_imported(keep_beton: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(made_for: backend.Circumstances) -> backend.Backend:
        raise ImportError("libturbojpeg.so.0: cannot open shared object file")

    monkeypatch.setattr(optional, "_found", lambda module: True)
    monkeypatch.setitem(backend.BACKENDS, "ffcv", fail)
    with pytest.raises(LoaderError, match=r"cannot be imported \(libturbojpeg.*\); apt-get install"):
        Loader(keep_beton, 4, view=eval_view(8), backend="ffcv")


def test_optional_packages_are_imported_when_they_are_wanted(keep_beton: Path) -> None:
    program = (
        "import sys\n"
        "from fasttrain import Loader, eval_view\n"
        "from fasttrain.loading.backend import available_backends\n"
        "available_backends()\n"
        f"list(Loader({str(keep_beton)!r}, 4, view=eval_view(8)))\n"
        "found = {'nvidia.dali', 'ffcv', 'numba', 'cv2'} & set(sys.modules)\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
