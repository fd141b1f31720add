"""The losses by name, and what each needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fasttrain.training.losses.base import Facts, Loss
from fasttrain.training.losses.binary import BinaryCrossEntropy
from fasttrain.training.losses.consistency import JensenShannon
from fasttrain.training.losses.cross_entropy import CrossEntropy, Focal, log_counts, log_priors
from fasttrain.training.losses.equalized import EqualizedSoftmax
from fasttrain.training.losses.seesaw import Seesaw

if TYPE_CHECKING:
    from fasttrain.training.losses.settings import LossSettings


@dataclass(frozen=True)
class Kind:
    """A loss in the registry.

    Attributes:
        make: from settings, the data's facts and the smoothing of labels.
        settings: names of the settings that it looks at.
        counts: it corrects for how many samples each class has.
        soft_targets: it takes shares of several classes.
        views: of each sample that it compares.
    """

    make: "Callable[[LossSettings, Facts, float], Loss]"
    settings: tuple[str, ...] = ()
    counts: bool = False
    soft_targets: bool = True
    views: int = 1


KINDS = {
    "ce": Kind(lambda chosen, facts, smoothing: CrossEntropy(smoothing)),
    "bce": Kind(
        lambda chosen, facts, smoothing: BinaryCrossEntropy(smoothing, chosen.threshold, chosen.sum_classes),
        ("threshold", "sum_classes"),
    ),
    "focal": Kind(lambda chosen, facts, smoothing: Focal(chosen.gamma, smoothing), ("gamma",)),
    "jsd": Kind(lambda chosen, facts, smoothing: JensenShannon(chosen.alpha, smoothing), ("alpha",), views=3),
    "balanced_softmax": Kind(lambda chosen, facts, smoothing: CrossEntropy(smoothing, log_counts(facts)), counts=True),
    "logit_adjustment": Kind(
        lambda chosen, facts, smoothing: CrossEntropy(smoothing, log_priors(facts, chosen.tau)), ("tau",), counts=True
    ),
    "seesaw": Kind(
        lambda chosen, facts, smoothing: Seesaw(facts, chosen.mitigation, chosen.compensation, smoothing),
        ("mitigation", "compensation"),
        counts=True,
        soft_targets=False,
    ),
    "softmax_eql": Kind(
        lambda chosen, facts, smoothing: EqualizedSoftmax(facts, chosen.tau, chosen.eps, chosen.indicator, smoothing),
        ("tau", "eps", "indicator"),
        soft_targets=False,
    ),
}
