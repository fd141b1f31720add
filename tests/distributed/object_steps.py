"""Steps of object mapping on fixed batches, shared by the ranks of a job. Prints what they have come to as JSON on the
main rank.

[torchrun …] object_steps.py
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fasttrain.base.distributed import gather_on_all, process_group
from fasttrain.base.process import is_main, rank, world_size
from fasttrain.loading.batch import Batch
from fasttrain.models.objects.mapper import Sides
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.objects.losses import ObjectCriterion
from fasttrain.training.objects.settings import ContrastSettings
from fasttrain.training.parallel import data_parallel
from fasttrain.training.settings import DdpSettings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from stepper_cases import make_stepper

SIZE, STEPS, CPU = 8, 3, torch.device("cpu")


class Mapper(nn.Module):
    """A mapper without batch normalisation, whose statistics are each rank's own."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 1, 3, padding=1)
        self.across_ranks = True

    def forward(self, images: torch.Tensor) -> Sides:
        features = self.features(images).relu()
        maps = self.head(features).sigmoid()
        return Sides((features * maps).mean((2, 3)), (features * (1 - maps)).mean((2, 3)), maps)


def steps() -> dict[str, Any]:
    """Weights, figures and losses after some steps, and the loss of a batch that a rank tries by itself."""
    torch.manual_seed(0)
    module = Mapper()
    criterion = ObjectCriterion(ContrastSettings(), module)  # type: ignore[arg-type]
    stepper = make_stepper(module, model=data_parallel(module, CPU, DdpSettings()), loss=criterion)
    total = LaggedLoss(CPU)
    for step in range(STEPS):
        torch.manual_seed(step)
        images = torch.randn(SIZE, 3, 7, 7).chunk(world_size())[rank()]
        labels, valid = torch.full((len(images),), -1), torch.ones(len(images), dtype=torch.bool)
        batch = Batch(images, labels, labels, valid)
        stepper.step(batch, step, total)
    if is_main():
        stepper.try_batch(batch)  # the others do not wait for it
    weights = [parameter.flatten().tolist() for parameter in module.parameters()]
    return {
        "weights": weights,
        "same_weights": all(other == weights for other in gather_on_all(weights)),
        "loss": sum(gather_on_all(total.totals().tolist()[0])),
        "figures": criterion.borders.take(),
    }


def main() -> None:
    found = steps()
    if is_main():
        print(json.dumps(found))


if __name__ == "__main__":
    with process_group("cpu"):
        main()
