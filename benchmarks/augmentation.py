"""Augmentation beside torchvision v2, timm and kornia: RandAugment(2, 9), normalisation, erasing and mixup of batches
of 224 pixels that are decoded already. Writes ``benchmarks/results/augmentation.json``.

python benchmarks/augmentation.py [--rounds 7] [--only fasttrain,timm] [--batches 8] [--size 224] [--out FILE]

All get the same bytes in memory and give float32 batches with soft targets, on as many threads or worker processes as
there are cores. Both operations are always done (timm's ``p1``). torchvision and timm work image by image in a
DataLoader's workers, as their users have them; ``torchvision-v2-batch`` and ``kornia`` take whole batches, the former
with the same two operations for all images of a batch.
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.tools.bench.measure import Contestant, interleaved, machine_facts, ratio

RESULTS = Path(__file__).parent / "results" / "augmentation.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICY = "rand-m9-n2-p1-mstd0.5-inc1"
ERASE, MIXUP, CLASSES = 0.25, 0.2, 1000
TIMEOUT_S = 600.0


def pictures(count: int, size: int) -> np.ndarray:
    """(count, size, size, 3) uint8: waves of colour with structure at every scale."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size]
    images = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        waves = [np.sin(x / (9 + number % 7 + 3 * channel) + y / (31 - channel)) for channel in range(3)]
        noise = generator.normal(0, 12, (size, size, 1))
        images[number] = np.clip(127 + 60 * np.stack(waves, -1) + noise, 0, 255)
    return images


# --- contestants: each yields batches (images, targets), without end -------------------------------------------------


def fasttrain(images: np.ndarray, threads: int) -> Iterator[Any]:
    """Ours: the plan, the kernels, the mixer."""
    import torch

    from fasttrain.kernels.augment import augment
    from fasttrain.kernels.pixels import Target
    from fasttrain.loading.augment.mixing import Mixer, Mixing
    from fasttrain.loading.augment.planning import plan_program
    from fasttrain.loading.augment.settings import Augment, Erasing
    from fasttrain.loading.batch import Batch

    settings = Augment(policy=POLICY, erasing=Erasing(prob=ERASE, mode="pixel"))
    mixer = Mixer(Mixing(mixup=MIXUP), CLASSES, mean=MEAN, std=STD)
    scale = tuple(1 / (255 * value) for value in STD)
    shift = tuple(-mean / std for mean, std in zip(MEAN, STD, strict=True))
    target = Target(scale, shift, torch.float32)  # type: ignore[arg-type]
    pixels, rows = torch.from_numpy(images), torch.arange(len(images))
    out = torch.empty(pixels.shape)
    step = 0
    while True:
        keys = np.arange(len(images), dtype=np.uint64)
        program = plan_program(settings, keys, images.shape[1], 0, step, mean=MEAN, std=STD)
        made = augment(pixels, program, target, out=out, threads=threads)
        batch, targets = mixer(Batch(made, rows % CLASSES, rows, torch.ones(len(rows), dtype=torch.bool)), step)
        yield batch.images, targets
        step += 1


def _loaded(
    images: np.ndarray, threads: int, transform: Callable[[np.ndarray], Any], collate: Any = None
) -> Iterator[Any]:
    """Batches of transformed images of a DataLoader, again and again."""
    import torch

    class Samples(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 64 * len(images)

        def __getitem__(self, index: int) -> Any:
            return transform(images[index % len(images)]), index % CLASSES

    # A worker's work is its own: with more threads each they would get into each other's way.
    loader = torch.utils.data.DataLoader(
        Samples(),
        len(images),
        num_workers=threads,
        collate_fn=collate,
        worker_init_fn=lambda _: torch.set_num_threads(1),
    )
    while True:
        yield from loader


def _v2() -> Any:
    import torch
    from torchvision.transforms import InterpolationMode, v2

    return v2.Compose(
        [
            v2.RandAugment(2, 9, interpolation=InterpolationMode.BILINEAR),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            v2.RandomErasing(ERASE, value="random"),
        ]
    )


def torchvision_v2(images: np.ndarray, threads: int) -> Iterator[Any]:
    """Image by image, in workers."""
    import torch
    from torchvision.transforms import v2

    transform, mixup = _v2(), v2.MixUp(alpha=MIXUP, num_classes=CLASSES)
    for batch, labels in _loaded(images, threads, lambda image: transform(torch.from_numpy(image).permute(2, 0, 1))):
        yield mixup(batch, labels)


def torchvision_v2_batch(images: np.ndarray, threads: int) -> Iterator[Any]:
    """The same for whole batches: two operations for all images together."""
    import torch
    from torchvision.transforms import v2

    transform, mixup = _v2(), v2.MixUp(alpha=MIXUP, num_classes=CLASSES)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    labels = torch.arange(len(images)) % CLASSES
    while True:
        yield mixup(transform(pixels), labels)


def timm(images: np.ndarray, threads: int) -> Iterator[Any]:
    """Pillow images in workers; normalisation, erasing and mixup of the batch, as timm's loader has it."""
    import torch
    from PIL import Image, ImageOps
    from timm.data import Mixup
    from timm.data.auto_augment import rand_augment_transform
    from timm.data.random_erasing import RandomErasing

    # The noise of the strength asks for 0 bits at times, which Pillow has refused since version 13.
    posterize = ImageOps.posterize
    ImageOps.posterize = lambda image, bits: posterize(image, max(1, bits))
    mean = tuple(min(255, round(255 * value)) for value in MEAN)
    policy = rand_augment_transform(POLICY, {"translate_const": 100, "img_mean": mean})
    erase = RandomErasing(ERASE, mode="pixel", device="cpu")
    mixup = Mixup(mixup_alpha=MIXUP, num_classes=CLASSES)
    shift, scale = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def transform(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(policy(Image.fromarray(image))).transpose(2, 0, 1))

    for batch, labels in _loaded(images, threads, transform):
        yield mixup(erase(batch.float().sub_(shift).div_(scale)), labels)


def kornia(images: np.ndarray, threads: int) -> Iterator[Any]:
    """Whole batches, other operations for each image."""
    import torch
    from kornia.augmentation import Normalize, RandomErasing, RandomMixUpV2
    from kornia.augmentation.auto import RandAugment

    policy, erase = RandAugment(n=2, m=9), RandomErasing(p=ERASE)
    normalise = Normalize(torch.tensor(MEAN), torch.tensor(STD))
    mixup = RandomMixUpV2(data_keys=["input", "class"])
    labels = torch.arange(len(images)) % CLASSES
    while True:
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
        yield mixup(erase(normalise(policy(batch))), labels)


CONTESTANTS: dict[str, tuple[Callable[[np.ndarray, int], Iterator[Any]], str]] = {
    "fasttrain": (fasttrain, "fasttrain"),
    "torchvision-v2": (torchvision_v2, "torchvision"),
    "torchvision-v2-batch": (torchvision_v2_batch, "torchvision"),
    "timm": (timm, "timm"),
    "kornia": (kornia, "kornia"),
}


def run_one(name: str, batches: int, size: int, batch: int, threads: int) -> None:
    """What a contestant's process does: print its images a second."""
    import torch

    torch.set_num_threads(threads)
    made = CONTESTANTS[name][0](pictures(batch, size), threads)
    for _ in range(2):
        next(made)
    start = time.perf_counter()
    for _ in range(batches):
        images, _ = next(made)
    seconds = time.perf_counter() - start
    assert tuple(images.shape) == (batch, 3, size, size)
    made.close()  # type: ignore[attr-defined]  # and the workers with it
    print(json.dumps({"value": batches * batch / seconds}), flush=True)


def main() -> None:
    """Measure, write the figures, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--contestant", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        return run_one(given.contestant, given.batches, given.size, given.batch, given.threads)
    wanted = given.only.split(",") if given.only else list(CONTESTANTS)
    here = [name for name in wanted if importlib.util.find_spec(CONTESTANTS[name][1]) is not None]
    numbers = {key: str(getattr(given, key)) for key in ("batches", "batch", "size", "threads")}
    options = [word for key, value in numbers.items() for word in (f"--{key}", value)]
    contestants = [
        Contestant(
            name,
            {"work": f"{POLICY}, erasing {ERASE}, mixup {MIXUP}", "dtype": "float32", "threads": given.threads},
            [sys.executable, __file__, "--contestant", name, *options],
            "images/s",
        )
        for name in here
    ]
    outcomes = interleaved(contestants, given.rounds, TIMEOUT_S)
    ratios = [found for name in here[1:] if (found := ratio(outcomes, "fasttrain", name)) is not None]
    result = {
        "machine": machine_facts(),
        "size": given.size,
        "batch": given.batch,
        "results": [outcome.as_json() for outcome in outcomes],
        "ratios": ratios,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    for entry in ratios:
        print(f"{entry['ours']} / {entry['theirs']}: {entry['ratio']} ({entry['min']} to {entry['max']})")


if __name__ == "__main__":
    main()
