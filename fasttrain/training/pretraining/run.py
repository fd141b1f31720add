"""A run of pre-training, from settings to an encoder's weights."""

from dataclasses import dataclass, field
from pathlib import Path

from fasttrain.base.runs import RunFolder
from fasttrain.training.pretraining.settings import PretrainSettings
from fasttrain.training.run import LAST, train


@dataclass(frozen=True)
class PretrainResult:
    """What `pretrain` returns; `checkpoint` holds the encoder, the figures are those of the last epoch.

    `feature_std`, `effective_rank` and `top_variance` are explained in `fasttrain.training.pretraining.features`; None
    where the run was over before.
    """

    run: Path
    checkpoint: Path
    epochs: int
    train_loss: float
    feature_std: float | None
    effective_rank: float | None
    top_variance: float | None
    images_per_s: float
    data_wait_fraction: float
    skipped: list[dict[str, str]] = field(default_factory=list)


def pretrain(settings: PretrainSettings, *, resume: bool = False) -> PretrainResult:
    """Train an encoder without labels; under torchrun every process calls this with the same settings.

    The run's folder is that of `fasttrain.training.run.train`, and its checkpoint holds the encoder alone, so that
    ``train --weights`` goes on from it.

    Args:
        resume: as `train` has it.

    Raises:
        ConfigError: the model does not suit the method, or as `train` has it.
        LoaderError, TrainingError, LaunchError, StoppedError: as `train` has it.
    """
    result = train(settings, resume=resume)
    last = RunFolder(result.run).read_metrics()[-1]
    return PretrainResult(
        run=result.run,
        checkpoint=result.run / LAST,
        epochs=result.epochs,
        train_loss=last["train_loss"],
        feature_std=last.get("feature_std"),
        effective_rank=last.get("effective_rank"),
        top_variance=last.get("top_variance"),
        images_per_s=result.images_per_s,
        data_wait_fraction=result.data_wait_fraction,
        skipped=result.skipped,
    )
