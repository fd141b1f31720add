"""The recipes of published systems: sound on data in the right layout, and their first steps run with a tiny model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasttrain.beton_build.reader import BetonReader
from fasttrain.recipes.check import check
from fasttrain.recipes.expand import expand
from fasttrain.recipes.graph import before
from fasttrain.recipes.load import load_recipe
from fasttrain.recipes.resources import Machine
from fasttrain.recipes.toolbox import Toolbox

from .conftest import fasttrain

OOD_CV = ("aeroplane", "bicycle", "boat", "bus", "car", "chair", "diningtable", "motorbike", "sofa", "train")
NUISANCES = ("shape", "pose", "texture", "context", "weather", "occlusion", "iid")
GPUS = Machine(tuple("01234567"), 64)
BY_EPOCH = "by_epoch={a: {best: val_top1}, b: {best: val_top1}}"  # and no sizes
TINY = "model: test_resnet, pretrained: false, size: 32, batch_size: 8, threads: 1, device: cpu"


def draw(path: Path, seed: int) -> None:
    """Noise as a JPEG file, wider than high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (36, 48, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def robin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("robin")
    for number, label in enumerate(OOD_CV):
        for index in range(2):
            draw(root / f"ROBINv1.1-cls-pose/train/Images/{label}/{index}.jpg", number)
        draw(root / f"phase2-cls/images/{number}.jpg", number)
    for nuisance in NUISANCES:
        folder = root / "nuisances" / nuisance
        for number, label in enumerate(OOD_CV[:4]):  # not every set holds every class
            draw(folder / "Images" / label / f"{number}.jpg", number)
        lines = [f"{number}.jpg,{label}\n" for number, label in enumerate(OOD_CV[:4])]
        (folder / "labels.csv").write_text("imgs,labels\n" + "".join(lines))
    return root


@pytest.fixture(scope="session")
def accv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("accv")
    lines = []
    for number in range(24):
        label = f"{number % 3:04d}"
        draw(root / f"train/{label}/{number}.jpg", number)
        lines.append(f"{label}/{number}.jpg {label}\n")
    for part in ("testa", "testb"):
        for number in range(6):
            draw(root / part / f"{number}.jpg", number)
    (root / "meta").mkdir()
    (root / "meta" / "all.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="session")
def aliproducts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists with absolute paths, and those that were published."""
    root = tmp_path_factory.mktemp("aliproducts")
    for part, count in (("train", 12), ("val", 6)):
        entries = [(f"{part}_{number}.jpg", f"{number % 3:05d}") for number in range(count)]
        for number, (name, label) in enumerate(entries):
            draw(root / part / label / name, number)
        images = [{"image_id": name, "class_id": label} for name, label in entries]
        (root / f"{part}.json").write_text(json.dumps({"images": images}))
        lines = [f"{root}/{part}/{label}/{name} {int(label)}\n" for name, label in entries]
        (root / f"{part}.txt").write_text("".join(lines))
    for number in range(4):
        draw(root / "test" / f"{number}.jpg", number)
    (root / "test.txt").write_text("".join(f"{root}/test/{number}.jpg\n" for number in range(4)))
    return root


@pytest.fixture(scope="session")
def nicopp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists, images and masks of two domains."""
    root = tmp_path_factory.mktemp("nicopp")
    entries = []
    for domain, folder in enumerate(("autumn", "dim")):
        for label, name in enumerate(("bear", "bird", "bus")):
            for number in range(6):
                path = f"train/{folder}/{name}/{number}.jpg"
                draw(root / path, label)
                mask = (root / "masks" / path).with_suffix(".png")
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((36, 48), 255 * (number % 2), np.uint8)).save(mask)
                entries.append({"image_path": path, "domain": domain, "label": label, "label_name": name})
    for number in range(4):
        draw(root / f"test/{number:04x}.jpg", number)
    bare = [{key: value for key, value in entry.items() if key != "domain"} for entry in entries]
    test = [{"image_path": f"test/{number:04x}.jpg", "image_name": f"{number:04x}"} for number in range(4)]
    for track, train in (("track1", entries), ("track2", bare)):
        (root / f"{track}_train_label.json").write_text(json.dumps(train, indent=4))
        (root / f"{track}_test_label.json").write_text(json.dumps(test, indent=4))
    return root


@pytest.mark.parametrize("trial", [None, f"trial={{{TINY}, epochs: 7, schedule: {{kind: cosine}}}}"])
@pytest.mark.parametrize(
    ("name", "layout", "more", "trainings"),
    [
        ("ood_cv", "robin", [], 3 + 2 + 1),
        ("ood_cv", "robin", ["first_scores=${first}", "second_scores=${second}"], 3 + 2 + 1),
        ("webly_fine_grained", "accv", [], 2 + 4 * 3 + 4 * 4),
        ("webly_fine_grained", "accv", ["swin_loss=softmax_eql"], 2 + 4 * 3 + 4 * 4),
        ("context_generalisation", "nicopp", [BY_EPOCH], 1 + 3 + 3 + 30),
        ("context_generalisation", "nicopp", ["track=track2", BY_EPOCH], 1 + 3 + 3 + 30),
        ("context_generalisation", "nicopp", ["masks={}/masks", BY_EPOCH], 1 + 3 + 3 + 30),
        ("product_classification", "aliproducts", [], 9),
        ("product_classification", "aliproducts", ["train_list={}/train.json", "val_list={}/val.json"], 9),
    ],
)
def test_the_whole_is_sound(
    name: str,
    layout: str,
    more: list[str],
    trainings: int,
    trial: str | None,
    toolbox: Toolbox,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    root = request.getfixturevalue(layout)
    overrides = [f"data={root}", *(entry.replace("{}", str(root)) for entry in more), *([trial] if trial else [])]
    recipe = load_recipe(name, overrides)
    stages = expand(recipe, toolbox)
    assert check(recipe, stages, toolbox, GPUS, tmp_path / "work") == []
    assert sum(stage.kind.name == "train" for stage in stages) == trainings


def run(name: str, root: Path, out: Path, until: list[str], *more: str) -> dict[str, Any]:
    trial = f"trial={{{TINY}, epochs: 1, schedule: {{kind: cosine}}}}"
    sets = [word for entry in (f"data={root}", trial, *more) for word in ("--set", entry)]
    ends = [word for stage in until for word in ("--until", stage)]
    return fasttrain("recipe", "run", name, "--out", out, "--jobs", 2, *ends, *sets)


def classes_of(path: Path) -> tuple[list[str] | None, int]:
    with BetonReader(path) as reader:
        return reader.class_names, len(reader.labels)


@pytest.mark.thorough
def test_first_steps_of_ood_cv(robin: Path, tmp_path: Path) -> None:
    run("ood_cv", robin, tmp_path, ["train[model=deit]"])
    stages = tmp_path / "stages"
    assert classes_of(stages / "nuisance_set,nuisance=pose/data.beton") == ([*OOD_CV], 4)
    [record] = [json.loads(line) for line in (stages / "train,model=deit/run/metrics.jsonl").read_text().splitlines()]
    assert {"val_top1", "val_mean_top1", *(f"val_{name}_top1" for name in NUISANCES[:-1])} <= record.keys()
    assert (stages / "train,model=deit/run/best.safetensors").exists()


@pytest.mark.thorough
def test_first_steps_of_webly_fine_grained(accv: Path, tmp_path: Path) -> None:
    run("webly_fine_grained", accv, tmp_path, ["judge_first", "testa_set"])
    stages = tmp_path / "stages"
    halves = [classes_of(stages / "halves" / name) for name in ("data.beton", "val.beton")]
    assert halves == [(["0000", "0001", "0002"], 12)] * 2
    assert classes_of(stages / "testa_set/data.beton")[1] == 6
    assert (stages / "judge_first/run/last.safetensors").exists()


@pytest.mark.parametrize(
    ("suffix", "until", "names"),
    [
        ("txt", ["train[model=iresnet101]", "test_set"], ["0", "1", "2"]),
        pytest.param("json", ["val_set"], ["00000", "00001", "00002"], marks=pytest.mark.thorough),
    ],
)
def test_first_steps_of_product_classification(
    aliproducts: Path, tmp_path: Path, suffix: str, until: list[str], names: list[str]
) -> None:
    lists = [f"{part}_list={aliproducts}/{part}.{suffix}" for part in ("train", "val")]
    run("product_classification", aliproducts, tmp_path, until, *lists)
    stages = tmp_path / "stages"
    assert classes_of(stages / "train_set/data.beton") == (names, 12)
    assert classes_of(stages / "val_set/data.beton") == (names, 6)
    if suffix == "txt":
        assert classes_of(stages / "test_set/data.beton")[1] == 4
        assert (stages / "train,model=iresnet101/run/best.safetensors").exists()


def test_the_recipe_of_contexts_with_sizes_by_epoch(nicopp: Path, toolbox: Toolbox, tmp_path: Path) -> None:
    recipe = load_recipe("context_generalisation", [f"data={nicopp}"])
    stages = expand(recipe, toolbox)
    assert check(recipe, stages, toolbox, GPUS, tmp_path / "work") == []
    bodies = {stage.name: stage.body for stage in stages}
    assert bodies["stage_a[model=resnet34]"]["size_schedule"] == {0: 224, 60: 448}
    assert bodies["stage_b[model=resnet34]"]["co_teacher"]["domains"] == "domain"
    assert sorted(body["augment"]["spectral"]["ratio"] for name, body in bodies.items() if "stage_c" in name)[::3] == [
        number / 10 for number in range(1, 11)
    ]
    assert len(bodies["vote"]["tables"]) == 33
    assert str(bodies["train_set"]["masks"]) == "${object_masks.masks}"


def test_ready_masks_take_the_place_of_those_that_are_made(nicopp: Path, toolbox: Toolbox, tmp_path: Path) -> None:
    stages = expand(load_recipe("context_generalisation", [f"data={nicopp}", f"masks={nicopp}/masks"]), toolbox)
    makers = {"bare_set", "baseline", "object_maps", "object_masks"}
    needed = before(stages, ["prediction"])
    assert {stage.name for stage in stages} - needed == makers


@pytest.mark.thorough
def test_first_steps_of_context_generalisation(nicopp: Path, tmp_path: Path) -> None:
    more = [BY_EPOCH, "models=[densenet121]", "val_fraction=0.34"]
    more += ["maptrial={model: test_resnet, size: 64, epochs: 1, batch_size: 8, threads: 1, device: cpu}"]
    pretrial = f"pretrial={{{TINY}, epochs: 1, moco: {{queue: 16}}}}"
    run("context_generalisation", nicopp, tmp_path, ["stage_b"], pretrial, *more)
    stages = tmp_path / "stages"
    with BetonReader(stages / "train_set/data.beton") as reader:
        assert sorted(set(reader.column("domain").tolist())) == [0, 1]
        assert reader.masks is not None and reader.masks.classes == ("background", "object")
    assert len(list((stages / "object_masks/masks").rglob("*.png"))) == 36
    with BetonReader(stages / "bare_set/data.beton") as bare, BetonReader(stages / "train_set/data.beton") as reader:
        assert list(bare.ids) == list(reader.ids)
    [record] = [
        json.loads(line) for line in (stages / "stage_b,model=densenet121/run/metrics.jsonl").read_text().splitlines()
    ]
    assert {"val_top1", "val_top1_student", "loss_consistency"} <= record.keys()
    assert (stages / "stage_b,model=densenet121/run/student.safetensors").exists()
