"""Whether a model takes the sizes of images that a run will show it, found out before the first step."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from fasttrain.base.errors import ConfigError
from fasttrain.inference.forward import Amp, refusal
from fasttrain.training.distillation import Teacher


def check_sizes(
    name: str, module: nn.Module, teacher: Teacher | None, sizes: Iterable[int], device: torch.device, amp: Amp
) -> None:
    """Show a model, and its teacher, one black image of each size.

    Args:
        name: of the model.
        sizes: sides in pixels.

    Raises:
        ConfigError: one of them fails on it.
    """
    nobody = torch.zeros(2, dtype=torch.long, device=device)
    shown: dict[str, Callable[[Tensor], Tensor]] = {name: module}
    if teacher is not None:
        shown["the teacher"] = lambda image: teacher(image, nobody)
    training = module.training
    module.eval()
    try:
        for size in sorted(set(sizes)):
            image = torch.zeros(2, 3, size, size, device=device)  # two, since some compare views
            for what, call in shown.items():
                reason = refusal(call, image, amp)
                if reason is not None:
                    raise ConfigError(_sentence(what, size, reason, what == name and _is_fixed(module)))
    finally:
        module.train(training)


def _is_fixed(module: nn.Module) -> bool:
    """Whether timm made a model for images of one size."""
    fixed = getattr(getattr(module, "patch_embed", None), "strict_img_size", None)
    if fixed is None:
        fixed = getattr(module, "pretrained_cfg", {}).get("fixed_input_size", False)
    return bool(fixed) and not getattr(module, "dynamic_img_size", False)


def _sentence(what: str, size: int, reason: str, fixed: bool) -> str:
    told = f"size_schedule shows images of {size} pixels, and {what} does not take them ({reason})"
    if fixed:
        return f"{told}; --set dynamic_img_size=true has timm make a model for any size, where it knows how"
    return f"{told}; take other sizes, or another model"
