"""One step of AdamW or LAMB over all weights at once, clipping and the moving average of the weights included.

What such a step is given. `fasttrain.kernels.weight_update_plain` carries it out by plain torch, tensor by tensor: the
reference. `fasttrain.kernels.triton.weight_update` does it on a GPU, all tensors in the same few kernels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """Tensors that a step reads and changes. All float32, dense, each entry's of one shape and layout, on one device.

    Attributes:
        values: the weights themselves, N tensors.
        means, squares: running averages of each one's gradient and of its square.
        averages: the moving average of each, or None where none is kept.
        steps: (N,) float32; how many steps each has done.
        groups: N numbers of groups.
    """

    values: Sequence[Tensor]
    means: Sequence[Tensor]
    squares: Sequence[Tensor]
    averages: Sequence[Tensor] | None
    steps: Tensor
    groups: Sequence[int]


@dataclass(frozen=True)
class Rates:
    """How fast the weights of a group learn.

    Attributes:
        adapts: LAMB scales the group's updates by ||weights|| / ||update||.
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    adapts: bool = False


@dataclass(frozen=True)
class Clipping:
    """All gradients together times `norm` / (their L2 norm + `floor`), where that is below 1.

    Torch's `clip_grad_norm_` has a floor of 1e-6, LAMB has none. Norms that are not finite give what they give there.
    """

    norm: float
    floor: float = 0.0


@dataclass(frozen=True)
class Scaling:
    """Scaling of the loss in float16 training, in two 0-dim float32 tensors on the device.

    Attributes:
        scale: by which gradients are too large.
        found_inf: not 0 where a gradient is not finite; no weight moves then, and no step is counted.
    """

    scale: Tensor
    found_inf: Tensor
