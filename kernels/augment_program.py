"""What is done to each image of a batch: lists of operations as arrays, whoever carries them out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np

ARGUMENTS = 8  # of each operation; those that it has no use for are 0
MAX_STEPS = 255
LARGEST = 1e6  # of an argument


class Op(IntEnum):
    """An operation on an image of bytes, with its arguments. Rounding is Pillow's unless something else is said.

    Geometric ones move the mask along; all others leave it alone.
    """

    NOTHING = 0
    AFFINE = 1  # a b c d e f: output pixel (x, y) shows (a x + b y + c, d x + e y + f), pixels' centres being at .5
    BRIGHTNESS = 2  # factor of the blend with black
    CONTRAST = 3  # factor of the blend with the mean luma of the image
    SATURATION = 4  # factor of the blend with the pixel's luma; 0 is grey
    SHARPNESS = 5  # factor of the blend with the image smoothed by Pillow's SMOOTH filter
    POSTERIZE = 6  # bits that are kept
    SOLARIZE = 7  # values from this one on are inverted
    SOLARIZE_ADD = 8  # what is added to values below the second argument
    INVERT = 9
    AUTOCONTRAST = 10
    EQUALIZE = 11
    GAMMA = 12  # exponent
    HUE = 13  # shift in turns, rounded to the nearest
    BLUR = 14  # standard deviation in pixels, by three box blurs
    NOISE = 15  # standard deviation in levels, of each value for itself
    ERASE = 16  # top left height width, 1 for noise or 0 for a colour, R G B of that
    GRID_SHUFFLE = 17  # cells a side, in random order; geometric
    MIX_BEGIN = 18  # of AugMix: what follows, up to MIX_CHAIN, is a chain
    MIX_CHAIN = 19  # weight of the chain that ends here; the next one begins with the image that the mixture began with
    MIX_END = 20  # share of the chains in the result
    # Common corruptions (Hendrycks and Dietterich, ICLR 2019), arguments as in `fasttrain.loading.augment.corruptions`.
    FADE = 21
    LIGHTEN = 22
    SATURATE = 23
    PIXELATE = 24
    JPEG = 25
    ELASTIC = 26  # geometric
    FOG = 27
    FROST = 28
    SNOW = 29
    SPATTER = 30


# Operations that map each value of a channel by a table, known before the image is.
TABLE_OPS = frozenset({Op.BRIGHTNESS, Op.POSTERIZE, Op.SOLARIZE, Op.SOLARIZE_ADD, Op.INVERT, Op.GAMMA})


@dataclass(frozen=True)
class Style:
    """What all images of a batch have in common.

    Attributes:
        fill: colour of what lies beyond the image.
        mask_fill: its value in masks, as a class that losses ignore.
        bilinear: affine operations interpolate; else, as masks always, they take the nearest pixel.
        noise_mean, noise_deviation: levels of R, G and B in what is erased by noise.
    """

    fill: tuple[int, int, int] = (128, 128, 128)
    mask_fill: int = 255
    bilinear: bool = True
    noise_mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    noise_deviation: tuple[float, float, float] = (60.0, 60.0, 60.0)


@dataclass(frozen=True)
class Program:
    """The operations of E images, K steps each.

    Attributes:
        operations: (E, K) int32 of `Op`.
        arguments: (E, K, 8) float32.
        seeds: (E,) uint64 of the randomness of their pixels (noise, patterns).
    """

    operations: np.ndarray
    arguments: np.ndarray
    seeds: np.ndarray
    style: Style = field(default_factory=Style)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, chosen: slice | np.ndarray) -> "Program":
        """The program of some of the images."""
        return replace(
            self, operations=self.operations[chosen], arguments=self.arguments[chosen], seeds=self.seeds[chosen]
        )

    def check(self, images: int) -> None:
        """See that it can be carried out on so many images.

        Raises:
            ValueError: shapes disagree, an operation is unknown or an argument impossible.
        """
        count, steps = len(self.seeds), self.operations.shape[-1]
        if self.operations.shape != (count, steps) or self.arguments.shape != (count, steps, ARGUMENTS):
            raise ValueError("operations, arguments and seeds must be of as many images and steps")
        if count != images:
            raise ValueError(f"the program of {count} images does not fit a batch of {images}")
        if steps > MAX_STEPS:
            raise ValueError(f"at most {MAX_STEPS} steps can be done to an image, not {steps}")
        if self.operations.size and not 0 <= self.operations.min() <= self.operations.max() < len(Op):
            raise ValueError("there is no such operation")
        if not (np.abs(self.arguments) <= LARGEST).all():  # nor are those that are no numbers
            raise ValueError("the arguments of operations must be finite, and at most a million")


def program_of(
    lists: Sequence[Sequence[tuple[Op, Sequence[float]]]],
    seeds: Sequence[int] | None = None,
    style: Style | None = None,
) -> Program:
    """A `Program` from lists of (operation, arguments), one list an image; by default image i has seed i."""
    steps = max((len(steps) for steps in lists), default=0)
    operations = np.zeros((len(lists), steps), np.int32)
    arguments = np.zeros((len(lists), steps, ARGUMENTS), np.float32)
    for image, wanted in enumerate(lists):
        for step, (operation, values) in enumerate(wanted):
            operations[image, step] = operation
            arguments[image, step, : len(values)] = values
    numbers = np.arange(len(lists)) if seeds is None else np.array(seeds)
    return Program(operations, arguments, numbers.astype(np.uint64), style or Style())


def joined(programs: Sequence[Program]) -> Program:
    """One after the other, on the same images; the first one's style."""
    return replace(
        programs[0],
        operations=np.concatenate([program.operations for program in programs], 1),
        arguments=np.concatenate([program.arguments for program in programs], 1),
    )


def native_program(program: Program) -> tuple[object, ...]:
    """The form that the C++ threads take."""
    style = program.style
    return (
        program.operations.astype(np.int32),
        program.arguments.astype(np.float32),
        program.seeds.astype(np.uint64),
        style.fill,
        style.mask_fill,
        style.bilinear,
        style.noise_mean,
        style.noise_deviation,
    )
