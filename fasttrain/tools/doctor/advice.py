"""What to change, from what was measured and seen."""

from dataclasses import dataclass
from typing import Literal

from fasttrain.loading.optional import install, why_absent

MANY = 0.1  # share of images that is worth a word
LARGE = 6.0  # pixels of an image over pixels of its view; the usual 500-pixel photo at 224 has 4

Bottleneck = Literal["model", "loader", "both"]


@dataclass(frozen=True)
class Situation:
    """What advice depends on.

    Attributes:
        bottleneck: ``model``, ``loader``, or ``both``: they want more cores together than there are.
        device: ``cpu`` or ``cuda``; amp: precision of the step.
        backend, threads, budget: of the loader; budget: whether a memory budget was given.
        cores: that this process may use.
        is_beton: whether all data are `.beton` files.
        pixels_per_view: mean pixels of an image over pixels of the view.
        portable_share: share of images that only Pillow decodes.
        unindexed_share: share of images that are JPEGs of a `.beton` without a random-access index, though the loader
            would use it.
    """

    bottleneck: Bottleneck
    device: str
    amp: str
    backend: str
    threads: int
    budget: bool
    cores: int
    is_beton: bool
    pixels_per_view: float
    portable_share: float
    unindexed_share: float = 0.0


def advise(situation: Situation) -> list[str]:
    """What to change, as clauses, the most promising first."""
    if situation.bottleneck == "model":
        return _for_the_model(situation)
    advice = _for_the_loader(situation)
    if situation.device == "cpu":
        advice.append("train on a GPU, or take more cores: on the CPU, loading and training share them")
    elif situation.bottleneck == "both":
        advice.append("take fewer --threads, so that a core is left for launching the GPU's work, or more cores")
    return advice


def _for_the_model(situation: Situation) -> list[str]:
    if situation.device == "cpu":
        return ["train on a GPU, or take a smaller --model or --size"]
    advice = ["take several GPUs (torchrun), a smaller --model or --size"]
    return ["use --amp bf16", *advice] if situation.amp == "off" else advice


def _for_the_loader(situation: Situation) -> list[str]:
    advice = []
    if situation.backend == "portable":
        absent = why_absent("native") is not None
        advice.append(f"get the native kernels: {install('native')}" if absent else "use --set backend=native")
    if situation.threads < situation.cores:
        advice.append(f"use --threads {situation.cores}")
    if not situation.is_beton:
        advice.append("convert the images once: fasttrain build DATA out.beton")
    if situation.portable_share > MANY:
        advice.append(f"build with --mode jpg: Pillow has to decode {situation.portable_share:.0%} of the images")
    if situation.unindexed_share > MANY:
        lacking = f"{situation.unindexed_share:.0%} of the images have no random-access index"
        advice.append(f"make one with fasttrain index DATA: {lacking}")
    if situation.pixels_per_view > LARGE:
        advice.append(
            f"build with --max-resolution, or use --set decode=fast: the images have {situation.pixels_per_view:.0f} "
            "times the pixels of their views"
        )
    if not situation.budget:
        advice.append("keep decoded images in memory with --memory-budget auto, if they fit, or build with --mode raw")
    if situation.device == "cuda" and situation.backend != "dali":
        absent = why_absent("dali") is not None
        advice.append("decode on the GPU with --set backend=dali" + (f" ({install('dali')})" if absent else ""))
    return advice
