"""A whole update of ResNet-50's and ViT-B's weights: clipping, AdamW or LAMB, moving average; ours beside theirs.

Clipping is never left out, and the average is lerped by torch's foreach where the optimizer does not move it itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from timm import create_model
from torch import Tensor

from fasttrain.training.optimizers.apex import apex_class
from fasttrain.training.optimizers.fused import FusedAdamW, FusedLamb, FusedOptimizer
from fasttrain.training.optimizers.lamb import Lamb
from gpu.common import Row, Task, repeated

NORM, SHARE = 1.0, 1e-4  # largest of the gradients; of the way that averages go
MODELS = {"ResNet-50": "resnet50", "ViT-B/16": "vit_base_patch16_224"}
# Reads and writes, of 4 bytes a weight. Clipping reads gradients for their norm, and in torch reads and writes them
# again; AdamW reads four tensors and writes three; the average reads itself and the weights, and writes itself. Our
# AdamW reads five and writes four at once; our LAMB reads four and writes two, twice. Other LAMBs are not counted.
PASSES = {"AdamW of torch": 1 + 2 + 7 + 3, "AdamW, ours": 1 + 5 + 4, "LAMB, ours": 1 + 6 + 6}


@dataclass
class Subject:
    """What is updated.

    Attributes:
        averages: those of the parameters.
    """

    parameters: list[torch.nn.Parameter]
    averages: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.averages = [parameter.detach().clone() for parameter in self.parameters]

    @classmethod
    def of(cls, shapes: list[tuple[int, ...]], device: torch.device) -> "Subject":
        """Weights and gradients of these shapes; the same each time."""
        generator = torch.Generator(device).manual_seed(0)
        found = []
        for shape in shapes:
            found.append(torch.nn.Parameter(torch.randn(shape, device=device, generator=generator)))
            found[-1].grad = torch.randn(shape, device=device, generator=generator)
        return cls(found)

    def by_parts(self, optimizer: torch.optim.Optimizer, clips: bool) -> Callable[[], None]:
        """An update of several calls."""
        values = [parameter.detach() for parameter in self.parameters]

        def work() -> None:
            if clips:
                torch.nn.utils.clip_grad_norm_(self.parameters, NORM, foreach=True)
            optimizer.step()
            torch._foreach_lerp_(self.averages, values, SHARE)

        return work

    def at_once(self, optimizer: FusedOptimizer) -> Callable[[], object]:
        """An update of one."""
        optimizer.average_into(dict(zip(self.parameters, self.averages, strict=True)))
        optimizer.average_decay = 1 - SHARE
        return optimizer.step


def _adamw_of_torch(subject: Subject) -> Callable[[], object]:
    fused = subject.parameters[0].is_cuda
    return subject.by_parts(torch.optim.AdamW(subject.parameters, 1e-3, weight_decay=0.05, fused=fused), True)


def _adamw_of_ours(subject: Subject) -> Callable[[], object]:
    _need_gpu(subject)
    return subject.at_once(FusedAdamW(subject.parameters, 1e-3, weight_decay=0.05, max_grad_norm=NORM))


def _lamb_by_foreach(subject: Subject) -> Callable[[], object]:
    return subject.by_parts(Lamb(subject.parameters, 1e-3, weight_decay=0.02, max_grad_norm=NORM), False)


def _lamb_of_apex(subject: Subject) -> Callable[[], object]:
    kind = _apex_lamb()
    _need_gpu(subject)
    return subject.by_parts(kind(subject.parameters, 1e-3, weight_decay=0.02, max_grad_norm=NORM), False)


def _lamb_of_ours(subject: Subject) -> Callable[[], object]:
    _need_gpu(subject)
    return subject.at_once(FusedLamb(subject.parameters, 1e-3, weight_decay=0.02, max_grad_norm=NORM))


def _apex_lamb() -> Callable[..., torch.optim.Optimizer]:
    from fasttrain.base.errors import ConfigError

    try:
        return apex_class("FusedLAMB")
    except ConfigError as error:
        raise ImportError(str(error)) from None


def _need_gpu(subject: Subject) -> None:
    if not subject.parameters[0].is_cuda:
        raise ImportError("these kernels run on CUDA GPUs alone")


SUBJECTS: dict[str, Callable[[Subject], Callable[[], object]]] = {
    "AdamW of torch": _adamw_of_torch,
    "AdamW, ours": _adamw_of_ours,
    "LAMB by foreach": _lamb_by_foreach,
    "LAMB of apex": _lamb_of_apex,
    "LAMB, ours": _lamb_of_ours,
}


def optimizers(task: Task) -> None:
    """Per model: are our updates theirs, and what does each take; its GB/s beside a copy of as many bytes."""
    for model, name in MODELS.items():
        with torch.device("meta"):
            shapes = [tuple(parameter.shape) for parameter in create_model(name).parameters()]
        shapes = shapes[:8] if task.small else shapes
        for kind, theirs, ours in (
            ("AdamW", _adamw_of_torch, _adamw_of_ours),
            ("LAMB", _lamb_by_foreach, _lamb_of_ours),
        ):
            task.attempt(
                f"{kind} of {model}, beside the unfused one", lambda s=shapes, t=theirs, o=ours: _compare(task, s, t, o)
            )
        for label, make in SUBJECTS.items():
            task.attempt(f"{label}, {model}", lambda s=shapes, m=make, n=label: _measure(task, s, m, PASSES.get(n)))


def _measure(
    task: Task, shapes: list[tuple[int, ...]], make: Callable[[Subject], Callable[[], object]], passes: int | None
) -> Row:
    """Milliseconds of an update; where its traffic is known, also bytes, GB/s and the share of a copy's."""
    subject = Subject.of(shapes, task.device)
    found = repeated(make(subject), task.device, 0.1 if task.small else 0.6)
    row: Row = {"ms": 1000 * found["median"], "ms_min": 1000 * found["min"], "ms_max": 1000 * found["max"]}
    if passes is not None:
        moved = 4 * passes * sum(parameter.numel() for parameter in subject.parameters)
        source = torch.zeros(moved // 2, dtype=torch.uint8, device=task.device)
        goal = torch.empty_like(source)
        copy = repeated(lambda: goal.copy_(source), task.device, 0.1 if task.small else 0.3)["median"]
        row |= {"gb": moved / 1e9, "gb_per_s": moved / found["median"] / 1e9, "share_of_copy": copy / found["median"]}
    return row


def _compare(
    task: Task,
    shapes: list[tuple[int, ...]],
    theirs: Callable[[Subject], Callable[[], object]],
    ours: Callable[[Subject], Callable[[], object]],
) -> Row:
    """Largest difference of weights and averages after three updates, in parts of the largest weight."""
    subjects = [Subject.of(shapes, task.device) for _ in range(2)]
    for subject, make in zip(subjects, (theirs, ours), strict=True):
        work = make(subject)
        for _ in range(3):
            work()
    worst = 0.0
    for kind in ("parameters", "averages"):
        for one, two in zip(*(getattr(subject, kind) for subject in subjects), strict=True):
            worst = max(worst, ((one - two).abs().max() / two.abs().max()).item())
    return {"difference": worst, "ok": worst <= 2e-6}
