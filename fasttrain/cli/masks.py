"""`masks`: a look at the pixel labels of a data set."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fasttrain.cli.output import JsonOption, finish

masks = typer.Typer(no_args_is_help=True, help="Pixel labels of a .beton.")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(masks, name="masks")


@masks.callback()
def _group() -> None:
    """Pixel labels of a .beton."""


@masks.command("show")
def show(
    data: Annotated[list[Path], typer.Argument(metavar="DATA.beton...")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures: grid.png, and a PNG of each sample.")],
    count: Annotated[int, typer.Option(min=1, help="Samples.")] = 8,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Show random crops of so many pixels, as training sees them [default: all]."),
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Augment them, as rand-m9-n2-mstd0.5-inc1; with --size.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of samples, and of the crops.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write samples beside themselves under their coloured masks, and the legend of the classes."""
    if policy is not None and size is None:
        raise typer.BadParameter("--policy augments crops: give --size as well")
    finish(_show(data, out, count, size, policy, seed), as_json)


def _show(data: list[Path], out: Path, count: int, size: int | None, policy: str | None, seed: int) -> dict[str, Any]:
    import numpy as np
    from PIL import Image

    from fasttrain.base.atomic import atomic_open
    from fasttrain.loading.batch import MaskedBatch
    from fasttrain.loading.loader import Loader
    from fasttrain.loading.segmentation_views import segmentation_view, whole_view
    from fasttrain.training.mask_pictures import mask_grid, mask_pictures

    view = whole_view(multiple=1) if size is None else segmentation_view(size, augment={"policy": policy})
    with Loader(data, 1, view=view, masks=True, order="random", seed=seed, rank=0, world=1) as loader:
        info, total = loader.dataset.masks, loader.num_samples
        assert info is not None
        pictures: list[np.ndarray] = []
        names, seen = [], np.zeros(256, bool)
        for batch in loader:
            assert isinstance(batch, MaskedBatch)
            pictures += mask_pictures(batch, info, view.mean, view.std)
            names += loader.string_ids(batch.ids[batch.valid])
            seen[np.unique(batch.masks.numpy())] = True
            if len(pictures) >= min(count, total):
                break
    out.mkdir(parents=True, exist_ok=True)
    grid = mask_grid(pictures, info, np.flatnonzero(seen[:255]).tolist())
    files = {"grid.png": grid}
    for number, (name, picture) in enumerate(zip(names, pictures, strict=True)):
        files[f"{number:03}_{Path(name).stem}.png"] = picture
    for name, pixels in files.items():
        with atomic_open(out / name, "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    return {"out": str(out), "samples": len(pictures), "files": list(files)}
