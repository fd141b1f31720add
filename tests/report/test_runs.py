import json
import os
import platform
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fasttrain.base.errors import ConfigError
from fasttrain.base.runs import RunFolder
from fasttrain.cli.app import app
from fasttrain.report.runs import differences, find_runs, move_to_trash, named_runs, summary, write_comparison


def make_run(root, name, epochs=2, done=2, lr=0.1, pid=None, **more):
    run = RunFolder(root / name)
    settings = {"model": "resnet18", "epochs": epochs, "out": name, "optimizer": {"lr": lr, "name": "adamw"}, **more}
    run.write_start(settings)
    start = run.read_json("start.json")
    run.write_json("start.json", {**start, "pid": pid or 2**22 + 1})
    for epoch in range(done):
        run.append_metrics(
            {"epoch": epoch, "train_loss": 1 / (epoch + 1), "val_top1": 0.5 + epoch / 10, "images_per_s": 100.0}
        )
    return run


def test_runs_are_found_with_their_state(tmp_path):
    make_run(tmp_path, "a")
    make_run(tmp_path, "group/b", epochs=5)
    make_run(tmp_path, "c", epochs=5, pid=os.getpid())
    states = {name: summary(name, run)["state"] for name, run in find_runs(tmp_path).items()}
    assert states == {"a": "finished", "c": "running", "group/b": "stopped"}
    facts = summary("a", find_runs(tmp_path)["a"])
    assert (facts["done"], facts["top1"], facts["best_top1"], facts["train_loss"]) == (2, 0.6, 0.6, 0.5)
    with pytest.raises(ConfigError, match="no such folder of runs"):
        find_runs(tmp_path / "nowhere")


def test_a_process_that_took_over_the_number_is_not_the_run(tmp_path):
    run = make_run(tmp_path, "a", epochs=5, pid=os.getpid())
    assert run.is_alive()
    os.utime(run.path / "start.json", (0, 0))  # long before this process began
    assert not run.is_alive()
    run.write_json("start.json", {"host": platform.node() + "x", "pid": os.getpid()})
    assert not run.is_alive()


def test_settings_that_differ_are_told_under_dotted_names(tmp_path):
    runs = {name: make_run(tmp_path, name, lr=lr) for name, lr in (("a", 0.1), ("b", 0.2))}
    assert differences(runs) == {"optimizer.lr": {"a": 0.1, "b": 0.2}}
    sets = {
        name: make_run(tmp_path, f"sets/{name}", extra_val=sets) for name, sets in (("a", {}), ("b", {"x": "x.beton"}))
    }
    assert differences(sets) == {"extra_val.x": {"a": None, "b": "x.beton"}}
    page = write_comparison(runs, tmp_path / "page.html").read_text()
    assert "optimizer.lr" in page and "data:image/svg+xml" in page
    with pytest.raises(ConfigError, match="no curves to plot"):
        write_comparison({"c": make_run(tmp_path, "c", done=0)}, tmp_path / "page.html")


def test_only_exact_names_go_to_the_trash_and_all_of_them_or_none(tmp_path):
    for name in ("a", "ab"):
        make_run(tmp_path, name)
    with pytest.raises(ConfigError, match="no run 'b'"):
        move_to_trash(tmp_path, ["a", "b"])
    assert set(find_runs(tmp_path)) == {"a", "ab"}
    for name in ("", ".", "..", "../a", "A"):
        with pytest.raises(ConfigError, match="there is no run"):
            named_runs(tmp_path, [name])
    place = move_to_trash(tmp_path, ["a"])["a"]
    assert set(find_runs(tmp_path)) == {"ab"}
    assert (place / "metrics.jsonl").exists()


def test_a_running_run_stays_unless_forced(tmp_path):
    make_run(tmp_path, "a", epochs=5, pid=os.getpid())
    with pytest.raises(ConfigError, match="a is running; stop it first"):
        move_to_trash(tmp_path, ["a"])
    assert move_to_trash(tmp_path, ["a"], force=True)["a"].exists()


def test_the_commands_print_json(tmp_path):
    make_run(tmp_path, "a")
    make_run(tmp_path, "b", lr=0.2)

    def result(*words):
        done = CliRunner().invoke(app, ["runs", *words, "--root", str(tmp_path), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert [row["name"] for row in result("list")["runs"]] == ["a", "b"]
    assert result("show", "a")["settings"]["optimizer.lr"] == 0.1
    assert result("compare", "a", "b")["settings"] == {"optimizer.lr": {"a": 0.1, "b": 0.2}}
    assert list(result("rm", "a")) == ["a"]
    for words in (["list"], ["show", "b"], ["compare", "b"]):
        assert CliRunner().invoke(app, ["runs", *words, "--root", str(tmp_path)]).exit_code == 0


def test_commands_are_logged_with_their_end(tmp_path):
    environment = {**os.environ, "FASTTRAIN_COMMAND_LOG": str(tmp_path / "log" / "commands.jsonl")}

    def fasttrain(*words):
        return subprocess.run(
            [sys.executable, "-m", "fasttrain.cli.app", *words],
            env=environment,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    assert fasttrain("info", "nothing.beton").returncode == 1
    assert fasttrain("info", "--help").returncode == 0
    assert fasttrain("info").returncode == 2
    logged = json.loads(fasttrain("runs", "log", "--json").stdout)["commands"]
    assert [(entry["command"], entry["exit_code"]) for entry in logged] == [
        ("fasttrain info nothing.beton", 1),
        ("fasttrain info", 2),
    ]
    assert logged[0]["error"].endswith("no such file") and logged[0]["folder"] == str(tmp_path)
    with (tmp_path / "log" / "commands.jsonl").open("a") as file:
        file.write('{"started": 1e12, "pid": 5, "folder": "/", "command": "fasttrain train"}\n{"started": 3, "p')
    logged = json.loads(fasttrain("runs", "log", "--json").stdout)["commands"]
    assert (logged[-1]["command"], logged[-1]["exit_code"]) == ("fasttrain train", None)  # it was killed
