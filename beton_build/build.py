"""Converts a list of samples: a pool of threads prepares images, one thread writes them in the list's order.

What was written is noted in a journal every few seconds, so that a build goes on after any interruption and ends in the
same bytes as one that was never interrupted.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from fasttrain.base.console import progress, say
from fasttrain.base.errors import FasttrainError, ImageError, SourceError
from fasttrain.base.process import default_threads
from fasttrain.beton_build.journal import Journal, Record, journal_path
from fasttrain.beton_build.mask_lists import MaskList
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.origins import Origin, read_origin
from fasttrain.beton_build.plan import BuildPlan, Writer
from fasttrain.beton_build.pool import ordered_map
from fasttrain.beton_build.prepare import Form, Prepared, prepare
from fasttrain.beton_build.report import BrokenImagesError, BuildReport, write_skipped
from fasttrain.beton_build.sources import SampleList
from fasttrain.beton_build.values import EncodedMask, Value

COMMIT_EVERY_S = 5.0  # how much work an interruption can cost


def build(
    samples: SampleList, out: Path, options: BuildOptions | None = None, masks: MaskList | None = None
) -> BuildReport:
    """Write `samples` to `out`, and with a validation fraction to a second file (``OUT_val.beton`` by default).

    Files appear under their names only when all of them are complete. After an interruption (a signal, a full disk)
    what was done so far stays in ``OUT.part``, and the option `resume` goes on with it.

    Args:
        masks: of all samples, which are stored beside the images.

    Raises:
        BrokenImagesError: images cannot be decoded and `on_error` is "fail"; all of them are listed.
        SourceError: the output may not be written there, another build to it is going on or was interrupted, the disk
            is full, or nothing is left to write.
    """
    options = options or BuildOptions()
    plan = BuildPlan.make(samples, Path(out), options, masks)
    report = BuildReport(plan.out, classes=len(samples.class_names), ignored=samples.ignored)
    report.masks_without_image = 0 if masks is None else masks.without_image
    started = time.monotonic()
    if options.resume and _is_complete(plan):
        say(f"{plan.out} is complete already")
    else:
        plan.check_outs()
        journal = Journal(journal_path(plan.out))
        try:
            done = _Conversion(plan, journal, report).run()
        finally:
            journal.close()
        report.images_per_s = done / max(time.monotonic() - started, 1e-9)
    _measure_outs(plan, report)
    return report


class _Conversion:
    """One run of a build: from where the journal stands to the end, or to an interruption."""

    def __init__(self, plan: BuildPlan, journal: Journal, report: BuildReport) -> None:
        self.plan, self.journal, self.report = plan, journal, report
        self.options = plan.options
        self.next = 0  # position in the plan's rows of the next sample
        self.writers: list[Writer] = []
        self._committed = [0 for _ in plan.outs]
        self._noted = (0, dict[str, int]())  # skipped and changes that the journal knows of
        self._last_commit = time.monotonic()

    def run(self) -> int:
        """Convert what is left; the number of samples that this run looked at."""
        records = self._begin()
        if records and records[-1].values.get("complete"):
            self._take_over(records[:-1])
            self._publish([])
            return 0
        with ExitStack() as stack:
            self.writers = [stack.enter_context(self.plan.writer(part, bool(records))) for part in self._parts]
            try:
                self._take_over(records)
                first = self.next
                self._convert()
                self._finish()
            except BaseException as error:
                self._stop(error)
                raise
        return len(self.plan.rows) - first

    @property
    def _parts(self) -> range:
        return range(len(self.plan.outs))

    # ---- the beginning -----------------------------------------------------------------------------------------

    def _begin(self) -> list[Record]:
        """The records to go on from; none when the build starts."""
        journal, identity = self.journal, self.plan.identity()
        if journal.identity is None or (self.options.force and not self.options.resume):
            journal.begin(identity)
            return []
        out = self.plan.out
        if not self.options.resume:
            raise SourceError(f"a build of {out} was interrupted: go on with --resume, or start anew with --force")
        different = [key for key in identity if journal.identity.get(key) != identity[key]]
        if different:
            raise SourceError(
                f"the interrupted build of {out} had other {', '.join(different)}; give the same as then, or start "
                "anew with --force"
            )
        complete = bool(journal.records) and journal.records[-1].values.get("complete")
        if journal.records and not complete and not all(self.plan.part_file(part).exists() for part in self._parts):
            say(f"what was written of {out} is gone; starting anew")
            journal.begin(identity)
        return journal.records

    def _take_over(self, records: list[Record]) -> None:
        """Stand where the last record was written."""
        for record in records:
            values = record.values
            self.next = values["next"]
            self.report.skipped += [ImageError(*entry) for entry in values["skipped"]]
            self.report.changes.update(values["changes"])
        if records and self.writers:
            for part, writer in enumerate(self.writers):
                writer.restore([{**record.values["parts"][part], "records": record.blobs[part]} for record in records])
            say(f"going on after {self.next} of {len(self.plan.rows)} images")
        self._note()

    # ---- the work ----------------------------------------------------------------------------------------------

    def _convert(self) -> None:
        """Prepare in parallel, write in order; after a failure that ends the build, go on only to find the others."""
        samples, rows = self.plan.samples, self.plan.rows
        report, fails = self.report, self.options.on_error == "fail"
        with progress("build", len(rows)) as bar:
            bar.advance(self.next)
            for row, outcome in zip(rows[self.next :].tolist(), self._prepared(), strict=True):
                bar.advance()
                if isinstance(outcome, ImageError):
                    report.skipped.append(outcome)
                    say(f"{'broken' if fails else 'skipped'}: {outcome.path}: {outcome.reason}")
                elif not (fails and report.skipped):
                    prepared, mask = outcome
                    report.changes.update(prepared.changes)
                    values: list[Value] = [prepared.image, int(samples.labels[row]), *([] if mask is None else [mask])]
                    values += self.plan.extra_values(row)
                    self.writers[self.plan.part[row]].add(samples.ids[row], values, prepared.original)
                self.next += 1
                if not (fails and report.skipped) and time.monotonic() - self._last_commit >= COMMIT_EVERY_S:
                    self._commit()
        if fails and report.skipped:
            raise BrokenImagesError(report.skipped)

    def _prepared(self) -> Iterator[tuple[Prepared, EncodedMask | None] | ImageError]:
        """The prepared images, with their masks, in the order of the plan, from the next on."""
        workers = self.options.workers or default_threads()
        return ordered_map(self._prepare_one, self.plan.rows[self.next :].tolist(), workers, "build")

    def _prepare_one(self, row: int) -> tuple[Prepared, EncodedMask | None] | ImageError:
        prepared = prepare_one(self.plan.samples.ids[row], self.plan.samples.origins[row], self.plan.form(row))
        if isinstance(prepared, ImageError):
            return prepared
        try:
            return prepared, self.plan.mask_of(row, prepared)
        except ImageError as error:
            return error

    def _commit(self) -> None:
        """Bring what was written to the disk, then say so in the journal."""
        for writer in self.writers:
            writer.sync()
        snapshots = [writer.snapshot(start) for writer, start in zip(self.writers, self._committed, strict=True)]
        skipped, changes = self._noted
        new = {
            "next": self.next,
            "skipped": [[error.sample_id, error.path, error.reason] for error in self.report.skipped[skipped:]],
            "changes": {what: count - changes.get(what, 0) for what, count in self.report.changes.items()},
            "parts": [{key: value for key, value in entry.items() if key != "records"} for entry in snapshots],
        }
        self.journal.append(Record(new, [entry["records"] for entry in snapshots]))
        self._note()

    def _note(self) -> None:
        self._committed = [len(writer) for writer in self.writers]
        self._noted = (len(self.report.skipped), dict(self.report.changes))
        self._last_commit = time.monotonic()

    # ---- the end -----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        empty = [str(out) for out, writer in zip(self.plan.outs, self.writers, strict=True) if not len(writer)]
        if empty:
            raise SourceError(f"no readable image is left for {' and '.join(empty)}, so nothing was written")
        self._commit()
        for writer in self.writers:
            writer.complete()
        self.journal.append(Record({"complete": True}))
        self._publish(self.writers)

    def _publish(self, writers: Sequence[Writer]) -> None:
        """Give all complete files their names; from here on nothing but the journal is needed to do so again."""
        for part in self._parts:
            if self.plan.part_file(part).exists():
                self.plan.publish(part)
        for writer in writers:
            writer.published()
        if self.report.skipped:
            self.report.skipped_list = write_skipped(self.plan.out, self.report.skipped)
        self.journal.remove()

    def _stop(self, error: BaseException) -> None:
        """After an interruption keep what was done; after an error that would come again, keep nothing."""
        if isinstance(error, FasttrainError):
            for writer in self.writers:
                writer.discard()
            self.journal.remove()
            return
        for writer in self.writers:
            writer.keep_part = True
        say(f"{self.plan.out} is unfinished: add --resume to go on, or --force to start anew")
        if isinstance(error, OSError):
            raise SourceError(
                f"{self.plan.out} cannot be written: {error.strerror or error}; make room (or repair what is wrong) "
                "and go on with --resume"
            ) from error


def prepare_one(sample_id: str, origin: Origin, form: Form) -> Prepared | ImageError:
    """One image in the form in which it is stored, or why that is impossible."""
    try:
        return prepare(read_origin(origin), form)
    except ImageError as error:
        return ImageError(sample_id, str(origin), error.reason)
    except ValueError as error:
        return ImageError(sample_id, str(origin), str(error))
    except OSError as error:
        return ImageError(sample_id, str(origin), error.strerror or str(error))


def _is_complete(plan: BuildPlan) -> bool:
    """Whether there is nothing to resume because the outputs are there, made by this very build."""
    return not journal_path(plan.out).exists() and all(out.exists() for out in plan.outs) and plan.is_made()


def _measure_outs(plan: BuildPlan, report: BuildReport) -> None:
    report.samples, report.bytes, report.indexed = plan.measure(0)
    if len(plan.outs) > 1:
        samples, size, indexed = plan.measure(1)
        report.val = {"out": str(plan.outs[1]), "samples": samples, "bytes": size, "indexed": indexed}
