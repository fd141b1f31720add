"""The training benchmark: real runs on small images, equal settings, contestants that cheat, fail or do not learn."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fasttrain.base.errors import ConfigError
from fasttrain.models.create import create_model
from fasttrain.tools.bench import train as bench
from fasttrain.tools.bench import train_run
from fasttrain.tools.bench.contestants import our_training, timm_loop, train_parts
from fasttrain.tools.bench.loader_job import Entrant, absence
from fasttrain.tools.bench.measure import Contestant, Outcome
from fasttrain.tools.bench.train import TrainBench, bench_train, prepare
from fasttrain.tools.bench.train_job import DEFAULTS, EQUAL, TRAINERS, TrainJob
from fasttrain.tools.bench.train_watch import Watch
from fasttrain.tools.bench.wrong_output import WrongOutputError
from fasttrain.training.epochs import EpochTable
from fasttrain.training.optimizers import create_optimizer
from fasttrain.training.schedule import Schedule

# 24 images in batches of 8: 3 steps an epoch.
SMALL = TrainBench(model="test_resnet", size=32, batch_size=8, epochs=2, workers=1, rounds=1, uncounted=1, device="cpu")

OTHERS = """
import torch
from fasttrain.tools.bench.contestants.train_parts import make_model, make_optimizer, make_schedule

def run(job, watch, steps=None, classes=None, learns=True, claims=1.0, scale=1.0):
    model = make_model(job, True)
    optimizer = make_optimizer(job, model)
    schedule = make_schedule(job, optimizer)
    for epoch in range(job.epochs):
        watch.epoch_begins()
        for number in range(job.steps_per_epoch if steps is None else steps):
            images = torch.rand(job.batch_size, 3, job.size, job.size)
            loss = torch.nn.functional.cross_entropy(model(images), torch.zeros(job.batch_size, dtype=torch.int64))
            loss.backward()
            if learns:
                optimizer.step()
            optimizer.zero_grad()
            watch.step(loss * scale, len(images), optimizer.param_groups[0]["lr"])
            schedule.step()
        with watch.validating():
            pass
        watch.validated(claims)
    return model

def lazy(job, watch):
    return run(job, watch, steps=1)

def idle(job, watch):
    return run(job, watch, learns=False)

def boasts(job, watch):
    return run(job, watch, claims=1.0)

def bursts(job, watch):
    return run(job, watch, scale=float("inf"))

def misshapen(job, watch):
    run(job, watch)
    return torch.nn.Conv2d(3, 4, 1)

def slow_rate(job, watch):
    from dataclasses import replace
    return run(replace(job, lr=job.lr / 2), watch)

def fails(job, watch):
    raise OSError("no more\\nimages")
"""


def name_of(entrant: Entrant) -> str:
    return entrant.name


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contestants that must not win."""
    (tmp_path / "other_trainers.py").write_text(OTHERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    fails = Entrant("fails", "other_trainers:fails", "jpeg", (EQUAL,))
    absent = Entrant("absent", "", "jpeg", (EQUAL,), ("no_such_peer",))
    monkeypatch.setattr(bench, "TRAINERS", (fails, absent))


@pytest.fixture
def job(colour_tree: Path, tmp_path: Path) -> TrainJob:
    """Six steps with validation."""
    return prepare(colour_tree, tmp_path, replace(SMALL, val=colour_tree))[0]


def test_a_real_round_beside_a_peer(colour_tree: Path, tmp_path: Path) -> None:
    settings = replace(SMALL, val=colour_tree, target=0.0, optimizer="adamw", scratch=tmp_path)
    result = bench_train(colour_tree, replace(settings, only=("fasttrain", "timm", "timm-defaults")))
    json.dumps(result)
    assert (result["images"], result["val_images"], result["classes"], result["steps"]) == (24, 24, 3, 6)
    assert (result["lr"], result["weight_decay"], result["warmup_steps"]) == (5e-4, 0.05, 3)
    # Batches of 128 are more than the images.
    assert "timm-defaults: 24 images in batches of 128 are 0 steps in 2 epochs" in " ".join(result["missing"])
    assert [entry["name"] for entry in result["results"]] == ["fasttrain", "timm"]
    for entry in result["results"]:
        assert "error" not in entry, entry
        assert (entry["unit"], entry["settings"], entry["steps"], entry["threads"]) == ("images/s", EQUAL, 6, 1)
        assert 0 < entry["min"] <= entry["median"] <= entry["max"]
    (ratio,) = result["ratios"]
    assert (ratio["ours"], ratio["theirs"], ratio["fastest_peer"]) == ("fasttrain", "timm", True)
    assert ratio["to_target"] > 0 and -1 <= ratio["top1_difference"] <= 1
    assert not list(tmp_path.iterdir())  # nothing is left in the scratch folder


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("entrant", [entrant for entrant in TRAINERS if EQUAL in entrant.works], ids=name_of)
def test_each_contestant_does_what_it_is_asked_for(entrant: Entrant, amp: str, job: TrainJob) -> None:
    if entrant.missing():
        pytest.skip(absence(entrant))
    figures = train_run.run(bench.job_of(replace(job, amp=amp, optimizer="adamw", lr=2e-3, target=0.0), entrant))
    json.dumps(figures)
    assert figures["value"] > 0 and figures["steps"] == 6
    assert 0 < figures["target_s"] < figures["train_s"] and figures["validation_s"] > 0
    assert 0 <= figures["top1"] <= 1 and 0 < figures["loss"] < figures["first_loss"] < 5
    assert [len(point) for point in figures["curve"]] == [2, 2]
    assert figures["peak_bytes"] is None or figures["peak_bytes"] >= 0


@pytest.mark.parametrize("entrant", [entrant for entrant in TRAINERS if DEFAULTS in entrant.works], ids=name_of)
def test_each_with_its_own_defaults(entrant: Entrant, job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.OWN_BATCH_SIZES, entrant.name, 12)
    own = bench.job_of(job, entrant)
    assert (own.settings, own.batch_size, own.steps) == (DEFAULTS, 12, 4)
    figures = train_run.run(own)
    assert figures["steps"] == 4 and figures["value"] > 0 and len(figures["curve"]) == 2
    assert entrant.name in bench.OWN_SETTINGS


@pytest.mark.usefixtures("others")
def test_one_that_fails_is_reported(colour_tree: Path) -> None:
    result = bench_train(colour_tree, replace(SMALL, only=["fails"]))
    assert result["results"][0]["error"] == "exit code 1: OSError: no more images"
    assert result["ratios"] == []
    assert result["missing"] == ["absent: no_such_peer is not installed (pip install no_such_peer)"]


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lazy", "it took 2 steps with 16 images, and not 6 with 48"),
        ("idle", "it trained nothing in "),
        ("boasts", r"it says that its top-1 is 1\.0000, but it is 0\."),
        ("bursts", "its loss is inf in step 1"),
        ("misshapen", r"its model gives \(2, 4, 32, 32\), and not \(2, 3\)"),
        ("slow_rate", r"its learning rate is 0\.0025 in step 1, and not 0\.005"),
    ],
)
def test_nobody_wins_by_not_working(name: str, message: str, job: TrainJob) -> None:
    with pytest.raises(WrongOutputError, match=message):
        train_run.run(replace(job, function=f"other_trainers:{name}"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_all_have_the_same_optimizer_and_rates(optimizer: str, job: TrainJob) -> None:
    job = replace(job, optimizer=optimizer, epochs=4, warmup_steps=3)
    assert job.steps == 12
    model = create_model(job.model, job.classes, size=job.size)
    settings = our_training.equal_settings(job)
    made = [
        create_optimizer(model, settings["optimizer"]),
        timm_loop.make_optimizer(job, model),
        train_parts.make_optimizer(job, model),
    ]
    facts = [facts_of(one) for one in made]
    assert facts[0] == facts[1] == facts[2]
    assert len(facts[0]) == 2 and {entry["lr"] for entry in facts[0].values()} == {job.lr}
    ours = Schedule(settings["schedule"], job.lr, EpochTable.even(job.steps_per_epoch, job.epochs))
    timm_rates, torch_rates = rates(job, made[1], made[2])
    wanted = [job.lr * job.lr_share(step) for step in range(job.steps)]
    assert [ours.lr(step) for step in range(job.steps)] == pytest.approx(wanted, abs=1e-9)
    assert timm_rates == pytest.approx(wanted, abs=1e-9) and torch_rates == pytest.approx(wanted, abs=1e-9)
    assert wanted[3] == job.lr and wanted[-1] == 0


def facts_of(optimizer: torch.optim.Optimizer) -> dict[float, dict[str, Any]]:
    """Of each group, by its weight decay: numbers of the parameters' elements, and what moves them."""
    keys = ("lr", "momentum", "nesterov", "dampening", "betas", "eps")
    return {
        group["weight_decay"]: {
            "elements": sorted(parameter.numel() for parameter in group["params"]),
            **{key: group[key] for key in keys if key in group},
        }
        for group in optimizer.param_groups
    }


def rates(
    job: TrainJob, timm_s: torch.optim.Optimizer, torch_s: torch.optim.Optimizer
) -> tuple[list[float], list[float]]:
    """Learning rate of each step, as the loops step their schedules."""
    scheduler, schedule = timm_loop.make_scheduler(job, timm_s), train_parts.make_schedule(job, torch_s)
    found: tuple[list[float], list[float]] = ([], [])
    for step in range(job.steps):
        for rates_, optimizer in zip(found, (timm_s, torch_s), strict=True):
            rates_.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
        scheduler.step_update(step + 1)
        schedule.step()
    return found


def test_all_see_the_same_images_under_the_same_labels(job: TrainJob) -> None:
    shown = {}
    for name, folder in (("train", job.files), ("val", job.val_files)):
        torchs = train_parts.NumberedFolder(folder)
        timms = timm_loop.create_dataset("", folder, class_map={f"{number:05d}": number for number in range(3)})
        assert [label for _, label in torchs] == [label for _, label in timms]
        shown[name] = sorted(label for _, label in torchs)
    assert shown["train"] == shown["val"] == [0] * 8 + [1] * 8 + [2] * 8
    assert (job.steps_per_epoch, job.steps, job.val_images) == (3, 6, 24)


def test_classes_are_joined_by_name(colour_tree: Path, tmp_path: Path) -> None:
    only_green = tmp_path / "val"
    for name in ("green", "red"):
        (only_green / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (20, 20)).save(only_green / name / f"{number}.jpg")
    (tmp_path / "out").mkdir()
    job, _ = prepare(colour_tree, tmp_path / "out", replace(SMALL, val=only_green))
    # Of blue, green, red, the second and the third.
    assert sorted(path.name for path in Path(job.val_files).iterdir()) == ["00001", "00002"]
    assert train_parts.NumberedFolder(job.val_files).targets == [1, 1, 2, 2]
    (only_green / "pink").mkdir()
    Image.new("RGB", (20, 20)).save(only_green / "pink" / "0.jpg")
    (tmp_path / "again").mkdir()
    with pytest.raises(ConfigError, match="val has the class 'pink', which the training images have not"):
        prepare(colour_tree, tmp_path / "again", replace(SMALL, val=only_green))


def test_all_start_from_the_same_weights(job: TrainJob) -> None:
    first, second = (train_parts.make_model(job, True).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_steps_are_fewer_images_or_more_epochs(colour_tree: Path, tmp_path: Path) -> None:
    found = []
    for steps in (2, 3, 5):
        (tmp_path / str(steps)).mkdir()
        job, _ = prepare(colour_tree, tmp_path / str(steps), replace(SMALL, steps=steps))
        found.append((job.images, job.epochs, job.steps))
    assert found == [(16, 1, 2), (24, 1, 3), (24, 2, 6)]


def test_the_watch_counts_training_alone(job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 6.0, 100.0, 105.0, 200.0, 210.0])
    monkeypatch.setattr("fasttrain.tools.bench.train_watch.time.monotonic", lambda: next(clock))
    watch = Watch(replace(job, uncounted=1, target=0.7))
    loss = torch.ones(())
    watch.epoch_begins()  # at 0
    watch.step(loss, 8, 0.1)  # at 2, where counting begins
    watch.step(loss, 8, 0.1)
    watch.step(loss, 8, 0.1)  # at 6, where the epoch ends
    with watch.validating():  # from 100 to 105
        pass
    watch.validated(0.5)
    watch.epoch_begins()  # at 200
    for _ in range(3):
        watch.step(2 * loss, 8, 0.2)
    watch.validated(0.75)
    assert (watch.train_s, watch.validation_s) == (16.0, 5.0)
    assert watch.images_per_s == 40 / 14
    assert watch.target_s == 16.0 and watch.curve == [(6.0, 0.5), (16.0, 0.75)]
    assert watch.losses == [1.0] * 3 + [2.0] * 3 and watch.lrs == [0.1] * 3 + [0.2] * 3
    with pytest.raises(WrongOutputError, match="it took step 7 outside of an epoch of 3"):
        watch.step(loss, 8, 0.1)


def test_a_target_that_is_not_reached_has_no_time(job: TrainJob) -> None:
    watch = Watch(replace(job, target=0.9))
    watch.validated(0.8)
    assert watch.target_s is None
    watch.validated(0.9)
    assert watch.target_s == 0.0
    assert Watch(job).target_s is None


def test_a_missing_validation_is_an_error(job: TrainJob) -> None:
    watch = Watch(job)
    with pytest.raises(WrongOutputError, match="it validated 0 times in 2 epochs"):
        train_run.check_claim(job, watch, 0.5)
    train_run.check_claim(job, watch, None)


def outcome(name: str, first: float, last: float, **figures: Any) -> Outcome:
    """Of two rounds."""
    found = Outcome(Contestant(name, {"settings": EQUAL}, [], "images/s"))
    found.rounds = [10.0, 12.0]
    found.extras = [{"first_loss": first, "loss": last, **figures}] * 2
    return found


def test_one_that_learns_less_than_the_others_is_an_error() -> None:
    outcomes = [outcome("a", 2.0, 1.0), outcome("b", 2.0, 1.1), outcome("c", 2.0, 1.9), outcome("d", 2.0, 1.6)]
    bench.flag_idle(outcomes)
    assert [found.error is None for found in outcomes] == [True, True, False, True]
    assert outcomes[2].error == "it did not learn: its loss fell by 0.100, that of the others by 0.900"
    few_steps = [outcome("a", 2.0, 1.9), outcome("b", 2.0, 1.85), outcome("c", 2.0, 2.1)]
    bench.flag_idle(few_steps)
    assert all(found.error is None for found in few_steps)


def test_ratios_tell_of_target_and_accuracy() -> None:
    entry = {"ours": "a", "theirs": "b", "ratio": 2.0}
    ours = outcome("a", 2.0, 1.0, target_s=5.0, top1=0.9)
    (found,) = bench.further_ratios([entry], [ours, outcome("b", 2.0, 1.0, target_s=10.0, top1=0.92)])
    assert found == {**entry, "to_target": 2.0, "top1_difference": -0.02}
    (never,) = bench.further_ratios([entry], [ours, outcome("b", 2.0, 1.0, target_s=None, top1=None)])
    assert never == entry


def test_a_job_survives_its_file(job: TrainJob, tmp_path: Path) -> None:
    job.write(tmp_path / "job.json")
    assert TrainJob.read(tmp_path / "job.json") == job


def test_each_contestant_has_its_module() -> None:
    for entrant in TRAINERS:
        assert importlib.util.find_spec(entrant.function.partition(":")[0]) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "lamb"}, "there is no optimizer 'lamb' here; choose of sgd, adamw"),
        ({"amp": "fp16"}, "there is no precision 'fp16' here; choose of off, bf16"),
        ({"scale": (1.0, 0.5)}, "the smaller one first"),
        ({"target": 0.5}, "name them with --val"),
        ({"only": ("x",)}, "no contestant is named 'x' here; there are: fasttrain, timm"),
        ({"uncounted": 6}, "24 images in batches of 8 are 6 steps in 2 epochs, and the first 6 are not counted"),
    ],
)
def test_what_cannot_be_measured(settings: dict[str, object], message: str, colour_tree: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        bench_train(colour_tree, replace(SMALL, **settings))  # type: ignore[arg-type]


def test_images_without_a_class_cannot_be_trained_on(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{number}.jpg")
    with pytest.raises(ConfigError, match="and 2 others have no class"):
        bench_train(tmp_path, SMALL)


@pytest.mark.usefixtures("others")
def test_a_peer_that_is_named_must_be_installed(colour_tree: Path) -> None:
    with pytest.raises(ConfigError, match="absent takes no part: no_such_peer is not installed"):
        bench_train(colour_tree, replace(SMALL, only=["absent"]))
