"""JPEG files through torch's DataLoader and torchvision's transforms."""

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import io, transforms
from torchvision.transforms import v2

from fasttrain.loading.views import IMAGENET_MEAN, IMAGENET_STD
from fasttrain.tools.bench.loader_job import LoaderJob


class Files(Dataset[tuple[Any, int]]):
    """(image, label) of each file. `transform` is an attribute because timm sets it."""

    def __init__(
        self,
        paths: Sequence[str],
        load: Callable[[str], Any],
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.paths = paths
        self.load = load
        self.transform = transform
        names = sorted({Path(path).parent.name for path in paths})
        self.labels = [names.index(Path(path).parent.name) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.load(self.paths[index])
        return image if self.transform is None else self.transform(image), self.labels[index]


def open_rgb(path: str) -> Image.Image:
    """Decode with Pillow."""
    with Image.open(path) as image:
        return image.convert("RGB")


def decode_rgb(path: str) -> torch.Tensor:
    """Decode with torchvision, (3, H, W) uint8."""
    return io.decode_jpeg(io.read_file(path), mode=io.ImageReadMode.RGB)


def dataloader_images(files: Dataset[tuple[Any, int]], job: LoaderJob) -> Iterator[torch.Tensor]:
    """Batches of a DataLoader with as many worker processes as the job has threads."""
    loader = DataLoader(
        files, job.batch_size, shuffle=job.train, num_workers=job.threads, drop_last=True, prefetch_factor=2
    )
    yield from map(itemgetter(0), loader)


def torchvision_v1(job: LoaderJob) -> Iterator[torch.Tensor]:
    """Pillow and the classic transforms."""
    return dataloader_images(Files(job.paths(), open_rgb, v1_transform(job)), job)


def v1_transform(job: LoaderJob) -> Callable[[Image.Image], torch.Tensor]:
    """Of a Pillow image."""
    geometry: list[Any] = (
        [transforms.RandomResizedCrop(job.size, tuple(job.scale)), transforms.RandomHorizontalFlip()]
        if job.train
        else [transforms.Resize(job.short_side), transforms.CenterCrop(job.size)]
    )
    dtype = getattr(torch, job.dtype)
    steps = [*geometry, transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    return transforms.Compose(steps if dtype == torch.float32 else [*steps, transforms.ConvertImageDtype(dtype)])


def torchvision_v2(job: LoaderJob) -> Iterator[torch.Tensor]:
    """torchvision's own decoder and the transforms v2, on tensors."""
    geometry: list[Any] = (
        [v2.RandomResizedCrop(job.size, tuple(job.scale), antialias=True), v2.RandomHorizontalFlip()]
        if job.train
        else [v2.Resize(job.short_side, antialias=True), v2.CenterCrop(job.size)]
    )
    steps = [*geometry, v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    if job.dtype != "float32":
        steps.append(v2.ToDtype(getattr(torch, job.dtype)))
    return dataloader_images(Files(job.paths(), decode_rgb, v2.Compose(steps)), job)
