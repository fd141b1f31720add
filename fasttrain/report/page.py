"""A report as typed content, and its rendering as one HTML file that needs nothing else.

    page = Page("My run", sections=[Section("Accuracy", [Table(["model", "top-1"], [["resnet18", "0.91"]])])])
    write_page(page, "runs/x/report.html")

All text is plain text: it is escaped by the template, so a class may be called ``<script>``.
"""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import jinja2

from fasttrain.base.atomic import atomic_open

MIME_TYPES = {"svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Text:
    """A paragraph. `muted` sets it smaller and paler, for remarks."""

    kind: ClassVar[str] = "text"
    text: str
    muted: bool = False


@dataclass(frozen=True)
class Facts:
    """A row of single figures: label to value, both as they are to be shown."""

    kind: ClassVar[str] = "facts"
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: their names.
        rows: cells as they are to be shown, each row as long as `columns`.
        caption: below the table.
        strong: indices of rows to stress.
        left: how many columns, from the first, hold words and are set left; the others are set right.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: Sequence[int] = ()
    left: int = 1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"row {list(row)} does not have the {len(self.columns)} cells of {list(self.columns)}")


@dataclass(frozen=True)
class Image:
    """An image that is stored in the page itself."""

    data: bytes
    format: Literal["svg", "png", "jpeg"]

    @property
    def url(self) -> str:
        """As a data URL."""
        return f"data:{MIME_TYPES[self.format]};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Figure:
    """A plot with its caption; `alt` says in words what it shows. Two that are not `wide` stand side by side."""

    kind: ClassVar[str] = "figure"
    image: Image
    caption: str = ""
    alt: str = ""
    wide: bool = True


@dataclass(frozen=True)
class Picture:
    """One tile of a grid; `wrong` marks it."""

    image: Image
    lines: Sequence[str] = ()
    wrong: bool = False


@dataclass(frozen=True)
class Grid:
    """Pictures side by side, as many in a row as the screen allows."""

    kind: ClassVar[str] = "grid"
    pictures: Sequence[Picture]
    caption: str = ""


@dataclass(frozen=True)
class Commands:
    """Command lines to copy."""

    kind: ClassVar[str] = "commands"
    lines: Sequence[str]


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when their title is clicked on."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence["Block"]


Block = Text | Facts | Table | Figure | Grid | Commands | Fold


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: of the page, shown in the browser's tab too.
        subtitle: one or two sentences below it.
        sections: in their order; more than two get a table of contents.
        made: when, as it is to be shown; now by default.
    """

    title: str
    subtitle: str = ""
    sections: Sequence[Section] = ()
    made: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))


def render(page: Page) -> str:
    """The page as HTML text."""
    return _environment().get_template("page.html.j2").render(page=page)


def write_page(page: Page, path: str | Path) -> Path:
    """Write the page atomically and return where it lies."""
    with atomic_open(path) as file:
        file.write(render(page))
    return Path(path)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("fasttrain.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
