"""Samples that the native backend decodes by their random-access index: what it may change, and what not."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain import Loader
from fasttrain.base.errors import ImageError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.format import MODE_RAW
from fasttrain.beton_build.index import index_files
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.writer import BetonWriter
from fasttrain.kernels import loading
from fasttrain.kernels.indexed import index_jpeg
from fasttrain.loading.views import View, eval_view, train_view

from ..kernels.test_indexed import encode, hostile_indices, picture
from .test_backends import batches, equal, psnr
from .test_several_views import VIEWS as SEVERAL

pytestmark = pytest.mark.skipif(not loading.loading_available(), reason="the native kernels were not built")

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}
VIEWS: list[View] = [
    train_view(64, **PLAIN),
    train_view(48, interpolation="bicubic", vflip=0.5, **PLAIN),
    eval_view(64, **PLAIN),
    eval_view(50, crop_pct=0.6, anchor="bottom_right", hflip=True, interpolation="bilinear", **PLAIN),
    eval_view(70, crop_mode="squash", **PLAIN),
]
TINY = eval_view(8, interpolation="bilinear", **PLAIN)
SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0", "grey")


def write(path: Path, images: list[bytes | np.ndarray]) -> Path:
    """A `.beton` of these JPEG streams and pixels, in one class each."""
    with BetonWriter(path, len(images)) as writer:
        for row, image in enumerate(images):
            if isinstance(image, np.ndarray):
                stored = EncodedImage(image.tobytes(), MODE_RAW, image.shape[1], image.shape[0])
            else:
                stored = EncodedImage(image, 0, *Image.open(BytesIO(image)).size)
            writer.add(f"s{row}", [stored, row % 3])
    return path


def photos(count: int = 12) -> list[bytes]:
    sizes = [(311, 207), (150, 180), (640, 401), (97, 333)]
    return [
        encode(picture(*sizes[row % 4], row), SAMPLINGS[row % len(SAMPLINGS)], optimize=row % 2 == 1)
        for row in range(count)
    ]


def odd_kinds() -> list[bytes | np.ndarray]:
    """What has no index (the last four) and what is small or oddly sampled."""
    return [
        *(encode(picture(*size, 3), sampling) for size in ((1, 1), (7, 5), (17, 129)) for sampling in SAMPLINGS),
        encode(picture(150, 100), "4:4:0"),
        encode(picture(150, 100), "4:1:1"),
        encode(picture(150, 100), keep_rgb=True),
        encode(picture(150, 100), "4:2:0", progressive=True),
        encode(picture(150, 100), "4:2:0", restart_marker_blocks=3),
        picture(120, 90, 5),
        picture(90, 120, 6),
    ]


Change = Callable[[int, np.ndarray], np.ndarray]


@pytest.fixture
def give_index(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has `BetonReader` say that all images that can have an index have one, and another one where `change` says so."""

    def give(change: Change = lambda row, index: index) -> None:
        made: dict[int, tuple[BetonReader, memoryview, np.ndarray]] = {}

        def regions(reader: BetonReader, rows: np.ndarray) -> tuple[memoryview, np.ndarray, np.ndarray]:
            if id(reader) not in made:
                found = [change(row, _index_of(reader, row)) for row in range(reader.num_samples)]
                ends = np.cumsum([0, *(8 * len(index) for index in found)])
                made[id(reader)] = reader, np.concatenate(found).view(np.uint8).data, ends
            _, buffer, ends = made[id(reader)]
            return buffer, ends[rows], ends[rows + 1] - ends[rows]

        monkeypatch.setattr(BetonReader, "indexed", True, raising=False)
        monkeypatch.setattr(BetonReader, "index_regions", regions, raising=False)

    return give


def _index_of(reader: BetonReader, row: int) -> np.ndarray:
    none = np.zeros(0, np.uint64)
    if reader.modes[row] == MODE_RAW:
        return none
    try:
        index = index_jpeg(reader.image_bytes(row))
    except (ValueError, ImageError):
        return none
    return none if index is None else index


def both_ways(data: Any, **options: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Batches by the index, without it, and the reference's."""
    return tuple(  # type: ignore[return-value]
        batches(data, **{**options, **how})
        for how in ({"backend": "native"}, {"backend": "native", "index": False}, {"backend": "portable"})
    )


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_photos_look_alike_and_are_planned_alike(view: View, tmp_path: Path, give_index: Callable[..., None]) -> None:
    give_index()
    ours, plain, reference = both_ways(write(tmp_path / "a.beton", photos()), view=view)
    assert all(
        torch.equal(a, b)
        for one, other in zip(ours, plain, strict=True)
        for a, b in zip(one[1:], other[1:], strict=True)
    )
    assert not equal(ours, plain)  # or nothing would have been decoded by the index
    assert psnr(ours, reference) >= 50 and psnr(plain, reference) >= 50


@pytest.mark.parametrize("view", VIEWS)
def test_odd_kinds(view: View, tmp_path: Path, give_index: Callable[..., None]) -> None:
    give_index()
    path = write(tmp_path / "a.beton", odd_kinds())
    ours, plain, reference = both_ways(path, view=view, order="sequential")
    for mine, other, pillows in zip(ours, plain, reference, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine[1:], other[1:], strict=True))
        assert (mine.images - pillows.images).abs().mean() < 0.05
    with Loader(path, 6, view=view, backend="native") as loader:
        assert loader.indexed == len(odd_kinds()) - 4
        unindexed = np.flatnonzero(~loader.dataset.are_indexed(np.arange(len(odd_kinds()))))
    together = [torch.cat([batch.images for batch in found]) for found in (ours, plain)]
    assert torch.equal(together[0][unindexed], together[1][unindexed])


@pytest.mark.parametrize("view", SEVERAL)
def test_the_first_of_several_views_is_that_of_a_single_one(
    view: View, tmp_path: Path, give_index: Callable[..., None]
) -> None:
    give_index()
    path = write(tmp_path / "a.beton", photos())
    for decode in ("exact", "fast"):
        several = batches(path, view=view, views=3, backend="native", decode=decode)
        single = batches(path, view=view, backend="native", decode=decode)
        for many, one in zip(several, single, strict=True):
            assert many.images.shape == (3, *one.images.shape)
            if decode == "exact":
                assert torch.equal(many.images[0], one.images)
    reference = batches(path, view=view, views=3, backend="portable")
    assert all((a.images - b.images).abs().mean() < 0.1 for a, b in zip(several, reference, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("jitter", [0.0, 0.3])  # with colour jitter the threads store uint8
def test_every_dtype(dtype: torch.dtype, jitter: float, tmp_path: Path, give_index: Callable[..., None]) -> None:
    give_index()
    path, view = write(tmp_path / "a.beton", photos()), train_view(40, color_jitter=jitter)
    exact = batches(path, view=view, backend="native")
    for mine, reference in zip(batches(path, view=view, backend="native", dtype=dtype), exact, strict=True):
        assert mine.images.dtype == dtype and mine.images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(mine.images.float(), reference.images, atol=0.02, rtol=2**-8)


@pytest.mark.parametrize("order", ["random", "windowed", "sequential"])
def test_threads_prefetch_and_batch_size_change_no_bit(
    order: str, tmp_path: Path, give_index: Callable[..., None]
) -> None:
    give_index()
    path, view = write(tmp_path / "a.beton", [*photos(), *odd_kinds()]), train_view(40)
    settings: dict[str, Any] = {"view": view, "order": order, "rest": "drop", "backend": "native", "window": 2}
    expected = batches(path, batch_size=4, threads=1, **settings)
    assert equal(batches(path, batch_size=4, threads=4, prefetch=5, **settings), expected)
    one_by_one = batches(path, batch_size=1, threads=2, **settings)
    shown, alone = (torch.cat([batch.images[batch.valid] for batch in found]) for found in (expected, one_by_one))
    assert torch.equal(alone[: len(shown)], shown)


def test_joined_and_chosen_samples(tmp_path: Path, give_index: Callable[..., None]) -> None:
    """Each sample's pixels are what they are by itself, whichever part it lies in and whatever lies beside it."""
    give_index()
    first, second = write(tmp_path / "a.beton", photos(5)), write(tmp_path / "b.beton", [*odd_kinds(), *photos(4)])
    (tmp_path / "folder").mkdir()
    for row, stream in enumerate(photos(3)):
        (tmp_path / f"folder/{row}.jpg").write_bytes(stream)
    settings: dict[str, Any] = {"view": TINY, "batch_size": 1, "order": "sequential", "backend": "native"}
    alone = [batch.images for path in (first, second, tmp_path / "folder") for batch in batches(path, **settings)]
    parts = [first, second, tmp_path / "folder"]
    together = [batch.images for batch in batches(parts, **settings)]
    assert len(alone) == len(together) and all(map(torch.equal, alone, together))
    chosen = np.array([2, len(alone) - 1, 17, 4, 9])
    found = batches(parts, **{**settings, "batch_size": 5, "indices": chosen, "order": "random"})[0]
    for row, image in zip(found.ids.tolist(), found.images, strict=True):
        assert torch.equal(image, alone[row][0])
    with Loader(parts, 2, view=TINY, backend="native", indices=chosen) as loader:
        assert loader.indexed == 4 == int(loader.dataset.are_indexed(chosen).sum())
    for options in ({"index": False}, {"backend": "portable"}, {"memory_budget": "1GB"}):
        with Loader(parts, 2, **{"view": TINY, "backend": "native", **options}) as loader:
            assert loader.indexed == 0


def test_resident_images_are_those_without_an_index(tmp_path: Path, give_index: Callable[..., None]) -> None:
    give_index()
    path = write(tmp_path / "a.beton", [*photos(), *odd_kinds()])
    settings: dict[str, Any] = {"view": train_view(40), "batch_size": 5, "backend": "native"}
    with Loader(path, memory_budget="1GB", **settings) as kept, Loader(path, index=False, **settings) as plain:
        for _ in range(3):
            assert equal(list(kept), list(plain))


def test_the_index_inside_of_a_file_and_beside_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for row, stream in enumerate([*photos(6), encode(picture(150, 100), "4:2:0", progressive=True)]):
        (tmp_path / f"in/{row}.jpg").write_bytes(stream)
    (tmp_path / "in/7.png").write_bytes(b"")
    Image.fromarray(picture(90, 120)).save(tmp_path / "in/7.png")
    source = read_source(tmp_path / "in")
    for name, index in (("inside", True), ("beside", False), ("none", False)):
        build(source, tmp_path / f"{name}.beton", BuildOptions(workers=1, index=index))
    index_files([tmp_path / "beside.beton"], workers=1)
    found = {}
    for name, expected in (("inside", 7), ("beside", 7), ("none", 0)):
        with Loader(tmp_path / f"{name}.beton", 4, view=VIEWS[0], backend="native", threads=2) as loader:
            assert loader.indexed == expected and loader.uses_index
            found[name] = list(loader)
    assert equal(found["inside"], found["beside"])
    assert equal(found["none"], batches(tmp_path / "inside.beton", batch_size=4, view=VIEWS[0], index=False))
    joined = [tmp_path / f"{name}.beton" for name in found]
    with Loader(joined, 24, view=TINY, backend="native", order="sequential") as loader:
        assert loader.indexed == 14
        parts = next(iter(loader)).images.unflatten(0, (3, 8))
    assert torch.equal(parts[0], parts[1]) and not torch.equal(parts[0], parts[2])


# --- damage -----------------------------------------------------------------------------------------------------------


def test_damage_inside_of_the_crop_is_an_error_that_names_the_sample(
    tmp_path: Path, give_index: Callable[..., None]
) -> None:
    give_index()
    path = write(tmp_path / "a.beton", photos())
    expected = batches(path, view=TINY, batch_size=12, backend="native")[0].images
    with BetonReader(path) as reader:
        start, size = int(reader.offsets[7]), int(reader.sizes[7])
        index = index_jpeg(reader.image_bytes(7))

    def of_the_whole(row: int, own: np.ndarray) -> np.ndarray:
        return index if row == 7 and index is not None else own

    give_index(of_the_whole)
    with path.open("r+b") as file:
        file.seek(start + size // 2)
        file.write(b"\xff\xd9" * 20)
    with Loader(path, 5, view=TINY, backend="native") as loader:
        with pytest.raises(ImageError, match=r"a\.beton\[7\]") as caught:
            list(loader)
        assert caught.value.sample_id == "s7"
    with Loader(path, 12, view=TINY, backend="native", on_error="skip") as loader:
        batch = next(iter(loader))
        assert torch.nonzero(~batch.valid).flatten().tolist() == [7]
        assert torch.equal(batch.images[batch.valid], expected[batch.valid])
        assert [name for name, _ in loader.skipped] == ["s7"]


def test_an_index_that_does_not_fit_harms_no_neighbour(tmp_path: Path, give_index: Callable[..., None]) -> None:
    give_index()
    path = write(tmp_path / "a.beton", photos())
    settings: dict[str, Any] = {"view": TINY, "batch_size": 12, "backend": "native", "threads": 2}
    expected = batches(path, **settings)[0].images
    generator = np.random.default_rng(0)

    def changed(row: int, index: np.ndarray) -> np.ndarray:
        if row == 2:
            return index[1:]
        if row == 5:
            return generator.integers(0, 2**64, len(index), np.uint64)
        return index[::-1].copy() if row == 8 else index

    give_index(changed)
    with Loader(path, 12, view=TINY, backend="native", on_error="skip", threads=2) as loader:
        for _ in range(3):
            batch = next(iter(loader))
            bad = torch.nonzero(~batch.valid).flatten().tolist()
            assert bad == [2, 5, 8]
            assert torch.equal(batch.images[batch.valid], expected[batch.valid])
        reasons = dict(loader.skipped)
        assert "random-access index has another length" in reasons["s2"]
        assert "index does not fit" in reasons["s5"] or "damaged" in reasons["s5"]


def test_hostile_indices_end_in_an_error_or_pixels(tmp_path: Path, give_index: Callable[..., None]) -> None:
    stream = encode(picture(280, 90), "4:2:0")
    index = index_jpeg(stream)
    assert index is not None
    hostile = list(hostile_indices(index, np.random.default_rng(9)))
    path = write(tmp_path / "a.beton", [stream] * len(hostile))
    give_index(lambda row, own: hostile[row])
    with Loader(path, 8, view=eval_view(40), backend="native", on_error="skip", threads=2) as loader:
        found = torch.cat([batch.valid for batch in loader])
        assert 10 < len(loader.skipped) < len(hostile) and int(found.sum()) == len(hostile) - len(loader.skipped)
        assert all(reason for _, reason in loader.skipped)


def test_an_index_has_no_more_read_than_blocks_can_be_long(tmp_path: Path, give_index: Callable[..., None]) -> None:
    """Each row of MCUs is said to go on to the end of a long scan: the work would be their product."""
    stream = encode(picture(16, 4000), "4:2:0")
    stream = stream[:-2] + bytes(1 << 20) + stream[-2:]

    def endless(row: int, own: np.ndarray) -> np.ndarray:
        index = np.zeros(250, np.uint64)
        index[1::2] = 8 * (len(stream) - 1000)
        return index

    path = write(tmp_path / "a.beton", [stream])
    give_index(endless)
    with (
        Loader(path, 1, view=eval_view(16, crop_mode="squash"), backend="native") as loader,
        pytest.raises(ImageError, match="index does not fit"),
    ):
        list(loader)


def test_memory_of_large_images_is_given_back(tmp_path: Path, give_index: Callable[..., None]) -> None:
    """A thread decodes large and small images in turns, with the same pixels as alone."""
    give_index()
    wide = encode(picture(9000, 700), "4:2:0")
    path = write(tmp_path / "a.beton", [wide, *photos(3), wide])
    settings: dict[str, Any] = {"view": eval_view(16, crop_mode="squash", crop_pct=1.0), "backend": "native"}
    together = batches(path, batch_size=5, threads=1, **settings)[0].images
    alone = [batch.images[0] for batch in batches(path, batch_size=1, **settings)]
    assert all(map(torch.equal, together, alone)) and torch.equal(together[0], together[4])
