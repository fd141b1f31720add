"""Loops, sweeps and references: which stages a recipe becomes, and what they take from each other."""

from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttrain.base.config import read_config
from fasttrain.base.errors import ConfigError
from fasttrain.cli.app import app
from fasttrain.cli.toolbox import CommandLine
from fasttrain.recipes.expand import RecipeProblems, expand
from fasttrain.recipes.graph import Stage, after, before, chosen
from fasttrain.recipes.load import find_recipe, load_recipe
from fasttrain.recipes.references import StageOutput, outputs_in
from fasttrain.recipes.schema import RecipeFile

from .conftest import write_recipe

TOOLBOX = CommandLine(app)


def expanded(stages: dict[str, Any], **rest: Any) -> dict[str, Stage]:
    recipe = RecipeFile.model_validate({"name": "test", "stages": stages, **rest})
    return {stage.name: stage for stage in expand(recipe, TOOLBOX)}


def rounds(**train: Any) -> dict[str, Any]:
    """Two models, three rounds, each learning from the pseudo-labels of the one before."""
    loop = {"for": {"model": ["a", "b"], "round": [1, 2, 3]}}
    return {
        "train": {"kind": "train", **loop, "data": ["base.beton", "${labels_of[round=prev]}"], **train},
        "predict": {"kind": "predict", "each": "train", "checkpoint": "${train}", "data": "test.beton"},
        "ensemble": {"kind": "ensemble", "for": {"round": [1, 2, 3]}, "tables": "${predict}"},
        "labels_of": {"kind": "build", "for": {"round": [1, 2]}, "sources": "x", "labels": "${pseudo}"},
        "pseudo": {"kind": "pseudo", "for": {"round": [1, 2]}, "table": "${ensemble}", "threshold": 0.5},
        "submission": {"kind": "submit", "table": "${ensemble[round=last]}"},
    }


def test_rounds_take_from_the_round_before():
    stages = expanded(rounds())
    assert stages["train[model=a,round=1]"].body["data"] == ["base.beton"]
    second = stages["train[model=b,round=2]"].body["data"]
    assert second == ["base.beton", StageOutput("labels_of[round=1]", "dataset")]
    assert stages["predict[model=b,round=3]"].needs == ["train[model=b,round=3]"]
    assert stages["ensemble[round=2]"].needs == ["predict[model=a,round=2]", "predict[model=b,round=2]"]
    assert stages["submission"].needs == ["ensemble[round=3]"]
    names = list(stages)
    assert all(names.index(need) < names.index(stage.name) for stage in stages.values() for need in stage.needs)


def test_all_rounds_before_are_collected():
    stages = expanded(rounds(data=["base.beton", "${labels_of[round=before]}"]))
    assert stages["train[model=a,round=1]"].body["data"] == ["base.beton"]
    third = stages["train[model=a,round=3]"]
    assert third.needs == ["labels_of[round=1]", "labels_of[round=2]"]


def test_a_reference_to_nothing_takes_its_key_away():
    stages = expanded(rounds(data="base.beton", weights="${train[round=prev].checkpoint}"))
    assert "weights" not in stages["train[model=a,round=1]"].body
    assert stages["train[model=a,round=2]"].body["weights"] == StageOutput("train[model=a,round=1]", "checkpoint")


@given(
    axes=st.dictionaries(
        st.sampled_from(["model", "round", "fold"]),
        st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
        min_size=1,
        max_size=3,
    ),
    kept=st.sets(st.sampled_from(["model", "round", "fold"])),
)
def test_every_combination_is_a_stage_and_open_axes_are_collected(axes, kept):
    """A stage that loops over some of the axes gets, of the others, all."""
    kept_axes = {axis: values for axis, values in axes.items() if axis in kept}
    stages = expanded(
        {
            "tables": {"kind": "import", "for": axes, "scores": "x-" + "-".join(f"${{{axis}}}" for axis in axes)},
            "joined": {"kind": "ensemble", "for": kept_axes, "tables": ["${tables}"]},
        }
    )
    combinations = list(product(*axes.values()))
    made = [stage for stage in stages.values() if stage.template == "tables"]
    assert [stage.body["scores"] for stage in made] == ["-".join(["x", *map(str, values)]) for values in combinations]
    assert len({stage.folder for stage in stages.values()}) == len(stages)
    joined = [stage for stage in stages.values() if stage.template == "joined"]
    collected = [output.stage for stage in joined for output in outputs_in(stage.body)]
    assert sorted(collected) == sorted(stage.name for stage in made)
    for stage in joined:
        assert all(stages[need].axes[axis] == label for need in stage.needs for axis, label in stage.axes.items())


def test_a_sweep_sets_what_its_names_say():
    stages = expanded(
        {
            "train": {
                "kind": "train",
                "data": "a.beton",
                "optimizer": {"name": "sgd"},
                "sweep": {"optimizer.lr": [0.1, 0.01], "epochs": [2]},
            },
            "predict": {"kind": "predict", "each": "train", "checkpoint": "${train}", "data": "b.beton"},
            "best": {"kind": "predict", "checkpoint": "${train[optimizer.lr=0.1,epochs=2]}", "data": "b.beton"},
        }
    )
    assert stages["train[optimizer.lr=0.01,epochs=2]"].body == {
        "data": "a.beton",
        "optimizer": {"name": "sgd", "lr": 0.01},
        "epochs": 2,
    }
    predicted = stages["predict[optimizer.lr=0.01,epochs=2]"]
    assert predicted.needs == ["train[optimizer.lr=0.01,epochs=2]"]
    assert "epochs" not in predicted.body
    assert stages["best"].needs == ["train[optimizer.lr=0.1,epochs=2]"]


def test_variables_keep_their_types_and_values_of_loops_may_be_mappings():
    models = [{"name": "small", "settings": {"model": "resnet18", "size": "${size}"}}]
    stages = expanded(
        {"train": {"kind": "train", "for": {"model": "${models}"}, "with": "${model.settings}", "data": "${data}"}},
        vars={"size": 64, "models": models, "root": "x", "data": ["${root}/a.beton", "${root}/b.beton"]},
    )
    assert stages["train[model=small]"].body == {
        "model": "resnet18",
        "size": 64,
        "data": ["x/a.beton", "x/b.beton"],
    }


def test_a_variable_may_choose_within_another_one():
    stages = expanded(
        {"a": {"kind": "build", "sources": ["x", "${others.${target}}"], "labels": "${target}/${names.${target}}.csv"}},
        vars={"target": "b", "others": {"b": ["c", "d"], "c": ["b"]}, "names": {"b": "beta"}},
    )
    assert stages["a"].body == {"sources": ["x", "c", "d"], "labels": "b/beta.csv"}


def test_several_mappings_lie_one_beneath_the_next():
    stages = expanded(
        {"train": {"kind": "train", "with": ["${common}", {"optimizer": {"lr": 2}}, "${none}"], "size": 8}},
        vars={"common": {"size": 64, "optimizer": {"name": "sgd", "lr": 1}}, "none": {}},
    )
    assert stages["train"].body == {"size": 8, "optimizer": {"name": "sgd", "lr": 2}}


def test_null_takes_a_setting_away_from_the_mappings_beneath_and_from_the_named_file():
    for config, size in ((), {}), (("config",), {"size": None}):
        named = dict.fromkeys(config, "cifar10")
        stages = expanded({"train": {"kind": "train", "with": [{"size": 64, "lr": 1}, {"size": None}], **named}})
        assert stages["train"].body == {"lr": 1, **size, **named}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"submission": {"kind": "submitt"}}, "did you mean 'submit'?"),
        ({"submission": {"kind": "submit", "gpus": "two"}}, "gpus"),
        ({"submission": {"kind": "submit", "table": "${ensembel}"}}, "did you mean 'ensemble'?"),
        ({"submission": {"kind": "submit", "table": "${ensemble.tabel}"}}, "did you mean 'table'?"),
        ({"submission": {"kind": "submit", "table": "${ensemble[rond=1]}"}}, "did you mean 'round'?"),
        ({"submission": {"kind": "submit", "table": "${ensemble[round=7]}"}}, "there are 1, 2, 3"),
        ({"submission": {"kind": "submit", "table": "${ensemble[round=prev]}"}}, "only in a stage that has the axis"),
        ({"submission": {"kind": "submit", "table": "${a b}"}}, "is no reference"),
        ({"submission": {"kind": "submit", "table": "x-${ensemble[round=1]}"}}, "let it stand alone"),
        ({"pseudo": {"table": "${ensemble[round=prev]}", "kind": "pseudo", "for": {"round": [5, 1, 9]}}}, "would be 5"),
        ({"pseudo": {"table": "${redistribute}", "kind": "pseudo"}, "redistribute": {"kind": "redistribute",
         "table": "${pseudo}"}}, "pseudo → redistribute → pseudo"),
        ({"predict": {"kind": "predict", "each": "nothing"}}, "each: there is no stage 'nothing'"),
        ({"train": {"kind": "train", "for": {"round": []}}}, "must be a list of values"),
        ({"train": {"kind": "train", "for": {"round": [1, 1]}}}, "is there twice"),
        ({"train": {"kind": "train", "for": {"round": ["a/b"]}}}, "cannot be part of a stage's name"),
        ({"train": {"kind": "train", "for": {"predict": [1]}}}, "is the name of something else"),
    ],
)  # fmt: skip
def test_wrong_references_name_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeProblems) as caught:
        expanded({**rounds(), **change})
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


def test_a_round_that_takes_from_itself_is_a_circle():
    with pytest.raises(RecipeProblems, match="need each other in a circle"):
        expanded({**rounds(data=["base.beton", "${labels_of[round=1]}"])})


def test_variables_in_a_circle():
    with pytest.raises(RecipeProblems, match="in a circle"):
        expanded({"s": {"kind": "submit", "table": "${a}"}}, vars={"a": "${b}", "b": "${a}"})


def test_selecting_stages_by_name():
    stages = list(expanded(rounds()).values())
    assert chosen(stages, ["ensemble"]) == ["ensemble[round=1]", "ensemble[round=2]", "ensemble[round=3]"]
    assert chosen(stages, ["train[model=b,round=2]"]) == ["train[model=b,round=2]"]
    with pytest.raises(ConfigError, match="did you mean 'ensemble'"):
        chosen(stages, ["ensembl"])
    assert "submission" in after(stages, ["pseudo[round=1]"])
    assert before(stages, ["ensemble[round=1]"]) == {
        "ensemble[round=1]",
        *(f"{stage}[model={model},round=1]" for stage in ("train", "predict") for model in "ab"),
    }


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_base_is_changed_key_by_key(tmp_path: Path) -> None:
    base = {"name": "base", "vars": {"size": 224}, "stages": {**rounds(), "extra": {"kind": "submit", "table": "x"}}}
    (tmp_path / "deep").mkdir()
    write_recipe(tmp_path / "deep" / "base.yaml", {**base, "files": {"here": "${recipe_dir}/labels.csv"}})
    over = {"base": "deep/base.yaml", "name": "mine", "stages": {"extra": None, "pseudo": {"threshold": 0.9}}}
    recipe = load_recipe(write_recipe(tmp_path / "mine.yaml", over))
    assert recipe.name == "mine"
    assert "extra" not in recipe.stages
    assert recipe.stages["pseudo"] == {**rounds()["pseudo"], "threshold": 0.9}
    assert recipe.files["here"].path == str(tmp_path / "deep" / "labels.csv")


def test_bases_in_a_circle(tmp_path: Path) -> None:
    write_recipe(tmp_path / "a.yaml", {"base": "b.yaml"})
    write_recipe(tmp_path / "b.yaml", {"base": "a.yaml"})
    with pytest.raises(ConfigError, match=r"a.yaml → b.yaml → a.yaml"):
        load_recipe(tmp_path / "a.yaml")


def test_overrides_reach_variables_and_stages(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "r.yaml", {"vars": {"size": 1}, "stages": rounds()})
    recipe = load_recipe(path, ["size=64", "stages.pseudo.threshold=0.9", "stages.submission=null"])
    assert recipe.vars["size"] == 64
    assert recipe.stages["pseudo"]["threshold"] == 0.9
    assert "submission" not in recipe.stages
    for wrong, hint in (("siez=1", "did you mean 'size'"), ("stages.psuedo.threshold=1", "did you mean 'pseudo'")):
        with pytest.raises(ConfigError, match=hint):
            load_recipe(path, [wrong])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stages": {}}, "needs stages"),
        ({"stages": {"a": {"kind": "submit"}}, "stage": 1}, "did you mean 'stages'"),
        ({"stages": {"a": {"kind": "submit"}}, "vars": {"a": 1}}, "give one of them another name"),
        ({"stages": {"a b": {"kind": "submit"}}}, "cannot name a stage"),
        ({"stages": {"a": {"kind": "submit"}}, "files": {"f": {"path": "x", "targt": True}}}, "targt"),
    ],
)
def test_wrong_files_name_what_is_wrong(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(write_recipe(tmp_path / "r.yaml", values))


def test_recipes_that_come_along_are_found_by_name():
    assert load_recipe("pacs_rounds").name == "pacs_rounds"
    assert load_recipe("small/pacs_rounds").name == "pacs_rounds"
    with pytest.raises(ConfigError, match="did you mean 'small/pacs_rounds'"):
        load_recipe("small/pacs_round")
    with pytest.raises(ConfigError, match="has no stages"):
        load_recipe(Path(str(files("fasttrain.recipes"))) / "cifar10.yaml")
    with pytest.raises(ConfigError, match="fasttrain recipe run"):
        read_config(find_recipe("pacs_rounds"))
