"""Tables that several reports share."""

from collections.abc import Mapping, Sequence
from typing import Any

from fasttrain.report.page import Table


def percent(share: float | None) -> str:
    """``0.9126`` as ``91.3%``; a dash for None."""
    return "–" if share is None else f"{share:.1%}"


def accuracy_table(rows: Sequence[tuple[str, float | None, str]], caption: str = "", heading: str = "remark") -> Table:
    """A row each: name, accuracy (0–1, None where unknown), a remark. The highest accuracy is stressed.

    Args:
        heading: of the column of remarks.
    """
    known = [accuracy for _, accuracy, _ in rows if accuracy is not None]
    best = [index for index, (_, accuracy, _) in enumerate(rows) if known and accuracy == max(known)]
    cells = [[name, remark, percent(accuracy)] for name, accuracy, remark in rows]
    return Table(["", heading, "accuracy"], cells, caption, best, left=2)


def run_table(runs: Mapping[str, Sequence[Mapping[str, Any]]], caption: str = "") -> Table:
    """The last epoch of each run: losses, validation top-1 or mIoU, speed, share of time spent waiting for data."""
    columns = ["run", "epochs", "training loss", "validation loss", "validation top-1 / mIoU", "images/s", "data wait"]
    rows = []
    for name, records in runs.items():
        last = records[-1] if records else {}
        rate = last.get("images_per_s")
        rows.append(
            [
                name,
                str(last["epoch"] + 1) if last else "0",
                _number(last.get("train_loss")),
                _number(last.get("val_loss")),
                percent(last.get("val_miou", last.get("val_top1"))),
                "–" if rate is None else f"{rate:,.0f}",
                percent(last.get("data_wait_fraction")),
            ]
        )
    return Table(columns, rows, caption)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
