"""A first convolution that whitens: its filters are principal components of patches of the data, scaled to equal power.

Page, "How to train your ResNet", 2019; with the negatives of the filters, as in tysam-code's hlb-CIFAR10 and Jordan's
airbench (arXiv 2404.00498).
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fasttrain.base.errors import ConfigError


@torch.no_grad()
def whiten_first_convolution(model: nn.Module, images: Iterable[Tensor], eps: float = 5e-4) -> int:
    """Replace filters of the first convolution of `model` by whitening ones and their negatives.

    They are the eigenvectors of the patches' second moments E[x xᵀ], divided by sqrt(eigenvalue + eps), those of the
    largest eigenvalues first. A convolution of F filters takes at most F // 2 of them; filters that are left over, and
    the bias, stay as they are.

    Args:
        images: (C, H, W) float32 each, normalised as the model will see them.
        eps: keeps components without power from being blown up.

    Returns:
        the number of components taken.

    Raises:
        ConfigError: the model does not begin with a convolution of at least two filters over all channels.
    """
    convolution = first_convolution(model)
    moments, patches = torch.zeros(()), 0
    for image in images:
        columns = F.unfold(image[None], convolution.kernel_size)[0].double()
        moments = moments + columns @ columns.T
        patches += columns.shape[1]
    if not patches:
        raise ConfigError("no image is as large as a filter of the first convolution, so there is nothing to whiten")
    powers, vectors = torch.linalg.eigh(moments / patches)
    scaled = (vectors / torch.sqrt(powers.clamp(min=0) + eps)).T.flip(0)  # eigh gives the largest last
    scaled = scaled * _signs(scaled)
    count = min(len(scaled), len(convolution.weight) // 2)
    filters = scaled[:count].reshape(count, *convolution.weight.shape[1:]).to(convolution.weight)
    convolution.weight[: 2 * count] = torch.cat([filters, -filters])
    return count


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """The convolution that looks at the images.

    Raises:
        ConfigError: there is none of at least two filters over all channels.
    """
    found = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if found is None or found.groups != 1 or found.out_channels < 2:
        raise ConfigError(f"{type(model).__name__} begins with no convolution that could whiten; leave out init")
    return found


def _signs(vectors: Tensor) -> Tensor:
    """(n, 1) of -1 and 1 that make the largest entry of each row positive: an eigenvector has no sign of its own."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -1.0, 1.0)
