"""Recipes run with the real commands: done once, again only where something changed, and through every interruption."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fasttrain.recipes.launch import marked_processes
from fasttrain.recipes.state import RECORD

from .conftest import fasttrain

ALL = {"tables[model=a]", "tables[model=b]", "ensemble", "redistribute", "pseudo", "accuracy", "submission"}


def run(recipe: Path, out: Path, *options: object, code: int = 0) -> dict:
    return fasttrain("recipe", "run", recipe, "--out", out, *options, code=code)


def finals(out: Path) -> dict[str, bytes]:
    """The outputs of all stages, without records and logs."""
    names = {"log.txt", RECORD}
    return {
        str(path.relative_to(out)): path.read_bytes().replace(bytes(out), b"OUT")
        for path in sorted((out / "stages").rglob("*"))
        if path.is_file() and path.name not in names and not path.name.endswith(".lock")
    }


def test_what_is_done_is_done_once_and_what_changed_again(recipe, scores, tmp_path):
    out = tmp_path / "work"
    first = run(recipe, out)
    assert set(first["done"]) == ALL
    assert first["results"]["accuracy"]["top1_assigned"] > 0.5
    assert json.loads((out / "stages/submission/submission.json").read_text()).keys() == {f"s{i}" for i in range(30)}
    assert set(run(recipe, out)["skipped"]) == ALL
    told = fasttrain("recipe", "report", recipe, "--out", out)
    assert told["stages"] == {"done": len(ALL)}
    [accuracy] = told["accuracies"]
    assert (accuracy["stage"], accuracy["final"]) == ("redistribute", first["results"]["accuracy"]["top1_assigned"])
    assert [gain["step"] for gain in told["gains"]] == ["re-distribution"]

    stricter = run(recipe, out, "--set", "threshold=0.9")
    assert stricter["done"] == ["pseudo"]
    assert stricter["results"]["pseudo"]["kept"] < first["results"]["pseudo"]["kept"]

    (scores / "a.csv").write_text((scores / "a.csv").read_text().replace("s0,", "s0,1"))
    again = run(recipe, out, "--set", "threshold=0.9")
    assert set(again["skipped"]) == {"tables[model=b]"}


def test_equal_outputs_stop_the_work(recipe, scores, tmp_path):
    """A source that changed without any effect on what is made of it."""
    run(recipe, tmp_path / "work", "--until", "ensemble")
    text = (scores / "a.csv").read_text()
    (scores / "a.csv").write_text(text.rstrip("\n"))
    assert run(recipe, tmp_path / "work", "--until", "ensemble")["done"] == ["tables[model=a]"]


def test_a_record_tells_where_a_number_comes_from(recipe, tmp_path):
    out = tmp_path / "work"
    run(recipe, out, "--until", "ensemble")
    record = json.loads((out / "stages" / "ensemble" / RECORD).read_text())
    inputs = [json.loads((out / "stages" / f"tables,model={name}" / RECORD).read_text()) for name in "ab"]
    hashes = {f"${{{entry['stage']}.table}}": entry["outputs"]["table"]["hash"] for entry in inputs}
    assert record["inputs"] == hashes
    assert record["result"]["weights"] == [0.5, 0.5]
    assert record["command"][-1] == "--json"
    assert not any(".part" in word for word in record["command"])
    assert record["attempts"] == 1


def test_parts_of_a_recipe(recipe, tmp_path):
    out = tmp_path / "work"
    planned = run(recipe, out, "--dry-run", "--until", "ensemble")["plan"]
    assert [(entry["stage"], entry["state"]) for entry in planned] == [
        ("tables[model=a]", "new"),
        ("tables[model=b]", "new"),
        ("ensemble", "waits"),
    ]
    assert not out.exists()
    assert "which is not done" in run(recipe, out, "--only", "ensemble", code=1)["said"]
    assert len(run(recipe, out, "--until", "ensemble")["done"]) == 3
    assert run(recipe, out, "--only", "redistribute")["done"] == ["redistribute"]
    again = run(recipe, out, "--from", "redistribute", "--until", "pseudo")
    assert (again["done"], len(again["skipped"])) == (["redistribute", "pseudo"], 3)
    assert "did you mean 'ensemble'" in run(recipe, out, "--until", "ensembl", code=1)["said"]
    shown = fasttrain("recipe", "show", recipe, "--out", out)["stages"]
    assert {entry["stage"] for entry in shown if entry["state"] != "done"} == {"accuracy", "submission"}


def test_a_failing_stage_costs_only_what_needs_it(recipe, tmp_path):
    out = tmp_path / "work"
    absent = ("--set", "stages.redistribute={kind: redistribute, table: '${ensemble}', lower: 20, upper: 20}")
    failed = run(recipe, out, *absent, "--set", "stages.pseudo.table=${ensemble}", "--report", code=1)
    assert failed["failed"] == ["redistribute"]
    assert set(failed["cancelled"]) == {"accuracy", "submission"}
    assert set(failed["done"]) == {"tables[model=a]", "tables[model=b]", "ensemble", "pseudo"}
    assert "run the same line again" in failed["said"]
    assert "log.txt" in failed["said"]
    page = Path(failed["report"]).read_text(encoding="utf-8")
    assert "redistribute, failed: fasttrain: " in page
    mended = run(recipe, out, "--set", "stages.pseudo.table=${ensemble}")
    assert set(mended["done"]) == {"redistribute", "accuracy", "submission"}


def test_a_sweep_does_each_value_under_a_name_that_tells_it_and_stages_run_side_by_side(recipe, tmp_path):
    out = tmp_path / "work"
    sweep = ("--set", "stages.pseudo.threshold=null", "--set", "stages.pseudo.sweep={threshold: [0.5, 0.9]}")
    done = run(recipe, out, *sweep, "--until", "pseudo", "--jobs", 2)
    low, high = (done["results"][f"pseudo[threshold={value}]"]["kept"] for value in (0.5, 0.9))
    assert low > high
    assert (out / "stages" / "pseudo,threshold=0.9" / "labels.csv").exists()
    for pair in ("tables", "pseudo"):
        told = [line for line in done["said"].splitlines() if line.startswith(pair)]
        assert [line.split(": ")[1].split()[0] for line in told] == ["started", "started", "done", "done"]
    more = ("--set", "stages.pseudo.threshold=null", "--set", "stages.pseudo.sweep={threshold: [0.5, 0.7]}")
    assert run(recipe, out, *more, "--until", "pseudo")["done"] == ["pseudo[threshold=0.7]"]


def test_an_output_that_is_gone_is_made_again(recipe, tmp_path):
    out = tmp_path / "work"
    run(recipe, out, "--until", "redistribute")
    before = finals(out)
    (out / "stages/ensemble/table.arrow").unlink()
    assert run(recipe, out, "--until", "redistribute")["done"] == ["ensemble"]
    assert finals(out) == before


def start(recipe: Path, out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "fasttrain.cli.app", "recipe", "run", str(recipe), "--out", str(out)]
    command += ["--no-report", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(1, 9))])
def test_killed_anywhere_it_ends_in_the_same_files(recipe, tmp_path, seed):
    """Whatever is at work then, one stage or two: what is finished is not done again."""
    jobs = ("--jobs", str(1 + seed % 2))
    started = time.monotonic()
    run(recipe, tmp_path / "whole", *jobs)
    seconds = time.monotonic() - started
    whole = finals(tmp_path / "whole")
    out, rng, kills = tmp_path / "work", random.Random(seed), 0
    done_before: dict[str, float] = {}
    while True:
        process = start(recipe, out, *jobs)
        try:
            process.wait(rng.uniform(0.1, 0.4) * seconds if kills < 6 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        process.communicate()
        records = {str(path): path.stat().st_mtime for path in (out / "stages").glob(f"*[!t]/{RECORD}")}
        assert all(records[path] == changed for path, changed in done_before.items())  # none was done twice
        done_before = records
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills >= 2
    assert finals(out) == whole
    assert not list((out / "stages").glob("*.part"))


def test_killed_between_record_and_name_it_is_not_done_again(recipe, tmp_path):
    out = tmp_path / "work"
    run(recipe, out, "--until", "ensemble")
    (out / "stages/ensemble").rename(out / "stages/ensemble.part")
    assert "ensemble" not in run(recipe, out, "--until", "ensemble")["done"]
    (out / "stages/ensemble").rename(out / "stages/ensemble.old")
    assert run(recipe, out, "--until", "ensemble")["done"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stages_and_says_how_to_go_on(recipe, tmp_path, number):
    out = tmp_path / "work"
    process = start(recipe, out)
    deadline = time.monotonic() + 60
    while not list((out / "stages").glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "run the same line again" in said
    assert not any(marked_processes(part) for part in (out / "stages").glob("*.part"))
    assert "tables[model=b]" in run(recipe, out, "--until", "tables")["done"]


def test_what_a_killed_runner_left_at_work_is_ended(recipe, tmp_path):
    """Otherwise two processes would write the same files."""
    out = tmp_path / "work"
    part = out.absolute() / "stages" / "tables,model=a.part"
    part.mkdir(parents=True)
    environment = {**os.environ, "FASTTRAIN_RECIPE_STAGE": str(part)}
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    try:
        assert "ending what an earlier run left" in run(recipe, out, "--until", "tables[model=a]")["said"]
        assert left.wait(10) == -signal.SIGTERM
    finally:
        left.kill()


def test_two_runs_do_not_do_the_same_stage(recipe, tmp_path):
    out = tmp_path / "work"
    (out / "stages").mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(1, flush=True);"
         "sys.stdin.read()", str(out / "stages" / ".ensemble.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        said = run(recipe, out, "--until", "ensemble", code=1)["said"]
        assert "ensemble is being done by another run" in said
    finally:
        holder.communicate()
