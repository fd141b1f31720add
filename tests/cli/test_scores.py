"""The commands about scores, as a user runs them."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .called import fasttrain

CLASSES = ["aeroplane", "bicycle", "boat", "bus", "car", "chair", "diningtable", "motorbike", "sofa", "train"]


@pytest.fixture
def tables(tmp_path) -> list[Path]:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(f"s{i},{'abc'[k]}\n" for i, k in enumerate(labels)))
    paths = []
    for number in range(2):
        scores = generator.normal(size=(60, 3))
        scores[:, 0] += 1.5
        scores[np.arange(60), labels] += 1.5
        lines = "".join(f"s{i},{','.join(map(str, row))}\n" for i, row in enumerate(scores))
        (tmp_path / f"{number}.csv").write_text("id,a,b,c\n" + lines)
        paths.append(tmp_path / f"{number}.arrow")
        options = ("--kind", "logits", "--labels", tmp_path / "labels.csv")
        fasttrain("scores", "import", tmp_path / f"{number}.csv", "--out", paths[-1], *options)
    return paths


def test_from_tables_to_a_submission(tables, tmp_path):
    combined = fasttrain("ensemble", *tables, "--out", tmp_path / "e.arrow")
    assert combined.keys() == {"samples", "tables", "weights", "top1", "nll", "ece"}
    assert combined["weights"] == [0.5, 0.5]
    report = fasttrain("redistribute", tmp_path / "e.arrow", "--out", tmp_path / "r.arrow", "--round", "greedy")
    wanted = "samples changed iterations converged marginal_error dual_gap count_min count_max top1_before top1_after"
    assert report.keys() == {*wanted.split(), "rounding_gap"}
    assert report["converged"] is True
    assert 18 <= report["count_min"] <= report["count_max"] <= 22
    assert report["top1_before"] == combined["top1"]
    kept = fasttrain("pseudo", tmp_path / "r.arrow", "--threshold", "0.6", "--out", tmp_path / "p.csv")
    assert 0 < kept["kept"] < 60
    fasttrain("submit", tmp_path / "r.arrow", "--format", "json", "--out", tmp_path / "s.json")
    submitted = json.loads((tmp_path / "s.json").read_text())
    counts = np.bincount(list(submitted.values()))
    assert (counts.min(), counts.max()) == (report["count_min"], report["count_max"])
    assert fasttrain("scores", "show", tmp_path / "r.arrow")["labelled"] == 60


def test_errors_are_sentences_and_leave_nothing(tables, tmp_path):
    failed = fasttrain("ensemble", *tables, "--weights", "1", "--out", tmp_path / "e.arrow", ok=False)
    assert failed["code"] == 1
    assert "one a table" in failed["error"]
    assert fasttrain("ensemble", *tables, "--weights", "x", "--out", tmp_path / "e.arrow", ok=False)["code"] == 2
    assert not (tmp_path / "e.arrow").exists()


def test_options_without_effect_are_refused(tables, tmp_path):
    out = ("--out", tmp_path / "o.arrow")
    for arguments, code, message in (
        (("ensemble", *tables, *out, "--factor", "2"), 2, "--factor"),
        (("redistribute", tables[0], *out, "--equality", "--lower", "5"), 1, "no room for lower"),
        (("redistribute", tables[0], *out, "--method", "greedy-k", "--k", "5", "--eps", "1"), 1, "no eps"),
        (("redistribute", tables[0], *out, "--method", "greedy-k", "--k", "5", "--sensitivity"), 2, "--sensitivity"),
    ):
        failed = fasttrain(*arguments, ok=False)
        assert failed["code"] == code
        assert message in failed["error"]
    assert not (tmp_path / "o.arrow").exists()


def test_the_baseline_and_the_sensitivity_table(tables, tmp_path):
    out = ("--out", tmp_path / "o.arrow")
    baseline = fasttrain("redistribute", tables[0], *out, "--method", "greedy-k", "--k", "15")
    assert baseline["converged"] is None
    assert baseline["samples"] == 60
    rows = fasttrain("redistribute", tables[0], *out, "--sensitivity", "--round", "exact")["sensitivity"]
    assert len(rows) == 16
    assert all(0 <= row["agreement"] <= 1 for row in rows)
    zipped = fasttrain("submit", tmp_path / "o.arrow", "--zip", "--out", tmp_path / "s.csv")
    assert Path(zipped["out"]).name == "s.csv.zip"


def test_the_published_pseudo_labels_come_out(shared_data, tmp_path):
    """softmax(0.35 convnext + 0.30 deit + 0.35 volo) above 0.5, against the file its authors published.

    Theirs has 392 rows less: sofas and dining tables that they took out by hand-made rules.
    """
    folder = shared_data / "oodcv_scores"
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    tables = []
    for model in ("convnext_large_224", "deit_large_384_bf", "volo_d5_512"):
        tables.append(tmp_path / f"{model}.arrow")
        options = ("--kind", "logits", "--classes", tmp_path / "classes.txt")
        fasttrain("scores", "import", folder / f"{model}.csv.gz", "--out", tables[-1], *options)
    weights = ("--space", "logits", "--weights", "0.35,0.30,0.35")
    fasttrain("ensemble", *tables, *weights, "--out", tmp_path / "e.arrow")
    result = fasttrain("pseudo", tmp_path / "e.arrow", "--threshold", "0.5", "--out", tmp_path / "p.csv")
    assert result["kept"] == 12_335
    with (tmp_path / "p.csv").open() as file:
        ours = {row["id"]: row for row in csv.DictReader(file)}
    with gzip.open(folder / "round1_pseudo_0.5.csv.gz", "rt") as file:
        published = list(csv.DictReader(file))
    assert len(published) == 11_943
    for row in published:
        mine = ours.pop(row["imgs"])
        assert mine["label"] == row["pred"]
        theirs = float(row[str(CLASSES.index(row["pred"]))])
        assert abs(float(mine["confidence"]) - theirs) < 1e-6
    assert {row["label"] for row in ours.values()} == {"sofa", "diningtable"}


def test_several_tables_are_shown_side_by_side(tables, tmp_path):
    fasttrain("redistribute", tables[0], "--out", tmp_path / "r.arrow")
    one = fasttrain("scores", "show", tmp_path / "r.arrow", "--rows", "2")
    assert {"top1", "nll", "ece", "top1_assigned", "changed"} <= one.keys()
    assert len(one["first"]) == 2
    several = fasttrain("scores", "show", tmp_path / "r.arrow", *tables, "--html", tmp_path / "s.html")
    assert [entry["table"] for entry in several["tables"]] == [str(tmp_path / "r.arrow"), *map(str, tables)]
    assert several["tables"][0].items() >= {"top1": one["top1"], "ece": one["ece"]}.items()
    assert several["agreement"][0][1] == 1  # its scores are those of the first
    assert several["agreement"][1][2] == several["agreement"][2][1] < 1
    html = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "r.arrow" in html and "Re-distribution changed" in html
    command = [sys.executable, "-m", "fasttrain.cli.app", "scores", "show", str(tables[0])]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "classes: 3 (a, b, c)" in text
    assert text.count("█") >= 40  # the longest bar


def test_scores_do_without_torch(tables, tmp_path):
    code = (
        "import sys\n"
        "from fasttrain.cli.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    for arguments in (
        ("ensemble", *tables, "--out", tmp_path / "e.arrow"),
        ("scores", "show", tables[0]),
        ("scores", "show", *tables, "--html", tmp_path / "s.html"),
        ("scores", "export", tables[0], "--out", tmp_path / "t.npz"),
        ("scores", "import", tmp_path / "t.npz", "--kind", "logits", "--out", tmp_path / "i.arrow"),
        ("redistribute", tables[0], "--out", tmp_path / "r.arrow"),
        ("redistribute", tables[0], "--out", tmp_path / "r.arrow", "--round", "exact", "--equality", "--sensitivity"),
        ("redistribute", tables[0], "--out", tmp_path / "r.arrow", "--relax", "1", "--round", "greedy"),
        ("redistribute", tables[0], "--out", tmp_path / "r.arrow", "--prior", "estimate", "--uncalibrated"),
        ("pseudo", tables[0], "--threshold", "0.5", "--agree", tables[1], "--out", tmp_path / "p.csv"),
        ("submit", tables[0], "--out", tmp_path / "s.csv"),
    ):
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


def test_priors_that_are_estimated_or_counted_in_a_beton(tables, tmp_path):
    from fasttrain.scores.table import ScoreTable

    target = ScoreTable.read(tables[0])
    held = tables[1]
    other = ScoreTable.read(held)
    ScoreTable([f"v{name}" for name in other.ids], other.scores, other.classes, "logits", labels=other.labels).write(
        held
    )
    estimate = ("--prior", "estimate", "--calibrate", held)
    report = fasttrain("redistribute", tables[0], "--out", tmp_path / "r.arrow", *estimate)
    assert report["prior"]["estimator"] == "mlls"
    assert report["converged"]
    for arguments, code, message in (
        (("--prior", "estimate"), 1, "uncalibrated says that this is wanted"),
        (("--prior", "estimate", "--calibrate", tables[0]), 1, "samples of the table itself"),
        (("--prior", "train"), 1, "does not say how many"),
        (("--prior", tmp_path / "absent.beton"), 1, "absent.beton"),
        (("--relax", "-1"), 1, "relax"),
        (("--upper", "0.5x", "--lower", "0"), 1, "room for 30 of 60"),
    ):
        failed = fasttrain("redistribute", tables[0], "--out", tmp_path / "n.arrow", *arguments, ok=False)
        assert failed["code"] == code
        assert message in failed["error"]
        assert len(failed["error"].splitlines()) == 1
    assert not (tmp_path / "n.arrow").exists()
    images = tmp_path / "images"
    for name, count in zip(target.classes, (4, 2, 2), strict=True):
        (images / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(images / name / f"{number}.png")
    fasttrain("build", images, tmp_path / "train.beton")
    report = fasttrain(
        "redistribute", tables[0], "--out", tmp_path / "b.arrow", "--prior", tmp_path / "train.beton", "--equality",
        "--round", "exact",
    )  # fmt: skip
    assert (report["count_min"], report["count_max"]) == (15, 30)
