"""Masks by themselves are moved to the bit as they are beside their images."""

import numpy as np
import pytest
import torch

from fasttrain.kernels.augment import augment, choose
from fasttrain.kernels.augment_masks import augment_masks, kept_together
from fasttrain.kernels.augment_program import Op, Program, Style, program_of

TURN = (Op.AFFINE, [0.9, 0.3, -4, -0.25, 1.1, 3])
SHEAR = (Op.AFFINE, [1, 0.4, -6, 0, 1, 0])
CASES = {
    "affine": [TURN],
    "two": [TURN, SHEAR],
    "apart": [TURN, (Op.CONTRAST, [1.3]), SHEAR],  # what lies between them ends the composition
    "apart by a table": [TURN, (Op.INVERT, []), (Op.NOTHING, []), SHEAR],
    "elastic": [(Op.ELASTIC, [30.0]), SHEAR],
    "grid": [(Op.GRID_SHUFFLE, [3]), TURN, (Op.GRID_SHUFFLE, [4])],
    "colours": [(Op.HUE, [0.2]), (Op.EQUALIZE, []), (Op.FOG, [1.0, 2.0])],
    "mixture": [
        TURN,
        (Op.MIX_BEGIN, []),
        SHEAR,
        (Op.MIX_CHAIN, [0.5]),
        (Op.GRID_SHUFFLE, [2]),
        (Op.MIX_CHAIN, [0.5]),
        (Op.MIX_END, [0.7]),
        SHEAR,
    ],
}
native = [
    False,
    pytest.param(True, marks=pytest.mark.skipif(choose(torch.device("cpu")) != "native", reason="not built")),
]


def masks_and_program(name: str, style: Style | None = None) -> tuple[np.ndarray, Program]:
    masks = np.random.default_rng(0).integers(0, 7, (3, 37, 53), dtype=np.uint8)
    return masks, program_of([CASES[name]] * 3, seeds=[5, 6, 7], style=style or Style())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compiled", native)
def test_as_beside_the_image(name: str, compiled: bool) -> None:
    masks, program = masks_and_program(name)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 255, (*masks.shape, 3), dtype=np.uint8))
    beside = torch.empty(masks.shape, dtype=torch.uint8)
    using = "native" if compiled else "plain"
    augment(pixels, program, masks=torch.from_numpy(masks), out_masks=beside, using=using)  # type: ignore[arg-type]
    alone = masks.copy()
    augment_masks(alone, program, erases=False, threads=2, native=compiled)
    assert np.array_equal(alone, beside.numpy())
    assert np.array_equal(alone, masks) == (name == "colours")


@pytest.mark.parametrize("compiled", native)
def test_erased_places(compiled: bool) -> None:
    masks = np.random.default_rng(0).integers(0, 7, (2, 30, 40), dtype=np.uint8)
    erase = (Op.ERASE, [5, 35, 10, 20, 0, 1, 2, 3])
    program = program_of([[erase], [(Op.AFFINE, [1, 0, 4, 0, 1, 0]), erase]], style=Style(mask_fill=99))
    kept, erased = masks.copy(), masks.copy()
    augment_masks(kept, program, erases=False, native=compiled)
    augment_masks(erased, program, erases=True, native=compiled)
    assert np.array_equal(kept[0], masks[0]) and np.array_equal(kept[1, :, :36], masks[1, :, 4:])
    assert (kept[1, :, 36:] == 99).all()
    expected = kept.copy()
    expected[:, 5:15, 35:] = 99
    assert np.array_equal(erased, expected)


@pytest.mark.parametrize("compiled", native)
@pytest.mark.parametrize("name", ["affine", "two", "elastic", "grid"])
def test_image_and_mask_look_at_the_same_places(name: str, compiled: bool) -> None:
    """An image whose levels are the classes shows, away from borders, what the mask says."""
    coarse = np.random.default_rng(3).integers(0, 5, (3, 4, 5), dtype=np.uint8)
    masks = np.ascontiguousarray(coarse.repeat(24, 1).repeat(24, 2))
    pixels = torch.from_numpy(np.stack([50 * masks] * 3, -1))
    program = program_of([CASES[name]] * 3, style=Style(fill=(250, 250, 250), mask_fill=5))
    images = augment(pixels, program, using="native" if compiled else "plain").numpy()[..., 0] / 50
    augment_masks(masks, program, erases=False, native=compiled)
    inner = np.ones(masks.shape, bool)
    for y in range(-2, 3):
        for x in range(-2, 3):
            inner &= np.roll(masks, (y, x), (1, 2)) == masks
    assert inner.mean() > 0.4
    assert (np.abs(images - masks)[inner] < 0.1).mean() > 0.99


def test_mixtures_keep_to_one_place() -> None:
    program = masks_and_program("mixture")[1]
    kept = kept_together(program)
    codes = kept.operations[0].tolist()
    assert codes == [1, Op.MIX_BEGIN, 0, Op.MIX_CHAIN, 0, Op.MIX_CHAIN, Op.MIX_END, 1]
    assert kept_together(kept) is kept
    plain = masks_and_program("two")[1]
    assert kept_together(plain) is plain


@pytest.mark.parametrize("wrong", ["dtype", "shape", "readonly", "count"])
def test_what_does_not_fit_is_refused(wrong: str) -> None:
    masks, program = masks_and_program("affine")
    if wrong == "dtype":
        masks = masks.astype(np.int32)
    elif wrong == "shape":
        masks = masks[..., None]
    elif wrong == "readonly":
        masks.flags.writeable = False
    else:
        masks = masks[:2].copy()
    with pytest.raises(ValueError, match=r"masks|batch"):
        augment_masks(masks, program, erases=False)
