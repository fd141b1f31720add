"""One optimisation step: forward, backward, clipping, update, averaging."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from fasttrain.base.process import rank
from fasttrain.inference.forward import Amp, autocast
from fasttrain.loading.augment.mixing import Mixer
from fasttrain.loading.batch import Batch, MaskedBatch, all_views, first_view, split_batch
from fasttrain.models.heads import alone
from fasttrain.training.averaging import Averaging
from fasttrain.training.distillation import Teacher, distillation_loss
from fasttrain.training.freezing import frozen_norms
from fasttrain.training.losses.base import BatchLoss
from fasttrain.training.losses.criterion import plain_criterion
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.schedule import Schedule
from fasttrain.training.settings import DistillSettings
from fasttrain.training.sharpness import ascended
from fasttrain.training.swa import WeightAverage


@dataclass
class Stepper:
    """Model, optimizer and what belongs to a step.

    Attributes:
        module: the model itself.
        model: what is called: the model, compiled or under DDP where that is wanted.
        ema: moving average of the model, or None.
        clip_norm: largest L2 norm of the gradients; 0: they are not clipped, or the optimizer does that.
        swa: mean of the model at the ends of epochs, or None.
        label_smoothing: of the cross-entropy, where no `loss` is given.
        micro_batch: images that pass through the model at a time; None for all of a batch. The gradient is that of the
            whole batch (batch statistics are those of each part).
        sam_rho: radius of sharpness-aware minimisation; 0 turns it off.
        teacher: gives the soft targets of a batch, or None; how much they count, and how soft they are, is said in
            `distill`.
        loss: gives each sample's loss, by its label, or by its mask where the batch has some; in training the model may
            give several rows of logits for each image (see `fasttrain.models.heads.InTraining`).
        mixing: mixes the images of a batch, and their labels, or None.
    """

    module: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ema: ModelEmaV3 | None
    device: torch.device
    amp: Amp
    clip_norm: float
    seed: int
    label_smoothing: float = 0.0
    swa: WeightAverage | None = None
    micro_batch: int | None = None
    sam_rho: float = 0.0
    teacher: Teacher | None = None
    distill: DistillSettings = field(default_factory=DistillSettings)
    loss: BatchLoss | None = None
    mixing: Mixer | None = None
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp == "fp16")
        self._frozen_norms = frozen_norms(self.module)
        self._averaging = None if self.ema is None else Averaging(self.ema, self.module, self.optimizer)
        self._graph_unknown = bool(getattr(self.model, "static_graph", False))  # to DDP, that relies on it
        self.criterion: BatchLoss = self.loss or plain_criterion(self.label_smoothing)

    def train(self) -> None:
        """Put the model into training mode; frozen normalisation layers keep their statistics."""
        self.model.train()
        for module in self._frozen_norms:
            module.eval()

    def step(self, batch: Batch, global_step: int, loss_sum: LaggedLoss) -> None:
        """One optimisation step on a batch; masked samples have no part in the loss."""
        samples = batch.valid.sum()
        batch, targets = self._prepared(batch, global_step)
        if self._graph_unknown:
            self._record_graph(batch)
        # Seeding by the step's number makes dropout the same after a resume, with no generator state to store.
        torch.manual_seed(hash((self.seed, global_step, rank())) & 0x7FFF_FFFF_FFFF_FFFF)
        self.schedule.apply(self.optimizer, global_step)
        if self._averaging is not None:
            self._averaging.before(global_step)
        self._update(batch, targets, samples, loss_sum)
        self.criterion.end_step()
        if self._averaging is not None:
            self._averaging.after(global_step)

    def _prepared(self, batch: Batch, global_step: int) -> tuple[Batch, Tensor | None]:
        """What a step learns from: the batch, mixed, and targets (B, C) where its labels are mixed, too."""
        return (batch, None) if self.mixing is None else self.mixing(batch, global_step)

    # --- what is kept of it -----------------------------------------------------------------------------------------

    saves_beside: ClassVar[bool] = False  # whether the weights of `beside` are saved, too
    images_a_sample: ClassVar[int] = 1  # in a batch, of what the batch size counts

    @property
    def kept(self) -> nn.Module:
        """The model that is measured and saved: the average, where there is one."""
        return self.module if self.ema is None else self.ema.module

    @property
    def beside(self) -> tuple[str, nn.Module] | None:
        """Another model that is measured with it, and how its figures are called."""
        return None if self.ema is None else ("raw", self.module)

    def take_figures(self) -> dict[str, Any]:
        """Figures of the steps of an epoch, besides the loss, over all ranks; all of them call it."""
        return {}

    def rank_state(self) -> dict[str, Any]:
        """What of a run's state is each rank's own, besides statistics: tensors on the CPU and plain values."""
        return {}

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Go on from what `rank_state` gave."""

    def try_batch(self, batch: Batch) -> None:
        """Forward and backward of a batch at once, on this rank alone; nothing but its gradients is kept."""
        batch, _ = self._prepared(batch, 0)
        with self._exchange(False), alone(self.module), self.criterion.unobserved():
            self._losses(batch, bare=self._graph_unknown).sum().backward()

    def _record_graph(self, batch: Batch) -> None:
        """Let DDP note a static graph where steps have passes that exchange no gradients: it does so in a process's
        first pass, which must exchange them. Nothing is learned, and statistics are put back."""
        part = split_batch(batch, self.micro_batch or len(batch.labels))[0]
        if self.sam_rho > 0 or len(part.labels) < len(batch.labels):
            buffers = [buffer.clone() for buffer in self.module.buffers()]
            with self.criterion.unobserved():
                self._losses(part).sum().backward()
            self.optimizer.zero_grad()
            for buffer, before in zip(self.module.buffers(), buffers, strict=True):
                buffer.copy_(before)
        self._graph_unknown = False

    def _update(self, batch: Batch, targets: Tensor | None, samples: Tensor, loss_sum: LaggedLoss) -> None:
        self.optimizer.zero_grad()  # to None, by default; apex takes no argument
        if self.sam_rho > 0:
            # Each rank climbs by the gradient of its own samples, so only the second one is averaged over them.
            losses = self._backward(batch, targets, samples, averaged=False)
            with ascended(self.module, self.sam_rho), self.criterion.unobserved():
                self.optimizer.zero_grad()
                self._backward(batch, targets, samples)
        else:
            losses = self._backward(batch, targets, samples)
        if self.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        loss_sum.add(losses, samples)

    def _backward(self, batch: Batch, targets: Tensor | None, samples: Tensor, averaged: bool = True) -> Tensor:
        """Add the gradient of the batch's mean loss; the sum of its losses, 0-dim.

        Args:
            targets: (B, C) soft ones instead of the labels.
            averaged: over the ranks.
        """
        total = torch.zeros((), device=samples.device)
        size = self.micro_batch or len(batch.labels)
        parts = split_batch(batch, size)
        soft = [None] * len(parts) if targets is None else targets.split(size)
        for number, (part, wanted) in enumerate(zip(parts, soft, strict=True), 1):
            with self._exchange(averaged and number == len(parts)):
                loss = self._losses(part, wanted).sum()
                self.scaler.scale(loss / samples.clamp(min=1)).backward()
            total = total + loss.detach()
        return total

    def _losses(self, batch: Batch, targets: Tensor | None = None, bare: bool = False) -> Tensor:
        """(B,) float32, 0 for masked samples.

        Args:
            targets: (B, C) soft ones instead of the labels.
            bare: of the model itself, without DDP or what was compiled around it.
        """
        with autocast(self.device, self.amp):
            logits = (self.module if bare else self.model)(all_views(batch.images))
        truth = batch.masks if isinstance(batch, MaskedBatch) else batch.labels.clamp(min=0)
        losses = self.criterion(logits, truth, batch.valid, targets)
        if self.teacher is not None:
            scores = self.teacher(first_view(batch.images), batch.ids)
            # Of the first view, and of the features themselves where the head gives several rows for an image.
            soft = distillation_loss(logits[: len(scores)], scores, self.distill.temperature)
            losses = torch.lerp(losses, soft, self.distill.weight)
        return torch.where(batch.valid, losses, 0.0)

    def _exchange(self, wanted: bool) -> AbstractContextManager[None]:
        """Whether DDP averages the gradients that are added inside."""
        no_sync = getattr(self.model, "no_sync", None)
        return nullcontext() if wanted or no_sync is None else no_sync()
