"""Mutants: damaged and malicious images and `.beton` files, each a pure function of its number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xxhash

from fasttrain.beton_build.format import MAX_SIDE, MODE_JPG, MODE_RAW
from fasttrain.kernels.indexed import index_jpeg
from fasttrain.tools.mutants import betons, damage, streams
from fasttrain.tools.mutants.damage import below

Kind = Literal["jpeg", "file", "pixels", "beton"]
KINDS: tuple[Kind, ...] = ("jpeg", "file", "pixels", "beton")
_SHARES = (0.45, 0.25, 0.08, 0.22)


@dataclass(frozen=True)
class Mutant:
    """One mutant.

    Attributes:
        seed: its number.
        kind: ``jpeg``, a stream to be stored in a `.beton`; ``file``, a JPEG file; ``pixels``, raw pixels to be stored
            in a `.beton`, or what claims to be; ``beton``, all bytes of a `.beton` file.
        base: what it was before.
        changes: what was done to it.
        data: its bytes.
        mode, width, height: what the records of a `.beton` are to say of ``jpeg`` and ``pixels``.
        index: the random-access index that is to be stored with a ``jpeg``; none where the extension was not built.
        sealed: whether the checksums of a ``beton`` were made to hold again.
    """

    seed: int
    kind: Kind
    base: str
    changes: tuple[str, ...]
    data: bytes
    mode: int = MODE_JPG
    width: int = 1
    height: int = 1
    sealed: bool = False
    index: bytes = b""


def mutant(seed: int, kind: Kind | None = None, photos: Sequence[bytes] = ()) -> Mutant:
    """The mutant `seed`, of the kind that the seed says or of `kind`; half of the JPEGs from `photos`, if given."""
    generator = np.random.default_rng([seed, 0x6D757461])
    drawn = KINDS[int(generator.choice(len(KINDS), p=_SHARES))]
    kind = kind or drawn
    if kind == "beton":
        name = betons.NAMES[below(generator, len(betons.NAMES))]
        data, changes, sealed = betons.damaged(name, generator)
        return Mutant(seed, kind, name, changes, data, sealed=sealed)
    if kind == "pixels":
        return _pixels(seed, generator)
    name = streams.NAMES[below(generator, len(streams.NAMES))]
    base = streams.stream(name)
    if photos and generator.random() < 0.5:
        number = below(generator, len(photos))
        name, base = f"photo {number}", photos[number]
    data, changes = damage.damaged(base, generator)
    width, height = betons.jpeg_size(data)
    if not (width and height) or generator.random() < 0.5:
        width, height = betons.jpeg_size(base)
    index = _index(base, data, np.random.default_rng([seed, 0x696E6478])) if kind == "jpeg" else b""
    return Mutant(seed, kind, name, changes, data or b"\0", MODE_JPG, width, height, index=index)


def _index(base: bytes, data: bytes, generator: np.random.Generator) -> bytes:
    """The index of the sound stream that `data` was made of, or of `data` itself, mostly damaged as well."""
    try:
        index = index_jpeg(data) if generator.random() < 0.5 else index_jpeg(base)
    except ValueError:  # `data` is damaged
        index = index_jpeg(base)
    if index is None:
        return b""
    changed = bytearray(index.tobytes())
    change = ("none", "bits", "bytes", "swapped", "shorter", "longer")[below(generator, 6)]
    if change == "bits":
        damage.bit_flips(changed, generator)
    elif change == "bytes":
        damage.byte_run(changed, generator)
    elif change == "swapped" and len(changed) > 8:
        at = 8 * below(generator, len(changed) // 8 - 1)
        changed[at : at + 16] = changed[at + 8 : at + 16] + changed[at : at + 8]
    elif change == "shorter":
        del changed[len(changed) // 16 * 8 :]
    elif change == "longer":
        changed += changed[:8]
    return bytes(changed)


def _pixels(seed: int, generator: np.random.Generator) -> Mutant:
    """Raw pixels whose values, number, sides or mode were changed."""
    width, height = 1 + below(generator, 60), 1 + below(generator, 60)
    data = bytearray(np.asarray(streams.picture(width, height, seed % 100)).tobytes())
    mode, base = MODE_RAW, f"{width}x{height}"
    change = ("values", "values", "number", "sides", "mode", "stream")[below(generator, 6)]
    if change == "values":
        damage.byte_run(data, generator)
    elif change == "number":
        damage.deletion(data, generator)
    elif change == "sides":
        sides = ((height, width), (3 * width, 3 * height), (1, width * height), (width + 1, height))
        width, height = sides[below(generator, 4)]
    elif change == "mode":
        mode = (MODE_JPG, 2, 255)[below(generator, 3)]
    else:  # a JPEG as it is said to be pixels, sometimes of just the right number of bytes
        data = bytearray(streams.stream("4:2:0"))
        del data[len(data) // 3 * 3 :]
        width, height = (len(data) // 3, 1) if generator.random() < 0.5 else (90, 70)
    return Mutant(seed, "pixels", base, (change,), bytes(data) or b"\0", mode, min(width, MAX_SIDE), height)


def bases_digest() -> str:
    """Changes with the sound images and files that mutants are made of: Pillow's encoder has a part in them."""
    digest = xxhash.xxh3_64()
    for name in streams.NAMES:
        digest.update(streams.stream(name))
    for name in betons.NAMES:
        digest.update(betons.sound(name))
    return digest.hexdigest()
