"""Every variant of the kernels is compiled: that needs no GPU, and Triton's interpreter lets more pass."""

import re

import pytest

triton = pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux only")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from fasttrain.kernels.triton import (  # noqa: E402
    augment,
    combine,
    finish,
    resample,
    scores,
    update_parts,
    weight_update,
)

SCALES = dict.fromkeys(("s0", "s1", "s2", "h0", "h1", "h2"), "fp32")
CROP = {"HEIGHT": 31, "WIDTH": 33, "OUT_H": 28, "OUT_W": 30}


def compiled(
    kernel: object,
    types: dict[str, str],
    constants: dict[str, object],
    warps: int,
    capability: int,
    facts: dict[tuple[int, ...], list] | None = None,
) -> dict:
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}  # type: ignore[attr-defined]
    source = ASTSource(kernel, signature, constants, facts)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps}).asm


def build(kernel: object, types: dict[str, str], constants: dict[str, object], warps: int = 4) -> bytes:
    """Machine code for compute capability 8.0 (A100)."""
    return compiled(kernel, types, constants, warps, 80)["cubin"]


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


TABLES = {
    "tensors": "*i64",
    "owners": "*i32",
    "rates": "*fp64",
    **dict.fromkeys(("steps", "partials", "scale", "found_inf", "decisions", "ratios"), "*fp32"),
    **dict.fromkeys(("tensor_count", "chunk_count"), "i32"),
    **dict.fromkeys(("norm_limit", "norm_floor"), "fp32"),
}


def vectors(ptx: str) -> tuple[int, int]:
    """How many instructions read and write 16 bytes a thread."""
    return len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)), len(re.findall(r"st\.global\S*\.v4\.b32", ptx))


@pytest.mark.parametrize("capability", [80, 90])
def test_what_a_step_decides(capability: int) -> None:
    for flag in (False, True):
        constants = {"CLIPS": flag, "SCALED": flag, "BLOCK": 1024, "TENSORS": 128}
        assert compiled(update_parts.decide_kernel, TABLES, constants, 4, capability)["cubin"]
    assert compiled(weight_update.lamb_ratios_kernel, TABLES, {"BLOCK": 1024}, 4, capability)["cubin"]


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("number", [0, 1])
def test_updates_read_and_write_vectors(number: int, capability: int) -> None:
    """Two vectors a thread and tensor, of whole blocks; a gradient in bfloat16 is one. (LLVM may double a loop.)"""
    constants = {"NUMBER": number, "TYPE": update_parts.TYPES[number], "BLOCK": update_parts.VALUES}
    gradient = 2 - number

    def found(kernel: object, **flags: bool) -> tuple[int, int]:
        return vectors(compiled(kernel, TABLES, {**constants, **flags}, 4, capability)["ptx"])

    assert found(update_parts.norm_kernel, SCALED=True) == (gradient, 0)
    assert found(weight_update.adamw_kernel, AVERAGES=False) >= (gradient + 6, 6)
    assert found(weight_update.adamw_kernel, AVERAGES=True) == (gradient + 8, 8)
    assert found(weight_update.lamb_moments_kernel) == (gradient + 6, 4)
    del constants["NUMBER"], constants["TYPE"]
    assert found(weight_update.lamb_apply_kernel, AVERAGES=True) == (8, 4)


@pytest.mark.parametrize("bilinear", [False, True])
def test_augment(bilinear: bool) -> None:
    types = {"source": "*u8", "numbers": "*fp32", "seeds": "*i32", "tables": "*u8", "out": "*u8", "stream": "i32"}
    types |= {**dict.fromkeys(("f0", "f1", "f2"), "i32"), **dict.fromkeys(("m0", "m1", "m2", "d0", "d1", "d2"), "fp32")}
    assert build(augment.step_kernel, types, {"HEIGHT": 31, "WIDTH": 33, "BILINEAR": bilinear, "BLOCK": 512})


SCORES = {"offsets": "*fp32", "N": "i32", "scale": "fp32", "LONG": "i32"}


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("columns", [37, 5000, 16_000])
def test_passes_over_scores(dtype: str, columns: int) -> None:
    types = {**SCORES, "scores": f"*{dtype}", **dict.fromkeys(("partials", "logs", "normalisers"), "*fp32")}
    head, tail = scores.halves(columns)
    rows = max(1, 8192 // 2 ** (head + tail).bit_length())
    constants = {"C": columns, "ROWS": rows, "HEAD": head, "TAIL": tail}
    assert build(scores.colsum_kernel, types, constants, scores.warps(head + tail))
    assert build(scores.normaliser_kernel, types, {"C": columns, "BLOCK": 4096}, 8)
    assert build(scores.wide_colsum_kernel, types, {"C": columns, "ROWS": 4, "BLOCK": 1024})
    found = dict.fromkeys(("probability", "margin", "normaliser"), "*fp32")
    assert build(scores.assign_kernel, {**types, **found, "label": "*i32"}, {"C": columns, "BLOCK": 4096}, 8)


TABLES_OF_SCORES = {"addresses": "*i64", "numbers": "*fp32", "totals": "*fp32", "label": "*i32", "M": "i32"}


@pytest.mark.parametrize("space", [0, 1, 2])
@pytest.mark.parametrize("flag", [False, True])
def test_combine(space: int, flag: bool) -> None:
    constants = {"C": 5000, "SPACE": space, "HALF": not flag, "PROBS": flag and space > 0, "TEMPERED": flag}
    constants |= {"PERMUTED": flag, "CONTINUES": flag, "ENDS": not flag, "BLOCK": 8192}
    assert build(combine.combine_kernel, TABLES_OF_SCORES, constants, 16)


def test_scores_are_read_as_vectors() -> None:
    types = {**SCORES, "scores": "*fp16", "partials": "*fp32", "logs": "*fp32"}
    constants = {"C": 5000, "ROWS": 1, "HEAD": 4096, "TAIL": 1024}
    aligned = {(0,): [["tt.divisibility", 16]], (1,): [["tt.divisibility", 16]]}
    assert vectors(compiled(scores.colsum_kernel, types, constants, 8, 90, aligned)["ptx"])[0]
    constants = {"C": 5000, "SPACE": 1, "HALF": True, "PROBS": False, "TEMPERED": False, "PERMUTED": False}
    constants |= {"CONTINUES": False, "ENDS": True, "BLOCK": 8192}
    assert vectors(compiled(combine.combine_kernel, TABLES_OF_SCORES, constants, 16, 90)["ptx"])[0]
