"""Means of checkpoints: their numbers, what may not be mixed, and which of them a greedy soup takes."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fasttrain.base.errors import WeightsError
from fasttrain.models.checkpoint import CheckpointInfo, epoch_files, keep_epoch, save_weights
from fasttrain.models.create import create_model, eval_view_of
from fasttrain.models.soup import greedy_members, mean_tensors, read_ingredients, run_checkpoints

MODEL = "test_resnet"
INFO = CheckpointInfo(MODEL, 3, ["a", "b", "c"], eval_view_of(MODEL, 48).model_dump(mode="json"), epoch=2)


@pytest.fixture
def make(tmp_path):
    """Writes a checkpoint of random weights, with changes to its tensors or its record."""

    def write(name: str, seed: int = 0, info: CheckpointInfo = INFO, change=lambda state: state):
        torch.manual_seed(seed)
        state = create_model(MODEL, 3).state_dict()
        for key in state:
            state[key] = torch.full_like(state[key], seed) if "num_batches" in key else torch.randn_like(state[key])
        state = change(state)
        save_weights(tmp_path / f"{name}.safetensors", state, info)
        return tmp_path / f"{name}.safetensors", state

    return write


@pytest.mark.parametrize("weights", [None, [0.5, 0.0, 1.5]])
def test_floats_are_averaged_and_integers_are_the_first_ones(make, weights):
    paths, states = zip(*(make(str(seed), seed) for seed in (3, 1, 2)), strict=True)
    found = dict(mean_tensors(read_ingredients(paths), weights))
    assert found.keys() == states[0].keys()
    shares = torch.tensor(weights or [1, 1, 1], dtype=torch.float64)
    for key, tensor in found.items():
        if "num_batches" in key:
            assert torch.equal(tensor, states[0][key])
            continue
        stacked = torch.stack([state[key].double() for state in states])
        expected = torch.tensordot(shares / shares.sum(), stacked, 1)
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)
    assert all("num_batches" in key for key in read_ingredients(paths)[0].integers)


def test_sums_are_in_float32_and_the_type_stays(make):
    def half(state):
        return {key: value.to(torch.bfloat16) if value.is_floating_point() else value for key, value in state.items()}

    paths, states = zip(*(make(str(seed), seed, change=half) for seed in range(5)), strict=True)
    for key, tensor in mean_tensors(read_ingredients(paths)):
        assert tensor.dtype == states[0][key].dtype
        if tensor.is_floating_point():
            assert torch.equal(tensor, torch.stack([state[key].float() for state in states]).mean(0).to(torch.bfloat16))


def renamed(state):
    return {("stem" + key if key == "fc.bias" else key): value for key, value in state.items()}


def wider(state):
    return {**state, "fc.bias": torch.zeros(4)}


def whole(state):
    return {**state, "fc.bias": torch.zeros(3, dtype=torch.int64)}


def broken(state):
    return {**state, "fc.bias": torch.tensor([0, float("nan"), 0])}


@pytest.mark.parametrize(
    ("info", "change", "message"),
    [
        ({"model": "resnet18"}, None, "b.safetensors has other layers .* its model is 'resnet18', not 'test_resnet'"),
        ({"class_names": ["a", "c", "b"]}, None, r"other classes .* class_names\[1\] is 'c', not 'b'"),
        ({"eval_view": {**INFO.eval_view, "size": 64}}, None, "other preprocessing .* eval_view.size is 64, not 48"),
        ({"head": {"kind": "cosine"}}, None, "head is {'kind': 'cosine'}, not None"),
        ({}, renamed, "b.safetensors has no 'fc.bias', which .*a.safetensors has"),
        ({}, wider, r"fc.bias is of shape \(4,\), that of .* of \(3,\)"),
        ({}, whole, "fc.bias is of type I64"),
        ({}, broken, "b.safetensors: fc.bias holds values that are not finite"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(make, info, change, message):
    first, _ = make("a")
    second, _ = make("b", info=replace(INFO, **info), change=change or (lambda state: state))
    with pytest.raises(WeightsError, match=message) as error:
        list(mean_tensors(read_ingredients([first, second])))
    assert "\n" not in str(error.value)


def test_foreign_and_missing_files_are_refused(make, tmp_path):
    first, state = make("a")
    save_file(state, tmp_path / "bare.safetensors")
    for other, message in (("bare.safetensors", "not a fasttrain checkpoint"), ("none.safetensors", "no such file")):
        with pytest.raises(WeightsError, match=message):
            read_ingredients([first, tmp_path / other])
    with pytest.raises(WeightsError, match="given twice"):
        read_ingredients([first, first])
    for weights, message in (([1.0], "1 weights do not fit 2"), ([0, 0], "not all 0"), ([1, float("nan")], "numbers")):
        second, _ = make("b")
        with pytest.raises(WeightsError, match=message):
            list(mean_tensors(read_ingredients([first, second]), weights))


def test_greedy_takes_what_makes_the_soup_no_worse():
    values = {(0,): 0.5, (1,): 0.8, (2,): 0.7, (3,): 0.6}
    values |= {(1, 2): 0.75, (1, 3): 0.8, (1, 3, 0): 0.85}
    members, tried = greedy_members(4, lambda numbers: values[tuple(numbers)])
    assert members == [1, 3, 0]
    assert [(entry["checkpoint"], entry["kept"]) for entry in tried] == [(1, True), (2, False), (3, True), (0, True)]
    assert [entry["soup"] for entry in tried] == [0.8, 0.75, 0.8, 0.85]
    assert greedy_members(1, lambda _: 0.1)[0] == [0]


def test_a_run_keeps_its_last_epochs(make, tmp_path):
    _, state = make("a")
    for epoch in range(1, 13):
        keep_epoch(tmp_path / "run", state, replace(INFO, epoch=epoch), 3)
    assert [path.name for path in epoch_files(tmp_path / "run")] == [f"epoch_00{n}.safetensors" for n in (10, 11, 12)]
    assert run_checkpoints(tmp_path / "run", 2) == epoch_files(tmp_path / "run")[1:]
    with pytest.raises(WeightsError, match="3 epochs, not of 4; train with --set keep_last=4"):
        run_checkpoints(tmp_path / "run", 4)
