"""Labels from scores: pseudo-labels for another round of training, and labels that are probably wrong."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasttrain.cli.output import JsonOption, Table, UseOption, finish

SHOWN_CLASSES = 40  # beyond, the printed table tells of the largest and smallest alone


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("pseudo")(pseudo)
    app.command("clean")(clean)


def pseudo(
    table: Table,
    out: Annotated[Path, typer.Option(help="The CSV file to write: id,label,confidence,source,round.")],
    threshold: Annotated[float | None, typer.Option(help="Kept are samples with a confidence above it.")] = None,
    per_class: Annotated[
        Path | None,
        typer.Option(help="Other rules for some classes: a CSV file of class and any of threshold,at_least,at_most."),
    ] = None,
    class_quantile: Annotated[
        str | None,
        typer.Option(
            metavar="Q|adsh",
            help="A threshold of its own for each class: this quantile of its confidences (0.8: the surest fifth); "
            "adsh: the quantile at which --threshold lies in the most frequent class.",
        ),
    ] = None,
    at_least: Annotated[
        int | None, typer.Option(min=1, help="Keep so many of each class, the surest first, even below the threshold.")
    ] = None,
    at_most: Annotated[int | None, typer.Option(min=1, help="Keep no more of each class, the surest first.")] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="The so many surest of each class; what both quotas together do.")
    ] = None,
    min_margin: Annotated[
        float | None, typer.Option(help="Least lead of a label's probability over that of every other class.")
    ] = None,
    agree: Annotated[
        list[Path] | None,
        typer.Option(help="A further table that shall predict the label, too; give it several times."),
    ] = None,
    votes: Annotated[int | None, typer.Option(help="How many of --agree must [default: all].")] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(help="Labels of an earlier round, kept where there is no newer one; may be given several times."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="True labels (id,label): written as round 0, and never overwritten.")
    ] = None,
    use: UseOption = None,
    source: Annotated[str | None, typer.Option(help="For the column source [default: the table's file name].")] = None,
    round_: Annotated[
        int | None, typer.Option("--round", min=1, help="For the column round [default: 1 after those of --merge].")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write confident predictions as labels for another round of training: build OUT.beton --labels FILE --ids FILE."""
    from fasttrain.scores.selection.pseudo import write_pseudo_labels
    from fasttrain.scores.selection.rules import PseudoRules, read_class_rules
    from fasttrain.scores.table import ScoreTable

    if top is not None and (threshold, at_least, at_most, class_quantile) != (None,) * 4:
        raise typer.BadParameter(
            "it asks for no threshold and no other quota; for those, give --at-most", param_hint="--top"
        )
    if votes is not None and not agree:
        raise typer.BadParameter("say whose votes with --agree", param_hint="--votes")
    rules = PseudoRules(
        threshold=threshold,
        quantile=_quantile(class_quantile),
        at_least=top or at_least or 0,
        at_most=top or at_most,
        min_margin=min_margin,
        classes=read_class_rules(per_class) if per_class is not None else {},
    )
    result = write_pseudo_labels(
        ScoreTable.read(table),
        out,
        rules,
        use=use,
        agree=[(str(path), ScoreTable.read(path)) for path in agree or ()],
        votes=votes,
        source=table.name if source is None else source,
        round_number=round_,
        merge=merge or (),
        true_labels=labels,
    )
    if not json:
        _print_counts(result)
        for key in ("left_out", "short", "conflicts"):
            result[key] = [f"{count} {what}" for what, count in result[key].items() if count]
    finish(result, json, hide=("per_class", "per_round", "thresholds"))


def clean(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="TABLE...",
            help="Labelled score tables, a fold each: predictions of models that were not trained on these samples.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The CSV file to write: id,label,suggested,score; worst first.")],
    kept: Annotated[
        Path | None, typer.Option(help="Write the ids of all other samples, for build --ids or train --ids.")
    ] = None,
    method: Annotated[
        Literal["prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"],
        typer.Option(help="cleanlab's way to choose."),
    ] = "prune_by_noise_rate",
    json: JsonOption = False,
) -> None:
    """List labels that are probably wrong, by confident learning (cleanlab) on out-of-fold scores."""
    from fasttrain.base.console import print_table
    from fasttrain.scores.selection.cleaning import find_suspects, write_suspects
    from fasttrain.scores.table import ScoreTable

    suspects = find_suspects([(str(path), ScoreTable.read(path)) for path in tables], method)
    result = write_suspects(suspects, out, kept)
    if not json and result["pairs"]:
        rows = [[pair["label"], pair["suggested"], str(pair["count"])] for pair in result["pairs"]]
        print_table("most frequent", ["label", "suggested", "samples"], rows)
    finish(result, json, hide=("per_class", "pairs"))


def _quantile(text: str | None) -> float | Literal["adsh"] | None:
    if text is None or text == "adsh":
        return text  # type: ignore[return-value]
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a number nor adsh", param_hint="--class-quantile") from None


def _print_counts(result: dict[str, Any]) -> None:
    """Labels of each class, round by round."""
    from fasttrain.base.console import print_table

    rounds, thresholds = result["per_round"], result["thresholds"]
    names = sorted(thresholds, key=lambda name: -sum(counts[name] for counts in rounds.values()))
    hidden = names[SHOWN_CLASSES // 2 : -SHOWN_CLASSES // 2] if len(names) > SHOWN_CLASSES else []
    columns = ["class", "threshold", *("true" if number == "0" else f"round {number}" for number in rounds)]
    rows = []
    for name in names:
        if hidden and name == hidden[0]:
            rows.append([f"… {len(hidden)} more", *[""] * (len(columns) - 1)])
        if name not in set(hidden):
            asked = thresholds[name]
            shown = "-" if asked is None else f"{asked:.4g}"
            rows.append([name, shown, *(str(counts[name]) for counts in rounds.values())])
    print_table("labels written", columns, rows)
