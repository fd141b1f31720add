"""A few steps on fixed batches, shared by the ranks of a job. Prints what they have come to as JSON on the main rank.

[torchrun …] loss_steps.py KIND     eql, former or former-alone (an encoder for each rank's own images)
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from fasttrain.base.distributed import process_group
from fasttrain.base.process import is_main, rank, world_size
from fasttrain.loading.batch import Batch
from fasttrain.models.batch_former import BatchFormerSettings
from fasttrain.models.heads import HeadSettings, add_training_parts
from fasttrain.training.losses.base import Facts
from fasttrain.training.losses.criterion import make_criterion
from fasttrain.training.losses.settings import LossSettings
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.parallel import data_parallel
from fasttrain.training.settings import DdpSettings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from stepper_cases import make_stepper

SIZE, CLASSES, STEPS = 12, 4, 3


class Model(nn.Module):
    """As timm has them: features, then the classifier that the record names."""

    pretrained_cfg = {"classifier": "fc"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Linear(12, 8), nn.Linear(8, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc(torch.tanh(self.stem(images.flatten(1))))
        return result


def main(kind: str) -> None:
    device = torch.device("cpu")
    torch.manual_seed(0)
    module = Model()
    across = kind == "former"
    former = BatchFormerSettings(layers=0 if kind == "eql" else 1, dropout=0.0, across_ranks=across)
    add_training_parts(module, HeadSettings(), former)
    loss = LossSettings(kind="softmax_eql" if kind == "eql" else "ce")
    stepper = make_stepper(
        module,
        torch.optim.SGD(module.parameters(), lr=0.5),
        model=data_parallel(module, device, DdpSettings()),
        loss=make_criterion(loss, HeadSettings(), 0.0, Facts(CLASSES)),
    )
    for step in range(STEPS):
        torch.manual_seed(step)
        whole = torch.randn(SIZE, 3, 2, 2), torch.randint(0, CLASSES, (SIZE,)).clamp(max=2)
        images, labels = (part.chunk(world_size())[rank()] for part in whole)
        batch = Batch(images, labels, labels, torch.ones(len(labels), dtype=torch.bool))
        stepper.step(batch, step, LaggedLoss(device))
    if is_main():
        statistics = {key: value.tolist() for key, value in stepper.criterion.state_dict().items()}
        weights = {key: value.flatten().tolist() for key, value in module.state_dict().items()}
        print(json.dumps({"statistics": statistics, "weights": weights}))


if __name__ == "__main__":
    with process_group("cpu"):
        main(sys.argv[1])
