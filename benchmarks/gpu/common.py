"""What the sections share: the task, its clock, its rows."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
BEGUN = "it was at work when its process ended"  # what a row says until it is done


@dataclass(frozen=True)
class Task:
    """What is measured, and on what.

    Attributes:
        photos: folder of JPEG files.
        images: as many are decoded; the photos are repeated.
        small: a try on a CPU: tiny sizes, and figures that say nothing.
        rows: file that each row is appended to as soon as it is known, so that it survives a section that hangs.
        ends: by `time.monotonic`.
    """

    photos: Path
    device: torch.device
    images: int
    small: bool
    rows: Path
    ends: float

    def left(self) -> float:
        """Seconds of the section's budget."""
        return self.ends - time.monotonic()

    def add(self, row: Row) -> None:
        with self.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def attempt(self, name: str, measure: Callable[[], Row]) -> None:
        """Add a row, or why there is none. Of rows with the same name the last one counts."""
        self.add({"name": name, "error": BEGUN})
        if self.left() <= 0:
            self.add({"name": name, "error": "the section's time was over"})
            return
        try:
            self.add({"name": name, **measure()})
        except ImportError as error:
            self.add({"name": name, "missing": str(error)})
        except Exception as error:
            lines = str(error).strip().splitlines()
            self.add({"name": name, "error": f"{type(error).__name__}: {lines[0] if lines else 'no message'}"})


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds from the first to the last of its work on the device (CUDA events), or on the CPU."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def repeated(work: Callable[[], object], device: torch.device, budget: float, rounds: int = 5) -> dict[str, float]:
    """Seconds of one call: median, least and largest of several rounds of as many calls as the budget allows."""
    for _ in range(2):  # compiles kernels and fills the allocator's cache
        work()
    once = max(seconds_of(work, device), 1e-6)
    calls = int(min(200, max(1, budget / rounds / once)))

    def some() -> None:
        for _ in range(calls):
            work()

    found = [seconds_of(some, device) / calls for _ in range(rounds)]
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def jpegs(task: Task, most: int | None = None) -> list[bytes]:
    """The photos' bytes in memory; RGB only, which every decoder takes."""
    from PIL import Image

    found = []
    for path in sorted(task.photos.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg") and len(found) < (most or task.images):
            with Image.open(path) as image:
                if image.mode == "RGB":
                    found.append(path.read_bytes())
    if not found:
        raise FileNotFoundError(f"there is no RGB photo in {task.photos}")
    return found


def psnr_row(ours: list[torch.Tensor], theirs: list[torch.Tensor], least: tuple[float, float]) -> Row:
    """PSNR (dB) of images in 0–1: of the mean image, of the worst, and whether both are at least as `least` says."""
    errors = [(one.double() - other.double()).square().mean() for one, other in zip(ours, theirs, strict=True)]
    each = -10 * torch.log10(torch.stack(errors) + 1e-12)
    mean, worst = float(each.mean()), float(each.min())
    return {"psnr_mean": mean, "psnr_worst": worst, "ok": mean >= least[0] and worst >= least[1]}
