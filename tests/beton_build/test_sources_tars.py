"""WebDataset archives as sources: what is a sample, where its image lies, and what is wrong with an archive."""

import io
import itertools
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain import Loader, eval_view
from fasttrain.base.errors import SourceError
from fasttrain.beton_build.braces import expand_braces
from fasttrain.beton_build.build import build
from fasttrain.beton_build.images import decode_rgb
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.origins import TarMember, decode_origin
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source

Members = list[tuple[str, bytes]]


def write_tar(path: Path, members: Members, mode: str = "w", **options: Any) -> Path:
    with tarfile.open(path, mode, **options) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def photos(pixels: Callable[..., np.ndarray], encoded: Callable[..., bytes]) -> list[bytes]:
    return [encoded(pixels(30 + seed, 20, seed)) for seed in range(4)]


def test_samples_lie_in_the_archive(tmp_path: Path, photos: list[bytes]) -> None:
    members = [
        ("./cats/0.jpg", photos[0]),
        ("./cats/0.cls", b"cat\n"),
        ("./cats/0.txt", b"a cat"),
        (".hidden", b""),
        ("v1.0/1.JPG", photos[1]),
        ("v1.0/1.cls", b"dog"),
        ("2.jpeg", photos[2]),
        ("2.json", b'{"width": 3}'),
        ("p" * 200 + ".jpg", photos[3]),
    ]
    path = write_tar(tmp_path / "x.tar", members)
    samples = read_source(path)
    assert samples.ids == ["cats/0", "v1.0/1", "2", "p" * 200]
    assert samples.class_names == ["cat", "dog"] and samples.labels.tolist() == [0, 1, -1, -1]
    assert samples.ignored == 1
    for origin, photo in zip(samples.origins, photos, strict=True):
        assert isinstance(origin, TarMember) and origin.read_bytes() == photo
        np.testing.assert_array_equal(decode_origin(origin), decode_rgb(photo))


def test_labels_of_an_archive(tmp_path: Path, photos: list[bytes]) -> None:
    about = [{"label_name": "bee", "kind": "k"}, {"label_name": "ant", "kind": "m"}]
    members = [
        (f"{number}.{suffix}", data)
        for number, value in enumerate(about)
        for suffix, data in (("jpg", photos[number]), ("cls", b"%d" % number), ("json", json.dumps(value).encode()))
    ]
    path = write_tar(tmp_path / "x.tar", members)
    assert read_source(path).class_names == ["bee", "ant"]
    samples = read_source(path, label_column="kind")
    assert samples.class_names == ["k", "m"] and samples.labels.tolist() == [0, 1]
    assert read_source(path, keep=["kind"]).columns == {"kind": ["k", "m"]}
    with pytest.raises(SourceError, match="no column 'kin', only: label_name, kind"):
        read_source(path, label_column="kin")
    numbers = write_tar(tmp_path / "n.tar", [m for m in members if not m[0].endswith("json")])
    assert read_source(numbers).class_names == ["0", "1"]


def test_several_archives(tmp_path: Path, photos: list[bytes]) -> None:
    for number in range(3):
        write_tar(tmp_path / f"x-{number:02d}.tar", [(f"{number}a.jpg", photos[0]), (f"{number}a.cls", b"%d" % number)])
    samples = read_source(tmp_path / "x-{00..02}.tar")
    assert samples.ids == ["0a", "1a", "2a"] and samples.labels.tolist() == [0, 1, 2]
    write_tar(tmp_path / "y.tar", [("0a.jpg", photos[0])])
    repeated = read_source([tmp_path / "x-{00,01}.tar", tmp_path / "y.tar"])
    assert repeated.ids == ["x-00/0a", "x-01/1a", "y/0a"]
    (tmp_path / "z").mkdir()
    write_tar(tmp_path / "z" / "y.tar", [("0a.jpg", photos[0])])
    same_name = read_source([tmp_path / "y.tar", tmp_path / "z" / "y.tar"])
    assert same_name.ids == [f"{tmp_path.name}/y/0a", "z/y/0a"]
    with pytest.raises(SourceError, match=r"x-03\.tar: no such file"):
        read_source(tmp_path / "x-{00..03}.tar")


def test_one_image_of_several(tmp_path: Path, photos: list[bytes]) -> None:
    path = write_tar(tmp_path / "x.tar", [("0.jpg", photos[0]), ("0.seg.png", photos[1])])
    with pytest.raises(SourceError, match=r"'0' has several images: 'jpg', 'seg\.png'; choose with --image-suffix"):
        read_source(path)
    assert read_source(path, image_suffix=".seg.png").origins[0].name == "0.seg.png"  # type: ignore[union-attr]
    with pytest.raises(SourceError, match="'0' has no 'webp', only 'jpg'"):
        read_source(path, image_suffix="webp")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "holds no sample"),
        ([("README", b"x")], "holds no sample"),
        ([("0.cls", b"1")], "sample '0' has no image, only 'cls'"),
        ([("0.jpg", b"x"), ("1.jpg", b"x"), ("0.cls", b"1")], r"'0' do not follow each other; .*--sort=name"),
        ([("0.jpg", b"x"), ("0.jpg", b"y")], r"two members '0\.jpg'"),
        ([("0.jpg", b"x"), ("0.json", b"{")], r"x\.tar:0\.json is no valid JSON"),
        ([("0.jpg", b"x"), ("0.cls", b"\xff")], r"x\.tar:0\.cls is no label as text"),
    ],
)
def test_what_is_wrong_with_samples(tmp_path: Path, members: Members, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_source(write_tar(tmp_path / "x.tar", members))


def test_compressed_and_damaged_archives(tmp_path: Path, photos: list[bytes]) -> None:
    members = [(f"{number}.jpg", photo) for number, photo in enumerate(photos)]
    for compression, name in (("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")):
        for suffix in (".tar", f".tar.{compression}"):
            path = write_tar(tmp_path / f"c{suffix}", members, f"w:{compression}")
            with pytest.raises(SourceError, match=rf"is compressed \({name}\); decompress it first"):
                read_source(path)
    whole = write_tar(tmp_path / "x.tar", members).read_bytes()
    with tarfile.open(tmp_path / "x.tar") as archive:
        starts = [info.offset for info in archive] + [archive.offset]
    cut = tmp_path / "cut.tar"
    for length in (0, 100, starts[1] - 10, starts[1], starts[1] + 100, starts[2] + 600, starts[-1], starts[-1] + 100):
        cut.write_bytes(whole[:length])
        with pytest.raises(SourceError, match="cut short or damaged"):
            read_source(cut)
    cut.write_bytes(whole[: starts[1]] + b"garbage" * 200 + whole[starts[1] + 1400 :])
    with pytest.raises(SourceError, match="cut short or damaged"):
        read_source(cut)
    cut.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(SourceError, match="is no tar archive"):
        read_source(cut)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_a_hostile_archive_is_an_error_or_a_list(
    tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes
) -> None:
    path = write_tar(tmp_path_factory.getbasetemp() / "hostile.tar", [(f"{n}.jpg", b"x" * 900) for n in range(5)])
    data = bytearray(path.read_bytes())
    data[place : place + len(damage)] = damage
    path.write_bytes(data)
    try:
        samples = read_source(path)
    except SourceError:
        return
    assert len(samples) == len(set(samples.ids)) > 0


def test_archives_are_built_and_loaded(tmp_path: Path, photos: list[bytes]) -> None:
    members: Members = []
    for number, photo in enumerate(photos):
        members += [(f"{number}.jpg", photo), (f"{number}.cls", b"%d" % (number % 2))]
    path = write_tar(tmp_path / "x.tar", members)
    build(read_source(path), tmp_path / "x.beton", BuildOptions(workers=1))
    with BetonReader(tmp_path / "x.beton") as reader:
        assert reader.ids[:] == ["0", "1", "2", "3"] and reader.labels.tolist() == [0, 1, 0, 1]
        assert [bytes(reader.image_bytes(row)) for row in range(4)] == photos
    view = eval_view(16)
    with (
        Loader(path, 4, view=view, threads=1) as archive,
        Loader(tmp_path / "x.beton", 4, view=view, threads=1, index=False) as beton,
    ):
        (first,), (second,) = list(archive), list(beton)
    assert first.images.equal(second.images) and first.labels.tolist() == [0, 1, 0, 1]


def test_a_folder_of_archives_that_was_built(tree: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("emu\nyak\ncat\ndog\n")
    original = read_source(tree, classes=names)
    options = BuildOptions(format="webdataset", workers=1, tar_bytes=4096)
    build(original, tmp_path / "tars", options)
    assert len(list((tmp_path / "tars").glob("*.tar"))) > 2
    again = read_source(tmp_path / "tars")
    assert again.ids == original.ids and again.class_names == original.class_names
    assert again.labels.tolist() == original.labels.tolist()
    (tmp_path / "tars" / "shard-000001.tar").unlink()
    with pytest.raises(SourceError, match=r"lacks archives .* 'shard-000001\.tar'"):
        read_source(tmp_path / "tars")
    (tmp_path / "tars" / "dataset.json").unlink()
    with pytest.raises(SourceError, match=r"holds no image .*tar archives one by one, as .*\*\.tar"):
        read_source(tmp_path / "tars")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x-{000..002}.tar", ["x-000.tar", "x-001.tar", "x-002.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{1..010..}", ["{1..010..}"]),
        ("{01..-1}", ["01", "00", "-1"]),
        ("{a,b}{2..1}", ["a2", "a1", "b2", "b1"]),
        ("{a}{,b}", ["{a}", "{a}b"]),
        ("x", ["x"]),
    ],
)
def test_braces_as_in_the_shell(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


PLAIN = st.text(st.characters(exclude_categories=["C"], exclude_characters="{},"), max_size=4)
WORDS = st.lists(PLAIN, min_size=2, max_size=3)
RANGE = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 4))


@given(st.lists(st.tuples(PLAIN, WORDS | RANGE), max_size=3), PLAIN)
def test_braces_stand_for_every_combination(parts: list[tuple[str, Any]], end: str) -> None:
    pattern, choices = "", []
    for before, choice in parts:
        if isinstance(choice, list):
            pattern += before + "{" + ",".join(choice) + "}"
            choices.append([before + word for word in choice])
            continue
        first, last, width = choice
        pattern += f"{before}{{{first:0{width}d}..{last:0{width}d}}}"
        wide = max(len(f"{first:0{width}d}"), len(f"{last:0{width}d}"))
        pads = width > min(len(str(first)), len(str(last)))
        numbers = range(first, last + (1 if last >= first else -1), 1 if last >= first else -1)
        choices.append([before + str(number).zfill(wide if pads else 0) for number in numbers])
    assert expand_braces(pattern + end) == ["".join(words) + end for words in itertools.product(*choices)]


def test_too_many_names() -> None:
    for pattern in ("{0..99999999999}", "{1..2000}{1..2000}"):
        with pytest.raises(SourceError, match="more than 1000000 files"):
            expand_braces(pattern)
