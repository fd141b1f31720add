"""Names of policies, and what their operations come to, beside timm and torchvision on the same parameters."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as theirs
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import TrivialAugmentWide

from fasttrain.base.errors import ConfigError
from fasttrain.kernels.augment import augment
from fasttrain.kernels.augment_program import Op, Style, program_of
from fasttrain.loading.augment.levels import LEVELS, TRIVIAL_BINS, arguments_of
from fasttrain.loading.augment.policies import SETS, parse_policy
from fasttrain.loading.views import train_view

SIZE = 48
FILL = (124, 116, 104)
NAMES = [name for name in theirs.LEVEL_TO_ARG if name in LEVELS and name != "GaussianBlurRand"]


def photo() -> np.ndarray:
    generator = np.random.default_rng(3)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    waves = np.stack([np.sin(x / (7 + channel) + y / 13) for channel in range(3)], -1)
    return np.clip(127 + 70 * waves + generator.normal(0, 15, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def ours(name: str, level: float, sign: float) -> np.ndarray:
    row = arguments_of(name, np.array([level]), np.array([sign]), np.array([0.5]), SIZE)[0]
    program = program_of([[(LEVELS[name][0], row.tolist())]], style=Style(fill=FILL))
    return augment(torch.from_numpy(photo()[None]), program)[0].numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0.0, 3.7, 9.0, 10.0])
def test_an_operation_is_timms(name: str, level: float, monkeypatch: pytest.MonkeyPatch) -> None:
    hparams = {"translate_const": int(0.45 * SIZE), "img_mean": FILL}
    function, how = theirs.LEVEL_TO_ARG[name], {"resample": Image.Resampling.BILINEAR, "fillcolor": FILL}
    for sign in (1.0, -1.0):
        monkeypatch.setattr(theirs, "_randomly_negate", lambda value, sign=sign: sign * value)
        arguments = () if function is None else function(level, hparams)
        made = ours(name, level, sign)
        if LEVELS[name][0] == Op.POSTERIZE and arguments[0] == 0:  # which newer versions of Pillow refuse
            assert not made.any()
            continue
        expected = np.asarray(theirs.NAME_TO_OP[name](Image.fromarray(photo()), *arguments, **how))
        apart = np.abs(made.astype(int) - expected).max(-1)
        if LEVELS[name][0] == Op.AFFINE:
            assert (apart > 1).mean() < 0.003 and (apart > 0).mean() < 0.15
        else:
            assert apart.max() == 0


def test_wide_operations_are_torchvisions() -> None:
    space = TrivialAugmentWide()._augmentation_space(TRIVIAL_BINS)
    image = Image.fromarray(photo())
    names = {"Rotate": "WideRotate", "Posterize": "WidePosterize", "Solarize": "WideSolarize"}
    names |= {
        name: f"Wide{name}" for name in ("Brightness", "Color", "Contrast", "Sharpness", "TranslateX", "TranslateY")
    }
    for name, wide in names.items():
        magnitudes = space[name][0]
        for bin_ in (0, 11, 30):
            level, value = bin_ / (TRIVIAL_BINS - 1) * 10, float(magnitudes[bin_])
            made = ours(wide, level, 1.0)
            if name == "Rotate":
                expected = image.rotate(value, Image.Resampling.BILINEAR, fillcolor=FILL)
            elif name.startswith("Translate"):
                move = [-int(value), 0] if name == "TranslateX" else [0, -int(value)]
                how = {"angle": 0.0, "scale": 1.0, "shear": [0.0], "interpolation": InterpolationMode.NEAREST}
                expected = F.affine(image, translate=move, fill=list(FILL), **how)
            elif name == "Posterize":
                expected = F.posterize(image, int(value))
            elif name == "Solarize":
                expected = F.solarize(image, value)
            else:
                functions = {"Brightness": F.adjust_brightness, "Contrast": F.adjust_contrast}
                functions |= {"Color": F.adjust_saturation, "Sharpness": F.adjust_sharpness}
                expected = functions[name](image, 1 + value)
            apart = np.abs(made.astype(int) - np.asarray(expected)).max(-1)
            assert (apart > 1).mean() < 0.003, (name, bin_)


@pytest.mark.parametrize(
    "text", ["rand-m9-n2-mstd0.5-inc1", "rand-m7-n3-p0.8-mmax15", "rand-m9-tweights", "rand-t3aw-n1"]
)
def test_rand_sections_are_timms(text: str) -> None:
    policy, transform = parse_policy(text), theirs.rand_augment_transform(text, {})
    op = transform.ops[0]
    assert list(policy.choices) == [each.name for each in transform.ops] and policy.layers == transform.num_layers
    assert (policy.magnitude, policy.prob) == (op.magnitude, op.prob)
    assert policy.deviation == op.magnitude_std and policy.largest == (op.magnitude_max or 10)
    if transform.choice_weights is not None:
        weights = np.array(list(policy.choices.values()))
        np.testing.assert_allclose(weights / weights.sum(), transform.choice_weights)
        assert not policy.replace


@pytest.mark.parametrize("text", ["original", "original-mstd0.5", "originalr", "v0", "v0r-mstd1", "3a"])
def test_auto_augment_is_timms(text: str) -> None:
    policy, transform = parse_policy(text), theirs.auto_augment_transform(text, {})
    expected = [[(op.name, op.prob, op.magnitude) for op in pair] for pair in transform.policy]
    assert [[(layer.name, layer.prob, layer.magnitude) for layer in pair] for pair in policy.pairs] == expected
    assert policy.deviation == transform.policy[0][0].magnitude_std


def test_augmix_is_timms() -> None:
    policy, transform = parse_policy("augmix-m5-w4-d2"), theirs.augment_and_mix_transform("augmix-m5-w4-d2", {})
    assert list(policy.choices) == [op.name for op in transform.ops]
    assert (policy.width, policy.depth, policy.alpha) == (transform.width, transform.depth, transform.alpha)
    assert (policy.magnitude, policy.deviation) == (5, float("inf"))
    assert policy.magnitude == transform.ops[0].magnitude


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rnd-m9", "did you mean 'rand'"),
        ("rand-x3", "unknown section 'x3'"),
        ("rand-mstdx", "did you mean 'mstd'"),
        ("rand-n2.5", "whole number"),
        ("rand-p1.5", "between 0 and 1"),
        ("rand-tweight", "did you mean 'weights'"),
        ("augmx", "did you mean 'augmix'"),
        ("corrupt-s6", "from 1 to 5"),
        ("rand-m-3", "unknown section|wants a number"),
        ("", "there is no policy"),
    ],
)
def test_a_wrong_name_is_answered_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        train_view(augment={"policy": text})


def test_every_choice_has_a_level() -> None:
    for text in ("rand", "rand-inc1", "augmix", "trivial", *(f"rand-t{name}" for name in SETS)):
        assert set(parse_policy(text).choices) <= set(LEVELS)
