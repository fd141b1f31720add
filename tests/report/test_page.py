"""A report needs nothing but itself, shows what it was given, and is not fooled by what things are called."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fasttrain.report.page import Commands, Facts, Page, Section, Table, Text, render, write_page
from fasttrain.report.pictures import picture_grid, thumbnail
from fasttrain.report.tables import accuracy_table, percent, run_table

HOSTILE = '<script>alert("x")</script>\' onerror=alert(1) {{ 7*7 }}'


class Tags(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def full_page(name: str) -> Page:
    grid = picture_grid([np.zeros((8, 8, 3), np.uint8)] * 3, [name, name, None], [name, "cat", "cat"], name)
    blocks = [
        Text(name),
        Facts({name: name}),
        Table([name], [[name]], name),
        grid,
        Commands([f"fasttrain build {name}"]),
        accuracy_table([(name, 0.5, name)], name),
    ]
    return Page(name, name, [Section(name, blocks), Section("Second", []), Section("Third", [])])


def test_nothing_is_fetched_from_outside() -> None:
    html = render(full_page("a class"))
    for tag, attributes in Tags(html).tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for key in ("src", "href", "action", "srcset"):
            assert (attributes.get(key) or "#").startswith(("data:image/", "#")), (tag, attributes)
    assert not re.search(r"url\(|@import", html)


def test_hostile_names_are_only_text() -> None:
    plain, hostile = Tags(render(full_page("a class of its own"))), Tags(render(full_page(HOSTILE)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(attributes) for _, attributes in hostile.tags] == [
        sorted(attributes) for _, attributes in plain.tags
    ]
    assert hostile.text.count(HOSTILE) >= 10


def test_sections_stand_in_their_order_and_are_linked(tmp_path: Path) -> None:
    path = write_page(Page("T", sections=[Section(name, [Text("x")]) for name in "ABC"]), tmp_path / "sub" / "r.html")
    html = path.read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*)</h2>", html) == ["A", "B", "C"]
    anchors = re.findall(r'href="#(.*?)"', html)
    assert anchors and anchors == re.findall(r'<section id="(.*?)"', html)


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="does not have the 2 cells"):
        Table(["a", "b"], [["1"]])


def test_grid_marks_what_was_taken_for_something_else() -> None:
    pixels = np.full((10, 20, 3), 200, np.uint8)
    grid = picture_grid([pixels] * 4, ["cat", "cat", None, "cat"], ["cat", "dog", "dog", None])
    assert [picture.wrong for picture in grid.pictures] == [False, True, False, False]
    assert [list(picture.lines) for picture in grid.pictures] == [
        ["cat", "✓"],
        ["cat", "taken for dog"],
        ["taken for dog"],
        ["cat"],
    ]


def test_thumbnails_keep_the_shape_and_stay_small() -> None:
    import io

    from PIL import Image

    for shape, expected in [((300, 600), (128, 64)), ((8, 8), (64, 64)), ((1, 40), (80, 2))]:
        image = Image.open(io.BytesIO(thumbnail(np.zeros((*shape, 3), np.uint8)).data))
        assert image.size == expected


def test_tables_of_accuracies_and_runs() -> None:
    table = accuracy_table([("a", 0.5, ""), ("b", None, ""), ("c", 0.75, "")])
    assert [row[-1] for row in table.rows] == ["50.0%", "–", "75.0%"]
    assert list(table.strong) == [2]
    records = [{"epoch": 0, "train_loss": 2.0}, {"epoch": 1, "train_loss": 1.0, "val_top1": 0.25, "images_per_s": 1234}]
    assert list(run_table({"r": records, "empty": []}).rows) == [
        ["r", "2", "1.000", "–", "25.0%", "1,234", "–"],
        ["empty", "0", "–", "–", "–", "–", "–"],
    ]
    assert percent(1.0) == "100.0%"
