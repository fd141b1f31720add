"""The command ``scores show``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fasttrain.cli.output import JsonOption, finish

if TYPE_CHECKING:
    from fasttrain.report.scores import ScoresView
    from fasttrain.scores.measures.show import Shown

BAR = 40  # characters of the longest bar of a histogram
HIDDEN = ("classes", "shape", "confidence", "predicted_counts", "assigned_counts", "meta", "first")


def show(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Score tables (.arrow).")],
    rows: Annotated[int, typer.Option(min=0, help="Samples to show.")] = 5,
    html: Annotated[Path | None, typer.Option(help="Write a page with figures (.html) as well.")] = None,
    json: JsonOption = False,
) -> None:
    """Look into score tables: shape, accuracy if labelled, confidence, classes; of several, how far they agree."""
    from fasttrain.base.console import emit_json
    from fasttrain.scores.measures.agreement import agreement_matrix
    from fasttrain.scores.measures.show import describe, look_at
    from fasttrain.scores.table import ScoreTable

    opened = [(str(path), ScoreTable.read(path)) for path in tables]
    matrix = agreement_matrix(opened) if len(opened) > 1 else None  # first: it tells tables that do not fit
    looked = [(name, look_at(table)) for name, table in opened]
    described = [(name, describe(shown, rows)) for name, shown in looked]
    if html is not None:
        from fasttrain.report.scores import write_scores_page

        pairs = zip(looked, described, strict=True)
        write_scores_page([_view(name, shown, facts) for (name, shown), (_, facts) in pairs], html, matrix)
    if json:
        several = [{"table": name, **facts} for name, facts in described]
        emit_json(described[0][1] if matrix is None else {"tables": several, "agreement": matrix.tolist()})
        return
    for name, facts in described:
        _print(name, facts)
    if matrix is not None:
        _print_agreement([name for name, _ in described], matrix.tolist())
    if html is not None:
        print(f"html: {html}")


def _print(name: str, facts: dict[str, Any]) -> None:
    from fasttrain.base.console import print_table

    lines = {key: value for key, value in facts.items() if key not in HIDDEN}
    lines["bytes"] = f"{facts['bytes']:,}"
    for key in ("largest", "smallest"):
        lines[key] = [f"{label} {count}" for label, count in facts[key].items()]
    names = facts["classes"]
    first = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    finish({"table": name, "classes": f"{len(names)} ({first})", **lines}, False)
    edges, counts = facts["confidence"]["edges"], facts["confidence"]["counts"]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        bar = "█" * round(BAR * count / max(counts))
        print(f"  {low:.1f}-{high:.1f} {bar:{BAR}} {count:>8,}")
    columns = ["id", "predicted", "confidence"]
    cells = [[entry["id"], entry["predicted"], f"{entry['confidence']:.4f}"] for entry in facts["first"]]
    if cells:
        print_table("first samples", columns, cells)
    if facts["meta"]:
        print_table("stored with it", ["", "value"], [[key, str(value)] for key, value in facts["meta"].items()])


def _print_agreement(names: list[str], matrix: list[list[float]]) -> None:
    """Numbers stand for the columns, so that long paths fit."""
    from fasttrain.base.console import print_table

    rows = [[f"{n} {name}", *(f"{share:.4f}" for share in matrix[n - 1])] for n, name in enumerate(names, 1)]
    print_table("share of samples predicted alike", ["", *(str(n) for n in range(1, len(names) + 1))], rows)


def _view(name: str, shown: "Shown", facts: dict[str, Any]) -> "ScoresView":
    from fasttrain.report.scores import ScoresView

    told = {"samples": f"{facts['samples']:,}", "classes": f"{len(facts['classes']):,}", "kind": facts["kind"]}
    told |= {"type": facts["dtype"], "mean confidence": f"{facts['mean_confidence']:.3f}"}
    named = {"top1": "top-1", "top1_assigned": "top-1 re-distributed", "nll": "NLL", "ece": "ECE"}
    told |= {label: f"{facts[key]:.4f}" for key, label in named.items() if facts.get(key) is not None}
    table = shown.table
    return ScoresView(
        name=Path(name).name,
        classes=table.classes,
        facts=told,
        true=table.labels,
        predicted=shown.predicted,
        confidence=shown.confidence,
        histogram=shown.histogram(),
        assigned=table.assigned,
        assigned_p=table.assigned_p,
        meta=table.meta,
    )
