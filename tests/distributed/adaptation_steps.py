"""One process of a job that takes steps of adaptation under DDP.

    [torchrun …] adaptation_steps.py OUT

All ranks together see batches of `GLOBAL_BATCH` pairs, whatever their number. The weights of student and teacher go to
OUT/student.safetensors and OUT/teacher.safetensors; the main rank prints the figures of the steps as JSON.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from fasttrain.base.distributed import process_group
from fasttrain.base.process import is_main, rank, world_size
from fasttrain.loading.batch import MaskedBatch
from fasttrain.models.segmentation import SegmenterSettings, create_segmenter
from fasttrain.training.adaptation.pairs import PairedBatch
from fasttrain.training.adaptation.settings import AdaptationSettings, FeatureDistanceSettings
from fasttrain.training.adaptation.stepper import AdaptationStepper, WithFeatures
from fasttrain.training.adaptation.strong import StrongAugmentation, StrongSettings
from fasttrain.training.epochs import EpochTable
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.parallel import data_parallel
from fasttrain.training.schedule import Schedule
from fasttrain.training.schedule_settings import ScheduleSettings
from fasttrain.training.segmentation.losses import SegmentationCriterion, SegmentationLossSettings
from fasttrain.training.settings import DdpSettings

GLOBAL_BATCH, STEPS, LR, CLASSES, SIDE = 4, 3, 0.05, 3, 64
CPU = torch.device("cpu")


class Steady(AdaptationStepper):
    """Whose batch normalisation stays as it is: statistics are each rank's own."""

    def train(self) -> None:
        super().train()
        self.module.eval()


def own_part(step: int) -> PairedBatch:
    """This rank's slice of a global batch. Cells of a mask are of one class, so that all ranks measure the distance of
    features on equally many."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(2, GLOBAL_BATCH, 3, SIDE, SIDE, generator=generator)
    cells = torch.randint(0, CLASSES, (GLOBAL_BATCH, SIDE // 32, SIDE // 32), generator=generator, dtype=torch.uint8)
    masks = cells.repeat_interleave(32, 1).repeat_interleave(32, 2)
    count = GLOBAL_BATCH // world_size()
    own = slice(rank() * count, (rank() + 1) * count)
    facts = torch.full((count,), -1), torch.arange(count), torch.ones(count, dtype=torch.bool)
    source, target = (
        MaskedBatch(part[own], *facts, mask[own])
        for part, mask in zip(images, (masks, torch.zeros_like(masks)), strict=True)
    )
    return PairedBatch.of(source, target)


def main() -> None:
    """Take the steps."""
    out = Path(sys.argv[1])
    with process_group("cpu"):
        torch.manual_seed(0)
        settings = SegmenterSettings(model="test_efficientnet", head_channels=8, head_embed=8, head_dropout=0.0)
        module = create_segmenter(settings, CLASSES)
        constant = ScheduleSettings(kind="constant", warmup_epochs=0)
        stepper = Steady(
            module=module,
            model=data_parallel(WithFeatures(module), CPU, DdpSettings()),
            optimizer=torch.optim.SGD(module.parameters(), lr=LR),
            schedule=Schedule(constant, LR, EpochTable.even(STEPS, 1)),
            ema=None,
            device=CPU,
            amp="off",
            clip_norm=0.0,
            seed=0,
            loss=SegmentationCriterion(SegmentationLossSettings()),
            settings=AdaptationSettings(
                alpha=0.6, threshold=0.34, pictures=0, feature_distance=FeatureDistanceSettings(weight=0.1)
            ),
            things=range(CLASSES),
            strong=StrongAugmentation(StrongSettings(), 0, (0.5,) * 3, (0.5,) * 3),
        )
        stepper.train()
        for step in range(STEPS):
            stepper.step(own_part(step), step, LaggedLoss(CPU))
        figures = stepper.take_figures()
        if is_main():
            save_file(
                {key: value.contiguous() for key, value in module.state_dict().items()}, out / "student.safetensors"
            )
            teacher = stepper.mean_teacher.state_dict()
            save_file({key: value.contiguous() for key, value in teacher.items()}, out / "teacher.safetensors")
            print(json.dumps(figures))


if __name__ == "__main__":
    main()
