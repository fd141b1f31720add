"""Steps of MoCo and MAE on fixed batches, shared by the ranks of a job. Prints what they have come to as JSON on the
main rank.

[torchrun …] pretrain_steps.py
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
from fasttrain.models.create import create_model
from fasttrain.training.losses.criterion import Criterion
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.parallel import data_parallel
from fasttrain.training.pretraining.contrastive import ContrastCriterion, InfoNce, MomentumContrast
from fasttrain.training.pretraining.masked import Given, MaskedAutoencoder
from fasttrain.training.pretraining.settings import MaeSettings, MocoSettings
from fasttrain.training.settings import DdpSettings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from stepper_cases import make_stepper

SIZE, STEPS, CPU = 8, 3, torch.device("cpu")


class Encoder(nn.Module):
    """Notes which images came together."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 8)
        self.norm = nn.BatchNorm1d(8) if normalised else nn.Identity()
        self.seen: list[list[float]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images[:, 0, 0, 0].tolist())
        result: torch.Tensor = self.norm(self.linear(images.flatten(1)))
        return result


def moco(normalised: bool) -> dict[str, Any]:
    """Queue and weights after some steps, and who was together in the first one."""
    torch.manual_seed(0)
    module = MomentumContrast(Encoder(normalised), 8, MocoSettings(dim=6, momentum=0.5), 1)
    nce = InfoNce(module, 0.2, 32, 0, CPU)
    stepper = make_stepper(module, model=data_parallel(module, CPU, DdpSettings()), loss=ContrastCriterion(nce))
    for step in range(STEPS):
        torch.manual_seed(step)
        whole = torch.randn(2, SIZE, 3, 2, 2)
        whole[:, :, 0, 0, 0] = torch.arange(SIZE).float()
        images = whole.chunk(world_size(), 1)[rank()]
        count = images.shape[1]
        labels, valid = torch.full((count,), -1), torch.ones(count, dtype=torch.bool)
        stepper.step(Batch(images, labels, labels, valid), step, LaggedLoss(CPU))
    queues = gather_on_all(nce.queue)
    return {
        "queue": nce.queue.tolist(),
        "same_queues": all(torch.equal(queues[0], queue) for queue in queues),
        "weights": module.encoder.linear.weight.tolist(),  # type: ignore[union-attr]
        "queried": gather_on_all(module.encoder.seen[0]),  # type: ignore[union-attr, index]
        "keyed": gather_on_all(module.key_encoder.seen[0]),  # type: ignore[union-attr, index]
        "figures": module.statistics.take(),
    }


def mae() -> bool:
    """Whether all ranks have the same weights after some steps, which they have not by themselves."""
    torch.manual_seed(0)
    module = MaskedAutoencoder(
        create_model("test_vit", 0, size=64), MaeSettings(decoder_width=16, decoder_depth=1, decoder_heads=2)
    )
    model = data_parallel(module, CPU, DdpSettings())
    stepper = make_stepper(module, torch.optim.AdamW(module.parameters()), model=model, loss=Criterion(Given()))
    for step in range(2):
        torch.manual_seed(rank())
        labels = torch.full((2,), -1)
        batch = Batch(torch.randn(2, 3, 64, 64), labels, labels, torch.ones(2, dtype=torch.bool))
        stepper.step(batch, step, LaggedLoss(CPU))
    sums = gather_on_all([value.double().sum().item() for value in module.parameters()])
    return all(one == sums[0] for one in sums)


def main() -> None:
    found = {"plain": moco(normalised=False), "normalised": moco(normalised=True), "mae_in_step": mae()}
    if is_main():
        print(json.dumps(found))


if __name__ == "__main__":
    with process_group("cpu"):
        main()
