"""Every variant of the kernels is compiled: that needs no GPU, and Triton's interpreter lets more pass."""

import pytest

triton = pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux only")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from fasttrain.kernels.triton import augment, finish, resample  # noqa: E402

SCALES = dict.fromkeys(("s0", "s1", "s2", "h0", "h1", "h2"), "fp32")
CROP = {"HEIGHT": 31, "WIDTH": 33, "OUT_H": 28, "OUT_W": 30}


def build(kernel: object, types: dict[str, str], constants: dict[str, object], warps: int = 4) -> bytes:
    """Machine code for compute capability 8.0 (A100)."""
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}  # type: ignore[attr-defined]
    source = ASTSource(kernel, signature, constants)
    return triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": warps}).asm["cubin"]


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_normalise(dtype: str) -> None:
    assert build(
        finish.normalise_kernel, {"source": "*u8", "out": f"*{dtype}", "total": "i64", **SCALES}, {"BLOCK": 4096}
    )


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_gather_and_jitter(kind: int) -> None:
    types, constants = (
        {"source": "*u8", "parameters": "*i32", "out": "*bf16", **SCALES},
        {**CROP, "KIND": kind, "BLOCK": 1024},
    )
    assert build(finish.gather_kernel, types, constants)
    assert build(finish.luma_kernel, {**types, "sums": "*fp32"}, {**constants, "LONG": 8192})
    assert build(finish.jitter_kernel, {**types, "sums": "*fp32"}, {**constants, "PARTS": 3, "PARTS_POWER": 4})


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("bicubic", [False, True])
def test_resample(bicubic: bool, wide: bool) -> None:
    constants = {"SIZE": 30, "BICUBIC": bicubic, "WIDE": wide, "TILE_H": 8, "TILE_W": 32}
    types = {"source": "*u8", "parameters": "*i64", "out": "*bf16", **SCALES}
    assert build(resample.resample_kernel, types, {**constants, "PLANAR": wide, "ROUND": False}, 1)
    assert build(resample.resample_kernel, {**types, "out": "*u8"}, {**constants, "PLANAR": not wide, "ROUND": True}, 1)


@pytest.mark.parametrize("bilinear", [False, True])
def test_augment(bilinear: bool) -> None:
    types = {"source": "*u8", "numbers": "*fp32", "seeds": "*i32", "tables": "*u8", "out": "*u8", "stream": "i32"}
    types |= {**dict.fromkeys(("f0", "f1", "f2"), "i32"), **dict.fromkeys(("m0", "m1", "m2", "d0", "d1", "d2"), "fp32")}
    assert build(augment.step_kernel, types, {"HEIGHT": 31, "WIDTH": 33, "BILINEAR": bilinear, "BLOCK": 512})
