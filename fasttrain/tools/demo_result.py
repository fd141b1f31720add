"""The demo's settings, the names of its files, and what it measured."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from fasttrain.base.config import Settings
from fasttrain.scores.table import ScoreTable
from fasttrain.tools.sample_data import SampleSet, SampleSettings

IMAGES, RUNS, SCORES = "images", "runs", "scores"
BETONS = ("train.beton", "train_val.beton", "test.beton")
PRIOR, PSEUDO, SUBMISSION = "train_counts.csv", "pseudo.csv", "submission.csv"
REPORT, RESULT = "report.html", "result.json"


class ModelPlan(Settings):
    """A model of the demo, trained from scratch."""

    name: str
    epochs: int = Field(ge=1)
    lr: float = Field(gt=0)


class DemoSettings(Settings):
    """What the demo does; the defaults are what `fasttrain demo` runs.

    Attributes:
        out: the folder for everything.
        seed: of images, split and training.
        sample: how many images of which looks.
        models: at least two, of different names.
        val_fraction: share of the train part that is kept for validation.
        size: image side in pixels.
        batch_size: images a step.
        threshold: probability above which a label is taken for a pseudo-label.
        device: ``cpu``, ``cuda`` or None for the best one there is.
        torch_threads: cores that a model's arithmetic takes on a CPU. Models this small gain next to nothing from a
            second one, and lose much where the machine has other work.
    """

    out: Path = Path("demo_out")
    seed: int = Field(default=0, ge=0)
    sample: SampleSettings = SampleSettings()
    models: tuple[ModelPlan, ...] = Field(
        default=(
            ModelPlan(name="test_resnet", epochs=20, lr=2e-3),
            ModelPlan(name="test_vit", epochs=30, lr=2e-3),
        ),
        min_length=2,
    )
    val_fraction: float = Field(default=0.15, gt=0, lt=1)
    size: int = Field(default=32, ge=8)
    batch_size: int = Field(default=32, ge=1)
    threshold: float = Field(default=0.9, ge=0, lt=1)
    device: str | None = None
    torch_threads: int = Field(default=1, ge=1)


@dataclass
class DemoResult:
    """What a demo measured.

    Attributes:
        settings: what it ran with.
        sample: the images.
        commands: the command lines that do the same, in order.
        scores: table of each model, by its name.
        ensemble, redistributed, wrong_prior: the later tables; the last one was given the train part's class counts.
        figures: what the steps returned, by their name.
        metrics: lines of ``metrics.jsonl`` of each model.
        seconds: of the whole.
    """

    settings: DemoSettings
    sample: SampleSet
    commands: list[str] = field(default_factory=list)
    scores: dict[str, ScoreTable] = field(default_factory=dict)
    ensemble: ScoreTable = None  # type: ignore[assignment]  # set by the step of that name
    redistributed: ScoreTable = None  # type: ignore[assignment]
    wrong_prior: ScoreTable = None  # type: ignore[assignment]
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: float = 0.0

    @cached_property
    def accuracies(self) -> list[tuple[str, float, str]]:
        """Name, accuracy on the test part and class counts used, for each model and each later table."""
        tables = [(name, table, "none") for name, table in self.scores.items()]
        tables += [
            ("ensemble", self.ensemble, "none"),
            ("re-distributed", self.redistributed, "uniform: the test part's"),
            ("re-distributed, wrong counts", self.wrong_prior, "the train part's"),
        ]
        rows = []
        for name, table, remark in tables:
            accuracy = table.accuracy(table.predictions())
            assert accuracy is not None  # every image of the test part has a label
            rows.append((name, accuracy, remark))
        return rows


def summary(result: DemoResult) -> dict[str, Any]:
    """What ``fasttrain demo --json`` prints."""
    return {
        "out": str(result.settings.out),
        "report": str(result.settings.out / REPORT),
        "samples": {"train": int(result.sample.train_counts.sum()), "test": int(result.sample.test_counts.sum())},
        "shift": result.sample.settings.describe_shift(),
        "top1": {name: accuracy for name, accuracy, _ in result.accuracies},
        "pseudo": {key: result.figures["pseudo"][key] for key in ("kept", "samples")},
        "seconds": result.seconds,
    }
