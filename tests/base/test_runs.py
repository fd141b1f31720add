import json

from fasttrain.base.runs import RunFolder


def test_a_half_written_line_is_ignored_and_epochs_are_forgotten(tmp_path):
    run = RunFolder(tmp_path)
    for epoch in range(3):
        run.append_metrics({"epoch": epoch, "train_loss": 1.0 / (epoch + 1)})
    with run.metrics_path.open("a") as file:
        file.write('{"epoch": 3, "train_')
    assert [record["epoch"] for record in run.read_metrics()] == [0, 1, 2]
    run.drop_metrics_from(2)
    assert [record["epoch"] for record in run.read_metrics()] == [0, 1]


def test_the_start_is_recorded(tmp_path):
    run = RunFolder(tmp_path)
    run.write_start({"epochs": 3})
    assert json.loads((tmp_path / "config.json").read_text()) == {"epochs": 3}
    start = json.loads((tmp_path / "start.json").read_text())
    assert start["packages"]["fasttrain"] == "0.1.0"
    assert start["command"]


def test_a_folder_is_made_by_the_run_that_starts_in_it(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "a" / "run")
    assert not run.path.exists() and not run.is_of_this_job()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    run.write_start({})
    assert run.is_of_this_job()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "two")
    assert not run.is_of_this_job()
