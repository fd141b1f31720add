"""Angular margins on scaled cosines, as `fasttrain.models.heads.CosineHead` gives them."""

import torch
from torch import Tensor

from fasttrain.models.heads import HeadSettings
from fasttrain.training.losses.base import Facts

_RARITY = 0.25  # margins grow with n^(-1/4)


class ArcMargin:
    """Additive angular margin (Deng et al., "ArcFace", CVPR 2019, arXiv 1801.07698).

    The cosine of the true class becomes ``cos(a + m)``; where ``a + m`` would exceed pi, ``cos a - m sin m`` goes on
    falling from there. It needs nothing but logits and labels, so a model is the same with it and without.

    Args:
        scale: of the cosines.
        margins: (C,) float32, radians.
        easy: no margin for angles above 90 degrees.
    """

    def __init__(self, scale: float, margins: Tensor, easy: bool = False) -> None:
        self.scale, self.easy = scale, easy
        self.margins = margins

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(R, C) float32 of the same; labels (R,) int64."""
        own, margin = labels[:, None], self.margins[labels][:, None]
        cosine = (logits.gather(1, own) / self.scale).clamp(-1, 1)
        # Not down to 0, where the root has no finite slope.
        sine = (1 - cosine**2).clamp(min=1e-7).sqrt()
        ahead = cosine * margin.cos() - sine * margin.sin()
        if self.easy:
            chosen = torch.where(cosine > 0, ahead, cosine)
        else:
            chosen = torch.where(cosine > -margin.cos(), ahead, cosine - margin * margin.sin())
        return logits.scatter(1, own, self.scale * chosen)


def make_margin(settings: HeadSettings, facts: Facts) -> ArcMargin | None:
    """The margin of a head in training; None for one without."""
    if settings.kind != "arcface":
        return None
    if settings.adaptive:
        margins = adaptive_margins(facts, settings.margin_range)
    else:
        margins = torch.full((facts.num_classes,), settings.margin, device=facts.device)
    return ArcMargin(settings.scale, margins, settings.easy_margin)


def adaptive_margins(facts: Facts, between: tuple[float, float]) -> Tensor:
    """(C,) float32: ``n_c^(-1/4)``, stretched so that the most frequent class has the smaller margin of `between` and
    the rarest the larger one (the winners of ACCV 2022's webly-supervised challenge).

    Classes without samples have the larger one; where all are equally frequent, it is halfway.
    """
    least, most = between
    counts = facts.counts_for("head.adaptive")
    rarity = counts**-_RARITY
    assert facts.counts is not None
    present = rarity[facts.counts.to(facts.device) > 0]
    if not len(present) or present.min() == present.max():
        return torch.full_like(rarity, (least + most) / 2).float()
    low, high = present.min(), present.max()
    return (least + (rarity - low) / (high - low) * (most - least)).clamp(max=most).float()
