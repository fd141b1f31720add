"""The whole journey on the sample images: build, train, predict, ensemble, redistribute, pseudo-label, submit, report.

Each step calls the function that its command calls, and prints the command line that does the same.
"""

import csv
import json
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.base.atomic import atomic_open
from fasttrain.base.config import load_settings
from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.base.runs import RunFolder
from fasttrain.scores.table import ScoreTable
from fasttrain.tools.demo_report import write_report
from fasttrain.tools.demo_result import (
    BETONS,
    IMAGES,
    PRIOR,
    PSEUDO,
    REPORT,
    RESULT,
    RUNS,
    SCORES,
    SUBMISSION,
    DemoResult,
    DemoSettings,
    ModelPlan,
    summary,
)
from fasttrain.tools.sample_data import make_sample

MARKER = ".fasttrain-demo"  # marks a folder as a demo's, so that no other is ever replaced
CONTENTS = (IMAGES, RUNS, SCORES, *BETONS, PRIOR, PSEUDO, SUBMISSION, REPORT, RESULT)


def run_demo(settings: DemoSettings | None = None) -> DemoResult:
    """Run the demo and write its report.

    Raises:
        ConfigError: the folder holds something that is not a demo's.
    """
    settings = settings or DemoSettings()
    started = time.monotonic()
    prepare_folder(settings.out)
    demo = _Demo(settings)
    demo.build()
    with _torch_threads(settings.torch_threads):
        for plan in settings.models:
            demo.train(plan)
        for plan in settings.models:
            demo.predict(plan.name)
    demo.ensemble()
    demo.redistribute()
    demo.pseudo()
    demo.submit()
    demo.result.seconds = time.monotonic() - started
    write_report(demo.result, settings.out / REPORT)
    with atomic_open(settings.out / RESULT) as file:
        json.dump(summary(demo.result), file, indent=2)
    return demo.result


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """What ``OMP_NUM_THREADS=count`` before a command does, for a block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare_folder(out: Path) -> None:
    """Make `out` an empty demo folder; what an earlier demo wrote there is removed, and nothing else.

    Raises:
        ConfigError: `out` is a file, or a folder that holds something and is not a demo's.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise ConfigError(f"{out} holds files that no demo wrote, so it is left alone; name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    for name in CONTENTS:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class _Demo:
    """The steps, in the order of their methods."""

    def __init__(self, settings: DemoSettings) -> None:
        self.settings, self.out = settings, settings.out
        self.train_beton, self.val_beton, self.test_beton = (self.out / name for name in BETONS)
        sample_settings = settings.sample.model_copy(update={"seed": settings.seed})
        say(f"Sample images: {self.out / IMAGES}")
        self.result = DemoResult(settings, make_sample(self.out / IMAGES, sample_settings))
        say(sample_settings.describe_shift())

    def build(self) -> None:
        from fasttrain.beton_build.build import build
        from fasttrain.beton_build.options import BuildOptions
        from fasttrain.beton_build.sources import read_source

        settings, sample = self.settings, self.result.sample
        options = {"val_fraction": settings.val_fraction, "seed": settings.seed}
        self._announce("build", sample.train, self.train_beton, **options)
        trained = build(read_source(sample.train), self.train_beton, load_settings(BuildOptions, options, "build"))
        self._announce("build", sample.test, self.test_beton)
        tested = build(read_source(sample.test), self.test_beton)
        self.result.figures |= {"build": trained.as_json(), "build test": tested.as_json()}

    def train(self, plan: ModelPlan) -> None:
        from fasttrain.training.run import train
        from fasttrain.training.settings import TrainSettings

        settings = self.settings
        options: dict[str, Any] = {
            "data": str(self.train_beton),
            "val": str(self.val_beton),
            "model": plan.name,
            "out": str(self.out / RUNS / plan.name),
            "epochs": plan.epochs,
            "batch_size": settings.batch_size,
            "size": settings.size,
            "seed": settings.seed,
        }
        # Digits must not be mirrored, and a crop of a small share would show no digit at all.
        augment = {"hflip": 0.0, "scale": [0.6, 1.0], "color_jitter": 0.4}
        overrides = [f"augment.{key}={_yaml(value)}" for key, value in augment.items()]
        self._announce("train", **options, lr=plan.lr, **self._device(), set=overrides)
        values = {**options, **self._device(), "optimizer": {"lr": plan.lr}, "augment": augment}
        result = train(load_settings(TrainSettings, values, "train"))
        self.result.figures[f"train {plan.name}"] = dict(result.__dict__)
        self.result.metrics[plan.name] = RunFolder(result.run).read_metrics()

    def predict(self, model: str) -> None:
        from fasttrain.base.distributed import process_group
        from fasttrain.inference.forward import resolve_amp
        from fasttrain.inference.predict import predict
        from fasttrain.models.opened import open_model

        run, out = self.out / RUNS / model, self._table(model)
        self._announce("predict", run, self.test_beton, out=out, **self._device())
        with process_group(self.settings.device) as device:
            opened = open_model(run, device=device)
            figures = predict(opened, self.test_beton, out, device=device, amp=resolve_amp("auto", device))
        self.result.figures[f"predict {model}"] = figures
        self.result.scores[model] = ScoreTable.read(out)

    def ensemble(self) -> None:
        from fasttrain.scores.ensembles.ensemble import ensemble

        out = self._table("ensemble")
        self._announce("ensemble", *(self._table(model) for model in self.result.scores), out=out)
        self.result.ensemble = ensemble(list(self.result.scores.values()))
        self.result.ensemble.write(out)

    def redistribute(self) -> None:
        """With the true class counts, and for comparison with those of the train part."""
        counts = self.result.sample.train_counts
        with atomic_open(self.out / PRIOR, newline="") as file:
            csv.writer(file).writerows([("class", "count"), *zip(self.result.ensemble.classes, counts, strict=True)])
        self.result.redistributed = self._redistributed("redistributed", "uniform")
        self.result.wrong_prior = self._redistributed("wrong_prior", str(self.out / PRIOR))

    def _redistributed(self, name: str, prior: str) -> ScoreTable:
        from fasttrain.scores.redistribution.redistribute import RedistributeSettings, redistribute

        out = self._table(name)
        self._announce("redistribute", self._table("ensemble"), out=out, prior=prior)
        table, figures = redistribute(self.result.ensemble, RedistributeSettings(prior=prior))
        table.write(out)
        self.result.figures[name] = figures
        return table

    def pseudo(self) -> None:
        from fasttrain.scores.selection.pseudo import write_pseudo_labels
        from fasttrain.scores.selection.rules import PseudoRules

        table, out = self._table("redistributed"), self.out / PSEUDO
        self._announce("pseudo", table, threshold=self.settings.threshold, out=out)
        rules = PseudoRules(threshold=self.settings.threshold)
        figures = write_pseudo_labels(self.result.redistributed, out, rules, source=table.name)
        self.result.figures["pseudo"] = {**figures, "correct": _correct_labels(out, self.result.redistributed)}

    def submit(self) -> None:
        from fasttrain.scores.files.submit import write_submission

        out = self.out / SUBMISSION
        self._announce("submit", self._table("redistributed"), out=out)
        self.result.figures["submit"] = write_submission(self.result.redistributed, out)

    def _table(self, name: str) -> Path:
        return self.out / SCORES / f"{name}.arrow"

    def _device(self) -> dict[str, str]:
        return {} if self.settings.device is None else {"device": self.settings.device}

    def _announce(self, command: str, *arguments: object, **options: object) -> None:
        """Print and keep the command line that the next step amounts to."""
        words = ["fasttrain", command, *map(str, arguments)]
        for key, value in options.items():
            for single in value if isinstance(value, list) else [value]:
                words += [f"--{key.replace('_', '-')}", str(single)]
        line = shlex.join(words)
        if command in ("train", "predict"):
            line = f"OMP_NUM_THREADS={self.settings.torch_threads} {line}"
        self.result.commands.append(line)
        say(f"\n$ {line}")


def _yaml(value: object) -> str:
    return json.dumps(value).replace(" ", "")


def _correct_labels(pseudo: Path, table: ScoreTable) -> float | None:
    """Share of the pseudo-labels of a file that are true; None if it holds none."""
    true = dict(zip(table.ids, table.labels.tolist(), strict=True))
    with pseudo.open(newline="", encoding="utf-8") as file:
        hits = [table.classes[true[row["id"]]] == row["label"] for row in csv.DictReader(file)]
    return float(np.mean(hits)) if hits else None
