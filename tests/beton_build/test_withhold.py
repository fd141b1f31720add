"""Labels that are kept out of a data set lie beside it, and nowhere in it."""

import csv
from pathlib import Path

import pytest

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source
from fasttrain.beton_build.withhold import withhold_labels


def test_labels_are_written_apart_and_others_can_be_given(colour_tree: Path, tmp_path: Path) -> None:
    samples = withhold_labels(read_source(colour_tree), tmp_path / "labels.csv")
    build(samples, tmp_path / "data.beton")
    with BetonReader(tmp_path / "data.beton") as reader:
        assert (reader.labels == -1).all()
        assert reader.class_names == ["blue", "green", "red"]
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["id"].startswith(row["label"]) for row in rows)
    assert len(rows) == 24
    (tmp_path / "pseudo.csv").write_text(f"id,label\n{rows[0]['id']},red\n")
    given = read_source(tmp_path / "data.beton", labels=tmp_path / "pseudo.csv", ids=tmp_path / "pseudo.csv")
    assert (given.ids, given.labels.tolist(), given.class_names) == ([rows[0]["id"]], [2], ["blue", "green", "red"])


def test_labels_of_ids_with_a_prefix_name_them_so(colour_tree: Path, tmp_path: Path) -> None:
    """As of a test set whose files are called as those of the training set."""
    samples = withhold_labels(read_source(colour_tree).prefixed("test"), tmp_path / "labels.csv")
    build(samples, tmp_path / "data.beton")
    with (tmp_path / "labels.csv").open(newline="") as file, BetonReader(tmp_path / "data.beton") as reader:
        assert [row["id"] for row in csv.DictReader(file)] == list(reader.ids)
        assert all(name.startswith("test/") for name in reader.ids)


def test_without_labels_there_are_none_to_withhold(colour_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="--withhold-labels"):
        withhold_labels(read_source(colour_tree / "red"), tmp_path / "labels.csv")
    assert not (tmp_path / "labels.csv").exists()
