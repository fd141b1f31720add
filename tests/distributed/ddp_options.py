"""One process of a job that takes a few steps under DDP, once for each case.

    [torchrun …] ddp_options.py OUT CASES_JSON

A case is {"micro_batch": …, "sam_rho": …, "ddp": {…}}. All ranks together see batches of `GLOBAL_BATCH` samples,
whatever their number. The weights of a case go to OUT/NAME.safetensors; the main rank prints one JSON object of all.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import distributed

from fasttrain.base.distributed import process_group
from fasttrain.base.process import is_main, rank, world_size
from fasttrain.loading.batch import Batch
from fasttrain.models.create import create_model
from fasttrain.training.epochs import EpochTable
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.parallel import data_parallel
from fasttrain.training.schedule import Schedule
from fasttrain.training.schedule_settings import ScheduleSettings
from fasttrain.training.settings import DdpSettings
from fasttrain.training.stepper import Stepper

GLOBAL_BATCH, STEPS, LR = 8, 4, 0.5
CPU = torch.device("cpu")


def own_part(step: int) -> Batch:
    """This rank's slice of a global batch."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(GLOBAL_BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 3, (GLOBAL_BATCH,), generator=generator)
    count = GLOBAL_BATCH // world_size()
    own = slice(rank() * count, (rank() + 1) * count)
    return Batch(images[own], labels[own], labels[own], torch.ones(count, dtype=torch.bool))


def take_steps(case: dict[str, Any]) -> tuple[Stepper, list[tuple[str, int]]]:
    """A model after `STEPS` steps, and type and length of each message that its gradients were sent in."""
    torch.manual_seed(0)
    module = create_model("test_vit", 3, size=32)  # no statistics of batches
    options = DdpSettings.model_validate(case.get("ddp", {}))
    constant = ScheduleSettings(kind="constant", warmup_epochs=0)
    stepper = Stepper(
        module=module,
        model=data_parallel(module, CPU, options),
        optimizer=torch.optim.SGD(module.parameters(), lr=LR),
        schedule=Schedule(constant, LR, EpochTable.even(STEPS, 1)),
        ema=None,
        device=CPU,
        amp="off",
        label_smoothing=0.0,
        clip_norm=0.0,
        seed=0,
        micro_batch=case.get("micro_batch"),
        sam_rho=case.get("sam_rho", 0.0),
    )
    stepper.train()
    sent: list[tuple[str, int]] = []
    real = distributed.all_gather

    def all_gather(parts: Any, mine: torch.Tensor, **options: Any) -> Any:
        sent.append((str(mine.dtype), mine.numel()))
        return real(parts, mine, **options)

    distributed.all_gather = all_gather  # type: ignore[assignment]
    try:
        for step in range(STEPS):
            stepper.step(own_part(step), step, LaggedLoss(CPU))
    finally:
        distributed.all_gather = real
    return stepper, sent


def main() -> None:
    out, cases, report = Path(sys.argv[1]), json.loads(sys.argv[2]), {}
    with process_group("cpu"):
        for name, case in cases.items():
            stepper, sent = take_steps(case)
            gradients = [weight.grad for weight in stepper.module.parameters() if weight.grad is not None]
            report[name] = {
                "types": sorted({kind for kind, _ in sent}),
                "sent": sum(length for _, length in sent),
                "size": sum(gradient.numel() for gradient in gradients),
                "gradients": len(gradients),
                "storages": len({gradient.untyped_storage().data_ptr() for gradient in gradients}),
            }
            if is_main():
                save_file(stepper.module.state_dict(), out / f"{name}.safetensors")
    if is_main():
        print(json.dumps(report))


if __name__ == "__main__":
    main()
