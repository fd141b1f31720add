"""Labels kept out of a data set, in a file of their own."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from fasttrain.base.atomic import atomic_open
from fasttrain.base.errors import SourceError
from fasttrain.beton_build.sources import SampleList


def withhold_labels(samples: SampleList, path: Path) -> SampleList:
    """Write the labels of `samples` as a table ``id,label`` of class names, and return the samples without them.

    The names of the classes stay, so that other labels can be given to the samples later.

    Raises:
        SourceError: no sample has a label.
    """
    known = np.flatnonzero(samples.labels >= 0)
    if not len(known):
        raise SourceError(f"there are no labels to withhold in {path}; leave out --withhold-labels")
    with atomic_open(path, newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "label"])
        names = (samples.class_names[number] for number in samples.labels[known].tolist())
        table.writerows(zip((samples.ids[row] for row in known.tolist()), names, strict=True))
    return replace(samples, labels=np.full(len(samples), -1, np.int64))
