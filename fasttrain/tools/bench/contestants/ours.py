"""This package's Loader: ``ours:NAME`` runs the backend NAME, ``ours:libjpeg`` the native one without the index."""

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import torch

from fasttrain.loading.backend import BACKENDS
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import View, eval_view, train_view
from fasttrain.tools.bench.loader_job import EVAL_CROP_PCT, LoaderJob

REFERENCE = "portable"
WAYS: dict[str, dict[str, Any]] = {
    **{name: {"backend": name} for name in BACKENDS},
    "libjpeg": {"backend": "native", "index": False},
}
COMPARED = 64


def view_of(job: LoaderJob) -> View:
    """The view that the job asks for."""
    if job.train:
        return train_view(job.size, scale=tuple(job.scale))
    return eval_view(job.size, crop_pct=EVAL_CROP_PCT, interpolation="bilinear")


def __getattr__(name: str) -> Callable[[LoaderJob], Iterator[torch.Tensor]]:
    if name not in WAYS:
        raise AttributeError(name)
    return lambda job: _images(job, name)


def _images(job: LoaderJob, way: str) -> Iterator[torch.Tensor]:
    loader = Loader(
        [job.beton] * job.passes,
        job.batch_size,
        view=view_of(job),
        dtype=getattr(torch, job.dtype),
        threads=job.threads,
        **WAYS[way],
    )
    with loader:
        yield from map(attrgetter("images"), loader)


def further_figures(job: LoaderJob, way: str) -> dict[str, Any]:
    """psnr_mean: mean PSNR in dB of the first images against the reference backend's, which has the same views."""
    if way == REFERENCE:
        return {}
    batches = []
    for name in (way, REFERENCE):
        with Loader(
            job.beton, min(COMPARED, job.images), view=view_of(job), threads=job.threads, **WAYS[name]
        ) as loader:
            batches.append(next(iter(loader)).images)
    std = torch.tensor(view_of(job).std).view(1, 3, 1, 1)
    errors = ((batches[0] - batches[1]) * std).square().mean((1, 2, 3)).clamp(min=1e-10)
    return {"psnr_mean": round(float((-10 * errors.log10()).mean()), 2)}
