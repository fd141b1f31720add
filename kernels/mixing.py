"""Images of a batch mixed with each other, on any device, in torch: all of a batch at once, nothing waits for the
device.

`partner` ((B,) int64) says with which image each one is mixed. Images are (B, C, H, W) floats.
"""

import torch
from torch import Tensor

# Reinhard et al., "Color transfer between images", 2001: RGB to LMS, and decorrelated axes of the logarithms.
_LMS = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
_TINY = 1e-4


def mix(images: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """``share * image + (1 - share) * its partner`` (Zhang et al., arXiv 1710.09412).

    Args:
        share: (B,) float.
    """
    weight = share.to(images.dtype).view(-1, 1, 1, 1)
    return torch.lerp(images[partner], images, weight)


def cut(images: Tensor, partner: Tensor, boxes: Tensor) -> Tensor:
    """Images with a box of their partners in its place (Yun et al., arXiv 1905.04899).

    Args:
        boxes: (B, 4) int64 top, bottom, left, right; bottom and right are outside.
    """
    y = torch.arange(images.shape[2], device=images.device)
    x = torch.arange(images.shape[3], device=images.device)
    top, bottom, left, right = (side[:, None] for side in boxes.to(images.device).unbind(1))
    inside = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]
    return torch.where(inside[:, None], images[partner], images)


def mix_by_masks(images: Tensor, masks: Tensor, partner: Tensor, front: Tensor, back: Tensor) -> Tensor:
    """What masks show is mixed by one share, all else by another (Liu et al., "Decoupled Mixup", arXiv 2210.14783).

    Args:
        masks: (B, H, W), 1 (or true) where the object is, 0 elsewhere.
        front, back: (B,) shares of the image itself, where its and its partner's object or background lie.
    """
    shown = masks.to(images.dtype)[:, None]
    near, far = images * shown, images * (1 - shown)
    return mix(near, partner, front) + mix(far, partner, back)


def mix_by_frequency(images: Tensor, partner: Tensor, low: Tensor, high: Tensor, ratio: float) -> Tensor:
    """Low frequencies are mixed by one share, high ones by another (the same paper); with equal shares this is `mix`.

    Args:
        low, high: (B,) shares of the image itself.
        ratio: sides of the box of low frequencies, of the whole spectrum's.
    """
    height, width = images.shape[2:]
    values = images.float()
    spectrum = torch.fft.rfft2(values)
    is_low = _low_frequencies(height, width, ratio, images.device)
    share = torch.where(is_low, low.float().view(-1, 1, 1, 1), high.float().view(-1, 1, 1, 1))
    mixed = spectrum[partner] + (spectrum - spectrum[partner]) * share
    return _like(torch.fft.irfft2(mixed, s=(height, width)), images)


def mix_amplitudes(images: Tensor, partner: Tensor, share: Tensor, ratio: float) -> Tensor:
    """Amplitudes of low frequencies move towards the partner's, phases stay (Xu et al., CVPR 2021, arXiv 2105.11120;
    Yang and Soatto, CVPR 2020, arXiv 2004.05498).

    Both images of a pair change if each is the other's partner.

    Args:
        images: values 0 to 1, as the result.
        share: (B,) of the partner's amplitude.
        ratio: sides of the box of low frequencies, of the whole spectrum's.
    """
    height, width = images.shape[2:]
    spectrum = torch.fft.rfft2(images.float())
    amplitude = spectrum.abs()
    weight = share.float().view(-1, 1, 1, 1) * _low_frequencies(height, width, ratio, images.device)
    wanted = torch.lerp(amplitude, amplitude[partner], weight)
    # Where there is no amplitude there is no phase either; it is taken as 0.
    phase = torch.where(amplitude > 0, spectrum / amplitude.clamp(min=torch.finfo(torch.float32).tiny), 1.0)
    return _like(torch.fft.irfft2(phase * wanted, s=(height, width)).clamp(0, 1), images)


def transfer_colours(images: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Colours with the statistics of other images (Reinhard et al., IEEE CG&A 2001).

    Args:
        images: RGB, values 0 to 1, as the result.
        mean, deviation: (B, 3) of the other images, as `colour_statistics` gives them.
    """
    values = _to_lab(images.float())
    own_mean, own_deviation = _statistics(values)
    scale = (deviation / own_deviation.clamp(min=_TINY))[:, :, None, None]
    moved = (values - own_mean[:, :, None, None]) * scale + mean[:, :, None, None]
    return _like(_from_lab(moved).clamp(0, 1), images)


def colour_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, 3) float32 of the three axes of Ruderman's lαβ space."""
    return _statistics(_to_lab(images.float()))


def _statistics(lab: Tensor) -> tuple[Tensor, Tensor]:
    return lab.mean((2, 3)), lab.std((2, 3), correction=0)


def _axes(device: torch.device) -> Tensor:
    """Logarithms of LMS to l, α and β: an orthogonal matrix."""
    rows = torch.tensor([[1.0, 1, 1], [1, 1, -2], [1, -1, 0]], device=device)
    return rows / rows.norm(dim=1, keepdim=True)


def _to_lab(images: Tensor) -> Tensor:
    cones = torch.einsum("ij,bjhw->bihw", torch.tensor(_LMS, device=images.device), images)
    return torch.einsum("ij,bjhw->bihw", _axes(images.device), (cones + _TINY).log10())


def _from_lab(values: Tensor) -> Tensor:
    cones = 10 ** torch.einsum("ji,bjhw->bihw", _axes(values.device), values) - _TINY
    inverse = torch.linalg.inv(torch.tensor(_LMS, dtype=torch.float64)).float().to(values.device)
    return torch.einsum("ij,bjhw->bihw", inverse, cones)


def _low_frequencies(height: int, width: int, ratio: float, device: torch.device) -> Tensor:
    """(H, W // 2 + 1) bool: those in a centred box of `ratio` times the sides of the spectrum."""
    y = torch.fft.fftfreq(height, device=device).abs()[:, None]
    x = torch.fft.rfftfreq(width, device=device)[None]
    return (y <= ratio / 2) & (x <= ratio / 2)


def _like(values: Tensor, images: Tensor) -> Tensor:
    """`values` in the type and memory format of `images`."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if channels_last else torch.contiguous_format
    return values.to(images.dtype).contiguous(memory_format=form)
