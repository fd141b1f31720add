"""Common corruptions by name and severity: the operations and arguments of ImageNet-C (Hendrycks and Dietterich, ICLR
2019) that can be done to views of any size."""

from fasttrain.kernels.augment_program import Op

# Arguments of severities 1 to 5; what they mean is said in `fasttrain.kernels.augment_effects`.
CORRUPTIONS: dict[str, tuple[Op, tuple[tuple[float, ...], ...]]] = {
    "contrast": (Op.FADE, ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,))),
    "elastic_transform": (
        Op.ELASTIC,
        ((250 * 0.05,), (250 * 0.065,), (250 * 0.085,), (250 * 0.1,), (250 * 0.12,)),
    ),
    "pixelate": (Op.PIXELATE, ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,))),
    "jpeg_compression": (Op.JPEG, ((25,), (18,), (15,), (10,), (7,))),
    "spatter": (
        Op.SPATTER,
        (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
    ),
    "saturate": (Op.SATURATE, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
    "snow": (
        Op.SNOW,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (Op.FROST, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": (Op.FOG, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": (Op.LIGHTEN, ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,))),
}
