"""Sizes of images and batches that change from epoch to epoch, in real torchrun jobs."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from .launched import run
from .test_jobs import JOB, SAMPLES, images, job, order_of, outcome, same, settings, steps_of

__all__ = ["images"]  # a fixture
RANKS, BATCHES = 2, (2, 5, 3)
SCHEDULES = {
    "size_schedule": {0: 32, 1: 48},
    "batch_schedule": dict(enumerate(BATCHES)),
    "lr_with_batch": "linear",
    "ddp": {"static_graph": True},
    "micro_batch": 2,
    "batch_size": 4,
}
STEPS = [SAMPLES // (RANKS * batch) for batch in BATCHES]
FIRST = [sum(STEPS[:epoch]) for epoch in range(len(STEPS) + 1)]


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run(job(settings(images, out, **SCHEDULES), ranks=RANKS))
    assert done.returncode == 0, done.stderr
    return out


def test_ranks_take_steps_of_one_size_and_share_each_epoch(undisturbed: Path, images: Path) -> None:
    ranks = steps_of(undisturbed, RANKS)
    assert [list(seen) for seen in ranks] == [list(range(FIRST[-1]))] * RANKS
    for epoch, batch in enumerate(BATCHES):
        steps = range(FIRST[epoch], FIRST[epoch + 1])
        assert {len(rank[step]) for step in steps for rank in ranks} == {batch}
        seen = [row for step in steps for rank in ranks for row in rank[step]]
        assert seen == order_of(images, epoch)[: len(seen)] and len(seen) == len(steps) * RANKS * batch
    records = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [(record["size"], record["batch_size"]) for record in records] == [(32, 2), (48, 5), (48, 3)]


@pytest.mark.thorough
def test_a_job_stopped_in_the_second_size_goes_on_in_the_same_and_in_another_world(
    undisturbed: Path, images: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "run", settings(images, tmp_path / "run", **SCHEDULES)
    stopped = run(job(options, "1", str(FIRST[1] + 1), "SIGTERM", ranks=RANKS))
    assert "stopped by SIGTERM in epoch 2 after step 1; add --resume to go on" in stopped.stderr
    shutil.copytree(out, tmp_path / "other")
    again = run(job(options, ranks=RANKS), RESUME="1")
    assert again.returncode == 0, again.stderr
    assert same(outcome(out), outcome(undisturbed))

    alone_in = settings(images, tmp_path / "other", **SCHEDULES)
    other = run([sys.executable, str(JOB), alone_in], RESUME="1")
    assert other.returncode == 0, other.stderr
    (seen,) = steps_of(tmp_path / "other", 1)
    first = [0, *(sum(SAMPLES // batch for batch in BATCHES[: epoch + 1]) for epoch in range(3))]
    rest = [row for step, rows in seen.items() if step < first[2] for row in rows]
    done = RANKS * BATCHES[1]  # of the second epoch, before the stop
    assert rest == order_of(images, 1)[done : done + len(rest)] and len(rest) == (SAMPLES - done) // 5 * 5
    assert list(seen) == list(range(first[1] + done // BATCHES[1], first[3]))
