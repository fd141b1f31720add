"""The kernels that update weights against their plain reference."""

import copy

import pytest
import torch

from fasttrain.kernels import weight_update_plain
from fasttrain.kernels.weight_update import Clipping, Rates, Scaling, Weights

from .interpreted import DEVICE, on_device, outside, run_in_interpreter

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux only")

RATES = [
    Rates(0.01, (0.9, 0.999), 1e-8, 0.1, True),
    Rates(0.003, (0.8, 0.99), 1e-6, 0.0),
    Rates(0.02, (0.0, 0.9), 1e-8, 0.0, True),
]
SHAPES = [(1,), (7,), (0,), (1024,), (5,), (8193,), (3, 5, 7), (16, 8, 3, 3)]


@outside
def test_all_of_this_in_the_interpreter() -> None:
    run_in_interpreter(__file__)


def make_weights(averaged: bool) -> Weights:
    """Of all shapes; the last is channels-last, and others begin at addresses that are no multiple of 16."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in SHAPES]
    values[-1] = values[-1].to(memory_format=torch.channels_last)
    values += [torch.randn(1501, generator=generator)[1:], torch.randn(2060, generator=generator)[3:]]
    values.append(torch.zeros(5))
    zeros = lambda: [torch.zeros_like(value) for value in values]  # noqa: E731
    averages = [value.clone() for value in values] if averaged else None
    groups = [number % len(RATES) for number in range(len(values))]
    return Weights(values, zeros(), zeros(), averages, torch.zeros(len(values)), groups)


def there(weights: Weights) -> Weights:
    """A copy on the device; addresses keep their alignment."""

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_contiguous() and tensor.data_ptr() % 16:
            wide = torch.empty(tensor.numel() + 1, device=DEVICE)[1:]
            return wide.copy_(tensor)
        return tensor.clone().to(DEVICE)

    lists = [None if entry is None else [moved(tensor) for tensor in entry] for entry in tensors_of(weights)]
    return Weights(*lists, weights.steps.clone().to(DEVICE), weights.groups)


def tensors_of(weights: Weights) -> tuple:
    return weights.values, weights.means, weights.squares, weights.averages


def make_gradients(weights: Weights, step: int, dtype: torch.dtype) -> list[torch.Tensor | None]:
    """Small and large ones; a few are missing in some steps, one always; one lies in another layout than its weight."""
    generator = torch.Generator().manual_seed(100 + step)
    found = [torch.randn(value.shape, generator=generator).to(dtype) for value in weights.values]
    absent = {4, 1 + step % 3}
    return [None if number in absent else gradient for number, gradient in enumerate(found)]


def assert_same(ours: Weights, reference: Weights) -> None:
    for mine, other in zip(tensors_of(ours), tensors_of(reference), strict=True):
        for number, (one, two) in enumerate(zip(mine or [], other or [], strict=True)):
            torch.testing.assert_close(one.cpu(), two, rtol=1e-6, atol=5e-7, msg=lambda text, n=number: f"{n}: {text}")
    assert torch.equal(ours.steps.cpu(), reference.steps)


def run(name: str, steps: int, averaged: bool, clip: Clipping | None, scales: list, dtypes: list) -> Weights:
    """Steps of both, compared after each; gives ours."""
    from fasttrain.kernels.triton import weight_update
    from fasttrain.kernels.triton.update_tables import Tables

    reference = make_weights(averaged)
    ours = there(reference)
    tables = Tables(ours, len(RATES))
    for step in range(steps):
        gradients = make_gradients(reference, step, dtypes[step % len(dtypes)])
        follow = 1.0 if step == 0 else 0.4 / step
        scale = scales[step % len(scales)]
        scaling = None if scale is None else Scaling(*(torch.tensor(value) for value in scale))
        getattr(weight_update_plain, name)(reference, gradients, RATES, clip, scaling, follow)
        placed = [None if gradient is None else gradient.to(DEVICE) for gradient in gradients]
        tables.refresh(placed, RATES, follow)
        if scaling is not None:
            scaling = Scaling(scaling.scale.to(DEVICE), scaling.found_inf.to(DEVICE))
        getattr(weight_update, name)(tables, clip, scaling)
        assert_same(ours, reference)
    return ours


@on_device
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_steps_are_those_of_the_reference(name: str) -> None:
    ours, start = run(name, 3, True, Clipping(1.0, 1e-6), [None], [torch.float32]), make_weights(True)
    moved = [not torch.equal(new.cpu(), old) for new, old in zip(ours.values, start.values, strict=True)]
    assert [number for number, there in enumerate(moved) if not there] == [2, 4]  # empty, and without gradients


@on_device
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_norm_below_the_limit_changes_nothing(name: str) -> None:
    plain = run(name, 1, False, None, [None], [torch.float32])
    loose = run(name, 1, False, Clipping(1e6), [None], [torch.float32])
    assert all(map(torch.equal, plain.values, loose.values))


@on_device
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_scaled_gradients_and_steps_left_out(name: str) -> None:
    scales = [(1024.0, 0.0), (65536.0, 1.0), (512.0, 0.0)]
    ours = run(name, 3, True, Clipping(1.0, 1e-6), scales, [torch.float32])
    assert ours.steps.max() == 2


@on_device
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_gradients_in_bfloat16_and_float16(name: str) -> None:
    run(name, 2, False, Clipping(1.0), [None], [torch.bfloat16, torch.float16])


@on_device
def test_gradients_of_various_types_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_gradients

    def mixed(weights: Weights, step: int, dtype: torch.dtype) -> list[torch.Tensor | None]:
        types = torch.float32, torch.bfloat16
        found = enumerate(plain(weights, step, dtype))
        return [None if entry is None else entry.to(types[number % 2]) for number, entry in found]

    monkeypatch.setitem(globals(), "make_gradients", mixed)
    for name in ("adamw", "lamb"):
        run(name, 1, True, Clipping(0.5), [None], [torch.float32])


@on_device
def test_a_gradient_that_is_no_number_spoils_what_it_spoils_in_torch() -> None:
    from fasttrain.kernels.triton import weight_update
    from fasttrain.kernels.triton.update_tables import Tables

    for bad, clip in ((float("nan"), None), (float("inf"), Clipping(1.0, 1e-6))):
        reference = make_weights(False)
        ours = there(reference)
        gradients = [torch.ones_like(value) for value in reference.values]
        gradients[1][3] = bad
        weight_update_plain.adamw(reference, copy.deepcopy(gradients), RATES, clip)
        tables = Tables(ours, len(RATES))
        tables.refresh([gradient.to(DEVICE) for gradient in gradients], RATES, 0.0)
        weight_update.adamw(tables, clip)
        for one, two in zip(ours.values, reference.values, strict=True):
            torch.testing.assert_close(one.cpu(), two, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_what_does_not_fit_is_refused() -> None:
    from fasttrain.kernels.triton.update_tables import Tables

    value = torch.ones(4, 6)

    def weights(**changes: torch.Tensor) -> Weights:
        one = {"values": value, "means": torch.zeros(4, 6), "squares": torch.zeros(4, 6)} | changes
        return Weights(*([tensor] for tensor in one.values()), None, torch.zeros(1), [0])

    Tables(weights(), 1)
    with pytest.raises(ValueError, match=r"dense and float32, not .*float64"):
        Tables(weights(values=value.double()), 1)
    with pytest.raises(ValueError, match="dense"):
        Tables(weights(values=torch.ones(4, 8)[:, :6]), 1)
    with pytest.raises(ValueError, match="type, shape and layout"):
        Tables(weights(means=torch.zeros(6, 4).T), 1)
