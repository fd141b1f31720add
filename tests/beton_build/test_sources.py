"""Trees, plain folders, lists and tables, alone and joined; what is wrong with them in one sentence."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.sources import read_source


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    root = tmp_path / "flat"
    root.mkdir()
    for name in ("b.jpg", "a photo.png", "c.JPEG"):
        (root / name).write_bytes(b"x")
    return root


def put(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_tree(tree: Path) -> None:
    (tree / "cat" / "notes.txt").write_text("x")
    (tree / "cat" / "deep").mkdir()
    (tree / "cat" / "deep" / "x.png").write_bytes(b"x")
    (tree / ".cache").mkdir()
    samples = read_source(tree)
    assert samples.class_names == ["cat", "dog", "emu"]
    assert samples.ids[0] == "cat/00.jpg" and "cat/deep/x.png" in samples.ids
    assert samples.ids == sorted(samples.ids)
    assert np.bincount(samples.labels).tolist() == [7, 4, 2] and samples.labels.dtype == np.int64
    assert samples.ignored == 1
    assert all(path == tree / name for name, path in zip(samples.ids, samples.origins, strict=True))


def test_whole_numbers_as_folder_names_are_ordered_as_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "100"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"x")
    samples = read_source(tmp_path)
    assert samples.class_names == ["9", "10", "100"]
    assert dict(zip(samples.ids, samples.labels.tolist(), strict=True)) == {"9/x.png": 0, "10/x.png": 1, "100/x.png": 2}


def test_plain_folder(flat: Path) -> None:
    (flat / "empty").mkdir()
    samples = read_source(flat)
    assert samples.ids == ["a photo.png", "b.jpg", "c.JPEG"]
    assert samples.labels.tolist() == [-1, -1, -1] and samples.class_names == []


def test_circular_links_end(tree: Path) -> None:
    (tree / "cat" / "loop").symlink_to(tree / "cat")
    (tree / "dog" / "link.jpg").symlink_to(tree / "cat" / "00.jpg")
    assert len(read_source(tree)) == 13


def test_text_list(flat: Path) -> None:
    listed = put(flat / "list.txt", "a photo.png red\n\nb.jpg\tlight blue\r\n./c.JPEG red\n")
    samples = read_source(listed)
    assert samples.ids == ["a photo.png", "b.jpg", "c.JPEG"]
    assert samples.class_names == ["light blue", "red"] and samples.labels.tolist() == [1, 0, 1]


def test_text_list_without_labels(flat: Path) -> None:
    samples = read_source(put(flat / "list.txt", "a photo.png\nb.jpg\n"))
    assert samples.labels.tolist() == [-1, -1]


def test_whole_numbers_in_lists_are_class_indices(flat: Path) -> None:
    samples = read_source(put(flat / "list.txt", "a photo.png 3\nb.jpg 0\nc.JPEG -1\n"))
    assert samples.labels.tolist() == [3, 0, -1] and samples.class_names == ["0", "1", "2", "3"]


def test_table(flat: Path) -> None:
    table = put(flat / "t.csv", '\ufeffLabel,weight,Image\nred,1,"a photo.png"\n,2,b.jpg\nblue,3,c.JPEG\n')
    samples = read_source(table)
    assert samples.ids == ["a photo.png", "b.jpg", "c.JPEG"]
    assert samples.labels.tolist() == [1, -1, 0] and samples.class_names == ["blue", "red"]


def test_named_columns_other_separators_and_root(flat: Path, tmp_path: Path) -> None:
    table = put(tmp_path / "t.tsv", "p\tq\tlabel\nb.jpg\tx\ty\n")
    samples = read_source(table, root=flat, path_column="p", label_column="q")
    assert (samples.ids, samples.class_names) == (["b.jpg"], ["x"])
    semicolons = put(tmp_path / "t.csv", "path;label\nb.jpg;x\n")
    assert read_source(semicolons, root=flat).class_names == ["x"]


def test_absolute_paths_get_relative_ids(flat: Path) -> None:
    samples = read_source(put(flat / "list.txt", f"{flat}/b.jpg x\n"))
    assert samples.ids == ["b.jpg"]


def test_imposed_classes(tree: Path, tmp_path: Path) -> None:
    names = put(tmp_path / "names.txt", "emu\ndog\nyak\ncat\n")
    (tree / "yak").mkdir()
    samples = read_source(tree, classes=names)
    assert samples.class_names == ["emu", "dog", "yak", "cat"]
    assert np.bincount(samples.labels).tolist() == [2, 4, 0, 6]
    listed = put(tree / "list.txt", "cat/00.jpg 3\ndog/00.jpg dog\n")
    assert read_source(listed, classes=names).labels.tolist() == [3, 1]


def test_labels_from_a_table(flat: Path, tmp_path: Path) -> None:
    table = put(tmp_path / "l.csv", "id,label,confidence\nb.jpg,red,0.9\nc.JPEG,blue,0.8\n")
    samples = read_source(flat, labels=table)
    assert samples.labels.tolist() == [-1, 1, 0] and samples.class_names == ["blue", "red"]
    put(table, "id,label\nnone.jpg,red\n")
    with pytest.raises(SourceError, match=r"1 ids that no source holds: 'none.jpg'"):
        read_source(flat, labels=table)
    put(table, "id,label\nb.jpg,red\nb.jpg,red\n")
    with pytest.raises(SourceError, match=r"more than once: 'b.jpg'"):
        read_source(flat, labels=table)


def test_several_folders(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "bee").mkdir(parents=True)
    (other / "cat").mkdir()
    (other / "bee" / "00.jpg").write_bytes(b"x")
    (other / "cat" / "00.jpg").write_bytes(b"x")
    samples = read_source([tree, other])
    assert samples.class_names == ["bee", "cat", "dog", "emu"]
    assert samples.ids[0] == "tree/cat/00.jpg" and samples.ids[-2:] == ["other/bee/00.jpg", "other/cat/00.jpg"]
    assert samples.labels[0] == samples.labels[-1] == 1 and len(samples) == 14
    with pytest.raises(SourceError, match=r"12 samples are listed more than once: 'tree/cat/00.jpg'"):
        read_source([tree, tree])


def test_the_fingerprint_follows_the_samples(tree: Path) -> None:
    first = read_source(tree).fingerprint()
    assert read_source(tree).fingerprint() == first
    (tree / "emu" / "new.jpg").write_bytes(b"x")
    assert read_source(tree).fingerprint() != first


def no_such(root: Path) -> Path:
    return root / "nowhere"


def empty_folder(root: Path) -> Path:
    (root / "e").mkdir()
    return root / "e"


def mixed(root: Path) -> Path:
    (root / "m" / "cat").mkdir(parents=True)
    (root / "m" / "cat" / "x.jpg").write_bytes(b"x")
    (root / "m" / "y.jpg").write_bytes(b"x")
    return root / "m"


def empty_class(root: Path) -> Path:
    (root / "c" / "cat").mkdir(parents=True)
    (root / "c" / "dog").mkdir()
    (root / "c" / "cat" / "x.jpg").write_bytes(b"x")
    return root / "c"


def an_image(root: Path) -> Path:
    (root / "x.jpg").write_bytes(b"x")
    return root / "x.jpg"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_such, "no such file or folder"),
        (empty_folder, "holds no image"),
        (mixed, "1 images beside its class folders"),
        (empty_class, "class folder without an image in .*: 'dog'"),
        (an_image, "neither a folder of images nor a list"),
        (lambda root: put(root / "l.txt", ""), "lists no image"),
        (lambda root: put(root / "l.txt", "gone.jpg 1\n"), "none of the 1 images in .* exists, .*--root"),
        (lambda root: put(root / "t.csv", ""), "is empty"),
        (lambda root: put(root / "t.csv", "a,b\n1,2\n"), r"none of the columns path, .* only: a, b; .*--path-column"),
        (lambda root: put(root / "t.csv", "path,label\n,2\n"), "line 2: 2 columns and no path"),
        (lambda root: put(root / "l.txt", "x\0y 1\n"), "not a text file"),
    ],
)
def test_what_is_wrong_with_a_source(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_source(make(tmp_path))


def test_what_is_wrong_with_labels(tree: Path, flat: Path, tmp_path: Path) -> None:
    names = put(tmp_path / "names.txt", "cat\ndog\n")
    with pytest.raises(SourceError, match=r"2 labels are not among the 2 classes: 'emu' of 'emu/00.jpg'"):
        read_source(tree, classes=names)
    with pytest.raises(SourceError, match="label 2000000 is no class index"):
        read_source(put(flat / "list.txt", "b.jpg 2000000\n"))
    with pytest.raises(SourceError, match=r"'7' of 'b.jpg'"):
        read_source(put(flat / "list.txt", "b.jpg 7\n"), classes=names)
    with pytest.raises(SourceError, match="more than once: 'cat'"):
        read_source(tree, classes=put(names, "cat\ndog\ncat\n"))
    with pytest.raises(SourceError, match="names no class"):
        read_source(tree, classes=put(names, "\n"))
    with pytest.raises(SourceError, match="no column 'zzz', only: path, label"):
        read_source(put(flat / "t.csv", "path,label\nb.jpg,1\n"), label_column="zzz")
    with pytest.raises(SourceError, match=r"listed more than once: 'b.jpg'"):
        read_source(put(flat / "list.txt", "b.jpg 1\n./b.jpg 2\n"))
