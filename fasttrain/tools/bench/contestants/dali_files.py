"""JPEG files through DALI's CPU operators."""

from collections.abc import Iterator
from typing import Any

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

from fasttrain.loading.views import IMAGENET_MEAN, IMAGENET_STD
from fasttrain.tools.bench.loader_job import LoaderJob


@pipeline_def
def _pipeline(job: LoaderJob) -> tuple[Any, Any]:
    jpegs, labels = fn.readers.file(file_root=job.files, random_shuffle=job.train, initial_fill=1024, name="files")
    mirror: Any = 0
    if job.train:
        # Decodes only what the crop needs.
        images = fn.decoders.image_random_crop(
            jpegs, device="cpu", output_type=types.RGB, random_area=list(job.scale), random_aspect_ratio=[3 / 4, 4 / 3]
        )
        images = fn.resize(images, size=[job.size, job.size], interp_type=types.INTERP_LINEAR, antialias=True)
        mirror = fn.random.coin_flip(probability=0.5)
    else:
        images = fn.decoders.image(jpegs, device="cpu", output_type=types.RGB)
        images = fn.resize(images, resize_shorter=job.short_side, interp_type=types.INTERP_LINEAR, antialias=True)
    images = fn.crop_mirror_normalize(
        images,
        crop=(job.size, job.size),
        mirror=mirror,
        dtype=types.FLOAT if job.dtype == "float32" else types.FLOAT16,
        output_layout="CHW",
        mean=[255 * value for value in IMAGENET_MEAN],
        std=[255 * value for value in IMAGENET_STD],
    )
    return images, labels


def dali_cpu(job: LoaderJob) -> Iterator[torch.Tensor]:
    """Its PyTorch iterator over an endless epoch."""
    pipeline = _pipeline(
        job, batch_size=job.batch_size, num_threads=job.threads, device_id=None, prefetch_queue_depth=2, seed=0
    )
    iterator = DALIGenericIterator([pipeline], ["images", "labels"], size=-1, last_batch_policy=LastBatchPolicy.DROP)
    yield from map(_images_of, iterator)


def _images_of(outputs: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    return outputs[0]["images"]
