"""Masks in a `.beton`: stored without loss, of their images' size, described, checked and merged."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasttrain.base.errors import BetonError, SourceError
from fasttrain.beton_build import build as building
from fasttrain.beton_build.describe import describe
from fasttrain.beton_build.mask_images import read_mask, resize_nearest
from fasttrain.beton_build.mask_lists import find_masks, masks_of_betons
from fasttrain.beton_build.mask_rules import MaskRule, read_rule
from fasttrain.beton_build.merge import merge
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.report import BrokenImagesError
from fasttrain.beton_build.sources import read_source
from fasttrain.beton_build.verify import verify

from .mask_cases import build_pairs, write_pairs


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("stored", ["keep", "raw"])
def test_masks_are_stored_as_they_are(tmp_path: Path, mode: str, stored: str) -> None:
    masks = write_pairs(tmp_path, 6, mode)
    out = build_pairs(tmp_path, tmp_path / "a.beton", MaskRule(("a", "b", "c", "d", "e")), mode=stored)
    with BetonReader(out) as reader:
        assert reader.masks is not None and reader.masks.classes == ("a", "b", "c", "d", "e")
        assert reader.class_names is None and (reader.labels == -1).all()
        pixels = reader.mask_pixels
        assert pixels is not None and pixels.shape == (6, 6)
        for row, mask in enumerate(masks):
            assert np.array_equal(reader.mask(row), mask)
            assert pixels[row].tolist() == [*np.bincount(mask.ravel(), minlength=5), 0]
        told = describe(reader)["masks"]
        assert told["classes"] == ["a", "b", "c", "d", "e"] and abs(sum(told["share"].values()) - 1) < 1e-4
    assert verify(out).ok


def test_ffcv_reads_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("ffcv")
    import torch
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.bytes import BytesDecoder
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption

    threads = torch.get_num_threads()
    masks = write_pairs(tmp_path)
    out = build_pairs(tmp_path, tmp_path / "a.beton")
    pipelines = {
        "image": [CenterCropRGBImageDecoder((16, 16), ratio=1.0)],
        "label": [IntDecoder()],
        "mask": [BytesDecoder()],
    }
    order = OrderOption.SEQUENTIAL
    loader = Loader(str(out), batch_size=2, num_workers=1, order=order, pipelines=pipelines, drop_last=False)
    seen = [mask for _, _, batch in loader for mask in np.asarray(batch)]
    torch.set_num_threads(threads)
    assert len(seen) == len(masks)
    for found, mask in zip(seen, masks, strict=True):
        assert np.array_equal(found[: mask.size], mask.ravel())


def test_masks_turn_and_shrink_with_their_images(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1)
    colours = np.asarray(Image.open(tmp_path / "images/0.png").convert("RGB"))
    classes = (colours[..., 0] > 127).astype(np.uint8)  # known from the image itself
    exif = Image.Exif()
    exif[0x0112] = 6
    flat = np.repeat(classes[..., None] * np.uint8(255), 3, 2)
    Image.fromarray(flat).save(tmp_path / "images/0.png", exif=exif)
    Image.fromarray(classes).save(tmp_path / "labels/0.png")
    whole = build_pairs(tmp_path, tmp_path / "whole.beton", mode="raw")
    with BetonReader(whole) as reader:
        assert reader.mask(0).shape == (40, 30)
        assert np.array_equal(reader.mask(0), reader.image(0)[..., 0] // 255)
        upright = reader.mask(0).copy()
    small = build_pairs(tmp_path, tmp_path / "small.beton", mode="raw", max_resolution=20)
    with BetonReader(small) as reader:
        assert reader.mask(0).shape == (20, 15)
        assert np.array_equal(reader.mask(0), resize_nearest(upright, 15, 20))
    Image.fromarray(upright).save(tmp_path / "labels/0.png")  # drawn on the upright image
    with BetonReader(build_pairs(tmp_path, tmp_path / "again.beton", mode="raw")) as reader:
        assert np.array_equal(reader.mask(0), upright)


def test_nearest_agrees_with_pillow() -> None:
    mask = np.random.default_rng(0).integers(0, 9, (37, 53), dtype=np.uint8)
    for size in [(20, 20), (53, 11), (7, 37), (26, 18)]:
        theirs = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        assert np.array_equal(resize_nearest(mask, *size), theirs)


def test_other_ways_to_store_a_mask(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 4, (9, 12), dtype=np.uint8)
    for bits in (1, 2, 4):
        values = mask % (1 << bits)
        palette = Image.fromarray(values, "P")
        palette.putpalette([0, 0, 0, 9, 9, 9, 20, 20, 20, 30, 30, 30])
        palette.save(tmp_path / "p.png", bits=bits)
        assert np.array_equal(read_mask((tmp_path / "p.png").read_bytes(), MaskRule()), values)
    (tmp_path / "map.csv").write_text("from,to\n0,0\n1000,1\n2000,2\n3000,ignore\n")
    Image.fromarray(mask.astype(np.uint16) * 1000).save(tmp_path / "wide.png")
    wide = (tmp_path / "wide.png").read_bytes()
    with pytest.raises(ValueError, match="16 bits"):
        read_mask(wide, MaskRule())
    table = read_rule(table=tmp_path / "map.csv")
    assert np.array_equal(read_mask(wide, table), np.where(mask == 3, 255, mask))
    (tmp_path / "palette.csv").write_text("sky,1,2,3\nroad,4,5,6\ntree,7,8,9\nvoid,0,0,0,255\n")
    colours = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]], np.uint8)[mask]
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    rule = read_rule(palette=tmp_path / "palette.csv", ignored=[1])
    assert rule.classes == ("sky", "road", "tree")
    expected = np.array([0, 255, 2, 255], np.uint8)[mask]
    assert np.array_equal(read_mask((tmp_path / "rgb.png").read_bytes(), rule), expected)


def test_grey_of_few_bits_is_not_stretched(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for bits, row, values in ((2, b"\x1b", [0, 1, 2, 3]), (4, b"\x0f\x52", [0, 15, 5, 2]), (1, b"\xa0", [1, 0, 1, 0])):
        header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
        data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
        assert read_mask(b"\x89PNG\r\n\x1a\n" + data, MaskRule()).tolist() == [values]


@pytest.mark.parametrize("name", ["size", "value", "palette", "colours", "jpeg", "broken"])
def test_masks_that_do_not_fit_are_named(tmp_path: Path, name: str) -> None:
    masks = write_pairs(tmp_path, 2, "P" if name == "palette" else "L")
    (tmp_path / "palette.csv").write_text("".join(f"c{i},{10 * i},0,0\n" for i in range(5)))
    rule = MaskRule(tuple("abcde")) if name != "palette" else read_rule(palette=tmp_path / "palette.csv")
    bad = tmp_path / "labels/1.png"
    if name == "size":
        Image.fromarray(masks[1][1:]).save(bad)
    elif name == "value":
        Image.fromarray(masks[1] + np.uint8(3)).save(bad)
    elif name == "colours":
        Image.open(bad).convert("RGB").save(bad)
    elif name == "jpeg":
        Image.open(bad).save(bad, "JPEG")
    elif name == "broken":
        bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(BrokenImagesError) as caught:
        build_pairs(tmp_path, tmp_path / "a.beton", rule)
    said = {
        "size": "1.png is 31x47; a mask must",
        "value": "values 5, 6, 7, but",
        "palette": "its palette does not match: value",
        "colours": "--palette",
        "jpeg": "use PNG",
        "broken": "",
    }[name]
    [*_, error] = caught.value.bad
    assert error.path == str(bad) and said in error.reason
    assert not (tmp_path / "a.beton").exists()


def test_missing_and_lonely_masks(tmp_path: Path) -> None:
    write_pairs(tmp_path, 4)
    samples = read_source(tmp_path / "images", labelled=False)
    (tmp_path / "images/3.png").unlink()
    fewer = read_source(tmp_path / "images", labelled=False)
    assert find_masks(fewer, MaskRule(), root=tmp_path / "labels").without_image == 1
    (tmp_path / "labels/2.png").unlink()
    with pytest.raises(SourceError, match=r"1 of 4 images have no mask .*'2.png'"):
        find_masks(samples, MaskRule(), root=tmp_path / "labels")


def test_suffixes_and_columns(tmp_path: Path) -> None:
    masks = write_pairs(tmp_path, 2)
    for folder, ending in (("images", "_leftImg8bit.png"), ("labels", "_gtFine_labelIds.png")):
        (tmp_path / folder / "city").mkdir()
        for number in range(2):
            (tmp_path / folder / f"{number}.png").rename(tmp_path / folder / "city" / f"a_{number}{ending}")
    (tmp_path / "labels/city/a_0_gtFine_color.png").write_bytes(b"other files do not matter")
    samples = read_source(tmp_path / "images", labelled=False)
    found = find_masks(samples, MaskRule(), root=tmp_path / "labels", suffix="_gtFine_labelIds.png")
    assert [path.name for path in found.paths] == [f"a_{number}_gtFine_labelIds.png" for number in range(2)]
    assert found.without_image == 0
    lines = [
        f"images/city/a_{number}_leftImg8bit.png,labels/city/a_{number}_gtFine_labelIds.png\n" for number in range(2)
    ]
    (tmp_path / "list.csv").write_text("path,mask\n" + "".join(lines))
    listed = read_source(tmp_path / "list.csv", keep=["mask"])
    found = find_masks(listed, MaskRule(), root=tmp_path, column="mask")
    assert listed.columns == {}
    building.build(listed, tmp_path / "a.beton", masks=found)
    with BetonReader(tmp_path / "a.beton") as reader:
        assert np.array_equal(reader.mask(1), masks[1])
    (tmp_path / "list.csv").write_text("path,mask\n" + lines[0] + lines[1].replace("labels", "nowhere"))
    with pytest.raises(SourceError, match="1 masks in column 'mask' do not exist"):
        find_masks(read_source(tmp_path / "list.csv", keep=["mask"]), MaskRule(), root=tmp_path, column="mask")


def test_two_images_cannot_share_a_mask(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    for number in range(2):
        (tmp_path / f"images/{number}.png").rename(tmp_path / f"images/a_{number}.png")
    (tmp_path / "labels/0.png").rename(tmp_path / "labels/a_ids.png")
    with pytest.raises(SourceError, match="have the same mask"):
        samples = read_source(tmp_path / "images", labelled=False)
        find_masks(samples, MaskRule(), root=tmp_path / "labels", suffix="_ids.png")


def test_shards_are_merged_to_the_whole(tmp_path: Path) -> None:
    write_pairs(tmp_path, 5)
    whole = build_pairs(tmp_path, tmp_path / "whole.beton")
    shards = [build_pairs(tmp_path, tmp_path / f"{i}.beton", shard=(i, 2)) for i in range(2)]
    merge(shards, tmp_path / "merged.beton")
    with BetonReader(whole) as one, BetonReader(tmp_path / "merged.beton") as other:
        assert one.fingerprint == other.fingerprint and one.masks == other.masks
        assert np.array_equal(one.mask_pixels, other.mask_pixels)  # type: ignore[arg-type]
        assert all(np.array_equal(one.mask(row), other.mask(row)) for row in range(5))
    assert verify(tmp_path / "merged.beton").ok
    named = build_pairs(tmp_path, tmp_path / "named.beton", MaskRule(tuple("abcde")), shard=(1, 2))
    with pytest.raises(SourceError, match="describe their masks differently"):
        merge([shards[0], named], tmp_path / "never.beton")


def test_an_interrupted_build_ends_in_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(tmp_path, 6)
    whole = build_pairs(tmp_path, tmp_path / "whole.beton").read_bytes()
    monkeypatch.setattr(building, "COMMIT_EVERY_S", 0.0)
    real, calls = building.prepare_one, iter(range(100))

    def interrupting(*args: object) -> object:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, "prepare_one", interrupting)
        build_pairs(tmp_path, tmp_path / "b.beton")
    with pytest.raises(SourceError, match="had other masks"):
        build_pairs(tmp_path, tmp_path / "b.beton", MaskRule(tuple("abcdef")), resume=True)
    assert build_pairs(tmp_path, tmp_path / "b.beton", resume=True).read_bytes() == whole


def test_damaged_masks_are_found(tmp_path: Path) -> None:
    write_pairs(tmp_path, 3)
    out = build_pairs(tmp_path, tmp_path / "a.beton", MaskRule(tuple("abcde")))
    with BetonReader(out) as reader:
        start = int(reader.mask_regions(np.array([1]))[0])
    data = bytearray(out.read_bytes())
    data[start] = 77
    out.write_bytes(data)
    [error] = verify(out).bad
    assert error.sample_id == "1.png"
    with BetonReader(out) as reader, pytest.raises(IndexError):
        reader.mask(3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,1,2\n", "line 1: a palette has lines"),
        ("a,1,2,300\n", "colours go from 0 to 255"),
        ("a,1,2,3,1\n", "without a gap"),
        ("a,1,2,3\na,1,2,4\n", "more than once: 'a'"),
        ("a,1,2,3\nb,1,2,3\n", "more than once"),
        ("", "lists nothing"),
    ],
)
def test_bad_palettes(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(SourceError, match=said):
        read_rule(palette=tmp_path / "p.csv")


def test_a_file_without_masks_says_so(tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    building.build(read_source(tmp_path / "images"), tmp_path / "a.beton")
    with BetonReader(tmp_path / "a.beton") as reader:
        assert reader.masks is None and reader.mask_pixels is None
        with pytest.raises(BetonError, match="--masks"):
            reader.mask(0)


def test_masks_of_another_beton_come_along(tmp_path: Path) -> None:
    write_pairs(tmp_path, 4)
    first = build_pairs(tmp_path, tmp_path / "a.beton", MaskRule(tuple("abcde")), mode="raw")
    samples = read_source(first, keep=["all"])
    masks = masks_of_betons(samples)
    building.build(samples, tmp_path / "b.beton", building.BuildOptions(mode="raw", max_resolution=20), masks)
    with BetonReader(first) as one, BetonReader(tmp_path / "b.beton") as other:
        assert other.masks == one.masks
        for row in range(4):
            assert np.array_equal(other.mask(row), resize_nearest(one.mask(row), *other.image(row).shape[1::-1]))
    mixed = read_source([first, tmp_path / "images"], labelled=False)
    with pytest.raises(SourceError, match="4 of the 8 samples come without"):
        masks_of_betons(mixed)
    assert masks_of_betons(read_source(tmp_path / "images", labelled=False)) is None
