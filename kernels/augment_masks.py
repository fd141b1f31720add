"""Masks moved as a program moves their images, without the images: C++ where it was built, else NumPy.

Both look at the same places as the implementations of `fasttrain.kernels.augment` do: affine operations are composed
across the same steps, patterns come from the same seeds.
"""

from dataclasses import replace

import numpy as np

from fasttrain.kernels import augment_plain
from fasttrain.kernels.augment_program import Op, Program, native_program

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

GEOMETRIC = (Op.AFFINE, Op.GRID_SHUFFLE, Op.ELASTIC)


def augment_masks(
    masks: np.ndarray, program: Program, *, erases: bool, threads: int = 1, native: bool | None = None
) -> None:
    """Carry a program's geometry out on masks, in place.

    Args:
        masks: (B, H, W) uint8, contiguous, writable.
        program: of B images. Its style's `mask_fill` is what lies beyond a mask.
        erases: what is erased of an image gets `mask_fill`, too; else the mask stays as it is there.
        native: False leaves C++ out.

    Raises:
        ValueError: shapes or types are not these, or the program cannot be carried out.
    """
    if masks.dtype != np.uint8 or masks.ndim != 3 or not masks.flags.c_contiguous or not masks.flags.writeable:
        raise ValueError("masks come as a contiguous, writable (B, H, W) uint8 array")
    program.check(len(masks))
    if _native is not None if native is None else native:
        _native.augment_masks(masks, native_program(program), erases, threads)
        return
    for number, mask in enumerate(masks):
        mask[:] = augment_plain.augment_mask(mask, program, number, erases)


def kept_together(program: Program) -> Program:
    """`program` without what would part images and masks: geometry inside of mixtures (AugMix), which show several
    places at once where a mask can show one."""
    operations = program.operations
    depth = np.cumsum(operations == Op.MIX_BEGIN, 1) - np.cumsum(operations == Op.MIX_END, 1)
    parting = (depth > 0) & np.isin(operations, GEOMETRIC)
    if not parting.any():
        return program
    return replace(program, operations=np.where(parting, np.int32(Op.NOTHING), operations).astype(np.int32))
