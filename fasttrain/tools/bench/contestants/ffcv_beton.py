"""FFCV's Loader, on the very file that ours reads and on one that its own writer made."""

from collections.abc import Iterator
from operator import itemgetter

import numpy as np
import torch
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.reader import Reader
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage

from fasttrain.loading.views import IMAGENET_MEAN, IMAGENET_STD
from fasttrain.tools.bench.loader_job import EVAL_CROP_PCT, LoaderJob


def ffcv_same(job: LoaderJob) -> Iterator[torch.Tensor]:
    """Reads the bytes (or pixels) that ours reads."""
    return _images(job, job.beton)


def ffcv_jpg(job: LoaderJob) -> Iterator[torch.Tensor]:
    """Reads JPEGs that its writer re-encoded."""
    return _images(job, job.ffcv_jpg)


def _images(job: LoaderJob, path: str) -> Iterator[torch.Tensor]:
    size = (job.size, job.size)
    decoder = (
        [RandomResizedCropRGBImageDecoder(size, scale=tuple(job.scale)), RandomHorizontalFlip()]
        if job.train
        else [CenterCropRGBImageDecoder(size, ratio=EVAL_CROP_PCT)]
    )
    mean, std = 255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD)
    normalise = NormalizeImage(mean, std, np.dtype(job.dtype).type)
    fields = dict.fromkeys(Reader(path).handlers)  # None leaves a field out
    loader = Loader(
        path,
        batch_size=job.batch_size,
        num_workers=job.threads,
        order=OrderOption.RANDOM if job.train else OrderOption.SEQUENTIAL,
        os_cache=True,
        drop_last=True,
        indices=np.tile(np.arange(job.images), job.passes),
        pipelines={**fields, "image": [*decoder, normalise, ToTensor(), ToTorchImage()]},
        seed=0,
    )
    yield from map(itemgetter(0), loader)
