"""One process of a job that takes steps with a co-teacher under DDP.

    [torchrun …] co_teacher_steps.py OUT

All ranks together see batches of `GLOBAL_PAIRS` pairs, whatever their number. The weights of student and teacher go to
OUT/student.safetensors and OUT/teacher.safetensors; the main rank prints the figures of the steps as JSON.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from fasttrain.base.distributed import process_group
from fasttrain.base.process import is_main, rank, world_size
from fasttrain.loading.batch import Batch
from fasttrain.models.create import create_model
from fasttrain.training.co_teacher.settings import CoTeacherSettings
from fasttrain.training.co_teacher.stepper import CoTeacherStepper
from fasttrain.training.epochs import EpochTable
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.parallel import data_parallel
from fasttrain.training.schedule import Schedule
from fasttrain.training.schedule_settings import ScheduleSettings
from fasttrain.training.settings import DdpSettings

GLOBAL_PAIRS, STEPS, LR, SIDE = 4, 3, 0.1, 32
CPU = torch.device("cpu")


def own_part(step: int) -> Batch:
    """This rank's pairs of a global batch: images, then their partners."""
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(2, GLOBAL_PAIRS, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(0, 3, (2, GLOBAL_PAIRS), generator=generator)
    count = GLOBAL_PAIRS // world_size()
    own = slice(rank() * count, (rank() + 1) * count)
    part = labels[:, own].flatten()
    return Batch(images[:, own].flatten(0, 1), part, part, torch.ones(2 * count, dtype=torch.bool))


def main() -> None:
    """Take the steps."""
    out = Path(sys.argv[1])
    with process_group("cpu"):
        torch.manual_seed(0)
        module = create_model("test_vit", 3, size=SIDE)  # no statistics of batches
        constant = ScheduleSettings(kind="constant", warmup_epochs=0)
        stepper = CoTeacherStepper(
            module=module,
            model=data_parallel(module, CPU, DdpSettings()),
            optimizer=torch.optim.SGD(module.parameters(), lr=LR),
            schedule=Schedule(constant, LR, EpochTable.even(STEPS, 1)),
            ema=None,
            device=CPU,
            amp="off",
            clip_norm=0.0,
            seed=0,
            micro_batch=2,
            settings=CoTeacherSettings(weight=2, ramp_epochs=0, alpha=0.6, temperature=2, ratio=0.5),
        )
        stepper.train()
        for step in range(STEPS):
            stepper.step(own_part(step), step, LaggedLoss(CPU))
        figures = stepper.take_figures()
        if is_main():
            for name, tensors in (("student", module.state_dict()), ("teacher", stepper.mean_teacher.state_dict())):
                save_file({key: value.contiguous() for key, value in tensors.items()}, out / f"{name}.safetensors")
            print(json.dumps(figures))


if __name__ == "__main__":
    main()
