"""From the name and magnitude of a policy's operation to what is done: timm's scales, and torchvision's for the wide
ones.

All take (n,) arrays: `level` the magnitude, of which 10 is timm's full scale, `sign` -1 or 1, `free` uniform in [0, 1).
"""

from collections.abc import Callable

import numpy as np

from fasttrain.kernels.augment_program import ARGUMENTS, Op

# level, sign, free and the view's size in pixels to the arguments, one array an argument.
Arguments = Callable[[np.ndarray, np.ndarray, np.ndarray, int], list[np.ndarray]]
TRIVIAL_BINS = 31


def rotation(degrees: np.ndarray, size: int) -> list[np.ndarray]:
    """Six arguments of `Op.AFFINE`: counter-clockwise about the centre, as Pillow's ``rotate``."""
    angle, centre = -np.radians(degrees), size / 2
    cos, sin = np.cos(angle), np.sin(angle)
    return [cos, sin, centre - centre * cos - centre * sin, -sin, cos, centre + centre * sin - centre * cos]


def moved(
    like: np.ndarray, x: np.ndarray | float = 0.0, y: np.ndarray | float = 0.0, *, shear: bool = False
) -> list[np.ndarray]:
    """Six arguments of a translation by `x`, `y` pixels, or of a shear along each axis by these factors."""
    one, zero = np.ones_like(like), np.zeros_like(like)
    x, y = zero + x, zero + y
    return [one, x, zero, y, one, zero] if shear else [one, zero, x, zero, one, y]


def _whole(values: np.ndarray) -> np.ndarray:
    return np.floor(values)


def _enhance(level: np.ndarray) -> list[np.ndarray]:
    return [level / 10 * 1.8 + 0.1]


def _enhance_more(level: np.ndarray, sign: np.ndarray) -> list[np.ndarray]:
    return [np.maximum(0.1, 1 + sign * level / 10 * 0.9)]


def _solarize(level: np.ndarray) -> np.ndarray:
    return np.minimum(256, _whole(level / 10 * 256))


def _wide(level: np.ndarray, sign: np.ndarray, most: float) -> np.ndarray:
    """The magnitude that torchvision gives bin ``level / 10 * 30`` of 31."""
    return sign * level / 10 * most


LEVELS: dict[str, tuple[Op, Arguments]] = {
    "Identity": (Op.NOTHING, lambda m, s, u, n: []),
    "AutoContrast": (Op.AUTOCONTRAST, lambda m, s, u, n: []),
    "Equalize": (Op.EQUALIZE, lambda m, s, u, n: []),
    "Invert": (Op.INVERT, lambda m, s, u, n: []),
    "Rotate": (Op.AFFINE, lambda m, s, u, n: rotation(s * m / 10 * 30, n)),
    "ShearX": (Op.AFFINE, lambda m, s, u, n: moved(m, s * m / 10 * 0.3, shear=True)),
    "ShearY": (Op.AFFINE, lambda m, s, u, n: moved(m, y=s * m / 10 * 0.3, shear=True)),
    "TranslateX": (Op.AFFINE, lambda m, s, u, n: moved(m, s * m / 10 * int(0.45 * n))),
    "TranslateY": (Op.AFFINE, lambda m, s, u, n: moved(m, y=s * m / 10 * int(0.45 * n))),
    "TranslateXRel": (Op.AFFINE, lambda m, s, u, n: moved(m, s * m / 10 * 0.45 * n)),
    "TranslateYRel": (Op.AFFINE, lambda m, s, u, n: moved(m, y=s * m / 10 * 0.45 * n)),
    "Posterize": (Op.POSTERIZE, lambda m, s, u, n: [_whole(m / 10 * 4)]),
    "PosterizeIncreasing": (Op.POSTERIZE, lambda m, s, u, n: [4 - _whole(m / 10 * 4)]),
    "PosterizeOriginal": (Op.POSTERIZE, lambda m, s, u, n: [_whole(m / 10 * 4) + 4]),
    "Solarize": (Op.SOLARIZE, lambda m, s, u, n: [_solarize(m)]),
    "SolarizeIncreasing": (Op.SOLARIZE, lambda m, s, u, n: [256 - _solarize(m)]),
    "SolarizeAdd": (
        Op.SOLARIZE_ADD,
        lambda m, s, u, n: [np.minimum(128, _whole(m / 10 * 110)), np.full_like(m, 128)],
    ),
    "Color": (Op.SATURATION, lambda m, s, u, n: _enhance(m)),
    "ColorIncreasing": (Op.SATURATION, lambda m, s, u, n: _enhance_more(m, s)),
    "Contrast": (Op.CONTRAST, lambda m, s, u, n: _enhance(m)),
    "ContrastIncreasing": (Op.CONTRAST, lambda m, s, u, n: _enhance_more(m, s)),
    "Brightness": (Op.BRIGHTNESS, lambda m, s, u, n: _enhance(m)),
    "BrightnessIncreasing": (Op.BRIGHTNESS, lambda m, s, u, n: _enhance_more(m, s)),
    "Sharpness": (Op.SHARPNESS, lambda m, s, u, n: _enhance(m)),
    "SharpnessIncreasing": (Op.SHARPNESS, lambda m, s, u, n: _enhance_more(m, s)),
    "Desaturate": (Op.SATURATION, lambda m, s, u, n: [1 - (0.5 + 0.5 * m / 10).clip(0.5, 1)]),
    "GaussianBlur": (Op.BLUR, lambda m, s, u, n: [(0.1 + 1.9 * m / 10).clip(0.1, 2)]),
    "GaussianBlurRand": (Op.BLUR, lambda m, s, u, n: [0.1 + u * (2 * (m / 10).clip(0, 1) - 0.1)]),
    # TrivialAugmentWide (Müller and Hutter, arXiv 2103.10158).
    "WideShearX": (Op.AFFINE, lambda m, s, u, n: moved(m, _wide(m, s, 0.99), shear=True)),
    "WideShearY": (Op.AFFINE, lambda m, s, u, n: moved(m, y=_wide(m, s, 0.99), shear=True)),
    "WideTranslateX": (Op.AFFINE, lambda m, s, u, n: moved(m, np.trunc(_wide(m, s, 32)))),
    "WideTranslateY": (Op.AFFINE, lambda m, s, u, n: moved(m, y=np.trunc(_wide(m, s, 32)))),
    "WideRotate": (Op.AFFINE, lambda m, s, u, n: rotation(_wide(m, s, 135), n)),
    "WideBrightness": (Op.BRIGHTNESS, lambda m, s, u, n: [1 + _wide(m, s, 0.99)]),
    "WideColor": (Op.SATURATION, lambda m, s, u, n: [1 + _wide(m, s, 0.99)]),
    "WideContrast": (Op.CONTRAST, lambda m, s, u, n: [1 + _wide(m, s, 0.99)]),
    "WideSharpness": (Op.SHARPNESS, lambda m, s, u, n: [1 + _wide(m, s, 0.99)]),
    "WidePosterize": (Op.POSTERIZE, lambda m, s, u, n: [8 - np.round(m / 10 * 6)]),
    "WideSolarize": (Op.SOLARIZE, lambda m, s, u, n: [np.ceil(255 * (1 - m / 10))]),
}


def arguments_of(name: str, level: np.ndarray, sign: np.ndarray, free: np.ndarray, size: int) -> np.ndarray:
    """(n, 8) float32 arguments of a policy's operation."""
    result = np.zeros((len(level), ARGUMENTS), np.float32)
    for column, values in enumerate(LEVELS[name][1](level, sign, free, size)):
        result[:, column] = values
    return result
