"""The real FFCV reads our files, and we read FFCV's. Skipped where FFCV is not installed."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.build import build
from fasttrain.beton_build.images import decode_rgb
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import SampleList, read_source
from fasttrain.beton_build.values import EncodedImage
from fasttrain.beton_build.verify import verify
from fasttrain.beton_build.writer import BetonWriter
from fasttrain.kernels.jpeg import native_available

# Where FFCV must be there, a missing one is a failure and not a skip.
if importlib.util.find_spec("ffcv") is None and not os.environ.get("FASTTRAIN_REQUIRE_FFCV"):
    pytest.skip("FFCV is not installed (pip install 'fasttrain[ffcv]')", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _torch_threads() -> Iterator[None]:
    """Importing ffcv sets torch's threads to 1 for the whole process; other tests are to find them as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


Pixels = Callable[..., np.ndarray]
Encoded = Callable[..., bytes]

# Levels of 255, mean over an image. FFCV decodes with libjpeg's fast transform, Pillow with the accurate one; on these
# small, saturated images that makes 1 to 2 levels, while any two of the images are dozens of levels apart.
FAST_TRANSFORM_TOLERANCE = 2.5


@pytest.fixture
def samples(tmp_path: Path, pixels: Pixels, encoded: Encoded) -> SampleList:
    """Files of every kind that `keep` treats in its own way."""
    folder = tmp_path / "images"
    folder.mkdir()
    files = {
        "baseline.jpg": encoded(pixels(90, 60, 0), quality=90),
        "progressive.jpg": encoded(pixels(70, 80, 1), progressive=True),
        "full chroma.jpg": encoded(pixels(33, 47, 2), subsampling="4:4:4", quality=95),
        "half chroma.jpg": encoded(pixels(64, 32, 3), subsampling="4:2:2"),
        "rgb.jpg": encoded(pixels(40, 40, 4), keep_rgb=True),
        "grey.jpg": encoded(pixels(50, 41, 5)[..., 0]),
        "lossless.png": encoded(pixels(21, 35, 6), "PNG"),
        "alpha.webp": encoded(Image.fromarray(pixels(44, 22, 7)).convert("RGBA"), "WEBP"),
        "cmyk.jpg": encoded(Image.fromarray(pixels(36, 36, 8)).convert("CMYK")),
    }
    lines = []
    for number, (name, data) in enumerate(files.items()):
        (folder / name).write_bytes(data)
        lines.append(f"{name} {number % 3}\n")
    (folder / "list.txt").write_text("".join(lines))
    return read_source(folder / "list.txt")


def read_with_ffcv(path: Path) -> list[tuple[np.ndarray, int]]:
    """(RGB pixels, label) of every sample, by FFCV's Reader, its memory manager's look-up and its JPEG decoder."""
    from ffcv.libffcv import imdecode
    from ffcv.memory_managers import OSCacheManager
    from ffcv.reader import Reader

    reader = Reader(str(path))
    manager = OSCacheManager(reader)
    data = np.memmap(path, np.uint8, "r")
    decoded = []
    for image, label in reader.metadata:
        pointer, height, width = int(image["data_ptr"]), int(image["height"]), int(image["width"])
        size = int(manager.sizes[np.searchsorted(manager.ptrs, pointer)])
        region = data[pointer : pointer + size]
        if image["mode"] == 1:
            pixels = region.reshape(height, width, 3).copy()
        else:
            pixels = np.full((height, width, 3), 77, np.uint8)
            imdecode(region, pixels, height, width, height, width, 0, 0, 1, 1, False, False)
        decoded.append((pixels, int(label)))
    return decoded


@pytest.mark.parametrize("mode", ["keep", "jpg", "raw", "smart", "proportion"])
def test_ffcv_reads_ours_image_for_image(samples: SampleList, tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"{mode}.beton"
    build(samples, path, BuildOptions(mode=mode, smart_threshold=50 * 41 * 3))  # type: ignore[arg-type]
    theirs = read_with_ffcv(path)
    assert [label for _, label in theirs] == samples.labels.tolist()
    with BetonReader(path) as reader:
        assert reader.indexed == (mode != "raw" and native_available())  # which FFCV knows nothing of
        assert {"smart": {0, 1}, "proportion": {0, 1}, "raw": {1}}.get(mode, {0}) == set(reader.modes)
        for row, (pixels, _) in enumerate(theirs):
            ours = reader.image(row)
            assert pixels.shape == ours.shape
            if reader.modes[row] == fmt.MODE_RAW:
                assert np.array_equal(pixels, ours)
                assert np.array_equal(pixels, decode_rgb(samples.origins[row]))
            else:
                difference = np.abs(pixels.astype(int) - ours)
                assert difference.mean() < FAST_TRANSFORM_TOLERANCE, samples.ids[row]


def test_we_read_what_ffcv_wrote(tmp_path: Path, pixels: Pixels) -> None:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    images = [pixels(30 + 3 * row, 50 - row, row) for row in range(20)]
    for mode in ("raw", "jpg"):
        path = tmp_path / f"{mode}.beton"
        fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=95), "label": IntField()}
        writer = DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=2)
        writer.from_indexed_dataset([(image, row % 4) for row, image in enumerate(images)])
        with BetonReader(path) as reader:
            assert reader.fields == (fmt.FieldSpec("image", 2), fmt.FieldSpec("label", 1))
            assert reader.labels.tolist() == [row % 4 for row in range(20)]
            assert list(reader.ids) == [str(row) for row in range(20)]
            reader.check_structure()
            theirs = read_with_ffcv(path)
            for row, image in enumerate(images):
                if mode == "raw":
                    assert np.array_equal(reader.image(row), image)
                else:
                    assert reader.image(row).shape == image.shape
                    assert np.abs(reader.image(row).astype(int) - theirs[row][0]).mean() < FAST_TRANSFORM_TOLERANCE


WRITER_SCRIPT = """
import json, sys
import numpy as np, torch
from ffcv.fields import (BytesField, FloatField, IntField, JSONField, NDArrayField, RGBImageField, TorchTensorField)
from ffcv.writer import DatasetWriter

class Samples:
    def __len__(self):
        return 25
    def __getitem__(self, i):
        i = int(i)  # FFCV hands out NumPy integers
        rng = np.random.default_rng(i)
        return (rng.integers(0, 256, (10 + i, 20, 3), dtype=np.uint8), i - 5, i / 7,
                rng.integers(0, 256, 1 + 9 * i, dtype=np.uint8), rng.random((3, 4)).astype(np.float32),
                {"row": i, "text": "grün"}, torch.arange(6).reshape(2, 3) * i,
                rng.integers(0, 256, (5, 5 + i, 3), dtype=np.uint8))

fields = {"image": RGBImageField(write_mode=sys.argv[2], smart_threshold=1000, jpeg_quality=95),
          "label": IntField(), "weight": FloatField(), "blob": BytesField(),
          "array": NDArrayField(np.dtype("<f4"), (3, 4)), "about": JSONField(),
          "tensor": TorchTensorField(torch.int64, (2, 3)), "second image": RGBImageField(write_mode="raw")}
DatasetWriter(sys.argv[1], fields, page_size=1 << 21, num_workers=2).from_indexed_dataset(Samples())
"""


@pytest.mark.parametrize("mode", ["raw", "jpg", "smart", "proportion"])
def test_we_read_every_field_that_ffcv_writes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.beton"
    command = [sys.executable, "-c", WRITER_SCRIPT, str(path), mode]
    # FFCV hangs for ever when one of its workers fails.
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    with BetonReader(path) as reader:
        reader.check_structure()
        assert reader.column("label").tolist() == list(range(-5, 20))
        assert reader.column("weight").tolist() == [i / 7 for i in range(25)]
        for i in range(25):
            rng = np.random.default_rng(i)
            image = rng.integers(0, 256, (10 + i, 20, 3), dtype=np.uint8)
            if reader.modes[i] == fmt.MODE_RAW:
                assert np.array_equal(reader.image(i), image)
            assert reader.image(i).shape == image.shape
            assert reader.value(i, "blob") == rng.integers(0, 256, 1 + 9 * i, dtype=np.uint8).tobytes()
            assert np.array_equal(reader.value(i, "array"), rng.random((3, 4)).astype(np.float32))
            assert reader.value(i, "about") == {"row": i, "text": "grün"}
            assert np.array_equal(reader.value(i, "tensor"), np.arange(6).reshape(2, 3) * i)
            second = reader.value(i, "second image")
            assert bytes(second.data) == rng.integers(0, 256, (5, 5 + i, 3), dtype=np.uint8).tobytes()
    assert verify(path, workers=1).ok


READER_SCRIPT = """
import json, sys
import numpy as np
from ffcv.fields import JSONField
from ffcv.fields.decoders import BytesDecoder, FloatDecoder, IntDecoder, NDArrayDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()], "weight": [FloatDecoder()],
             "blob": [BytesDecoder()], "array": [NDArrayDecoder()], "about": [BytesDecoder()],
             "tensor": [NDArrayDecoder()]}
loader = Loader(sys.argv[1], batch_size=4, num_workers=1, os_cache=True, order=OrderOption.SEQUENTIAL,
                pipelines=pipelines, drop_last=False)
rows = []
for batch in loader:
    image, label, weight, blob, array, about, tensor = [np.array(part) for part in batch]
    for k in range(len(label)):
        rows.append({"image": int(image[k].astype(int).sum()), "label": int(label[k][0]), "weight": float(weight[k][0]),
                     "blob": blob[k].tolist()[:5], "array": array[k].tolist(), "about": JSONField.unpack(about[k]),
                     "tensor": tensor[k].tolist()})
json.dump(rows, open(sys.argv[2], "w"))
"""


def test_ffcvs_loader_reads_every_field_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.beton"
    specs = [
        fmt.FieldSpec("image", fmt.IMAGE_FIELD),
        fmt.FieldSpec("label", fmt.INT_FIELD),
        fmt.FieldSpec("weight", fmt.FLOAT_FIELD),
        fmt.FieldSpec("blob", fmt.BYTES_FIELD),
        fmt.array_field("array", "<f4", (2, 2)),
        fmt.FieldSpec("about", fmt.JSON_FIELD),
        fmt.array_field("tensor", "<i8", (3,), tensor=True),
    ]
    expected = []
    with BetonWriter(path, 10, specs) as writer:
        for i in range(10):
            pixels = np.full((16, 16, 3), 3 * i, np.uint8)
            array, tensor = np.full((2, 2), i / 2, np.float32), np.arange(3, dtype=np.int64) + i
            about = {"row": i, "text": "grün"}
            image = EncodedImage(pixels.tobytes(), fmt.MODE_RAW, 16, 16)
            writer.add(f"{i}", [image, i, i / 8, bytes([i] * 5), array, about, tensor])
            expected.append(
                {
                    "image": int(pixels.astype(int).sum()),
                    "label": i,
                    "weight": i / 8,
                    "blob": [i] * 5,
                    "array": array.tolist(),
                    "about": about,
                    "tensor": tensor.tolist(),
                }
            )
    command = [sys.executable, "-c", READER_SCRIPT, str(path), str(tmp_path / "out.json")]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    assert json.loads((tmp_path / "out.json").read_text()) == expected


LOADER_SCRIPT = """
import sys
import numpy as np
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
loader = Loader(sys.argv[1], batch_size=5, num_workers=1, os_cache=False, order=OrderOption.SEQUENTIAL,
                pipelines=pipelines, drop_last=False)
batches = [(np.array(images), np.array(labels)) for images, labels in loader]
np.savez(sys.argv[2], images=np.concatenate([b[0] for b in batches]), labels=np.concatenate([b[1] for b in batches]))
"""


def test_ffcvs_loader_reads_pages_of_ours(tmp_path: Path, pixels: Pixels, encoded: Encoded) -> None:
    """The whole Loader with its page-wise memory manager, on a file whose pages grew and that mixes the modes."""
    path = tmp_path / "a.beton"
    images = [pixels(1000, 800, row) for row in range(12)]
    with BetonWriter(path, len(images)) as writer:
        for row, image in enumerate(images):
            data, mode = (encoded(image, quality=95), 0) if row % 3 else (image.tobytes(), 1)
            index = b"" if mode else bytes(8 * 500)  # where FFCV never looks
            writer.add(f"{row}", [EncodedImage(data, mode, 1000, 800, index), row])
    with BetonReader(path) as reader:
        assert reader.page_size == 1 << 22  # it began at 2 MiB; a raw image takes 2.4 MB
        command = [sys.executable, "-c", LOADER_SCRIPT, str(path), str(tmp_path / "out.npz")]
        # A process of its own: FFCV's threads outlive its Loader and may keep pytest from ending.
        subprocess.run(command, check=True, timeout=300, capture_output=True)
        read = np.load(tmp_path / "out.npz")
        assert read["labels"].ravel().tolist() == list(range(12))
        for row in range(12):
            difference = np.abs(read["images"][row].astype(int) - reader.image(row)).mean()
            assert difference < FAST_TRANSFORM_TOLERANCE if row % 3 else difference == 0
