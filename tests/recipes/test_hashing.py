"""What makes a stage be done again, and what does not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fasttrain.cli.app import app
from fasttrain.cli.toolbox import CommandLine
from fasttrain.recipes.expand import expand
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.hashing import NEUTRAL, ContentHashes, stage_key
from fasttrain.recipes.references import StageOutput
from fasttrain.recipes.schema import RecipeFile

TOOLBOX = CommandLine(app)
VALUES = st.integers() | st.floats(allow_nan=False) | st.text("abc", max_size=3) | st.booleans()
SETTINGS = st.dictionaries(
    st.sampled_from(["lr", "epochs", "size", "augment"]), VALUES | st.lists(VALUES, max_size=2), max_size=4
)


def stage_of(body: dict[str, Any], kind: str = "train") -> Stage:
    recipe = RecipeFile.model_validate({"name": "test", "stages": {"it": {"kind": kind}}})
    return replace(expand(recipe, TOOLBOX)[0], body=body)


def key_of(body: dict[str, Any], kind: str = "train", processes: int = 1, content: str = "x") -> str:
    return stage_key(stage_of(body, kind), processes, lambda output: content, ContentHashes())


@given(SETTINGS, SETTINGS)
def test_keys_differ_exactly_where_settings_do(one, other):
    assert key_of(one) == key_of(dict(reversed(one.items())))
    assert (key_of(one) == key_of(other)) == (repr(sorted(one.items())) == repr(sorted(other.items())))


@given(SETTINGS, st.dictionaries(st.sampled_from(sorted(NEUTRAL)), st.integers(1, 9)))
def test_how_much_of_the_machine_is_used_does_not_count(settings, neutral):
    assert key_of(settings) == key_of({**settings, **neutral})


def test_the_number_of_processes_counts_in_training_alone():
    assert key_of({}, processes=1) != key_of({}, processes=2)
    assert key_of({}, "predict", processes=1) == key_of({}, "predict", processes=2)
    assert key_of({}, "predict") != key_of({}, "evaluate_model")


def test_of_other_stages_the_content_counts_and_not_the_name():
    first, second = ({"data": [StageOutput(name, "dataset")]} for name in ("a", "b"))
    assert key_of(first) == key_of(second)
    assert key_of(first, content="x") != key_of(first, content="y")


def test_of_files_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).write_text(text)
    same, again, other = (key_of({"ids": str(tmp_path / name)}) for name in "abc")
    assert same == again != other
    assert key_of({"loss": {"class_weights": str(tmp_path / "a")}}) != key_of(
        {"loss": {"class_weights": str(tmp_path / "c")}}
    )


def test_of_folders_names_sizes_and_times_count(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.jpg").write_text("1")
    before = key_of({"data": str(folder)})
    assert key_of({"data": str(folder)}) == before
    (folder / "deep" / "b.jpg").write_text("1")
    assert key_of({"data": str(folder)}) != before


def test_settings_of_a_named_file_count_as_if_they_were_written_out(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("epochs: 3\noptimizer: {lr: 0.1, momentum: 0.9}\n")
    named = {"config": str(tmp_path / "base.yaml"), "optimizer": {"lr": 0.2}}
    assert key_of(named) == key_of({"epochs": 3, "optimizer": {"lr": 0.2, "momentum": 0.9}})
    named["epochs"] = None  # as if the file did not say it
    assert key_of(named) == key_of({"optimizer": {"lr": 0.2, "momentum": 0.9}})


def test_hashes_are_remembered_until_a_file_changes(tmp_path: Path) -> None:
    memory, file = tmp_path / "hashes.json", tmp_path / "file"
    file.write_text("one")
    first = ContentHashes(memory)
    known = first.of(file)
    first.save()
    again = ContentHashes(memory)
    assert again.of(file) == known
    file.write_text("another one")
    assert again.of(file) != known
    memory.write_text("{")  # cut short
    assert ContentHashes(memory).of(file) == again.of(file)
