"""Mixing of images against NumPy, and that it does something."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fasttrain.kernels import mixing
from fasttrain.kernels.mixing_pairs import mix_reversed

PARTNER = torch.tensor([3, 2, 1, 0, 4])


def images(height: int = 9, width: int = 12) -> Tensor:
    """(5, 3, height, width) from 0 to 1, smooth."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((5, 3, 4, 4), generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def shares(seed: int = 1) -> Tensor:
    return torch.rand(5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mix_reversed(count: int, channels_last: bool, dtype: torch.dtype) -> None:
    values = torch.rand((count, 3, 7, 5), generator=torch.Generator().manual_seed(0)).to(dtype)
    if channels_last:
        values = values.contiguous(memory_format=torch.channels_last)
    share = torch.linspace(0.1, 0.9, count)
    weight = share.to(dtype).view(-1, 1, 1, 1)
    expected = weight * values + (1 - weight) * values.flip(0)
    ours = values.clone()
    assert mix_reversed(ours, share) is ours
    middle = count // 2 if count % 2 else None
    torch.testing.assert_close(ours, expected, atol=1e-6 if dtype == torch.float32 else 0.01, rtol=0)
    if middle is not None:
        torch.testing.assert_close(ours[middle], values[middle])
    alone = mix_reversed(values.clone(), share, threads=1)
    assert torch.equal(alone, mix_reversed(values.clone(), share, threads=3))


def test_mix_and_cut() -> None:
    values, share = images(), shares()
    mixed = mixing.mix(values, PARTNER, share)
    expected = share.view(-1, 1, 1, 1) * values + (1 - share.view(-1, 1, 1, 1)) * values[PARTNER]
    torch.testing.assert_close(mixed, expected)
    boxes = torch.tensor([[1, 5, 2, 9], [0, 0, 0, 0], [0, 9, 0, 12], [3, 4, 11, 12], [2, 3, 2, 3]])
    cut = mixing.cut(values, PARTNER, boxes)
    for number, (top, bottom, left, right) in enumerate(boxes.tolist()):
        wanted = values[number].clone()
        wanted[:, top:bottom, left:right] = values[PARTNER[number], :, top:bottom, left:right]
        assert torch.equal(cut[number], wanted)


def test_mix_by_masks_is_the_papers_sum() -> None:
    values, front, back = images().double(), shares(1).double(), shares(2).double()
    masks = (torch.rand((5, 9, 12), generator=torch.Generator().manual_seed(3)) > 0.5).to(torch.uint8)
    ours = mixing.mix_by_masks(values, masks, PARTNER, front, back).numpy()
    x, m, p = values.numpy(), masks.numpy()[:, None].astype(float), PARTNER.numpy()
    lf, lb = front.numpy().reshape(-1, 1, 1, 1), back.numpy().reshape(-1, 1, 1, 1)
    near = lf * (x * m) + (1 - lf) * (x[p] * m[p])
    far = lb * (x * (1 - m)) + (1 - lb) * (x[p] * (1 - m[p]))
    np.testing.assert_allclose(ours, near + far, atol=1e-12)
    same = mixing.mix_by_masks(values, masks, PARTNER, front, front)
    torch.testing.assert_close(same, mixing.mix(values, PARTNER, front))
    assert not np.allclose(ours, same.numpy())


@pytest.mark.parametrize("shape", [(9, 12), (16, 16), (7, 11)])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_mix_by_frequency_is_numpys(shape: tuple[int, int], ratio: float) -> None:
    values, low, high = images(*shape), shares(1), shares(2)
    ours = mixing.mix_by_frequency(values, PARTNER, low, high, ratio).numpy()
    spectrum = np.fft.fft2(values.numpy().astype(np.float64))
    y, x = np.abs(np.fft.fftfreq(shape[0]))[:, None], np.abs(np.fft.fftfreq(shape[1]))[None]
    is_low = (y <= ratio / 2) & (x <= ratio / 2)
    share = np.where(is_low, low.numpy().reshape(-1, 1, 1, 1), high.numpy().reshape(-1, 1, 1, 1))
    expected = np.fft.ifft2(share * spectrum + (1 - share) * spectrum[PARTNER.numpy()]).real
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    if ratio == 1:  # all frequencies are low ones: plain mixup
        torch.testing.assert_close(torch.from_numpy(ours), mixing.mix(values, PARTNER, low), atol=1e-5, rtol=0)
    else:
        assert not np.allclose(ours, mixing.mix(values, PARTNER, low).numpy(), atol=1e-3)


@pytest.mark.parametrize("shape", [(9, 12), (16, 16)])
def test_mix_amplitudes_is_numpys_for_both_of_a_pair(shape: tuple[int, int]) -> None:
    values, share, ratio = images(*shape), torch.full((5,), 0.7), 0.3
    ours = mixing.mix_amplitudes(values, PARTNER, share, ratio).numpy()
    spectrum = np.fft.fft2(values.numpy().astype(np.float64))
    amplitude, phase = np.abs(spectrum), np.angle(spectrum)
    y, x = np.abs(np.fft.fftfreq(shape[0]))[:, None], np.abs(np.fft.fftfreq(shape[1]))[None]
    is_low = (y <= ratio / 2) & (x <= ratio / 2)
    wanted = np.where(is_low, 0.3 * amplitude + 0.7 * amplitude[PARTNER.numpy()], amplitude)
    expected = np.fft.ifft2(wanted * np.exp(1j * phase)).real.clip(0, 1)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    changed = np.abs(ours - values.numpy()).reshape(5, -1).max(1) > 1e-3
    assert changed.tolist() == [True, True, True, True, False]  # the last one is its own partner
    black = torch.zeros((2, 3, 8, 8))
    assert torch.isfinite(mixing.mix_amplitudes(black, torch.tensor([1, 0]), torch.ones(2), 0.5)).all()


def test_colours_take_on_other_statistics() -> None:
    values = images(24, 24) * 0.4 + 0.3
    mean, deviation = mixing.colour_statistics(values[PARTNER])
    # Narrower than the others', so that nothing leaves what can be shown.
    ours = mixing.transfer_colours(values, mean, 0.5 * deviation)
    got_mean, got_deviation = mixing.colour_statistics(ours)
    torch.testing.assert_close(got_mean, mean, atol=2e-3, rtol=0)
    torch.testing.assert_close(got_deviation, 0.5 * deviation, atol=2e-3, rtol=0.02)
    same = mixing.transfer_colours(values, *mixing.colour_statistics(values))
    torch.testing.assert_close(same, values, atol=2e-3, rtol=0)
    assert (ours - values).abs().mean() > 0.01
    grey = torch.full((1, 3, 4, 4), 0.5)
    assert torch.isfinite(mixing.transfer_colours(grey, mean[:1], deviation[:1])).all()


def test_colour_space_is_ruderman_s() -> None:
    """Against Reinhard's formulas for one colour, in NumPy."""
    colour = np.array([0.2, 0.5, 0.8])
    lms = np.log10(np.array(mixing._LMS) @ colour + 1e-4)
    scale = np.diag([1 / np.sqrt(3), 1 / np.sqrt(6), 1 / np.sqrt(2)])
    lab = scale @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) @ lms
    mean, deviation = mixing.colour_statistics(torch.tensor(colour).float().view(1, 3, 1, 1))
    np.testing.assert_allclose(mean[0].numpy(), lab, atol=1e-5)
    assert (deviation == 0).all()
