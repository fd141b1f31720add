"""The Triton kernels of augmentation against the plain reference: on a GPU, else in Triton's interpreter, in a process
of its own."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from fasttrain.kernels.augment import augment
from fasttrain.kernels.augment_program import Op, Style, program_of
from fasttrain.kernels.pixels import Target

from .augment_cases import picture

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux only")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
on_device = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="no GPU here; see test_all_of_this_in_the_interpreter"
)

STEPS: list[list[tuple[Op, list[float]]]] = [
    [(Op.BRIGHTNESS, [1.43])],
    [(Op.CONTRAST, [0.3])],
    [(Op.SATURATION, [1.7])],
    [(Op.SATURATION, [])],
    [(Op.SHARPNESS, [1.9])],
    [(Op.POSTERIZE, [3])],
    [(Op.SOLARIZE, [120])],
    [(Op.SOLARIZE_ADD, [60, 128])],
    [(Op.INVERT, [])],
    [(Op.AUTOCONTRAST, [])],
    [(Op.EQUALIZE, [])],
    [(Op.GAMMA, [0.7])],
    [(Op.HUE, [0.2])],
    [(Op.NOISE, [15.0])],
    [(Op.ERASE, [4, 5, 9, 8, 0, 10, 200, 30])],
    [(Op.ERASE, [4, 5, 9, 8, 1])],
    [(Op.AFFINE, [0.913, 0.307, 1.2371, -0.311, 0.907, 6.1713])],
    [(Op.AFFINE, [1, 0, 6, 0, 1, 0]), (Op.AFFINE, [1, 0, -6, 0, 1, 0]), (Op.INVERT, [])],
    [(Op.EQUALIZE, []), (Op.AFFINE, [1, 0.2, 0, 0, 1, 0]), (Op.NOTHING, []), (Op.AFFINE, [1, 0, 3.5, 0, 1, 0])],
    [],
]


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_all_of_this_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "--import-mode=importlib", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


@on_device
@pytest.mark.parametrize("bilinear", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (23, 31)])
def test_every_step(shape: tuple[int, int], bilinear: bool) -> None:
    images = torch.from_numpy(np.stack([picture(*shape, seed) for seed in range(len(STEPS))]))
    style = Style(fill=(124, 116, 104), bilinear=bilinear, noise_mean=(100, 120, 140))
    program = program_of(STEPS, [2**40 + 17 * number for number in range(len(STEPS))], style)
    ours = augment(images.to(DEVICE), program, using="triton").cpu().int()
    plain = augment(images, program, using="plain").int()
    apart = (ours - plain).abs().flatten(1)
    # Fused products, and positions at the very border of the frame.
    for number, steps in enumerate(STEPS):
        assert (apart[number] > 1).float().mean() < 0.01 and (apart[number] > 0).float().mean() < 0.06, steps
        assert shape != (23, 31) or not steps or not torch.equal(ours[number], images[number].int())


@on_device
def test_in_place_and_normalised() -> None:
    images = torch.from_numpy(np.stack([picture(9, 8, seed) for seed in range(3)])).to(DEVICE)
    program = program_of([[(Op.INVERT, [])], [(Op.POSTERIZE, [2]), (Op.INVERT, [])], []])
    there = images.clone()
    assert augment(there, program, out=there, using="triton") is there
    plain = augment(images.cpu(), program, using="plain")
    assert torch.equal(there.cpu(), plain)
    target = Target((1 / 58.4, 1 / 57.1, 1 / 57.4), (-2.1, -2.0, -1.8), torch.float32)
    ours, reference = (
        augment(values, program, target, using=name)  # type: ignore[arg-type]
        for values, name in ((images, "triton"), (images.cpu(), "plain"))
    )
    torch.testing.assert_close(ours.cpu(), reference, atol=2e-5, rtol=0)


@on_device
def test_what_the_gpu_has_no_kernel_for_goes_over_the_host() -> None:
    images = torch.from_numpy(picture(20, 20)[None])
    program = program_of([[(Op.BLUR, [1.5]), (Op.INVERT, [])]])
    ours = augment(images.to(DEVICE), program, using="triton")
    assert torch.equal(ours.cpu(), augment(images, program, using="plain"))
