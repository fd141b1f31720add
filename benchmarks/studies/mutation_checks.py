"""Loads mutants through the public Loader and says what became of each. Runs in the process that `mutations.py` starts.

Each group of seeds has settings of its own (view, size, type, decoding, threads, SIMD level), drawn from its number.
Its mutants are loaded in one of two parts, in processes whose fresh memory holds different bytes:

- ``checked``: in order, with ``on_error="skip"``, beside the portable backend on the same bytes, ``verify``, the check
  and re-encoding of `fasttrain.kernels.jpeg` and, for every third group, ``on_error="raise"``;
- ``again``: the other way round, in batches of another size, with other neighbours.

Pixels that depend on anything but the sample's own bytes (an earlier batch, another sample, memory that was never
written) differ between the two. The digests of both are compared by `mutations.py`.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sanitized
from mutation_passes import Loaded, Settings, agree, digest_of, load, seed_of, write_beton, write_files

GROUP = 50  # seeds that share settings and, if they are images, a `.beton` or a folder
PARTS = ("checked", "again")


@dataclass
class Finding:
    """What became of a mutant.

    Attributes:
        result: ``right`` (all samples came), ``skipped`` (one was left out by its name), ``error`` (the file as a whole
            was refused).
        confirmed: whether the portable backend gave the same pixels. It cannot where it refuses what the native one
            takes (damage below the crop), and is not asked to with ``decode="fast"``.
        digest: of all pixels and masks.
        faults: what must not be.
    """

    seed: int
    kind: str
    changes: list[str]
    result: str = ""
    confirmed: bool = False
    digest: str = ""
    faults: list[str] = field(default_factory=list)


# --- groups -----------------------------------------------------------------------------------------------------------


class Checker:
    """Checks groups of mutants in one part."""

    def __init__(self, part: str, native: Any, photos: list[bytes]) -> None:
        self.part, self.native, self.photos = part, native, photos
        self.handed_over: Counter[str] = Counter()

    def group(self, seeds: list[int], folder: Path) -> list[Finding]:
        """Findings of seeds of one group, in their order."""
        from fasttrain.tools.mutants import mutant

        settings = Settings.of(seeds[0] // GROUP, self.native.usable_simd())
        self.native.force_simd(settings.simd)
        mutants = [mutant(seed, photos=self.photos) for seed in seeds]
        findings = {m.seed: Finding(m.seed, m.kind, [*m.changes]) for m in mutants}
        for kind in ("jpeg", "pixels", "file"):
            chosen = [m for m in mutants if m.kind == kind]
            if chosen:
                self._images(chosen, findings, settings, folder)
        for one in mutants:
            if one.kind == "beton":
                self._beton(one, findings[one.seed], settings, folder)
        return [findings[seed] for seed in seeds]

    def _images(self, mutants: list[Any], findings: dict[int, Finding], settings: Settings, folder: Path) -> None:
        path = write_files(mutants, folder) if mutants[0].kind == "file" else write_beton(mutants, folder)
        loaded = load(path, settings, "native", self.part)
        self.handed_over[mutants[0].kind] += loaded.handed_over
        by_seed = {seed_of(key): pixels for key, pixels in loaded.pixels.items()}
        reasons = {seed_of(name): reason for name, reason in loaded.skipped.items()}
        for seed in (m.seed for m in mutants):
            finding = findings[seed]
            finding.result = "right" if seed in by_seed else "skipped"
            finding.digest = digest_of(by_seed.get(seed))
            if (seed in by_seed) == (seed in reasons):
                finding.faults.append("came and was skipped at once, or neither")
        if self.part == "checked":
            self._compare(path, mutants, by_seed, findings, settings)
            if settings.strict:
                self._raises(path, mutants, set(reasons), findings, settings)

    def _compare(
        self, path: Path, mutants: list[Any], ours: dict[int, Any], findings: dict[int, Finding], settings: Settings
    ) -> None:
        """Beside the portable backend, and `verify`."""
        theirs = {seed_of(key): pixels for key, pixels in load(path, settings, "portable", "checked").pixels.items()}
        wrong = bad_of(path) if path.suffix == ".beton" else None
        for one in mutants:
            finding = findings[one.seed]
            indexed = settings.index and bool(one.index) and not settings.kept
            fits = not one.index or has_index(one.data, one.index)  # else damage that does not show gives other pixels
            if one.seed in ours and one.seed in theirs and settings.decode == "exact" and (fits or not indexed):
                finding.confirmed = agree(ours[one.seed], theirs[one.seed], settings, indexed)
                if not finding.confirmed:
                    difference = 255 * np.abs(ours[one.seed] - theirs[one.seed])
                    levels = f"{difference.max():.1f}, {difference.mean():.2f} levels"
                    finding.faults.append(f"pixels differ from the portable ones by {levels}")
            whole = one.kind == "pixels" or self._is_sound(one, finding)
            sound = whole and one.seed in theirs
            if sound and one.seed not in ours and (fits or not indexed):
                finding.faults.append("a sound image was refused")
            if wrong is not None and not (sound and fits) and str(one.seed) not in wrong:
                finding.faults.append("verify finds no fault with it")

    def _is_sound(self, one: Any, finding: Finding) -> bool:
        """Whether `check_jpeg` finds a stream sound. What re-encoding makes of a stream must be sound, of its size."""
        from fasttrain.kernels.jpeg import check_jpeg, transcode_jpeg

        made, size = None, None
        try:
            facts = check_jpeg(one.data)
            size = facts.width, facts.height
        except ValueError as error:
            assert str(error), "the check gives no reason"
        try:
            made = transcode_jpeg(one.data, 80)
        except ValueError as error:
            assert str(error), "the transcoder gives no reason"
        if made is not None:
            try:
                anew = check_jpeg(made)
                if size is not None and (anew.width, anew.height) != size:
                    finding.faults.append(f"re-encoded, it is {anew.width}x{anew.height} instead of {size}")
            except ValueError as error:
                finding.faults.append(f"re-encoded, it is damaged: {error}")
        return size is not None

    def _raises(
        self, path: Path, mutants: list[Any], bad: set[int], findings: dict[int, Finding], settings: Settings
    ) -> None:
        """With ``on_error="raise"`` the first batch with a bad sample is an error that names one."""
        from fasttrain.base.errors import ImageError

        named = None
        try:
            load(path, settings, "native", "checked", "raise")
        except ImageError as error:
            named = seed_of(error.sample_id)
        if (named is None) != (not bad) or (named is not None and named not in bad):
            findings[mutants[0].seed].faults.append(f"on_error='raise' names {named}, of {len(bad)} that are bad")

    def _beton(self, one: Any, finding: Finding, settings: Settings, folder: Path) -> None:
        from fasttrain.base.errors import BetonError, ImageError, LoaderError

        path = folder / f"{one.seed}.beton"
        path.write_bytes(one.data)
        if self.part == "checked":
            self._verify(path, finding)
        try:
            loaded = load(path, settings, "native", self.part)
        except (BetonError, LoaderError, ImageError) as error:
            finding.result = "error"
            finding.digest = digest_of(None)
            if "a loader thread failed" in str(error) or path.name not in str(error):
                finding.faults.append(f"an error that names no file, or is none of the file's: {error}")
            return
        finally:
            path.unlink()
        self.handed_over["beton"] += loaded.handed_over
        finding.result = "skipped" if loaded.skipped else "right"
        finding.digest = digest_of(*(loaded.pixels[key] for key in sorted(loaded.pixels)))
        if self.part == "checked":
            path.write_bytes(one.data)
            self._compare_beton(path, one, loaded, finding, settings)
            path.unlink()

    def _verify(self, path: Path, finding: Finding) -> None:
        from fasttrain.base.errors import BetonError
        from fasttrain.beton_build.verify import verify

        try:
            for error in verify(path, 1).bad:
                if not error.sample_id or not error.reason:
                    finding.faults.append("verify names no sample, or no reason")
        except BetonError:
            return

    def _compare_beton(self, path: Path, one: Any, loaded: Loaded, finding: Finding, settings: Settings) -> None:
        theirs = load(path, settings, "portable", "checked")
        both = [key for key in loaded.pixels if key in theirs.pixels]
        if settings.decode == "exact" and not (settings.index and one.base == "indexed"):
            wrong = [key for key in both if not agree(loaded.pixels[key], theirs.pixels[key], settings)]
            finding.confirmed = len(both) == len(loaded.pixels) and not wrong
            finding.faults += [f"pixels of {key} differ from the portable ones" for key in wrong]
        if one.base != "ffcv" and not one.sealed:
            self._as_before(one, loaded, finding, settings, path.parent)

    def _as_before(self, one: Any, loaded: Loaded, finding: Finding, settings: Settings, folder: Path) -> None:
        """Checksums guard all but the images' own bytes: a sample whose bytes were left alone is the sample it was."""
        from fasttrain.beton_build.reader import BetonReader
        from fasttrain.tools.mutants.betons import sound

        path = folder / f"sound {one.base}.beton"
        if not path.exists():
            path.write_bytes(sound(one.base))
        before = load(path, settings, "native", "checked")
        with BetonReader(path) as reader:
            stops = reader.offsets + reader.sizes
            if settings.index and reader.indexed:
                _, starts, lengths = reader.index_regions(np.arange(reader.num_samples))
                stops = np.where(lengths > 0, starts + lengths, stops)
            spans = {
                f"{row}/{reader.ids[row]}": slice(int(reader.offsets[row]), int(stops[row]))
                for row in range(reader.num_samples)
            }
        for key, pixels in loaded.pixels.items():
            touched = key in spans and one.data[spans[key]] != sound(one.base)[spans[key]]
            same = key in before.pixels and np.array_equal(pixels, before.pixels[key])
            if key not in spans or loaded.labels[key] != before.labels[key] or not (same or touched):
                finding.faults.append(f"{key} came with other pixels, label or name than were written")


def has_index(data: bytes, index: bytes) -> bool:
    """Whether a stream is sound, and `index` its own."""
    from fasttrain.kernels.jpeg import checked_index

    try:
        _, made = checked_index(data)
    except ValueError:
        return False
    return made is not None and made.tobytes() == index


def bad_of(path: Path) -> set[str] | None:
    """The sample ids that `verify` complains of; None where the file's records are such that it stops at once."""
    from fasttrain.base.errors import BetonError
    from fasttrain.beton_build.verify import verify

    try:
        return {error.sample_id for error in verify(path, 1).bad}
    except BetonError:
        return None


def main() -> None:
    """Print a JSON line for each group: its findings, and how many samples Pillow decoded for the native backend."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("extension", type=Path)
    parser.add_argument("--photos", type=Path)
    arguments = parser.parse_args()
    native = sanitized.load(arguments.extension)
    photos = [path.read_bytes() for path in sorted(arguments.photos.iterdir())] if arguments.photos else []
    checker = Checker(arguments.part, native, photos)
    seeds = json.load(sys.stdin)
    groups: dict[int, list[int]] = {}
    for seed in seeds:
        groups.setdefault(seed // GROUP, []).append(seed)
    with tempfile.TemporaryDirectory() as folder:
        for number, members in groups.items():
            inner = Path(folder) / str(number)
            inner.mkdir()
            findings = [finding.__dict__ for finding in checker.group(members, inner)]
            print(json.dumps({"findings": findings, "handed_over": checker.handed_over}), flush=True)
            checker.handed_over.clear()


if __name__ == "__main__":
    main()
