"""Masks as palette PNGs."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasttrain.base.palette import default_palette, palette_png, write_palette_png


def test_indices_come_back(tmp_path: Path) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_palette_png(tmp_path / "a.png", mask[:, ::2], [(1, 2, 3), (4, 5, 6)])
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and np.array_equal(np.asarray(image), mask[:, ::2])
        assert (image.getpalette() or [])[:6] == [1, 2, 3, 4, 5, 6]
        assert image.convert("RGB").getpixel((7, 15)) == (255, 255, 255)
    with Image.open(BytesIO(palette_png(mask))) as image:
        assert np.array_equal(np.asarray(image), mask)


def test_default_colours_are_those_of_pascal_voc() -> None:
    palette = default_palette()
    assert palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert palette[20] == (0, 64, 128) and palette[255] == (224, 224, 192)
    assert len(set(palette)) == 256


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        palette_png(np.zeros((4, 4)))
