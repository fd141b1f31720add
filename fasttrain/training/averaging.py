"""The moving average of a model, whose parameters a fused optimizer averages in the pass of its update."""

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from fasttrain.training.optimizers.fused import FusedOptimizer


class Averaging:
    """Moves `ema` with each step: all of it after the step, or the buffers alone where `optimizer` does the rest."""

    def __init__(self, ema: ModelEmaV3, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.ema, self.module = ema, module
        self.optimizer = optimizer if isinstance(optimizer, FusedOptimizer) else None
        if self.optimizer is not None:
            self.optimizer.average_into(dict(zip(module.parameters(), ema.module.parameters(), strict=True)))

    def before(self, step: int) -> None:
        """Called before the optimizer takes a step, which is counted from 0 over all epochs."""
        if self.optimizer is not None:
            self.optimizer.average_decay = self.ema.get_decay(step)

    def after(self, step: int) -> None:
        """Called after it."""
        if self.optimizer is None:
            self.ema.update(self.module, step=step)
        else:
            average_buffers(self.ema, self.module, self.ema.get_decay(step))


@torch.no_grad()
def average_buffers(ema: ModelEmaV3, module: nn.Module, decay: float) -> None:
    """What `ModelEmaV3.update` does, less the parameters."""
    if ema.exclude_buffers:
        for average, buffer in zip(ema.module.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)
        return
    averages, buffers = _stored_buffers(ema.module), _stored_buffers(module)
    floating = [name for name, buffer in buffers.items() if buffer.is_floating_point()]
    if floating:
        torch._foreach_lerp_([averages[name] for name in floating], [buffers[name] for name in floating], 1.0 - decay)
    for name in buffers.keys() - set(floating):
        averages[name].copy_(buffers[name])


def _stored_buffers(module: nn.Module) -> dict[str, Tensor]:
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in parameters}
