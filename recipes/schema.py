"""What a recipe file may hold."""

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from fasttrain.base.config import Settings

NAME = re.compile(r"[A-Za-z][\w-]*")


class FileSpec(Settings):
    """A file or folder that comes from outside.

    Attributes:
        path: relative to the current folder; ``${recipe_dir}`` is the folder of the recipe.
        type: what it holds, where the suffix does not tell (see `fasttrain.recipes.kinds`).
        target: figures are reported on its labels, so that only `evaluate` stages may see them.
    """

    path: str
    type: str | None = None
    target: bool = False


class StageHead(Settings):
    """The keys that stages of every kind have; all others are inputs and options of the kind.

    Attributes:
        kind: see `fasttrain.recipes.kinds`.
        loops: (``for:``) values of each axis, over which the stage is repeated.
        each: name of a stage whose axes this one has, too.
        sweep: values of settings; the stage is repeated for each combination.
        settings: (``with:``) a mapping of inputs and options beneath those that are written out, or several of them,
            each beneath the next.
        gpus: number of GPUs; None for one if the kind has use for it and there is any.
        nproc: processes under torchrun; None for one a GPU.
        nodes: machines, each with `gpus` GPUs (under Slurm).
        hours: time limit under Slurm.
    """

    kind: str
    loops: dict[str, Any] = Field(default_factory=dict, alias="for")
    each: str | None = None
    sweep: dict[str, Any] = Field(default_factory=dict)
    settings: Any = Field(default_factory=dict, alias="with")
    gpus: int | None = Field(default=None, ge=0)
    nproc: int | None = Field(default=None, ge=1)
    nodes: int = Field(default=1, ge=1)
    hours: float | None = Field(default=None, gt=0)


HEAD_KEYS = tuple(field.alias or name for name, field in StageHead.model_fields.items())


class RecipeFile(Settings):
    """A recipe, after its bases were put beneath it.

    Attributes:
        name: of the recipe, and of its work folder by default.
        description: for people.
        vars: values that ``${name}`` stands for; ``--set name=value`` changes them.
        files: what comes from outside, by name.
        stages: by name.
    """

    name: str
    description: str = ""
    vars: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, FileSpec] = Field(default_factory=dict)
    stages: dict[str, dict[str, Any]]

    @field_validator("files", mode="before")
    @classmethod
    def _paths_alone(cls, files: Any) -> Any:
        """``name: path`` for ``name: {path: path}``."""
        if not isinstance(files, dict):
            return files
        return {name: {"path": entry} if isinstance(entry, str) else entry for name, entry in files.items()}

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a recipe; use letters, digits, _ and -")
        return name

    @model_validator(mode="after")
    def _names_differ(self) -> "RecipeFile":
        if not self.stages:
            raise ValueError("a recipe needs stages")
        seen: dict[str, str] = {"recipe_dir": "a name of the runner"}
        for what, names in (("a variable", self.vars), ("a file", self.files), ("a stage", self.stages)):
            for name in names:
                if not NAME.fullmatch(str(name)):
                    raise ValueError(f"{name!r} cannot name {what}; use letters, digits, _ and -")
                if name in seen:
                    raise ValueError(f"{name!r} is {seen[name]} and {what}; give one of them another name")
                seen[name] = what
        return self
