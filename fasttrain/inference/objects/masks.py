"""Object masks of a data set as files, for `fasttrain build --masks`."""

import json
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from fasttrain.base.atomic import atomic_open
from fasttrain.base.distributed import gather_on_all, require_agreement, sum_over_ranks, wait_for_all
from fasttrain.base.errors import ConfigError
from fasttrain.base.palette import write_palette_png
from fasttrain.base.process import default_threads, is_main
from fasttrain.inference.forward import Amp
from fasttrain.inference.objects.maps import map_images
from fasttrain.inference.objects.pictures import object_grid
from fasttrain.inference.objects.refine import refined
from fasttrain.inference.objects.settings import ObjectMaskSettings
from fasttrain.inference.segmentation.predict import mask_files
from fasttrain.inference.segmentation.scores import by_size, open_views
from fasttrain.inference.skipped import report_skipped
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.open_dataset import Data, open_dataset
from fasttrain.models.objects.opened import OpenedMapper

CLASSES = ("background", "object")  # the values of a mask
PALETTE = ((0, 0, 0), (255, 255, 255))
MADE_BY, NAMES, PICTURES = "objects.json", "classes.txt", "_pictures.png"


@dataclass
class _Tally:
    """Of the masks that this rank has made: their number, those of nothing but background, and the sum of their shares
    of object pixels."""

    made: int = 0
    empty: int = 0
    share: float = 0.0

    def add(self, share: float) -> None:
        self.made, self.empty, self.share = self.made + 1, self.empty + (share == 0), self.share + share


def write_object_masks(
    opened: OpenedMapper,
    data: Data,
    out: str | Path,
    how: ObjectMaskSettings = ObjectMaskSettings(),
    *,
    maps: str | Path | None = None,
    pictures: int = 0,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    amp: Amp = "off",
    ids: Sequence[str] | None = None,
    threads: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write the mask of every image, at its own size, as a palette PNG named like the image's id: 0 is background, 1 is
    the object. Masks that are there already stay, so that a run which was interrupted goes on.

    Each image is mapped once over all ranks, and refined by the rank that did it, while the next ones are mapped.

    Args:
        out: folder for the masks. Beside them lie ``classes.txt``, the names of the values for ``build
            --mask-classes``, and ``objects.json``: of which checkpoint and settings they are.
        maps: folder for the maps before the threshold, 0 to 255.
        pictures: photos that are shown under their masks in ``OUT_pictures.png``.
        ids: only these samples.
        threads: of decoding, and of the CRF; None for the cores there are.
        options: of the `Loader`.

    Returns:
        {samples, made, empty, object_share, out, images_per_s, pictures, skipped}: `made` of all samples were written
        now; of these `empty` hold no object, and `object_share` is the mean share of object pixels (None for none).

    Raises:
        ConfigError: the folder holds masks of another checkpoint or of other settings; or two samples would be written
            to one file, or one outside of the folder.
    """
    out, started = Path(out), time.monotonic()
    # Read by all ranks before any of them writes.
    files, todo, fingerprint = _to_do(data, ids, out)
    require_agreement({"data set": fingerprint, "list of ids": len(files), "checkpoint": opened.weights_hash})
    _sign(out, {"checkpoint": opened.weights_hash, "size": opened.view.size, "settings": how.model_dump(mode="json")})
    tally = _Tally()
    skipped: list[dict[str, str]] = []
    if todo:
        options = {**options, "device": device, "threads": threads}
        with open_views(data, batch_size, opened.view, how.views, todo, **options) as loaders:
            writer = _Writer(loaders[0].dataset, files, out, None if maps is None else Path(maps), how)
            with ThreadPoolExecutor(threads or default_threads()) as pool:
                waiting: deque[Future[float]] = deque()
                for mapped in map_images(opened, loaders, how.views, amp=amp):
                    for row, one in zip(mapped.rows, mapped.maps.numpy(), strict=True):
                        waiting.append(pool.submit(writer.write, row, one))
                    while len(waiting) > 4 * batch_size:
                        tally.add(waiting.popleft().result())
                for future in waiting:
                    tally.add(future.result())
            skipped = report_skipped(entry for loader in loaders for entry in loader.skipped)
    wait_for_all()
    seconds = time.monotonic() - started
    sums = torch.tensor([tally.made, tally.empty, tally.share], dtype=torch.float64, device=device)
    made, empty, share = sum_over_ranks(sums).tolist()
    return {
        "samples": len(files),
        "made": int(made),
        "empty": int(empty),
        "object_share": share / made if made else None,
        "out": str(out),
        "images_per_s": made / seconds,
        "pictures": _show(data, files, out, pictures),
        "skipped": skipped,
    }


class _Writer:
    """From maps to files; works from any thread."""

    def __init__(
        self,
        dataset: ImageDataset,
        files: dict[int, PurePosixPath],
        out: Path,
        maps: Path | None,
        how: ObjectMaskSettings,
    ) -> None:
        self._dataset, self._files, self._out, self._maps, self._how = dataset, files, out, maps, how

    def write(self, row: int, one: np.ndarray) -> float:
        """Write the mask of a map (H, W) float32; the share of object pixels."""
        mask = one > self._how.threshold
        if self._how.crf is not None and mask.any() and not mask.all():
            mask = refined(mask, self._dataset.decode(row), self._how.crf)
        if self._maps is not None:
            _write_grey(self._maps / self._files[row], np.rint(255 * one).astype(np.uint8))
        path = self._out / self._files[row]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_palette_png(path, mask.astype(np.uint8), PALETTE)
        return float(mask.mean())


def _to_do(data: Data, ids: Sequence[str] | None, out: Path) -> tuple[dict[int, PurePosixPath], list[int], str]:
    """Where the mask of each row goes, the rows whose masks are not there, the same on all ranks, and the fingerprint
    of the data set."""
    rows = by_size(data, ids)
    dataset = open_dataset(data)
    try:
        files, fingerprint = mask_files(rows.tolist(), dataset.string_ids(rows), dataset.name), dataset.fingerprint
    finally:
        dataset.close()
    missing = [row for row, file in files.items() if not (out / file).is_file()] if is_main() else []
    return files, gather_on_all(missing)[0], fingerprint


def _sign(out: Path, made_by: dict[str, Any]) -> None:
    """Say in the folder what its masks are of.

    Raises:
        ConfigError: they are of something else.
    """
    path = out / MADE_BY
    stored = gather_on_all(json.loads(path.read_text(encoding="utf-8")) if is_main() and path.is_file() else None)[0]
    if stored is not None and stored != made_by:
        other = next(key for key in made_by if stored.get(key) != made_by[key])
        raise ConfigError(f"{out} holds masks of another {other} already; name another --out, or remove that folder")
    if is_main() and stored is None:
        with atomic_open(path) as file:
            json.dump(made_by, file, indent=1)
        with atomic_open(out / NAMES) as file:
            file.write("\n".join(CLASSES) + "\n")


def _show(data: Data, files: dict[int, PurePosixPath], out: Path, count: int) -> str | None:
    """Draw `count` samples at equal distances; where the picture lies."""
    done = {row: file for row, file in files.items() if (out / file).is_file()}
    if not count or not done or not is_main():
        return None
    rows = sorted(done)
    chosen = [rows[place] for place in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]
    dataset = open_dataset(data)
    try:
        grid = object_grid((dataset.decode(row), np.asarray(Image.open(out / done[row]))) for row in chosen)
    finally:
        dataset.close()
    path = out.with_name(out.name + PICTURES)
    with atomic_open(path, "wb") as file:
        Image.fromarray(grid).save(file, "PNG")
    return str(path)


def _write_grey(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path, "wb") as file:
        Image.fromarray(pixels).save(file, "PNG")
