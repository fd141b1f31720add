"""Knowledge distillation: a teacher's scores as soft targets beside the labels (Hinton et al., arXiv 1503.02531)."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.base.errors import ConfigError
from fasttrain.inference.forward import Amp, autocast
from fasttrain.inference.labels import class_map
from fasttrain.loading.loader import Loader
from fasttrain.models.opened import open_model
from fasttrain.scores.table import ScoreTable
from fasttrain.training.settings import DistillSettings

# Images (B, 3, H, W) and ids (B,) of a batch to the teacher's scores (B, C), in the order of the student's classes.
Teacher = Callable[[Tensor, Tensor], Tensor]
_NAMED = 3  # ids that an error names
_AT_ONCE = 1 << 14  # rows of a table


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student from the teacher at a temperature, times its square; (B,) float32.

    Args:
        logits, teacher: (B, C); any scores that a softmax makes probabilities of.
    """
    return divergence(logits, teacher, temperature) * temperature**2


def divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``KL(teacher || student)`` at a temperature; (B,) float32.

    Args:
        logits, teacher: (B, C); any scores that a softmax makes probabilities of.
    """
    student = F.log_softmax(logits.float() / temperature, 1)
    target = F.log_softmax(teacher.float() / temperature, 1)
    return F.kl_div(student, target, reduction="none", log_target=True).sum(1)


def open_teacher(settings: DistillSettings, loader: Loader, size: int, amp: Amp) -> Teacher | None:
    """The teacher of `settings`: a score table of the training samples (``.arrow``), or a checkpoint that sees the
    student's own views; None without one.

    Args:
        loader: of the training data.
        size: side of its images in pixels.

    Raises:
        ConfigError: a table does not hold all samples, or other classes.
        WeightsError, ScoresError: it cannot be read.
        ClassMismatchError: a class of the data is unknown to the teacher.
    """
    if settings.teacher is None:
        return None
    if Path(settings.teacher).suffix == ".arrow":
        return _from_table(ScoreTable.read(settings.teacher), settings.teacher, loader)
    return _from_checkpoint(settings.teacher, loader, size, amp)


def _from_checkpoint(path: str, loader: Loader, size: int, amp: Amp) -> Teacher:
    opened = open_model(path, size=size, device=loader.device)
    module = opened.module.requires_grad_(False)
    outputs = class_map(loader.class_names or None, opened.class_names, opened.num_classes)
    order = torch.tensor(outputs, device=loader.device)

    def scores(images: Tensor, ids: Tensor) -> Tensor:
        with torch.no_grad(), autocast(images.device, amp):
            logits: Tensor = module(images)
        return logits[:, order]

    return scores


def _from_table(table: ScoreTable, name: str, loader: Loader) -> Teacher:
    """Scores lie on the loader's device as float16, so that no step waits for them."""
    columns = _columns(table.classes, loader, name)
    places = {sample: place for place, sample in enumerate(table.ids)}
    wanted = loader.string_ids(loader.rows)
    missing = [sample for sample in wanted if sample not in places]
    if missing:
        raise ConfigError(
            f"{name} has no scores of {len(missing)} training samples: {', '.join(missing[:_NAMED])}; predict the "
            "training data with the teacher"
        )
    scores = torch.zeros((loader.dataset.num_samples, len(columns)), dtype=torch.float16)
    for start in range(0, len(wanted), _AT_ONCE):
        part = np.array([places[sample] for sample in wanted[start : start + _AT_ONCE]])
        rows = torch.from_numpy(loader.rows[start : start + _AT_ONCE])
        scores[rows] = torch.from_numpy(table.log_probs(part)[:, columns]).half()
    scores = scores.to(loader.device)
    return lambda images, ids: scores[ids.clamp(min=0)]


def _columns(classes: Sequence[str], loader: Loader, name: str) -> list[int]:
    """Columns of a table's scores in the order of the data's classes."""
    if not loader.class_names:
        return list(range(len(classes)))
    if set(loader.class_names) != set(classes):
        raise ConfigError(f"{name} has other classes than {loader.dataset.name}; predict with a teacher of its classes")
    return [list(classes).index(label) for label in loader.class_names]
