"""Augmentation policies by name: RandAugment, AutoAugment, AugMix, 3-Augment, TrivialAugment, common corruptions.

Names and their sections are timm's (`timm.data.auto_augment`), so that what stands in its recipes can be used here.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fasttrain.loading.augment.corruptions import CORRUPTIONS

INCREASING = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
PLAIN = tuple(name.removesuffix("Increasing") for name in INCREASING)
THREE = ("SolarizeIncreasing", "Desaturate", "GaussianBlur")
WEIGHTED_THREE = {
    **dict.fromkeys(THREE, 6.0),
    "Rotate": 3.0,
    "ShearX": 2.0,
    "ShearY": 2.0,
    **dict.fromkeys(
        (
            "PosterizeIncreasing",
            "AutoContrast",
            "ColorIncreasing",
            "SharpnessIncreasing",
            "ContrastIncreasing",
            "BrightnessIncreasing",
            "Equalize",
            "Invert",
        ),
        1.0,
    ),
}
WEIGHTED = {
    "Rotate": 3.0,
    "ShearX": 2.0,
    "ShearY": 2.0,
    "TranslateXRel": 1.0,
    "TranslateYRel": 1.0,
    "ColorIncreasing": 0.25,
    "SharpnessIncreasing": 0.25,
    "AutoContrast": 0.25,
    **dict.fromkeys(
        (
            "SolarizeIncreasing",
            "SolarizeAdd",
            "ContrastIncreasing",
            "BrightnessIncreasing",
            "Equalize",
            "PosterizeIncreasing",
            "Invert",
        ),
        0.05,
    ),
}
AUGMIX = (
    "AutoContrast",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "Equalize",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
TRIVIAL = (
    "Identity",
    "WideShearX",
    "WideShearY",
    "WideTranslateX",
    "WideTranslateY",
    "WideRotate",
    "WideBrightness",
    "WideColor",
    "WideContrast",
    "WideSharpness",
    "WidePosterize",
    "WideSolarize",
    "AutoContrast",
    "Equalize",
)
# Sets of operations that `t` chooses.
SETS: dict[str, tuple[str, ...] | dict[str, float]] = {"3a": THREE, "3aw": WEIGHTED_THREE, "weights": WEIGHTED}

# Pairs of (operation, probability, magnitude); the ImageNet policy of Cubuk et al., arXiv 1805.09501.
_ORIGINAL = """
Posterize .4 8 Rotate .6 9;Solarize .6 5 AutoContrast .6 5;Equalize .8 8 Equalize .6 3;Posterize .6 7 Posterize .6 6;
Equalize .4 7 Solarize .2 4;Equalize .4 4 Rotate .8 8;Solarize .6 3 Equalize .6 7;Posterize .8 5 Equalize 1 2;
Rotate .2 3 Solarize .6 8;Equalize .6 8 Posterize .4 6;Rotate .8 8 Color .4 0;Rotate .4 9 Equalize .6 2;
Equalize 0 7 Equalize .8 8;Invert .6 4 Equalize 1 8;Color .6 4 Contrast 1 8;Rotate .8 8 Color 1 2;
Color .8 8 Solarize .8 7;Sharpness .4 7 Invert .6 8;ShearX .6 5 Equalize 1 9;Color .4 0 Equalize .6 3;
Equalize .4 7 Solarize .2 4;Solarize .6 5 AutoContrast .6 5;Invert .6 4 Equalize 1 8;Color .6 4 Contrast 1 8;
Equalize .8 8 Equalize .6 3"""
# That of the TPU implementation of EfficientNet.
_V0 = """
Equalize .8 1 ShearY .8 4;Color .4 9 Equalize .6 3;Color .4 1 Rotate .6 8;Solarize .8 3 Equalize .4 7;
Solarize .4 2 Solarize .6 2;Color .2 0 Equalize .8 8;Equalize .4 8 SolarizeAdd .8 3;ShearX .2 9 Rotate .6 8;
Color .6 1 Equalize 1 2;Invert .4 9 Rotate .6 0;Equalize 1 9 ShearY .6 3;Color .4 7 Equalize .6 0;
Posterize .4 6 AutoContrast .4 7;Solarize .6 8 Color .6 9;Solarize .2 4 Rotate .8 9;Rotate 1 7 TranslateYRel .8 9;
ShearX 0 0 Solarize .8 4;ShearY .8 0 Color .6 4;Color 1 0 Rotate .6 2;Equalize .8 4 Equalize 0 8;
Equalize 1 4 AutoContrast .6 2;ShearY .4 7 SolarizeAdd .6 7;Posterize .8 2 Solarize .6 10;Solarize .6 8 Equalize .6 1;
Color .8 6 Rotate .4 5"""


@dataclass(frozen=True)
class Layer:
    """One operation that may be done: which, how probably, how strongly (0 to 10)."""

    name: str
    prob: float
    magnitude: float


@dataclass(frozen=True)
class Policy:
    """What a name stands for.

    Attributes:
        kind: ``rand`` draws `layers` of `choices`; ``auto`` one of `pairs`; ``augmix`` mixes `width` chains of choices;
            ``trivial`` draws one choice and its strength; ``corrupt`` draws `layers` corruptions.
        choices: operations with their weights.
        replace: the same operation may be drawn again.
        magnitude, deviation, largest: strength of the operations, its standard deviation (infinite: uniform from 0 on)
            and upper bound.
        depth: operations of a chain; -1 for 1 to 3.
        alpha: of the Dirichlet and the Beta distribution of a mixture.
        severity: the largest of a corruption.
    """

    kind: str
    choices: Mapping[str, float] = field(default_factory=dict)
    layers: int = 2
    prob: float = 0.5
    replace: bool = True
    magnitude: float = 10.0
    deviation: float = 0.0
    largest: float = 10.0
    pairs: tuple[tuple[Layer, ...], ...] = ()
    width: int = 3
    depth: int = -1
    alpha: float = 1.0
    severity: int = 2


@cache
def parse_policy(text: str) -> Policy:
    """What `text` stands for.

    Raises:
        ValueError: nothing, or a section of it is unknown; the sentence names the nearest known one.
    """
    name, *sections = text.split("-") if text != "3-augment" else ["3a"]
    if name not in _KINDS:
        raise ValueError(f"there is no policy {name!r}; {_nearest(name, list(_KINDS))}")
    make, known = _KINDS[name]
    return make(name, _sections(text, sections, known))


def _sections(text: str, sections: list[str], known: Mapping[str, str]) -> dict[str, str]:
    """Values by key: ``mstd0.5`` is the value 0.5 of the key ``mstd``."""
    found = {}
    for section in sections:
        if "t" in known and section.startswith("t"):
            key, value = "t", section[1:]
        else:
            key = re.split(r"[^a-z]", section.removesuffix("inf"), maxsplit=1)[0]
            value = section.removeprefix(key)
        if key not in known:
            raise ValueError(f"policy {text!r} has an unknown section {section!r}; {_nearest(key, list(known))}")
        try:
            if key != "t":
                float(value)
        except ValueError:
            raise ValueError(f"section {section!r} of policy {text!r} wants a number behind {key!r}") from None
        found[key] = value
    return found


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known ones: {', '.join(known)}"


def _count(values: Mapping[str, str], key: str, default: int, least: int, most: int) -> int:
    value = float(values.get(key, default))
    if value != int(value) or not least <= value <= most:
        raise ValueError(f"section {key!r} of a policy must be a whole number from {least} to {most}, not {value:g}")
    return int(value)


def _share(values: Mapping[str, str], key: str, default: float) -> float:
    value = float(values.get(key, default))
    if not 0 <= value <= 1:
        raise ValueError(f"section {key!r} of a policy must lie between 0 and 1, not {value:g}")
    return value


def _strength(values: Mapping[str, str], magnitude: float, deviation: float) -> dict[str, Any]:
    chosen = float(values.get("m", magnitude))
    spread = float(values.get("mstd", deviation))
    if chosen < 0 or spread < 0:
        raise ValueError("magnitudes and their deviations must not be negative")
    largest = float(values.get("mmax", 10.0))
    return {"magnitude": chosen, "deviation": float("inf") if spread > 100 else spread, "largest": largest}


def _rand(name: str, values: Mapping[str, str]) -> Policy:
    choices: tuple[str, ...] | dict[str, float] = INCREASING if float(values.get("inc", 0)) else PLAIN
    if "t" in values:
        if values["t"] not in SETS:
            raise ValueError(f"there is no set of operations {values['t']!r}; {_nearest(values['t'], list(SETS))}")
        choices = SETS[values["t"]]
    weighted = isinstance(choices, dict)
    layers = _count(values, "n", 2, 0, len(choices) if weighted else 16)
    weights = choices if isinstance(choices, dict) else dict.fromkeys(choices, 1.0)
    # timm draws without replacement where there are weights.
    return Policy(
        "rand", weights, layers, _share(values, "p", 0.5), replace=not weighted, **_strength(values, 10.0, 0.0)
    )


def _augmix(name: str, values: Mapping[str, str]) -> Policy:
    return Policy(
        "augmix",
        dict.fromkeys(AUGMIX, 1.0),
        width=_count(values, "w", 3, 1, 8),
        depth=_count(values, "d", -1, -1, 8) or -1,
        alpha=float(values.get("a", 1.0)),
        **_strength(values, 3.0, float("inf")),
    )


def _auto(name: str, values: Mapping[str, str]) -> Policy:
    # What is called Posterize keeps 4 to 8 bits in the paper, 0 to 4 in the TPU code, 4 to 0 in the research code.
    posterize = {"original": "PosterizeOriginal", "v0": "Posterize"}.get(name, "PosterizeIncreasing")
    pairs = []
    for line in (_ORIGINAL if name.startswith("original") else _V0).replace("\n", "").split(";"):
        words = line.replace("Posterize", posterize).split()
        pairs.append(tuple(Layer(words[i], float(words[i + 1]), float(words[i + 2])) for i in (0, 3)))
    return Policy("auto", pairs=tuple(pairs), **_strength(values, 10.0, 0.0))


def _three(name: str, values: Mapping[str, str]) -> Policy:
    pairs = (Layer("Solarize", 1.0, 5.0),), (Layer("Desaturate", 1.0, 10.0),), (Layer("GaussianBlurRand", 1.0, 10.0),)
    return Policy("auto", pairs=pairs, **_strength(values, 10.0, 0.0))


def _trivial(name: str, values: Mapping[str, str]) -> Policy:
    return Policy("trivial", dict.fromkeys(TRIVIAL, 1.0), layers=1, prob=1.0)


def _corrupt(name: str, values: Mapping[str, str]) -> Policy:
    names = dict.fromkeys(["Identity", *CORRUPTIONS], 1.0)
    layers, severity = _count(values, "n", 1, 1, 8), _count(values, "s", 2, 1, 5)
    return Policy("corrupt", names, layers=layers, prob=1.0, severity=severity)


_NUMBERS = dict.fromkeys(("m", "n", "p", "mstd", "mmax", "inc", "t"), "")
_KINDS = {
    "rand": (_rand, _NUMBERS),
    "original": (_auto, {"mstd": ""}),
    "originalr": (_auto, {"mstd": ""}),
    "v0": (_auto, {"mstd": ""}),
    "v0r": (_auto, {"mstd": ""}),
    "3a": (_three, {"mstd": ""}),
    "augmix": (_augmix, dict.fromkeys(("m", "w", "d", "a", "mstd"), "")),
    "trivial": (_trivial, {}),
    "corrupt": (_corrupt, {"n": "", "s": ""}),
}
