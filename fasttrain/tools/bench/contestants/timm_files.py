"""JPEG files through timm's create_loader, with its prefetcher on the CPU, as its train.py runs it."""

from collections.abc import Iterator
from operator import itemgetter

import torch
from timm.data import create_loader

from fasttrain.tools.bench.contestants.torch_files import Files, open_rgb
from fasttrain.tools.bench.loader_job import EVAL_CROP_PCT, LoaderJob


def timm_loader(job: LoaderJob) -> Iterator[torch.Tensor]:
    """Pillow, timm's transforms and collation; normalised in the main process."""
    loader = create_loader(
        Files(job.paths(), open_rgb),
        (3, job.size, job.size),
        job.batch_size,
        is_training=job.train,
        scale=tuple(job.scale),
        color_jitter=0.0,
        interpolation="bilinear",
        crop_pct=EVAL_CROP_PCT,
        num_workers=job.threads,
        device=torch.device("cpu"),
        img_dtype=getattr(torch, job.dtype),
        use_prefetcher=True,
        persistent_workers=False,
    )
    yield from map(itemgetter(0), loader)
