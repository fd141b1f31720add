import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasttrain.base.errors import FasttrainError, ImageError, LoaderError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.loading.loader import Loader
from fasttrain.loading.open_dataset import open_dataset
from fasttrain.loading.selection import select_rows
from fasttrain.loading.views import eval_view, train_view


def make_tree(root: Path, classes: tuple[str, ...], per_class: int, shade: int) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            Image.new("RGB", (20 + index, 16), (shade, index, 0)).save(root / name / f"{index}.png")
    return root


def test_folder_and_beton_agree_on_everything(photos: Path, keep_beton: Path) -> None:
    folder, beton = open_dataset(photos), open_dataset(keep_beton)
    rows = np.array([3, 0, 19])
    assert folder.num_samples == beton.num_samples == 20
    assert folder.string_ids(rows) == beton.string_ids(rows)
    for ours, theirs in ((folder.labels, beton.labels), (folder.keys, beton.keys)):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(folder.sizes(rows), beton.sizes(rows))
    assert folder.sizes(np.empty(0, np.int64)).shape == (0, 2)


def test_fingerprints_tell_data_sets_apart(photos: Path, keep_beton: Path, raw_beton: Path, tmp_path: Path) -> None:
    other = make_tree(tmp_path / "a", ("x",), 3, 0)
    before = open_dataset(other).fingerprint
    assert before == open_dataset(other).fingerprint
    (other / "x" / "9.png").write_bytes((other / "x" / "0.png").read_bytes())
    sets = [photos, keep_beton, raw_beton, other, [photos, photos], [keep_beton, raw_beton], [raw_beton, keep_beton]]
    found = {open_dataset(data).fingerprint for data in sets}  # type: ignore[arg-type]
    assert len(found | {before}) == len(sets) + 1


def test_several_parts_are_numbered_through(tmp_path: Path, photos: Path, raw_beton: Path) -> None:
    joined, one = open_dataset([raw_beton, photos]), open_dataset(photos)
    assert joined.num_samples == 40 and joined.class_names == one.class_names
    rows = np.array([25, 3, 39, 0, 20])
    local = rows % 20
    assert joined.string_ids(rows) == one.string_ids(local)
    np.testing.assert_array_equal(joined.sizes(rows), one.sizes(local))
    np.testing.assert_array_equal(joined.labels[rows], one.labels[local])
    for row in rows.tolist():
        np.testing.assert_array_equal(joined.decode(row), one.decode(row % 20))
    joined.close()


def test_equal_ids_in_several_parts_are_shuffled_and_viewed_independently(tmp_path: Path) -> None:
    parts = [make_tree(tmp_path / name, ("x", "y"), 20, shade) for shade, name in enumerate(("photo", "art"))]
    joined = open_dataset(parts)
    assert len(np.unique(joined.keys)) == 80
    np.testing.assert_array_equal(joined.keys[:40], open_dataset(parts[0]).keys)  # the first part keeps its views
    with Loader(parts, 2, view=train_view(8), threads=1) as loader:
        pairs = [batch.ids.sort().values.tolist() for batch in loader]
    assert sum(second - first == 40 for first, second in pairs) <= 3


def test_parts_of_other_classes_are_refused(tmp_path: Path) -> None:
    parts = [make_tree(tmp_path / "a", ("x", "y"), 1, 0), make_tree(tmp_path / "b", ("x", "z"), 1, 0)]
    with pytest.raises(LoaderError, match=r"different classes.*--classes"):
        open_dataset(parts)
    with pytest.raises(LoaderError, match="no data set"):
        open_dataset([])
    with pytest.raises(FasttrainError, match="nowhere"):
        open_dataset([parts[0], tmp_path / "nowhere"])


def test_rows_can_be_chosen_by_number_and_by_name(photos: Path) -> None:
    dataset = open_dataset(photos)
    assert select_rows(dataset, None).tolist() == list(range(20))
    assert select_rows(dataset, range(5, 2, -1)).tolist() == [5, 4, 3]
    assert select_rows(dataset, np.array([7], np.uint8)).tolist() == [7]
    names = dataset.string_ids(np.array([4, 2]))
    assert select_rows(dataset, names).tolist() == [4, 2]
    assert select_rows(dataset, np.array(names)).tolist() == [4, 2]


def test_wrong_choices_say_what_is_wrong(photos: Path) -> None:
    dataset = open_dataset(photos)
    for indices, message in (
        ([20], "rows 0 to 19"),
        ([-1], "rows 0 to 19"),
        ([1, 1], "twice"),
        (["cat/0.jpg", "cat/none.jpg"], "no sample 'cat/none.jpg'"),
        ([0.5], "integers"),
        ([], "no sample"),
        (np.ones(20, bool), "integers"),
    ):
        with pytest.raises(LoaderError, match=message):
            select_rows(dataset, indices)  # type: ignore[arg-type]
    with pytest.raises(LoaderError, match=r"several samples 'cat/0\.jpg'"):
        select_rows(open_dataset([photos, photos]), ["cat/0.jpg"])


def test_file_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    try:
        os.rename(tmp_path / "plain.png", name)
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    out = tmp_path / "out.beton"
    build(read_source(tmp_path), out, BuildOptions(workers=1))
    folder, beton = open_dataset(tmp_path), open_dataset(out)
    assert folder.keys.tolist() == beton.keys.tolist()
    assert folder.string_ids(np.array([0])) == beton.string_ids(np.array([0]))


def test_a_file_that_changes_size_under_way_is_an_error_not_another_crop(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, ("x",), 1, 0)
    dataset = open_dataset(tree)
    dataset.sizes(np.array([0]))
    Image.new("RGB", (5, 5)).save(tree / "x" / "0.png")
    with pytest.raises(ImageError, match="5x5, but was 20x16"):
        dataset.decode(0)


def test_every_kind_of_image_in_a_folder_becomes_rgb(tmp_path: Path) -> None:
    for mode in ("L", "LA", "RGBA", "P", "1", "CMYK"):
        extension = "tif" if mode == "CMYK" else "png"
        Image.new(mode, (12, 10)).save(tmp_path / f"{mode}.{extension}")
    with Loader(tmp_path, 6, view=eval_view(8), threads=1) as loader:
        (batch,) = loader
        assert batch.valid.all() and batch.images.shape == (6, 3, 8, 8)
        assert batch.labels.tolist() == [-1] * 6 and loader.class_names is None and loader.num_classes == 0
