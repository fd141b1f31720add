"""Brings one image into the form in which it is stored: its own bytes where they fit, a new JPEG, or pixels."""

from dataclasses import dataclass, replace
from io import BytesIO
from typing import Literal

from PIL import Image

from fasttrain.beton_build import images
from fasttrain.beton_build.format import MAX_SIDE, MODE_JPG, MODE_RAW
from fasttrain.beton_build.records import Original
from fasttrain.beton_build.values import EncodedImage
from fasttrain.kernels.jpeg import JpegFacts, check_jpeg, checked_index, repack_jpeg, transcode_jpeg
from fasttrain.kernels.jpeg_markers import read_header

DEFAULT_QUALITY = 95
DEFAULT_SMART_THRESHOLD = 256 * 256 * 3
_JPEG_START = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Form:
    """How images are to be stored.

    Attributes:
        mode: "keep": a JPEG's own bytes where they fit, all else re-encoded; "jpg": all re-encoded; "raw": pixels;
            "smart": pixels where they take up to `smart_threshold` bytes, else as "keep".
        quality: of JPEG re-encoding, with 4:2:0 sub-sampling.
        max_resolution: longest side in pixels; larger images are shrunk.
        min_resolution: shorter side in pixels; images whose shorter side is longer are shrunk to it.
        smart_threshold: bytes of pixels.
        index: whether JPEGs get a random-access index.
        repack: whether JPEGs that would be kept and cannot have such an index are coded so that they can, without loss.
    """

    mode: Literal["keep", "jpg", "raw", "smart"] = "keep"
    quality: int = DEFAULT_QUALITY
    max_resolution: int | None = None
    min_resolution: int | None = None
    smart_threshold: int = DEFAULT_SMART_THRESHOLD
    index: bool = False
    repack: bool = False

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """`size` (width, height) shrunk as the form wants it; never enlarged, no side under 1."""
        longest, shortest = max(size), min(size)
        scale = min(1.0, (self.max_resolution or longest) / longest, (self.min_resolution or shortest) / shortest)
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def as_pixels(self, size: tuple[int, int]) -> bool:
        """Whether an image of `size` (after shrinking) is stored as pixels."""
        return self.mode == "raw" or (self.mode == "smart" and size[0] * size[1] * 3 <= self.smart_threshold)


@dataclass(frozen=True)
class Prepared:
    """An image ready to be stored.

    Attributes:
        changes: what was done to it, for counting: "kept", "re-packed", "re-encoded", "as pixels", "rotated",
            "resized", "from MODE", "colour profile ignored", "first picture of several", "bytes after the end dropped".
        original: what it was before.
    """

    image: EncodedImage
    changes: tuple[str, ...]
    original: Original


def prepare(source: bytes | EncodedImage, form: Form) -> Prepared:
    """Bring an image into the form in which it is stored. A JPEG's whole entropy code is decoded, whatever the form.

    Args:
        source: the bytes of an image file, or an image as another `.beton` stores it.

    Raises:
        ValueError: the image cannot be decoded or stored; the message is the reason.
    """
    if isinstance(source, EncodedImage):
        return _from_stored(source, form)
    if not source.startswith(_JPEG_START):
        with images.opened(source) as image:
            return _stored_anew(image, form, [])
    if form.mode == "jpg" and (prepared := _transcoded(source, form)) is not None:
        return prepared
    facts, index = _checked(source, form)
    changes = []
    if facts.length < len(source):
        source = source[: facts.length]
        changes.append("bytes after the end dropped")
    return _from_jpeg(source, facts, index, form, changes)


def _transcoded(data: bytes, form: Form) -> Prepared | None:
    """The usual JPEG re-encoded at its size in one go, which decodes it once; None for one that needs a closer look."""
    header = read_header(data)
    if header is None or header.has_metadata:
        return None
    size = (header.frame.width, header.frame.height)
    if min(size) == 0 or form.fitted(size) != size or (stream := transcode_jpeg(data, form.quality)) is None:
        return None
    changes = ("re-encoded", *["colour profile ignored"] * header.has_profile)
    return Prepared(_new_jpeg(stream, size, form), changes, _plain_jpeg(size, len(header.frame.factors)))


def _checked(data: bytes, form: Form) -> tuple[JpegFacts, bytes]:
    """`check_jpeg`, and on the same way the random-access index of a stream that may be kept; empty without one."""
    if not form.index or form.mode not in ("keep", "smart"):
        return check_jpeg(data), b""
    facts, index = checked_index(data)
    return facts, b"" if index is None else index.tobytes()


def _new_jpeg(stream: bytes, size: tuple[int, int], form: Form) -> EncodedImage:
    """A stream that was made here, with its random-access index."""
    index = checked_index(stream)[1] if form.index else None
    return EncodedImage(stream, MODE_JPG, *size, b"" if index is None else index.tobytes())


def _plain_jpeg(size: tuple[int, int], components: int) -> Original:
    """What Pillow would say of a usual JPEG."""
    return Original(*size, f"JPEG {'L' if components == 1 else 'RGB'}")


def _kept(stored: EncodedImage, form: Form, changes: list[str], original: Original) -> Prepared:
    """A JPEG of which every coefficient stays."""
    if form.repack and not stored.index and (stream := repack_jpeg(stored.data)) is not None:
        packed = _new_jpeg(stream, (stored.width, stored.height), form)
        return Prepared(packed, ("re-packed", *changes), original)
    return Prepared(stored, ("kept", *changes), original)


def _from_jpeg(data: bytes, facts: JpegFacts, index: bytes, form: Form, changes: list[str]) -> Prepared:
    size = (facts.width, facts.height)
    stored = EncodedImage(data, MODE_JPG, *size, index)
    stays = facts.is_common and form.fitted(size) == size and not form.as_pixels(size)
    if stays and not facts.has_metadata and form.mode != "jpg":
        # The usual case, without a look into the file by Pillow, which takes as long as reading it.
        changes += ["colour profile ignored"] * facts.has_profile
        return _kept(stored, form, changes, _plain_jpeg(size, facts.components))
    with images.opened(data) as image:
        changes += _notes(image)
        if stays and images.orientation(image) == 1:
            prepared = _same_size_jpeg(stored, form, changes, _original(image))
            if prepared is not None:
                return prepared
        return _stored_anew(image, form, changes)


def _same_size_jpeg(stored: EncodedImage, form: Form, changes: list[str], original: Original) -> Prepared | None:
    """A JPEG that needs no rotation and no resizing: kept, or re-encoded without the way over RGB pixels."""
    if form.mode != "jpg":
        return _kept(stored, form, changes, original)
    stream = transcode_jpeg(stored.data, form.quality)
    if stream is None:
        return None
    return Prepared(_new_jpeg(stream, (stored.width, stored.height), form), ("re-encoded", *changes), original)


def _stored_anew(image: Image.Image, form: Form, changes: list[str]) -> Prepared:
    """Decode an opened image and encode it as `form` wants it."""
    original, notes = _original(image), changes or _notes(image)
    upright = images.orientation(image) == 1
    size = image.size if images.orientation(image) < 5 else image.size[::-1]
    wanted = form.fitted(size)
    resizes = wanted != size
    if resizes:  # a JPEG is decoded at a fraction of its size, never below twice what is wanted
        image.draft(None, (2 * max(wanted), 2 * max(wanted)))
    mode = image.mode + (" with transparency" if "transparency" in image.info else "")
    pixels = images.loaded(image, images.normalise)
    if resizes:
        pixels = pixels.resize(wanted, Image.Resampling.LANCZOS)
    if max(wanted) > MAX_SIDE:
        raise ValueError(f"it is {wanted[0]}x{wanted[1]} pixels; sides go up to {MAX_SIDE}: use --max-resolution")
    as_pixels = form.as_pixels(wanted)
    done = ["as pixels" if as_pixels else "re-encoded"]
    done += ["rotated"] * (not upright) + ["resized"] * resizes + [f"from {mode}"] * (mode != "RGB")
    return Prepared(_encoded(pixels, as_pixels, form, grey=mode == "L"), (*done, *notes), original)


def _encoded(pixels: Image.Image, as_pixels: bool, form: Form, grey: bool) -> EncodedImage:
    if as_pixels:
        return EncodedImage(pixels.tobytes(), MODE_RAW, pixels.width, pixels.height)
    stream = BytesIO()
    if grey:
        pixels.convert("L").save(stream, "JPEG", quality=form.quality)
    else:
        pixels.save(stream, "JPEG", quality=form.quality, subsampling="4:2:0")
    return _new_jpeg(stream.getvalue(), pixels.size, form)


def _from_stored(stored: EncodedImage, form: Form) -> Prepared:
    """An image of another `.beton`. It is upright RGB or a fitting JPEG already, so "keep" takes it as it is."""
    size = (stored.width, stored.height)
    keeps = form.fitted(size) == size
    if stored.mode == MODE_RAW:
        original = Original(*size, "raw RGB")
        if keeps and (form.mode in ("keep", "raw") or form.as_pixels(size)):
            return Prepared(stored, ("kept",), original)
        return _stored_anew(Image.frombytes("RGB", size, stored.data), form, [])
    data = bytes(stored.data)
    facts, index = _checked(data, form)
    if (facts.width, facts.height) != size:
        raise ValueError(f"the stream is {facts.width}x{facts.height}, the file says {size[0]}x{size[1]}")
    if keeps and not form.as_pixels(size) and form.mode != "jpg":
        return _kept(replace(stored, index=index), form, [], Original(*size, "JPEG"))
    with images.opened(data) as image:
        image.getexif().clear()  # what another `.beton` stores is upright, whatever a left-over tag says
        prepared = _same_size_jpeg(stored, form, [], _original(image)) if keeps and form.mode == "jpg" else None
        return prepared or _stored_anew(image, form, [])


def _original(image: Image.Image) -> Original:
    return Original(*image.size, f"{image.format or 'raw'} {image.mode}")


def _notes(image: Image.Image) -> list[str]:
    """What of a file is left out, whatever happens to its pixels."""
    notes = []
    if image.info.get("icc_profile"):
        notes.append("colour profile ignored")
    if getattr(image, "n_frames", 1) > 1:
        notes.append("first picture of several")
    return notes
