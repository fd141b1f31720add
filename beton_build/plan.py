"""What a build will do: which samples go where, in which form, under which names."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import PIL
import xxhash

from fasttrain.base.atomic import part_path, publish
from fasttrain.base.errors import BetonError, SourceError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.extra_fields import field_of, value_for
from fasttrain.beton_build.journal import journal_path
from fasttrain.beton_build.mask_images import prepare_mask
from fasttrain.beton_build.mask_info import MASK_FIELD
from fasttrain.beton_build.mask_lists import MaskList
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.origins import stored_bytes
from fasttrain.beton_build.prepare import Form, Prepared
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.records import Original
from fasttrain.beton_build.sources import SampleList
from fasttrain.beton_build.split import groups_of, shard_rows, split_rows
from fasttrain.beton_build.trailer import encode_id
from fasttrain.beton_build.values import EncodedMask, Value
from fasttrain.beton_build.webdataset import DESCRIPTION, TarFolderWriter, publish_folder, read_description
from fasttrain.beton_build.writer import BetonWriter
from fasttrain.kernels.jpeg import native_available

PART_NAMES = ("train", "val")


class Writer(Protocol):
    """What a conversion writes to: a `.beton`, or a folder of tar archives."""

    keep_part: bool

    def __enter__(self) -> "Writer": ...
    def __exit__(self, *_: Any) -> None: ...
    def __len__(self) -> int: ...
    def add(self, sample_id: str, values: Sequence[Value], original: Original | None = None) -> None: ...
    def sync(self) -> None: ...
    def snapshot(self, start: int) -> dict[str, Any]: ...
    def restore(self, snapshots: Sequence[dict[str, Any]]) -> None: ...
    def complete(self) -> None: ...
    def published(self) -> None: ...
    def discard(self) -> None: ...


@dataclass
class BuildPlan:
    """Which samples go into which file.

    Attributes:
        rows: rows of `samples` that are converted, in order (all of them, or a shard).
        part: (N,) index into `outs` of each row.
        extra: fields of the further columns.
        masks: of all `samples`, None for none.
    """

    samples: SampleList
    options: BuildOptions
    outs: list[Path]
    rows: np.ndarray
    part: np.ndarray
    extra: list[fmt.FieldSpec] = field(default_factory=list)
    masks: MaskList | None = None

    @classmethod
    def make(cls, samples: SampleList, out: Path, options: BuildOptions, masks: MaskList | None = None) -> "BuildPlan":
        """Check the options against the samples, and deal the samples out.

        Raises:
            SourceError: the options contradict each other or the samples.
        """
        part = np.zeros(len(samples), np.int64)
        outs = [out]
        if options.val_fraction > 0:
            by = options.val_by
            groups = None if by is None else groups_of(samples.ids, samples.columns, by)
            _, chosen = split_rows(samples.ids, samples.labels, options.val_fraction, options.seed, groups)
            if not len(chosen):
                raise SourceError(
                    f"a fraction of {options.val_fraction:g} of {len(samples)} samples leaves none for validation"
                )
            part[chosen] = 1
            outs.append(options.val_out or default_val_out(out))
        elif options.val_out is not None:
            raise SourceError("a file for validation was named, but no fraction: give --val-fraction as well")
        if options.format == "webdataset" and options.mode not in ("keep", "jpg"):
            raise SourceError(f"WebDataset archives hold image files: choose --mode keep or jpg, not {options.mode}")
        if masks is not None and options.format == "webdataset":
            raise SourceError("WebDataset archives hold no masks; build a .beton of them")
        if options.repack:
            _check_repacking(options)
        rows = np.arange(len(samples)) if options.shard is None else shard_rows(len(samples), *options.shard)
        extra = [field_of(name, values) for name, values in samples.columns.items()]
        return cls(samples, options, outs, rows, part, extra, masks)

    @property
    def out(self) -> Path:
        return self.outs[0]

    def check_outs(self) -> None:
        """Refuse outputs that cannot or may not be written.

        Raises:
            SourceError: one of them; the message says which and why.
        """
        outs, beton = self.outs, self.options.format == "beton"
        if len({path.absolute() for path in outs}) < len(outs):
            raise SourceError(f"training and validation part cannot both be written to {outs[0]}")
        under_way = journal_path(self.out).exists()  # then what is there was checked when the build began
        for path in outs:
            if beton and path.suffix != ".beton":
                raise SourceError(f"the last argument names the file to write and must end in .beton, not {path}")
            if beton and path.is_dir():
                raise SourceError(f"{path} is a folder; name a file to write")
            if path.exists() and not self.options.force and not under_way:
                raise SourceError(f"{path} already exists; give --force to replace it")
            if not beton and path.exists() and not (path / DESCRIPTION).is_file():
                raise SourceError(f"{path} is not a folder of tar archives that a build made; name another one")
            ancestor = next(parent for parent in path.absolute().parents if parent.exists())
            if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
                raise SourceError(f"{path} cannot be written: {ancestor} is not a folder that may be written to")

    # ---- each sample -------------------------------------------------------------------------------------------

    def form(self, row: int) -> Form:
        """In which form the image of a row is stored."""
        options = self.options
        mode = options.mode
        if mode == "proportion":  # a pure function of the id, so that neither order nor shards change it
            bits = xxhash.xxh3_64_intdigest(encode_id(self.samples.ids[row]), options.seed)
            mode = "keep" if bits < options.compress_probability * 2.0**64 else "raw"
        return Form(
            mode=mode,
            quality=options.quality,
            max_resolution=options.max_resolution,
            min_resolution=options.min_resolution,
            smart_threshold=options.smart_threshold,
            index=options.index and options.format == "beton",
            repack=options.repack,
        )

    def extra_values(self, row: int) -> list[Value]:
        """The values of the further columns."""
        return [value_for(spec, self.samples.columns[spec.name][row]) for spec in self.extra]

    def mask_of(self, row: int, prepared: Prepared) -> EncodedMask | None:
        """The mask of a row, as its image was prepared.

        Raises:
            ImageError: it does not fit.
        """
        if self.masks is None:
            return None
        return prepare_mask(
            self.masks.paths[row], self.masks.rule, self.samples.origins[row], prepared, self.samples.ids[row]
        )

    # ---- each output -------------------------------------------------------------------------------------------

    def writer(self, part: int, going_on: bool) -> Writer:
        """The writer of an output, to begin or to go on with."""
        rows = self.rows[self.part[self.rows] == part]
        fields, names = (
            (*fmt.IMAGE_AND_LABEL, *([MASK_FIELD] if self.masks else []), *self.extra),
            self.samples.class_names or None,
        )
        if self.options.format == "webdataset":
            return TarFolderWriter(
                self.outs[part], fields, names, self._info(part), self.options.tar_bytes, going_on=going_on
            )
        return BetonWriter(
            self.outs[part],
            len(rows),
            fields,
            class_names=names,
            page_size=self.options.page_size,
            expected_bytes=self._expected_bytes(rows),
            info=self._info(part),
            going_on=going_on,
        )

    def part_file(self, part: int) -> Path:
        """Where an output grows until it is complete."""
        return part_path(self.outs[part])

    def publish(self, part: int) -> None:
        """Give a completed output its name."""
        publish_now = publish_folder if self.options.format == "webdataset" else publish
        publish_now(self.part_file(part), self.outs[part])

    def measure(self, part: int) -> tuple[int, int, int]:
        """Samples, bytes and indexed images of a published output."""
        out = self.outs[part]
        if self.options.format == "webdataset":
            return read_description(out)["samples"], sum(file.stat().st_size for file in out.iterdir()), 0
        with BetonReader(out) as reader:
            return reader.num_samples, reader.num_bytes, reader.num_indexed

    def is_made(self) -> bool:
        """Whether the outputs that exist were made by a build of these samples with these options."""
        return all(self._info_in(out) == self._info(part) for part, out in enumerate(self.outs))

    def _info_in(self, out: Path) -> dict[str, Any] | None:
        try:
            if self.options.format == "webdataset":
                found = read_description(out)["build"]
            else:
                with BetonReader(out) as reader:
                    found = reader.build_info
        except (BetonError, OSError, KeyError, ValueError):
            return None
        kept = ("options", "source_fingerprint", "encoder", *(["masks"] if "masks" in found else []))
        return {key: found.get(key) for key in kept}

    # ---- for the record ----------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What must be the same for an interrupted build to go on, by the name under which it is reported."""
        options = self.options
        identity = {
            "options": options.recorded() | {"page_size": options.page_size, "tar_bytes": options.tar_bytes},
            "samples": [self.samples.fingerprint(), len(self.rows)],
            "outputs": [str(path.absolute()) for path in self.outs],
            "encoder": _encoder(),
            "masks": None if self.masks is None else self.masks.rule.recorded(),
        }
        return cast(dict[str, Any], json.loads(json.dumps(identity)))

    def _info(self, part: int) -> dict[str, Any]:
        name = PART_NAMES[part] if len(self.outs) > 1 else "all"
        info = {
            "options": self.options.recorded() | {"part": name},
            "source_fingerprint": self.samples.fingerprint(),
            "encoder": _encoder(),
        }
        if self.masks is not None:
            info["masks"] = self.masks.rule.description()
        return cast(dict[str, Any], json.loads(json.dumps(info)))

    def _expected_bytes(self, rows: np.ndarray) -> int:
        """An estimate from up to 1,000 of the images."""
        some = rows[:: max(1, len(rows) // 1000)].tolist()
        sizes = [stored_bytes(self.samples.origins[row]) for row in some]
        return int(sum(sizes) / max(1, len(some)) * len(rows))


def _check_repacking(options: BuildOptions) -> None:
    if options.mode in ("jpg", "raw"):
        raise SourceError(f"--repack is about JPEGs that are kept, and --mode {options.mode} keeps none")
    if not native_available():
        raise SourceError(
            "--repack needs the native kernels, which were not built here; install a C++ compiler and libjpeg's "
            "headers, then fasttrain again"
        )


def _encoder() -> str:
    """What encodes JPEGs here; another one would write other bytes."""
    return f"Pillow {PIL.__version__}" + (", libjpeg-turbo" if native_available() else "")


def default_val_out(out: Path) -> Path:
    """``photos.beton`` -> ``photos_val.beton``."""
    return out.with_name(f"{out.stem}_val{out.suffix}")
