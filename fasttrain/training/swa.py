"""Stochastic weight averaging (Izmailov et al., UAI 2018, arXiv 1803.05407)."""

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

from fasttrain.inference.forward import Amp
from fasttrain.inference.statistics import estimate_statistics
from fasttrain.loading.loader import Loader


class WeightAverage:
    """The mean of a model's weights at the end of each epoch from `start` (counted from 0) on.

    Attributes:
        model: holds the mean; its normalisation statistics are right after `estimate_statistics` only.
    """

    def __init__(self, module: nn.Module, start: int) -> None:
        self.model = AveragedModel(module)
        self.start = start

    @property
    def count(self) -> int:
        """How many epochs are in the mean."""
        return int(self.model.n_averaged)

    def end_epoch(self, module: nn.Module, epoch: int) -> None:
        """Take up the weights of `module` at the end of `epoch`."""
        if epoch >= self.start:
            self.model.update_parameters(module)

    def estimate_statistics(self, loader: Loader, amp: Amp) -> None:
        """Means and variances of normalisation layers anew, those of one pass over training views, over all ranks."""
        estimate_statistics(self.model.module, loader, amp)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was asked for."""
        self.model.load_state_dict(state)
