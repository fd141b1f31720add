"""Whole runs with losses and heads: that they act, and go with all else."""

from functools import partial

import pytest
import torch

from fasttrain.base.errors import ConfigError
from fasttrain.inference.predict import predict
from fasttrain.models.checkpoint import load_state
from fasttrain.models.opened import open_model
from fasttrain.models.weights import read_state_dict
from fasttrain.scores.table import ScoreTable
from fasttrain.training.run import train

from ..stopping import stopped_after

LOSSES = ["ce", "bce", "focal", "jsd", "balanced_softmax", "logit_adjustment", "seesaw", "softmax_eql"]


@pytest.fixture
def settings(small_run, tmp_path):
    ids = [f"{name}/{number}.jpg" for name, count in (("red", 8), ("green", 3), ("blue", 1)) for number in range(count)]
    (tmp_path / "ids.txt").write_text("\n".join(ids))

    rates = {"schedule": {"kind": "constant", "warmup_epochs": 0}, "drop_rate": 0.0}
    return partial(small_run, ids=str(tmp_path / "ids.txt"), epochs=1, threads=1, **rates)


def weights_of(chosen):
    return read_state_dict(train(chosen).checkpoint)


@pytest.fixture
def plain(settings):
    return weights_of(settings("plain"))


@pytest.mark.parametrize(
    "changes",
    [
        *({"loss": {"kind": kind}} for kind in LOSSES if kind != "ce"),
        {"loss": {"class_weights": "inverse"}},
        {"loss": {"class_weights": [1, 2, 3]}},
        {"loss": {"hardest": 0.5}},
        {"label_smoothing": 0.1},
        {"batch_former": {"layers": 1}},
        {"head": {"dropout_samples": 4}},
    ],
    ids=str,
)
def test_each_of_them_changes_what_is_learned(settings, plain, changes):
    changed = weights_of(settings(**changes))
    assert changed.keys() == plain.keys()  # and `predict` needs to know of none
    assert not torch.allclose(changed["conv1.0.weight"], plain["conv1.0.weight"], atol=1e-5)


HEADS = [
    {"kind": "cosine"},
    {"kind": "arcface", "scale": 16},
    {"kind": "arcface", "centres": 3, "scale": 16},
    {"kind": "arcface", "centres": 3, "adaptive": True, "scale": 16},
]


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_each_head_learns_and_predicts(settings, colour_tree, tmp_path, head):
    chosen = settings(head=head, epochs=10, ids=None, val=str(colour_tree), ema=0.5)
    result = train(chosen)
    assert result.top1 > 0.9
    opened = open_model(result.run)
    predict(opened, colour_tree, tmp_path / "a.arrow", batch_size=5, threads=1)
    table = ScoreTable.read(tmp_path / "a.arrow")
    assert abs(table.scores).max() <= head.get("scale", 30) * 1.001
    assert (table.scores.argmax(1) == table.labels).mean() == pytest.approx(result.top1)


def test_margins_make_a_difference(settings):
    ends = [weights_of(settings(str(number), head=head))["fc.weight"] for number, head in enumerate(HEADS)]
    assert not torch.allclose(ends[0], ends[1], atol=1e-5)
    assert not torch.allclose(ends[2], ends[3], atol=1e-5)


ALL_OF_IT = {
    "head": {"kind": "arcface", "centres": 2, "adaptive": True, "dropout_samples": 2},
    "loss": {"kind": "softmax_eql"},
    "label_smoothing": 0.1,
}


@pytest.mark.parametrize(
    "others",
    [
        {"micro_batch": 2, "sam_rho": 0.05, "optimizer": {"clip_norm": 1.0}},
        {"batch_former": {"layers": 2, "across_ranks": True}, "sam_rho": 0.05},
        {"amp": "bf16", "batch_former": {"layers": 1}, "loss": {"kind": "softmax_eql", "hardest": 0.5}},
        {"loss": {"kind": "jsd"}, "head": {"kind": "cosine"}, "micro_batch": 4, "optimizer": {"head_lr": 10}},
        {
            "loss": {"kind": "jsd"},
            "head": {"kind": "linear"},
            "batch_former": {"layers": 1},
            "model": "test_vit",
            "optimizer": {"layer_decay": 0.75},
        },
    ],
    ids=str,
)
def test_they_go_with_all_else(settings, colour_tree, others):
    """Averages, a teacher, and losses over parts of a batch; validated and opened afterwards."""
    teacher = train(settings("teacher")).run
    changes = {"ema": 0.5, "swa_start": 2, "epochs": 2, "val": str(colour_tree), "distill": {"teacher": str(teacher)}}
    result = train(settings(**{**ALL_OF_IT, **changes, **others}))
    assert result.top1 is not None and result.swa_top1 is not None
    for name in ("last", "swa"):
        kept = read_state_dict(result.run / f"{name}.safetensors")
        assert not any("in_training" in key for key in kept)
        assert open_model(result.run / f"{name}.safetensors").num_classes == 3
    state = load_state(result.run / "last.state.pt")
    assert any("in_training" in key for key in state["model"]) == ("batch_former" in others)


def test_a_stopped_run_goes_on_with_its_gradient_statistics(settings):
    changes = {**ALL_OF_IT, "epochs": 3, "batch_former": {"layers": 1}, "ema": 0.5}
    whole = train(settings("whole", **changes)).run
    chosen = settings("halves", **changes)
    with stopped_after(3):
        train(chosen)
    halves = train(chosen, resume=True).run
    states = [load_state(run / "last.state.pt") for run in (whole, halves)]
    assert states[0]["loss"]["positive"].min() > 0
    for part in ("loss", "model", "ema"):
        assert states[0][part].keys() == states[1][part].keys()
        assert all(torch.equal(value, states[1][part][key]) for key, value in states[0][part].items()), part


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": {"kind": "focl"}}, "there is no such loss; did you mean 'focal'"),
        ({"loss": {"gamma": 1.0}}, "gamma means nothing to loss ce"),
        ({"loss": {"gama": 1.0}}, "did you mean 'loss.gamma'"),
        ({"loss": {"beta": 0.9, "class_weights": "inverse"}}, "beta means nothing"),
        ({"loss": {"hardest": 0.5}, "micro_batch": 2}, "micro_batch takes apart"),
        ({"batch_former": {"layers": 1}, "micro_batch": 2}, "micro_batch takes apart"),
        ({"loss": {"kind": "seesaw"}, "sampling": {"class_balance": 1}}, "so does sampling.class_balance"),
        ({"loss": {"class_weights": "inverse"}, "sampling": {"class_balance": 1}}, "so does sampling.class_balance"),
        ({"loss": {"kind": "jsd"}, "backend": "ffcv"}, "take another backend than ffcv"),
        ({"loss": {"kind": "jsd"}, "head": {"kind": "arcface"}}, "which a margin distorts"),
        ({"loss": {"kind": "bce"}, "head": {"kind": "arcface"}}, "take loss ce"),
        ({"loss": {"class_weights": [1, 2]}}, "holds 2 numbers, and there are 3 classes"),
        ({"loss": {"class_weights": "nowhere.json"}}, "neither a rule nor a file"),
        ({"head": {"kind": "cosine"}, "model": "deit_tiny_distilled_patch16_224"}, "has 2 classifiers"),
    ],
    ids=str,
)
def test_what_does_not_go_together_ends_before_the_first_step(settings, changes, words):
    with pytest.raises(ConfigError, match=words):
        train(settings(**changes))
