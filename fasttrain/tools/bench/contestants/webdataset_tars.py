"""WebDataset archives, more of them than workers, decoded with Pillow and transformed with torchvision."""

from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import torch
import webdataset as wds

from fasttrain.tools.bench.contestants.torch_files import v1_transform
from fasttrain.tools.bench.loader_job import LoaderJob

SHUFFLE = 1000  # samples of its buffer


def webdataset_loader(job: LoaderJob) -> Iterator[torch.Tensor]:
    """As its documentation has it: resampled archives and a shuffle buffer for training; batches made in workers.

    From cold files each archive is read once, in a random order.
    """
    resampled = job.train and not job.cold
    tars = sorted(str(path) for path in Path(job.tars).glob("*.tar")) * (1 if resampled else job.passes)
    dataset = wds.WebDataset(
        tars,
        resampled=resampled,
        shardshuffle=len(tars) if job.train and job.cold else False,
        nodesplitter=None if resampled else wds.split_by_node,
    )
    if job.train:
        dataset = dataset.shuffle(SHUFFLE)
    dataset = dataset.decode("pilrgb").to_tuple("jpg", "cls").map_tuple(v1_transform(job), int)
    loader = wds.WebLoader(dataset.batched(job.batch_size, partial=False), batch_size=None, num_workers=job.threads)
    yield from map(itemgetter(0), loader)
