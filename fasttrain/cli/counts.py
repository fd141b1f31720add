"""Class counts from the files that hold them."""

from pathlib import Path


def label_counts(path: Path) -> dict[str, float] | None:
    """Labels of a `.beton` by class name, each class at least 0; None for a file of another kind.

    Raises:
        ScoresError: the `.beton` names no classes.
    """
    if path.suffix != ".beton":
        return None

    import numpy as np

    from fasttrain.base.errors import ScoresError
    from fasttrain.beton_build.reader import BetonReader

    with BetonReader(path) as reader:
        names, labels = reader.class_names, np.asarray(reader.labels)
    if not names:
        raise ScoresError(f"{path} holds no class names; name a CSV file of class and count")
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))
