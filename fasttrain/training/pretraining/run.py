"""A run of pre-training, from settings to an encoder's weights."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fasttrain.base.console import say
from fasttrain.base.process import is_main
from fasttrain.models.checkpoint import CheckpointInfo
from fasttrain.training.pretraining.assemble import make_stepper
from fasttrain.training.pretraining.contrastive import MomentumContrast
from fasttrain.training.pretraining.features import described, warning_of
from fasttrain.training.pretraining.masked import MaskedAutoencoder
from fasttrain.training.pretraining.settings import PretrainSettings
from fasttrain.training.run import LAST, Trainer, run_job
from fasttrain.training.stepper import Stepper


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
    kept: list[Pretrainer] = []

    def make(*arguments: Any, **options: Any) -> Pretrainer:
        kept.append(Pretrainer(*arguments, **options))
        return kept[0]

    result = run_job(make, settings, resume)
    trainer = kept[0]
    figures = trainer.figures
    return PretrainResult(
        run=result.run,
        checkpoint=result.run / LAST,
        epochs=result.epochs,
        train_loss=trainer.position.train_loss,
        feature_std=figures.get("feature_std"),
        effective_rank=figures.get("effective_rank"),
        top_variance=figures.get("top_variance"),
        images_per_s=result.images_per_s,
        data_wait_fraction=result.data_wait_fraction,
        skipped=result.skipped,
    )


class Pretrainer(Trainer):
    """A run without labels.

    Attributes:
        figures: of the features, in the epoch that was finished last.
    """

    settings: PretrainSettings
    figures: dict[str, float]

    def _make_stepper(self, begins: bool) -> Stepper:
        self.figures = {}
        size, samples = self.eval_view.size, self.train_loader.num_samples
        return make_stepper(self.settings, self.device, size, samples, self.table)

    def _count_classes(self) -> int:
        return 0  # whatever labels there are

    def _own_figures(self) -> dict[str, Any]:
        module = self.stepper.module
        assert isinstance(module, MomentumContrast | MaskedAutoencoder)
        self.figures = module.statistics.take()
        if self.figures and is_main():
            say(described(self.figures))
            warning = warning_of(self.figures)
            if warning is not None:
                say(warning)
        return dict(self.figures)

    def _kept_weights(self) -> dict[str, Tensor]:
        return self._kept_model().get_submodule("encoder").state_dict()

    def _checkpoint_info(self, figures: dict[str, Any], averaged: bool) -> CheckpointInfo:
        return CheckpointInfo(
            model=self.settings.model,
            num_classes=0,
            class_names=None,
            eval_view=self.eval_view.model_dump(mode="json"),
            epoch=self.position.epoch,
            averaged=averaged,
        )
