"""A segmentation run from settings to checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path

from fasttrain.training.run import train
from fasttrain.training.segmentation.settings import SegmentSettings


@dataclass(frozen=True)
class SegmentResult:
    """What `train_segmenter` returns; `checkpoint` holds the last epoch's weights, `swa_miou` is that of the mean ones.

    Attributes:
        epochs: of the run; of one that is counted in iterations, its intervals.
    """

    run: Path
    checkpoint: Path
    epochs: int
    miou: float | None
    best_miou: float | None
    best_epoch: int | None
    swa_miou: float | None
    images_per_s: float
    data_wait_fraction: float
    skipped: list[dict[str, str]] = field(default_factory=list)


def train_segmenter(settings: SegmentSettings, *, resume: bool = False) -> SegmentResult:
    """Train a segmentation model; under torchrun every process calls this with the same settings.

    Args:
        resume: go on from the state in the run's folder; where there is none yet, begin.

    Raises:
        FasttrainError: as `fasttrain.training.run.train`; no masks, or classes that do not fit.
    """
    done = train(settings, resume=resume)
    return SegmentResult(
        run=done.run,
        checkpoint=done.checkpoint,
        epochs=done.epochs,
        miou=done.top1,
        best_miou=done.best_top1,
        best_epoch=done.best_epoch,
        swa_miou=done.swa_top1,
        images_per_s=done.images_per_s,
        data_wait_fraction=done.data_wait_fraction,
        skipped=done.skipped,
    )
