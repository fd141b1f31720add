"""The demo's report: accuracies, curves, label counts, confusion matrix, pictures, commands."""

from pathlib import Path

import numpy as np

from fasttrain.beton_build.reader import BetonReader
from fasttrain.report.figures import confusion_matrix, label_counts, training_curves
from fasttrain.report.page import Commands, Facts, Grid, Page, Section, Text, write_page
from fasttrain.report.pictures import picture_grid
from fasttrain.report.tables import accuracy_table, percent, run_table
from fasttrain.tools.demo_result import BETONS, DemoResult

PICTURES = 24


def write_report(result: DemoResult, path: Path) -> Path:
    """Write the report of a finished demo."""
    shift = result.sample.settings.describe_shift()
    sections = [_accuracy(result, shift), _training(result), _labels(result), _errors(result)]
    sections += [Section("The same by hand", [Commands(result.commands)])]
    subtitle = (
        "From image files to a submission: two small models trained from scratch on handwritten digits that "
        "scikit-learn ships, ensembled, and re-distributed by optimal transport under the known class counts."
    )
    return write_page(Page("fasttrain demo", subtitle, sections), path)


def _accuracy(result: DemoResult, shift: str) -> Section:
    accuracy = {name: value for name, value, _ in result.accuracies}
    sample, pseudo = result.sample, result.figures["pseudo"]
    facts = {
        "images trained on": f"{result.figures['build']['samples']}",
        "images tested on": f"{sample.test_counts.sum()}",
        "ensemble": percent(accuracy["ensemble"]),
        "re-distributed": percent(accuracy["re-distributed"]),
        "seconds in all": f"{result.seconds:.0f}",
    }
    kept = f"{pseudo['kept']} of {pseudo['samples']} images have a pseudo-label of a probability above "
    kept += f"{result.settings.threshold:g} in the transport plan"
    kept += "." if pseudo["correct"] is None else f"; {percent(pseudo['correct'])} of these are right."
    table = accuracy_table(
        result.accuracies,
        "Share of the test part's images that got their true label. True labels are used to measure, here and below, "
        "and for nothing else. The uniform class counts are known because the test part was made so; the last row "
        "shows what the same method does with counts that are not true.",
        "class counts used",
    )
    return Section("Accuracy on the test part", [Text(shift), Facts(facts), table, Text(kept)])


def _training(result: DemoResult) -> Section:
    curves = training_curves(
        result.metrics,
        "Validation is on a part of the train images, which the test part's shift does not touch: "
        "its accuracy says little about the test part's.",
    )
    return Section("Training", [curves, run_table(result.metrics)])


def _labels(result: DemoResult) -> Section:
    classes, true = result.ensemble.classes, result.ensemble.labels
    before, after = result.ensemble.argmax(), result.redistributed.predictions()
    figures = result.figures["redistributed"]
    given = {"ensemble": before, "re-distributed": after}
    counts = {name: np.bincount(labels, minlength=len(classes)) for name, labels in given.items()}
    text = (
        f"Re-distribution changed {figures['changed']} of {figures['samples']} labels. It moves those that cost the "
        "least probability, until each class has between 0.9 and 1.1 times the images that the prior says "
        f"({'reached' if figures['converged'] else 'not reached'} within the tolerance, after {figures['iterations']} "
        "Sinkhorn iterations)."
    )
    return Section(
        "Labels before and after re-distribution",
        [
            Text(text),
            label_counts(classes, counts, result.sample.test_counts, "Images that were given each label."),
            confusion_matrix(true, before, classes, "Ensemble: true classes by the labels given."),
            confusion_matrix(true, after, classes, "After re-distribution."),
        ],
    )


def _errors(result: DemoResult) -> Section:
    """Some images of the test part: put right by re-distribution, wrong in the end, right all along."""
    before, after = result.ensemble.argmax(), result.redistributed.predictions()
    true = result.ensemble.labels
    random = np.random.default_rng(result.settings.seed)
    mended = random.permutation(np.flatnonzero((before != true) & (after == true)))
    wrong = random.permutation(np.flatnonzero(after != true))
    right = random.permutation(np.flatnonzero((before == true) & (after == true)))
    spoilt = int(((before == true) & (after != true)).sum())
    third = PICTURES // 3
    blocks = [
        _grid(result, mended[:third], f"{len(mended)} labels that re-distribution put right."),
        _grid(
            result, wrong[:third], f"{len(wrong)} labels that are wrong in the end; {spoilt} of them were right before."
        ),
        _grid(result, right[:third], f"{len(right)} labels that were right all along."),
    ]
    return Section("Pictures of the test part", [block for block in blocks if block.pictures])


def _grid(result: DemoResult, rows: np.ndarray, caption: str) -> Grid:
    classes, table = result.ensemble.classes, result.redistributed
    after = table.predictions()
    with BetonReader(result.settings.out / BETONS[-1]) as reader:
        row_of = {name: row for row, name in enumerate(reader.ids)}
        images = [reader.image(row_of[table.ids[row]]) for row in rows]
    true = [classes[table.labels[row]] for row in rows]
    return picture_grid(images, true, [classes[after[row]] for row in rows], caption)
