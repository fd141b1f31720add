"""Smoke test of the built wheel: run from an empty folder, against the wheel's files and nothing of the checkout.

Usage: python tests/wheel_smoke.py FOLDER_WITH_THE_INSTALLED_WHEEL
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
site = Path(sys.argv[1])
import fasttrain, fasttrain.kernels, fasttrain.beton_build
for module in (fasttrain, fasttrain.kernels, fasttrain.beton_build):
    assert Path(module.__file__).is_relative_to(site), module.__file__
rng = np.random.default_rng(0)
for label in ("cat", "dog"):
    Path("photos", label).mkdir(parents=True)
    for index in range(4):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(f"photos/{label}/{index}.jpg")
"""


def main() -> None:
    """Exercise the wheel as a user would, and fail loudly."""
    site = Path(sys.argv[1]).resolve()
    stray = {entry.name for entry in site.iterdir()} & {"kernels", "beton_build", "recipes", "cli.py", "tests", "data"}
    assert not stray, f"the wheel puts {stray} at the top of site-packages"
    # -P keeps the working folder off sys.path; PYTHONPATH comes before the checkout's editable install.
    environment = {**os.environ, "PYTHONPATH": str(site)}
    with tempfile.TemporaryDirectory() as empty:

        def run(*arguments: str) -> str:
            result = subprocess.run(
                [sys.executable, *arguments], cwd=empty, env=environment, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, f"{arguments}: {result.stderr}"
            return result.stdout

        def fasttrain(*arguments: str) -> dict:
            return json.loads(run("-c", "from fasttrain.cli.app import main; main()", *arguments, "--json"))

        run("-c", SCRIPT, str(site))
        run(
            "-c",
            "from fasttrain.report.page import Page, render; assert '<style>' in render(Page('templates are there'))",
        )
        run("-c", "from fasttrain.base.config import read_config; assert read_config('cifar10')['epochs']")
        assert fasttrain("build", "photos", "photos.beton")["samples"] == 8
        assert fasttrain("verify", "photos.beton")["ok"] is True
        assert fasttrain("info", "photos.beton")["classes"] == ["cat", "dog"]
        training = ("--model", "test_resnet", "--size", "32", "--epochs", "1", "--batch-size", "4")
        assert fasttrain("train", "--data", "photos.beton", *training, "--out", "run")["epochs"] == 1
        assert fasttrain("predict", "run", "photos.beton", "--out", "scores.arrow")["samples"] == 8
    print("wheel smoke test passed")


if __name__ == "__main__":
    main()
