"""`bench loader`: batches a second from one set of images, by this package and by the peers that are installed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import available_cores
from fasttrain.tools.bench import loader_data as data
from fasttrain.tools.bench.loader_job import Entrant, LoaderJob, absence, choose, entrants
from fasttrain.tools.bench.measure import (
    Contestant,
    Outcome,
    interleaved,
    machine_facts,
    python_command,
    ratio,
    scratch_folder,
)
from fasttrain.tools.bench.page_cache import drop

WORKS = ("train", "eval", "raw")
DTYPES = ("float32", "float16")
WARMUP = 4  # batches that are not counted
COUNTED = 20  # batches that are, at the least
TIMEOUT_S = 300.0  # FFCV hangs for ever when one of its workers fails


@dataclass(frozen=True)
class LoaderBench:
    """What is measured, and how.

    Attributes:
        works: of ``train``, ``eval`` and ``raw``; see `LoaderJob`.
        threads: of each contestant; several give a curve. The cores at hand by default.
        limit: only so many images; by default as many as one epoch of the benchmark shows.
        repeat: passes over the images in an epoch; by default enough for 20 counted batches, 8 a worker.
        cold: from files that are not in the page cache, see `bench_loader`.
        only: names of contestants; empty for all that are installed.
        backends: of this package's Loader; empty for all.
        timeout_s: for one run of one contestant.
        scratch: folder for the prepared images (a temporary one by default); removed afterwards.
    """

    works: Sequence[str] = ("train",)
    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    dtype: str = "float32"
    batch_size: int = 256
    threads: Sequence[int] = ()
    rounds: int = 5
    limit: int | None = None
    repeat: int | None = None
    cold: bool = False
    only: Sequence[str] = ()
    backends: Sequence[str] = ()
    timeout_s: float = TIMEOUT_S
    scratch: Path | None = None


def bench_loader(source: Path, settings: LoaderBench | None = None) -> dict[str, Any]:
    """Load the images of `source` again and again, all contestants in turns.

    Every contestant reads the same JPEG bytes (for ``raw``: pixels) from a warm page cache with as many workers, in a
    fresh process each round. The `.beton` holds the random-access index of each JPEG beside it: ``native`` uses it,
    ``fasttrain-libjpeg`` is the same without. Not counted: starting Python, importing packages, and the first four
    batches. Batches are checked, so that nobody wins by not working.

    With ``cold``, the files are out of the page cache when a run begins, and no image of an epoch is read twice:
    instead of several passes over the images there are as many copies of them. Folders and file sizes that the system
    knows, and what the device or the host of a virtual machine keeps in memory, stay as they are.

    Returns:
        machine, results and ratios, as all ``bench`` commands give them. Ratios compare equal work, source, cache and
        threads.

    Raises:
        ConfigError: too few images, settings that cannot be, or (cold) a disk that is too small or lies in memory.
        SourceError: `source` cannot be read.
    """
    settings = settings or LoaderBench()
    known, chosen = _contestants(settings)
    threads = list(settings.threads) or [available_cores()]
    longest = max(_shown(settings, number) for number in threads)
    samples = data.choose_samples(source, settings.limit or longest)
    outcomes: list[list[tuple[Entrant, Outcome]]] = []
    with scratch_folder(settings.scratch) as folder:
        if settings.cold:
            samples = data.copies(samples, settings.repeat or math.ceil(longest / len(samples)))
            _check_room(samples, folder, settings, chosen)
        base, mean_bytes = _prepare(samples, folder, settings, chosen, max(threads))
        for work in settings.works:
            entered = [entrant for entrant in chosen if work in entrant.works]
            for number in threads:
                job = _sized(replace(base, work=work, threads=number), settings)
                outcomes.append(_measure(job, entered, folder, settings))
    return {
        "machine": machine_facts(),
        "images": base.images,
        "mean_bytes": mean_bytes,
        "size": settings.size,
        "scale": list(settings.scale),
        "batch_size": settings.batch_size,
        "results": [outcome.as_json() for group in outcomes for _, outcome in group],
        "ratios": [entry for group in outcomes for entry in ratios_to_peers(group)],
        "missing": [f"{entrant.name}: {absence(entrant)}" for entrant in known if entrant.missing()],
    }


def _contestants(settings: LoaderBench) -> tuple[list[Entrant], list[Entrant]]:
    """All that there are and the chosen ones, after a look at the settings."""
    from fasttrain.loading.backend import BACKENDS, available_backends

    # Through the Loader, FFCV is the contestant of that name, and it reads one file once.
    ours = [name for name in BACKENDS if name != "ffcv"]
    for what, values, allowed in (
        ("work", settings.works, WORKS),
        ("dtype", [settings.dtype], DTYPES),
        ("backend", settings.backends, ours),
    ):
        wrong = [value for value in values if value not in allowed]
        if wrong:
            raise ConfigError(f"there is no {what} {wrong[0]!r}; choose of {', '.join(allowed)}")
    if not 0 < settings.scale[0] <= settings.scale[1] <= 1:
        raise ConfigError(f"scale must be two shares of the area, the smaller one first, not {settings.scale}")
    known = entrants(settings.backends or [name for name in available_backends() if name in ours])
    chosen = choose(known, settings.only)
    for work in settings.works:
        if not any(work in entrant.works for entrant in chosen):
            raise ConfigError(f"no chosen contestant does the work {work!r}")
    return known, chosen


def curve_of(most: int) -> list[int]:
    """Numbers of workers to measure with: 1, 2, 4, … and `most`."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def _tail(threads: int) -> int:
    """Batches after the counted ones, so that the clock stops while every worker still has something to do."""
    return max(4, 2 * threads)


def _shown(settings: LoaderBench, threads: int) -> int:
    """Images of an epoch, unless `repeat` says otherwise."""
    return (WARMUP + max(COUNTED, 8 * threads) + _tail(threads)) * settings.batch_size


def _sized(job: LoaderJob, settings: LoaderBench) -> LoaderJob:
    passes = 1 if settings.cold else settings.repeat or math.ceil(_shown(settings, job.threads) / job.images)
    counted = passes * job.images // job.batch_size - WARMUP - _tail(job.threads)
    if counted < 1:
        raise ConfigError(
            f"{job.images} images, {passes} times, are too few batches of {job.batch_size}: use a larger --repeat"
        )
    return replace(job, passes=passes, counted=counted)


def _check_room(samples: data.SampleList, folder: Path, settings: LoaderBench, chosen: list[Entrant]) -> None:
    names = {entrant.name for entrant in chosen}
    forms = 2.05 + ("webdataset" in names) + 1.5 * ("ffcv-jpg" in names)  # which re-encodes them, larger than most are
    data.check_room(samples, folder, forms, raw="raw" in settings.works)


def _prepare(
    samples: data.SampleList, folder: Path, settings: LoaderBench, chosen: list[Entrant], threads: int
) -> tuple[LoaderJob, int]:
    """Store the images in each form that somebody wants: the job without its sizes, and bytes an image."""
    workers = available_cores()
    names = {entrant.name for entrant in chosen}
    job = LoaderJob(
        function="",
        work="",
        size=settings.size,
        scale=settings.scale,
        dtype=settings.dtype,
        batch_size=settings.batch_size,
        threads=threads,
        warmup=WARMUP,
        counted=0,
        passes=1,
        images=len(samples),
        files=str(folder / "files"),
        tars=str(folder / "tars"),
        beton=str(folder / "keep.beton"),
        ffcv_jpg=str(folder / "ffcv.beton"),
        mean=(),
        std=(),
        cold=settings.cold,
    )
    say(f"preparing {len(samples)} images")
    data.write_beton(samples, Path(job.beton), raw=False, workers=workers)
    mean_bytes = data.write_files(Path(job.beton), Path(job.files))
    if "raw" in settings.works:
        data.write_beton(samples, folder / "raw.beton", raw=True, workers=workers)
    if "webdataset" in names:
        data.write_tars(Path(job.files), Path(job.tars), shards=max(8, 4 * threads))
    if "ffcv-jpg" in names and set(settings.works) != {"raw"}:
        data.write_ffcv_jpg(Path(job.files), folder / "links", Path(job.ffcv_jpg), workers)
    mean, std = data.expected_statistics(Path(job.files))
    if not settings.cold:
        data.warm(folder.rglob("*"))
    return replace(job, mean=mean, std=std), mean_bytes


def _measure(
    job: LoaderJob, entered: list[Entrant], folder: Path, settings: LoaderBench
) -> list[tuple[Entrant, Outcome]]:
    contestants = []
    for entrant in entered:
        path = folder / f"{entrant.name}_{job.work}_{job.threads}.json"
        beton = str(folder / "raw.beton") if job.work == "raw" else job.beton
        replace(job, function=entrant.function, beton=beton).write(path)
        source = entrant.source or ("raw" if job.work == "raw" else "jpeg")
        cache = "cold" if job.cold else "warm"
        labels = {"work": job.work, "source": source, "dtype": job.dtype, "threads": job.threads, "cache": cache}
        command = python_command("fasttrain.tools.bench.loader_run", path)
        contestants.append(Contestant(entrant.name, labels, command, "images/s"))
    make_cold = (lambda: drop(folder.rglob("*"))) if job.cold else None
    outcomes = interleaved(contestants, settings.rounds, settings.timeout_s, make_cold)
    return list(zip(entered, outcomes, strict=True))


def ratios_to_peers(group: list[tuple[Entrant, Outcome]]) -> list[dict[str, Any]]:
    """Each of ours over each peer that had the same labels, fastest peer first."""
    found = []
    outcomes = [outcome for _, outcome in group]
    for ours in (outcome for entrant, outcome in group if entrant.ours):
        labels = ours.contestant.labels
        peers = [outcome for entrant, outcome in group if not entrant.ours and outcome.contestant.labels == labels]
        entries = [ratio(outcomes, ours.contestant.name, peer.contestant.name) for peer in peers]
        ranked = sorted((entry for entry in entries if entry is not None), key=lambda entry: entry["ratio"])
        found += [{**entry, **labels, "fastest_peer": rank == 0} for rank, entry in enumerate(ranked)]
    return found
