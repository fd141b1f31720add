"""Strong augmentation of mixed images: colours and blur, each image with draws of its own. Masks stay as they are."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.base.config import Settings
from fasttrain.kernels import device_stage
from fasttrain.kernels.pixels import NEUTRAL, Target
from fasttrain.loading.augment.settings import Blur, Share
from fasttrain.loading.plan import Jitter
from fasttrain.loading.randomness import Operation, uniforms

# Numbers of the draws, from Operation.STRONG on. Never re-used for something else.
_CHOICE, _FACTORS, _ORDER = 0, 1, 2
_REACH = 4.0  # standard deviations that a kernel of the blur reaches


class StrongSettings(Settings):
    """What is done to mixed images.

    Attributes:
        jitter: probability of an image of having its colours changed.
        strength: of brightness, contrast, saturation (factors in 1 - s to 1 + s) and hue (shift in turns, -s to s), in
            any order.
        blur: probability, and standard deviations in pixels.
    """

    jitter: Share = 0.8
    strength: tuple[float, float, float, float] = (0.2, 0.2, 0.2, 0.2)
    blur: Blur = Blur(prob=0.5, sigma=(0.15, 1.15))


class StrongAugmentation:
    """Carries the settings out.

    Args:
        mean, std: of the images' normalisation, of values 0–1.
    """

    def __init__(self, settings: StrongSettings, seed: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.settings, self.seed = settings, seed
        self._mean, self._std = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (mean, std))

    def __call__(self, images: Tensor, step: int, first: int = 0) -> Tensor:
        """Augment normalised images.

        Args:
            images: (B, 3, H, W).
            step, first: see `fasttrain.training.adaptation.class_mix.choose_classes`.

        Returns:
            (B, 3, H, W) of the same type, channels-last. Images whose colours change are rounded to bytes on the way.
        """
        keys = np.arange(first, first + len(images), dtype=np.uint64)
        choice = uniforms(self.seed, step, keys, Operation.STRONG + _CHOICE)
        changed = choice[0] < self.settings.jitter
        if changed.any():
            jittered = self._jittered(images, keys, step)
            images = torch.where(_on(changed, images)[:, None, None, None], jittered, images)
        low, high = self.settings.blur.sigma
        sigmas = np.where(choice[1] < self.settings.blur.prob, low + choice[2] * (high - low), 0.0)
        if sigmas.any():
            images = blurred(images, sigmas)
        return images.contiguous(memory_format=torch.channels_last)

    def _jittered(self, images: Tensor, keys: np.ndarray, step: int) -> Tensor:
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        levels = (images.float() * std + mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
        strength = np.array(self.settings.strength)[:, None]
        drawn = uniforms(self.seed, step, keys, Operation.STRONG + _FACTORS)
        low = np.concatenate([np.maximum(0.0, 1 - strength[:3]), -strength[3:]])
        high = np.concatenate([1 + strength[:3], strength[3:]])
        factors = np.where(strength > 0, low + drawn * (high - low), np.array(NEUTRAL)[:, None])
        order = np.argsort(uniforms(self.seed, step, keys, Operation.STRONG + _ORDER), axis=0, kind="stable")
        red, green, blue = (1 / (255 * self._std.flatten())).tolist()
        scale, shift = (red, green, blue), tuple((-self._mean / self._std).flatten().tolist())
        target = Target(scale, (shift[0], shift[1], shift[2]), images.dtype)
        pixels = levels.permute(0, 2, 3, 1).contiguous()
        return device_stage.finish(pixels, target, Jitter(factors.T.astype(np.float32), order.T))


def blurred(images: Tensor, sigmas: np.ndarray) -> Tensor:
    """Gaussian blur, mirrored at the border.

    Args:
        images: (B, C, H, W).
        sigmas: (B,) standard deviations in pixels; an image with 0 is left as it is.
    """
    count, channels, height, width = images.shape
    radius = max(1, math.ceil(_REACH * float(sigmas.max())))
    radius = min(radius, height - 1, width - 1)
    places = np.arange(-radius, radius + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        kernels = np.exp(-0.5 * (places / sigmas[:, None]) ** 2)
    kernels[sigmas == 0] = places == 0
    kernels /= kernels.sum(1, keepdims=True)
    weights = torch.from_numpy(kernels).to(images.device, images.dtype).repeat_interleave(channels, 0)
    planes = images.reshape(1, count * channels, height, width)
    planes = F.pad(planes, (radius,) * 4, mode="reflect")
    planes = F.conv2d(planes, weights[:, None, None, :], groups=count * channels)
    planes = F.conv2d(planes, weights[:, None, :, None], groups=count * channels)
    result = planes.view(count, channels, height, width)
    return torch.where(_on(sigmas > 0, images)[:, None, None, None], result, images)


def _on(values: np.ndarray, images: Tensor) -> Tensor:
    return torch.from_numpy(values).to(images.device, non_blocking=True)
