"""Lightning: a LightningModule and its Trainer, fed by a DataLoader with persistent workers.

Logger, progress bar and checkpoints of the Trainer are off; the loss and the validation top-1 are logged, as in
Lightning's own examples.
"""

import logging
import warnings
from typing import Any

import torch
from lightning import pytorch as lightning
from torch import nn
from torch.utils.data import DataLoader

from fasttrain.tools.bench.contestants.train_parts import (
    NumberedFolder,
    eval_transform,
    hits,
    make_model,
    make_optimizer,
    make_schedule,
    train_transform,
)
from fasttrain.tools.bench.train_job import TrainJob
from fasttrain.tools.bench.train_watch import Watch


class Classifier(lightning.LightningModule):
    """The model, its loss, optimizer and schedule."""

    def __init__(self, job: TrainJob) -> None:
        super().__init__()
        self.job = job
        self.model = make_model(job, job.channels_last)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = make_optimizer(self.job, self.model)
        schedule = {"scheduler": make_schedule(self.job, optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.model(self._formatted(images)), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> None:
        images, labels = batch
        share = hits(self.model(self._formatted(images)), labels, 1) / len(images)
        self.log("val_top1", share, on_epoch=True, batch_size=len(images))

    def _formatted(self, images: torch.Tensor) -> torch.Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.job.channels_last else images


class Watching(lightning.Callback):
    """Tells the `Watch`."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._lr = 0.0
        self._validating: Any = None

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._watch.epoch_begins()

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: torch.optim.Optimizer) -> None:
        self._lr = optimizer.param_groups[0]["lr"]  # the schedule has moved on when the batch ends

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
        self._watch.step(outputs["loss"], len(batch[0]), self._lr)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        self._validating = self._watch.validating()
        self._validating.__enter__()

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self._validating.__exit__(None, None, None)
        self._watch.validated(float(trainer.callback_metrics["val_top1"]))


def equal(job: TrainJob, watch: Watch) -> nn.Module:
    """With the job's settings."""
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = Classifier(job)
    training = _loader(job, NumberedFolder(job.files, train_transform(job)), shuffle=True, drop_last=True)
    validation = _loader(job, NumberedFolder(job.val_files, eval_transform(job))) if job.val_files else None
    trainer = lightning.Trainer(
        accelerator="gpu" if job.device.startswith("cuda") else "cpu",
        devices=1,
        max_epochs=job.epochs,
        precision="bf16-mixed" if job.amp == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Watching(watch)],
    )
    trainer.fit(module, training, validation)
    return module.model.to(job.device)


def _loader(job: TrainJob, images: NumberedFolder, **options: Any) -> Any:
    return DataLoader(
        images,
        batch_size=job.batch_size,
        num_workers=job.threads,
        persistent_workers=True,
        pin_memory=job.device.startswith("cuda"),
        **options,
    )
