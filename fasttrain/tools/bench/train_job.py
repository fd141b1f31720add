"""What a contestant of the training benchmark is asked to do, and who takes part."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fasttrain.tools.bench.loader_job import CONTESTANTS, Entrant

EQUAL, DEFAULTS = "equal", "defaults"  # whose settings a run has: the benchmark's, or each contestant's own

TRAINERS = (
    Entrant("fasttrain", f"{CONTESTANTS}.our_training:equal", "jpeg", (EQUAL,), ours=True),
    Entrant("timm", f"{CONTESTANTS}.timm_loop:equal", "jpeg", (EQUAL,), ("timm",)),
    Entrant("torchvision", f"{CONTESTANTS}.torchvision_reference:equal", "jpeg", (EQUAL,), ("torchvision",)),
    Entrant("lightning", f"{CONTESTANTS}.lightning_trainer:equal", "jpeg", (EQUAL,), ("lightning",)),
    Entrant("fasttrain-defaults", f"{CONTESTANTS}.our_training:defaults", "jpeg", (DEFAULTS,), ours=True),
    Entrant("timm-defaults", f"{CONTESTANTS}.timm_loop:defaults", "jpeg", (DEFAULTS,), ("timm",)),
)


@dataclass(frozen=True)
class TrainJob:
    """One run of one contestant.

    Attributes:
        function: ``module:function`` that takes the job and a `Watch`, trains, and returns the model.
        settings: ``equal``: all that stands here holds; ``defaults``: optimizer, schedule, augmentation, precision,
            memory format and workers are the contestant's own, as is the batch size, which stands here.
        weights: file that every contestant starts from, head included.
        images: to train on; those that fill no batch of an epoch are left out of it.
        val_images: to validate on after each epoch; 0 for none.
        mean, std, crop_pct, crop_mode, interpolation: of the model's eval view; the first two of training, too.
        scale: bounds of a random crop's share of the area.
        lr: at the peak, after `warmup_steps`; from there along a cosine to 0 at the last step.
        momentum: of SGD, Nesterov's.
        amp: ``off`` or ``bf16``.
        threads: of torch, and decoding threads or worker processes.
        uncounted: first steps, which images/s leaves out.
        files, val_files: folders of JPEG files, in one folder a class, named by the class's number; the second is empty
            where there is no validation.
        beton, val_beton: the same bytes.
    """

    function: str
    settings: str
    model: str
    weights: str
    classes: int
    images: int
    val_images: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    crop_mode: str
    interpolation: str
    scale: tuple[float, float]
    batch_size: int
    epochs: int
    optimizer: str
    lr: float
    weight_decay: float
    momentum: float
    warmup_steps: int
    amp: str
    channels_last: bool
    device: str
    threads: int
    seed: int
    uncounted: int
    files: str
    val_files: str
    beton: str
    val_beton: str
    target: float | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of the images."""
        return self.images // self.batch_size

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def fall_steps(self) -> int:
        """Steps from the first one at the peak to the last one."""
        return max(1, self.steps - 1 - self.warmup_steps)

    def lr_share(self, step: int) -> float:
        """Learning rate of a step, counted from 0, as a share of the peak: a line up, half a cosine down to 0 (SGDR
        without restarts, Loshchilov & Hutter, arXiv 1608.03983)."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - self.warmup_steps) / self.fall_steps)))

    def write(self, path: Path) -> None:
        """Store it for the contestant's process."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "TrainJob":
        """What `write` stored."""
        stored: dict[str, Any] = json.loads(path.read_text())
        lists = {key: tuple(value) for key, value in stored.items() if isinstance(value, list)}
        return cls(**{**stored, **lists})
