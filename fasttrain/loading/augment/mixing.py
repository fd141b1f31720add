"""Images mixed with others of their batch, and the soft targets that belong to them."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from fasttrain.base.config import Settings
from fasttrain.base.errors import ConfigError
from fasttrain.beton_build.mask_info import IGNORE
from fasttrain.kernels import mixing as kernels
from fasttrain.kernels.mixing_pairs import mix_reversed
from fasttrain.loading.batch import Batch, MaskedBatch
from fasttrain.loading.randomness import Operation, uniforms

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# Numbers of the draws, from Operation.MIX on. Never re-used for something else.
_CHOICE, _SHARES, _BOX, _STYLE = 0, 1, 2, 3
_BY_CHANCE = ("spatial", "spectral", "fourier", "style")  # ways that are set by a probability


class Spectral(Settings):
    """Low and high frequencies are mixed by shares of their own (`fasttrain.kernels.mixing.mix_by_frequency`); labels
    go by the low ones.

    Attributes:
        prob: of a batch; other batches may be mixed by `mixup` or `cutmix`.
        ratio: sides of the box of low frequencies, of the whole spectrum's.
        alpha: of the Beta distribution of the low frequencies' share; that of the high ones is uniform.
    """

    prob: Share = 0.0
    ratio: Share = 0.5
    alpha: Annotated[float, Field(gt=0)] = 2.0


class Spatial(Settings):
    """What masks show is mixed by one share, all else by another (`fasttrain.kernels.mixing.mix_by_masks`); labels go
    by the first. Class 0 of the masks is the background, every other one the object.

    Attributes:
        prob: of a batch; others may be mixed by `spectral`, `mixup` or `cutmix`.
        alpha: of the Beta distribution of the object's share; that of the background is uniform.
    """

    prob: Share = 0.0
    alpha: Annotated[float, Field(gt=0)] = 2.0


class Fourier(Settings):
    """Amplitudes of low frequencies move towards another image's (`fasttrain.kernels.mixing.mix_amplitudes`), by a
    uniform share; labels stay.

    Attributes:
        prob: of an image.
        ratio: sides of the box of low frequencies, of the whole spectrum's.
    """

    prob: Share = 0.0
    ratio: Share = 0.2


class StyleTransfer(Settings):
    """Images take on the colours of another one (`fasttrain.kernels.mixing.transfer_colours`); labels stay.

    Attributes:
        prob: of an image.
    """

    prob: Share = 0.0


class Mixing(Settings):
    """How the images of a batch are mixed. Partners are the first and the last image, the second and the last but one.

    Attributes:
        mixup, cutmix: alpha of the Beta distribution of the share; 0 for not. With both, one of them is drawn.
        cutmix_minmax: least and largest side of the box, as shares of the image's, instead of `cutmix`.
        mix_prob: of mixing at all.
        switch_prob: of CutMix where both are on.
        mix_mode: one draw for a ``batch``, for each ``pair``, or for each image (``elem``).
        spatial, spectral, fourier, style: further ways.
    """

    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    cutmix_minmax: tuple[Share, Share] | None = None
    mix_prob: Share = 1.0
    switch_prob: Share = 0.5
    mix_mode: Literal["batch", "pair", "elem"] = "batch"
    spatial: Spatial = Spatial()
    spectral: Spectral = Spectral()
    fourier: Fourier = Fourier()
    style: StyleTransfer = StyleTransfer()

    @model_validator(mode="after")
    def _one_way_a_batch(self) -> "Mixing":
        if self.spatial.prob + self.spectral.prob > 1:
            raise ValueError(
                f"spatial.prob {self.spatial.prob:g} and spectral.prob {self.spectral.prob:g} are shares of the "
                "batches, and more than 1 together"
            )
        return self

    @property
    def by_masks(self) -> bool:
        """Whether images are mixed by their masks."""
        return self.spatial.prob > 0

    @property
    def mixes_labels(self) -> bool:
        """Whether an image may belong to two classes."""
        return bool(self.mixup or self.cutmix or self.cutmix_minmax or self.spectral.prob or self.spatial.prob)

    @property
    def mixes(self) -> bool:
        """Whether anything is done."""
        return bool(self.mixes_labels or self.fourier.prob or self.style.prob)

    def ways(self) -> dict[str, "Mixing"]:
        """Settings of each way by itself, in which it mixes every image: for looking at them."""
        values: dict[str, dict[str, Any]] = {}
        if self.mixup:
            values["mixup"] = {"mixup": self.mixup}
        if self.cutmix or self.cutmix_minmax:
            values["cutmix"] = {"cutmix": self.cutmix, "cutmix_minmax": self.cutmix_minmax}
        for name in _BY_CHANCE:
            group = getattr(self, name)
            if group.prob:
                values[name] = {name: {**group.model_dump(), "prob": 1}}
        return {name: Mixing.model_validate({"mix_mode": self.mix_mode, **way}) for name, way in values.items()}


@dataclass(frozen=True)
class MixPlan:
    """What is mixed, for B images; each share is that of the image itself.

    Attributes:
        kind: ``none``, ``mixup``, ``cutmix``, ``both``, ``spatial`` or ``spectral``.
        shares: (B,) float64 of the labels.
        cut: (B,) bool: a box is cut, else all of the image is mixed.
        boxes: (B, 4) int64 top, bottom, left, right.
        others: (B,) float64 of what labels do not go by: background, or high frequencies.
        amplitudes: (B,) float64 share of the partner's amplitudes, 0 for images that keep their own.
        styled: (B,) bool: colours are taken from the partner.
    """

    kind: str
    shares: np.ndarray
    cut: np.ndarray
    boxes: np.ndarray
    others: np.ndarray
    amplitudes: np.ndarray
    styled: np.ndarray


def plan_mix(settings: Mixing, count: int, height: int, width: int, seed: int, step: int, rank: int = 0) -> MixPlan:
    """Plan a batch: a pure function of these arguments, so that a resumed run mixes as the first one.

    Shares, boxes, their clipping at the border and the correction of the share by what was cut are those of
    `timm.data.Mixup`.
    """
    group = {"batch": np.zeros(count, np.int64), "pair": np.minimum(np.arange(count), np.arange(count)[::-1])}.get(
        settings.mix_mode, np.arange(count)
    )
    draws = [_draw(seed, step, rank, group, number) for number in (_CHOICE, _SHARES, _BOX)]
    (mixed, switch, _, _), (share_mix, share_cut, _, others), box = draws
    [way] = _draw(seed, step, rank, np.zeros(1, np.int64), _CHOICE)[2]
    own = _draw(seed, step, rank, np.arange(count), _STYLE)
    amplitudes = np.where(own[0] < settings.fourier.prob, own[1], 0.0)
    styled = own[2] < settings.style.prob
    ones, nothing = np.ones(count), np.zeros(count, bool)
    boxes = np.zeros((count, 4), np.int64)
    if way < settings.spectral.prob + settings.spatial.prob:
        kind = "spectral" if way < settings.spectral.prob else "spatial"
        shares = _beta(getattr(settings, kind).alpha, share_mix)
        return MixPlan(kind, shares, nothing, boxes, others, amplitudes, styled)
    cuts, blends = bool(settings.cutmix or settings.cutmix_minmax), bool(settings.mixup)
    if not (cuts or blends):
        return MixPlan("none", ones, nothing, boxes, ones, amplitudes, styled)
    cut = (switch < settings.switch_prob) if cuts and blends else np.full(count, cuts)
    shares = np.where(cut, _beta(settings.cutmix or 1.0, share_cut), _beta(settings.mixup or 1.0, share_mix))
    active = mixed < settings.mix_prob
    shares, cut = np.where(active, shares, 1.0), cut & active
    if cut.any():
        boxes = np.where(cut[:, None], _boxes(settings, shares, box, height, width), 0)
        area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        shares = np.where(cut, 1 - area / (height * width), shares)
    kind = "none" if not active.any() else "cutmix" if cut[active].all() else "both" if cut.any() else "mixup"
    return MixPlan(kind, shares, cut, boxes, ones, amplitudes, styled)


def _draw(seed: int, step: int, rank: int, group: np.ndarray, number: int) -> np.ndarray:
    """(4, n) uniforms; equal for equal groups."""
    keys = group.astype(np.uint64) | (np.uint64(rank) << np.uint64(32))
    return uniforms(seed, step, keys, Operation.MIX + number)


def _beta(alpha: float, share: np.ndarray) -> np.ndarray:
    from scipy.special import betaincinv

    result: np.ndarray = betaincinv(alpha, alpha, share)
    return result


def _boxes(settings: Mixing, shares: np.ndarray, draw: np.ndarray, height: int, width: int) -> np.ndarray:
    """(B, 4) top, bottom, left, right."""
    if settings.cutmix_minmax is not None:
        low, high = settings.cutmix_minmax
        sides = []
        for length, extent, place in ((height, draw[0], draw[1]), (width, draw[2], draw[3])):
            least = int(length * low)
            side = least + np.floor(extent * max(int(length * high) - least, 1)).astype(np.int64)
            start = np.floor(place * (length - side + 1)).astype(np.int64)
            sides += [start, start + side]
        return np.stack(sides, 1)
    ratio = np.sqrt(1 - shares)
    sides = []
    for length, place in ((height, draw[0]), (width, draw[1])):
        side, centre = (length * ratio).astype(np.int64), np.floor(place * length).astype(np.int64)
        sides += [np.clip(centre - side // 2, 0, length), np.clip(centre + (side + 1) // 2, 0, length)]
    return np.stack(sides, 1)


def cut_masks(masks: Tensor, plan: MixPlan, partner: Tensor, together: Tensor) -> Tensor:
    """Masks (B, H, W) with the boxes of a plan cut from those of their partners, where both are there."""
    if not plan.cut.any():
        return masks
    boxes = torch.from_numpy(plan.boxes).to(masks.device, non_blocking=True)
    top, bottom, left, right = (side[:, None, None] for side in torch.where(together[:, None], boxes, 0).unbind(1))
    y = torch.arange(masks.shape[1], device=masks.device)[None, :, None]
    x = torch.arange(masks.shape[2], device=masks.device)[None, None, :]
    return torch.where((y >= top) & (y < bottom) & (x >= left) & (x < right), masks[partner], masks)


class Mixer:
    """Mixes batches.

    Args:
        num_classes: C.
        smoothing: share of the targets that is spread over all classes.
        mean, std: that the images were normalised by, of values 0 to 1.
    """

    def __init__(
        self,
        settings: Mixing,
        num_classes: int,
        *,
        smoothing: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
    ) -> None:
        self.settings, self.num_classes, self.smoothing = settings, num_classes, smoothing
        self._seed, self._rank = seed, rank
        self._mean, self._std = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)

    def __call__(self, batch: Batch, step: int) -> tuple[Batch, Tensor | None]:
        """The batch with mixed images (the given ones may be overwritten), and targets (B, C) float32; None where
        labels are not mixed.

        Masked samples are mixed with nothing, and nothing with them. Masks are cut as their images are, and stand for
        the targets; but where images are mixed by them (`Spatial`), they are used up by that, and the batch comes
        without.

        Args:
            step: number of the batch in the run.

        Raises:
            ConfigError: the batch holds several views of each sample, masks that would have to be blended, or none
                where images are mixed by them.
        """
        images = batch.images
        if images.dim() != 4:
            raise ConfigError("images of several views are not mixed; turn mixup, cutmix and the like off")
        objects = None
        if self.settings.by_masks:
            if not isinstance(batch, MaskedBatch):
                raise ConfigError("images are mixed by their masks (spatial), and the batch has none; use masks=True")
            objects = (batch.masks != 0) & (batch.masks != IGNORE)
            batch = Batch(*batch)
        if isinstance(batch, MaskedBatch) and (self.settings.mixup or self.settings.spectral.prob):
            raise ConfigError("masks cannot be blended; of mixup, cutmix and spectral only cutmix goes with masks")
        count, _, height, width = images.shape
        plan = plan_mix(self.settings, count, height, width, self._seed, step, self._rank)
        partner = torch.arange(count - 1, -1, -1, device=images.device)
        together = batch.valid & batch.valid[partner]
        images = self._restyle(images, plan, partner, together)
        shares = self._shares(plan.shares, together)
        images = self._mixed(images, plan, partner, shares, together, objects)
        if isinstance(batch, MaskedBatch):
            return batch._replace(images=images, masks=cut_masks(batch.masks, plan, partner, together)), None
        targets = self._targets(batch.labels, partner, shares) if self.settings.mixes_labels else None
        return batch._replace(images=images), targets

    def _shares(self, values: np.ndarray, together: Tensor) -> Tensor:
        """(B,) float32, 1 where a partner is missing."""
        shares = torch.from_numpy(values).to(together.device, torch.float32, non_blocking=True)
        return torch.where(together, shares, 1.0)

    def _mixed(
        self,
        images: Tensor,
        plan: MixPlan,
        partner: Tensor,
        shares: Tensor,
        together: Tensor,
        objects: Tensor | None,
    ) -> Tensor:
        if plan.kind == "none":
            return images
        others = self._shares(plan.others, together)
        if plan.kind == "spatial":
            assert objects is not None  # `__call__` sees to it
            return kernels.mix_by_masks(images, objects, partner, shares, others)
        if plan.kind == "spectral":
            return kernels.mix_by_frequency(images, partner, shares, others, self.settings.spectral.ratio)
        blended = np.where(plan.cut, 1.0, plan.shares)
        if plan.kind in ("mixup", "both"):
            whole = images.clone() if plan.kind == "both" else images
            images = mix_reversed(images, self._shares(blended, together))
            if plan.kind == "mixup":
                return images
            return torch.where(
                torch.from_numpy(plan.cut).to(images.device).view(-1, 1, 1, 1),
                self._cut(whole, plan, partner, together),
                images,
            )
        return self._cut(images, plan, partner, together)

    def _cut(self, images: Tensor, plan: MixPlan, partner: Tensor, together: Tensor) -> Tensor:
        if (plan.boxes == plan.boxes[0]).all():  # one box for all: only its pixels are touched
            top, bottom, left, right = plan.boxes[0].tolist()
            patch = images[:, :, top:bottom, left:right]
            patch.copy_(torch.where(together.view(-1, 1, 1, 1), patch[partner], patch))
            return images
        boxes = torch.from_numpy(plan.boxes).to(images.device, non_blocking=True)
        return kernels.cut(images, partner, torch.where(together[:, None], boxes, 0))

    def _restyle(self, images: Tensor, plan: MixPlan, partner: Tensor, together: Tensor) -> Tensor:
        """Change amplitudes and colours where the plan says so, of what was there before the normalisation."""
        if not (plan.amplitudes.any() or plan.styled.any()):
            return images
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        colours = (images.float() * std + mean).clamp(0, 1)
        if plan.amplitudes.any():
            share = 1 - self._shares(1 - plan.amplitudes, together)
            colours = kernels.mix_amplitudes(colours, partner, share, self.settings.fourier.ratio)
        if plan.styled.any():
            wanted = torch.from_numpy(plan.styled).to(images.device) & together
            others, deviations = (values[partner] for values in kernels.colour_statistics(colours))
            styled = kernels.transfer_colours(colours, others, deviations)
            colours = torch.where(wanted.view(-1, 1, 1, 1), styled, colours)
        changed = torch.from_numpy((plan.amplitudes > 0) | plan.styled).to(images.device) & together
        return torch.where(changed.view(-1, 1, 1, 1), ((colours - mean) / std).to(images.dtype), images)

    def _targets(self, labels: Tensor, partner: Tensor, shares: Tensor) -> Tensor:
        """(B, C) float32."""
        rest = self.smoothing / self.num_classes
        own = torch.full((len(labels), self.num_classes), rest, device=labels.device)
        own.scatter_(1, labels.clamp(min=0)[:, None], 1 - self.smoothing + rest)
        return torch.lerp(own[partner], own, shares[:, None])
