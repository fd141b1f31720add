"""Reads masks from image files without loss, and brings them to the size and orientation of their images."""

from pathlib import Path

import numpy as np
from PIL import Image

from fasttrain.base.errors import ImageError
from fasttrain.beton_build import images
from fasttrain.beton_build.mask_info import count_pixels
from fasttrain.beton_build.mask_rules import MaskRule
from fasttrain.beton_build.origins import BetonImage, Origin, read_origin
from fasttrain.beton_build.prepare import Prepared
from fasttrain.beton_build.values import EncodedMask

_LOSSY = {"JPEG", "MPO", "JPEG2000", "WEBP", "AVIF"}
_PNG_GREY = 0  # colour type
_BLACK_TO_WHITE = {1: 255, 2: 85, 4: 17}  # what Pillow multiplies grey values of so many bits by


def read_mask(source: bytes, rule: MaskRule) -> np.ndarray:
    """(H, W) uint8 class numbers of a mask file, as it is stored: no orientation is applied.

    Raises:
        ValueError: it cannot be decoded, or its pixels have no class; the message is the reason.
    """
    with images.opened(source) as image:
        if image.format in _LOSSY:
            raise ValueError(f"it is a {image.format} file, whose values are not those that were saved; use PNG")
        image.load()
        return _numbers(image, source, rule)


def _numbers(image: Image.Image, source: bytes, rule: MaskRule) -> np.ndarray:
    mode = image.mode
    if mode == "P":
        values = np.asarray(image)
        rule.check_palette(image.getpalette() or [], np.unique(values))
        return rule.numbers(values)
    if mode in ("L", "1"):
        values = np.asarray(image.convert("L"))
        bits = source[24] if image.format == "PNG" and source[25] == _PNG_GREY else 8
        return rule.numbers(
            values // np.uint8(_BLACK_TO_WHITE.get(bits, 1)) if mode == "L" else values // np.uint8(255)
        )
    if mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65_535):
            raise ValueError("it has 32 bits a pixel; masks have 8, or 16 with --mask-map")
        return rule.numbers(values.astype(np.uint16))
    if mode == "RGBA":
        pixels = np.asarray(image)
        if pixels[..., 3].min() < 255:
            raise ValueError("some of its pixels are transparent, which no class is; save it without transparency")
        return rule.numbers_of_colours(pixels[..., :3])
    if mode == "RGB":
        return rule.numbers_of_colours(np.asarray(image))
    raise ValueError(f"its pixels are of mode {mode}; masks are grey or palette images, or RGB with --palette")


def prepare_mask(
    path: Path | BetonImage, rule: MaskRule, image: Origin, prepared: Prepared, sample_id: str
) -> EncodedMask:
    """The mask of an image that was prepared: turned as the image was, and shrunk to its size (nearest).

    A mask is drawn on the pixels as the image file stores them. Of an image that is turned by a quarter, a mask that
    has the upright image's sides is upright already.

    Raises:
        ImageError: it cannot be read, or is of another size; it names the mask's file.
    """
    try:
        if isinstance(path, BetonImage):
            mask = rule.numbers(path.reader.mask(path.row))
        else:
            mask = read_mask(path.read_bytes(), rule)
        mask = _fitted(mask, image, prepared)
    except OSError as error:
        raise ImageError(sample_id, str(path), error.strerror or str(error)) from None
    except ValueError as error:
        raise ImageError(sample_id, str(path), str(error)) from None
    return EncodedMask(mask.tobytes(), mask.shape[1], mask.shape[0], count_pixels(mask, rule.columns))


def _fitted(mask: np.ndarray, image: Origin, prepared: Prepared) -> np.ndarray:
    original, stored = prepared.original, prepared.image
    size, height_width = (original.width, original.height), mask.shape
    turn = _orientation(image) if "rotated" in prepared.changes else 1
    upright = size[::-1] if turn >= 5 else size
    if height_width == size[::-1]:
        mask = _turned(mask, turn)
    elif height_width != upright[::-1]:
        raise ValueError(
            f"it is {mask.shape[1]}x{mask.shape[0]} pixels, and its image {image} is {size[0]}x{size[1]}; a mask must "
            "be of its image's size"
        )
    return resize_nearest(mask, stored.width, stored.height)


def _orientation(image: Origin) -> int:
    assert not isinstance(image, BetonImage)  # those are upright
    data = read_origin(image)
    assert isinstance(data, bytes)
    with images.opened(data) as opened:
        return images.orientation(opened)


def _turned(mask: np.ndarray, orientation: int) -> np.ndarray:
    method = images.turn_of(orientation)
    return mask if method is None else np.asarray(Image.fromarray(mask).transpose(method))


def resize_nearest(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width) of a mask: each pixel shows the one that its centre falls into."""
    tall, wide = mask.shape
    if (wide, tall) == (width, height):
        return mask
    rows = (2 * np.arange(height) + 1) * tall // (2 * height)
    columns = (2 * np.arange(width) + 1) * wide // (2 * width)
    return np.ascontiguousarray(mask[rows][:, columns])
