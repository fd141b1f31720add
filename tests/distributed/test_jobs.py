"""Real torchrun jobs: several agents, restarts, stops, lost ranks, wrong starts."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fasttrain.loading.loader import Loader
from fasttrain.loading.views import train_view
from fasttrain.models.checkpoint import load_state
from fasttrain.models.opened import open_model
from fasttrain.scores.table import ScoreTable
from fasttrain.training.settings import TrainSettings

from .launched import TORCHRUN, on_ranks, run

JOB = Path(__file__).with_name("job.py")
SAMPLES, RANKS, BATCH, EPOCHS = 23, 2, 3, 3  # three steps an epoch, and five samples left over
TIMINGS = {"images_per_s", "data_wait_fraction"}


@pytest.fixture(scope="module")
def images(colour_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A number of images that neither ranks nor batches divide."""
    folder = tmp_path_factory.mktemp("images") / "all"
    shutil.copytree(colour_tree, folder)
    (folder / "red" / "0.jpg").unlink()
    return folder


def settings(images: Path, out: Path, **changes: Any) -> str:
    values = {
        "data": str(images),
        "val": str(images),
        "model": "test_resnet",
        "out": str(out),
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "size": 32,
        "device": "cpu",
        "threads": 1,
        "ema": 0.5,
        "drop_rate": 0.2,
        "optimizer": {"lr": 2e-3},
    }
    return TrainSettings.model_validate({**values, **changes}).model_dump_json()


def job(*arguments: str, ranks: int = RANKS, restarts: int = 0) -> list[str]:
    own = ["--standalone", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
    return [*TORCHRUN, *own, str(JOB), *arguments]


def steps_of(out: Path, ranks: int) -> list[dict[int, list[int]]]:
    """For each rank what each global step saw (the last time it was done)."""
    files = [out.parent / f"{out.name}.seen.{rank}" for rank in range(ranks)]
    return [dict(map(json.loads, file.read_text().splitlines())) for file in files]


def order_of(images: Path, epoch: int) -> list[int]:
    """The rows of an epoch, in the order of a single process."""
    with Loader(images, 1, view=train_view(32), threads=1) as loader:
        loader.set_epoch(epoch)
        return [int(batch.ids[0]) for batch in loader]


def outcome(out: Path) -> dict[str, Any]:
    """All that must not depend on interruptions."""
    state = load_state(out / "last.state.pt")
    lines = (out / "metrics.jsonl").read_text().splitlines()
    metrics = [{key: value for key, value in json.loads(line).items() if key not in TIMINGS} for line in lines]
    return {"model": state["model"], "ema": state["ema"], "optimizer": state["optimizer"]["state"], "metrics": metrics}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run(job(settings(images, out)))
    assert done.returncode == 0, done.stderr
    return out


def test_ranks_share_an_epoch(undisturbed: Path, images: Path) -> None:
    ranks = steps_of(undisturbed, RANKS)
    steps = SAMPLES // (RANKS * BATCH)
    assert [list(seen) for seen in ranks] == [list(range(EPOCHS * steps))] * RANKS
    for epoch in range(EPOCHS):
        seen = [row for step in range(epoch * steps, (epoch + 1) * steps) for rank in ranks for row in rank[step]]
        assert seen == order_of(images, epoch)[: len(seen)]
        assert len(seen) == len(set(seen)) == steps * RANKS * BATCH


@pytest.mark.thorough
def test_two_agents_of_two_processes(images: Path, tmp_path: Path) -> None:
    """As on two machines: training, evaluation and prediction, the last two exactly those of one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "run"
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    command = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "2", *meeting, str(JOB), settings(images, out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    agents = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=env) for _ in range(2)]
    outputs = [agent.communicate(timeout=180) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outputs
    evaluated, predicted, trained = (json.loads(line) for line in "".join(stdout for stdout, _ in outputs).splitlines())
    assert trained["epochs"] == EPOCHS and predicted["samples"] == SAMPLES
    assert [list(seen) for seen in steps_of(out, 4)] == [list(range(EPOCHS * (SAMPLES // (4 * BATCH))))] * 4
    command = [sys.executable, "-m", "fasttrain.cli.app"]
    common = ["--batch-size", "5", "--device", "cpu", "--threads", "1", "--json"]
    alone = run([*command, "evaluate", str(out), str(images), *common])
    expected = json.loads(alone.stdout)
    assert evaluated.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-12)  # summed in another order
    assert evaluated == expected and expected["samples"] == SAMPLES
    run([*command, "predict", str(out), str(images), "--out", str(tmp_path / "alone.arrow"), *common])
    one, many = ScoreTable.read(tmp_path / "alone.arrow"), ScoreTable.read(out / "scores.arrow")
    assert one.ids == many.ids and one.meta == many.meta
    np.testing.assert_array_equal(one.scores, many.scores)
    np.testing.assert_array_equal(one.labels, many.labels)


@pytest.mark.thorough
def test_torchrun_starts_a_job_again_after_a_rank_was_killed(undisturbed: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run(job(settings(images, out, checkpoint_minutes=1e-5), "1", "5", "SIGKILL", restarts=1))
    assert done.returncode == 0, done.stderr
    assert same(outcome(out), outcome(undisturbed))


def test_a_stopped_job_goes_on_in_the_same_and_in_another_world(
    undisturbed: Path, images: Path, tmp_path: Path
) -> None:
    out, stopped_after = tmp_path / "run", 5  # in the second epoch
    stopped = run(job(settings(images, out), "1", str(stopped_after), "SIGTERM"))
    assert stopped.returncode != 0
    assert "stopped by SIGTERM in epoch 2 after step 2; add --resume to go on" in stopped.stderr
    shutil.copytree(out, tmp_path / "other")
    again = run(job(settings(images, out)), RESUME="1")
    assert again.returncode == 0, again.stderr
    assert same(outcome(out), outcome(undisturbed))

    other = run([sys.executable, str(JOB), settings(images, tmp_path / "other")], RESUME="1")
    assert other.returncode == 0, other.stderr
    assert "saved by 2 processes, and going on with 1" in other.stderr
    (alone,) = steps_of(tmp_path / "other", 1)
    steps = SAMPLES // BATCH  # of an epoch of a single process
    done = (stopped_after - SAMPLES // (RANKS * BATCH)) * RANKS * BATCH  # samples of the second epoch
    rest = [row for step, rows in alone.items() if step < 2 * steps for row in rows]
    assert rest == order_of(images, 1)[done : done + len(rest)] and len(rest) == (SAMPLES - done) // BATCH * BATCH
    last = [row for step, rows in alone.items() if step >= 2 * steps for row in rows]
    assert last == order_of(images, 2)[: len(last)] and len(last) == steps * BATCH
    assert open_model(tmp_path / "other").metrics


@pytest.mark.parametrize("how", ["error", pytest.param("SIGKILL", marks=pytest.mark.thorough)])
def test_a_rank_that_dies_ends_the_job_with_its_error(images: Path, tmp_path: Path, how: str) -> None:
    started = time.monotonic()
    done = run(job(settings(images, tmp_path / "run"), "1", "2", how, ranks=2))
    assert done.returncode != 0
    assert ("a failure of this rank alone" if how == "error" else "Signal 9 (SIGKILL)") in done.stderr
    assert time.monotonic() - started < 90  # and not after the half hour of gloo's time limit


CLI = [sys.executable, "-m", "fasttrain.cli.app"]


def test_several_processes_without_a_meeting_point(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*CLI, "train", "--data", str(images), "--model", "test_resnet", "--out", str(out)]
    done = run(command, WORLD_SIZE="2", RANK="0", LOCAL_RANK="0", MASTER_PORT="1")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1 and not out.exists()
    assert "fasttrain (rank 0): WORLD_SIZE makes this one of 2 processes, but MASTER_ADDR is not set" in done.stderr


def test_ranks_with_other_files_before_them_are_refused(images: Path, tmp_path: Path) -> None:
    """As when a machine has an older copy of the data: unequal steps would hang."""
    script = tmp_path / "other.py"
    script.write_text(
        "import sys\n"
        "from fasttrain.base.process import rank\n"
        "from fasttrain.training import run, settings\n"
        "real = run.Loader\n"
        "def other(data, *arguments, **options):\n"
        "    return real([data, data] if rank() else data, *arguments, **options)\n"
        "run.Loader = other\n"
        "run.train(settings.TrainSettings.model_validate_json(sys.argv[1]))\n"
    )
    done = run(on_ranks(2, script, settings(images, tmp_path / "run")))
    assert done.returncode != 0
    assert "process 1 has another data set than process 0" in done.stderr
