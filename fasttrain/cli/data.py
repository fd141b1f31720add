"""`build`, `info`, `verify`: data sets as `.beton` files."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasttrain.base.errors import ConfigError
from fasttrain.base.sizes import parse_size
from fasttrain.cli.output import JsonOption, finish


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("build")(build)
    app.command("merge")(merge)
    app.command("info")(info)
    app.command("verify")(verify)
    app.command("index")(index)


def build(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="A folder with one sub-folder a class, a plain folder of images, a text list of 'path label' lines, "
            "a .csv/.tsv table with a header, a .json/.jsonl list of objects, WebDataset archives (x.tar, "
            "x-{000..012}.tar, or a folder of --format webdataset), or another .beton. Several of any kinds are "
            "joined, their classes by name; the ids of several folders start with the folder's name.",
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT.beton", help="The file to write (the folder, with --format webdataset).")
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="Class names, one a line, or a .beton of the same classes; their order gives the labels."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A table with the columns id,label; replaces the labels of the sources.")
    ] = None,
    withhold_labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep the labels out of OUT (and a .beton's masks), and write them here: id,label."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the paths of lists start from [default: the list's folder].")
    ] = None,
    path_column: Annotated[
        str | None,
        typer.Option(help="Column of a table or key of JSON objects that holds the paths [default: the usual names]."),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="The same of the labels; with archives, key in a sample's .json [default there: its .cls]."),
    ] = None,
    image_suffix: Annotated[
        str | None, typer.Option(help="Which image of an archive's samples is taken, where they hold several, as jpg.")
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(help="Only these samples: a file of ids, one a line, or a table with an id column."),
    ] = None,
    id_prefix: Annotated[
        str | None,
        typer.Option(
            help="Start all ids with PREFIX/, where those of another data set are the same; --ids, --labels and masks "
            "go by the ids before."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Further columns of tables, JSON objects, archives' .json or .beton files that become fields; several "
            "times, or with commas; 'all' for every one.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Pixel labels: the mask of a/x.jpg is FOLDER/a/x.png (or of another image suffix; see --mask-suffix). "
            "Grey and palette images are taken value by value; 255 counts for nothing.",
        ),
    ] = None,
    mask_suffix: Annotated[
        str | None,
        typer.Option(
            help="How the masks' names end: x_leftImg8bit.png goes with x_gtFine_labelIds.png for this value."
        ),
    ] = None,
    mask_column: Annotated[
        str | None,
        typer.Option(
            help="Column of a table or key of JSON objects that holds the masks' paths [relative to --masks]."
        ),
    ] = None,
    mask_classes: Annotated[
        Path | None, typer.Option(help="Names of the masks' values, one a line; other values are then errors.")
    ] = None,
    palette: Annotated[
        Path | None,
        typer.Option(help="Names and colours of the masks' values: lines name,r,g,b[,id]. RGB masks are read by it."),
    ] = None,
    mask_map: Annotated[
        Path | None,
        typer.Option(help="What the masks' values become: lines from,to (or from,ignore). 16-bit masks need it."),
    ] = None,
    ignore: Annotated[
        list[int] | None, typer.Option(metavar="VALUE", help="Value of masks that counts for nothing; several times.")
    ] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Sub-folders are no classes; take all images below, without a label.")
    ] = False,
    val_fraction: Annotated[
        float,
        typer.Option(min=0.0, max=0.99, help="Share of each class that goes into a second file for validation."),
    ] = 0.0,
    val_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Split each value of this column alike, and keep it; 'folder': the ids' first folder.",
        ),
    ] = None,
    val_out: Annotated[Path | None, typer.Option(help="File for the validation part [default: OUT_val.beton].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of the validation part.")] = 0,
    mode: Annotated[
        Literal["keep", "jpg", "raw", "smart", "proportion"],
        typer.Option(
            help="keep: a JPEG's own bytes where they fit, all else re-encoded; jpg: all re-encoded; raw: pixels; "
            "smart: pixels up to --smart-threshold, else as keep; proportion: a share as keep, the others as pixels."
        ),
    ] = "keep",
    max_resolution: Annotated[
        int | None, typer.Option(min=1, help="Longest side in pixels; larger images are shrunk (Lanczos).")
    ] = None,
    min_resolution: Annotated[
        int | None, typer.Option(min=1, help="Shorter side in pixels; images are shrunk to it, never enlarged.")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of re-encoded JPEGs (4:2:0).")] = 95,
    smart_threshold: Annotated[
        int, typer.Option(min=0, help="Bytes of pixels up to which --mode smart stores them.")
    ] = 256 * 256 * 3,
    compress_probability: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of images that --mode proportion stores as JPEG.")
    ] = 0.5,
    index: Annotated[
        bool,
        typer.Option(
            help="Store a random-access index beside each JPEG (1 % more bytes): crops decode only what they show."
        ),
    ] = True,
    repack: Annotated[
        bool,
        typer.Option(
            "--repack",
            help="Code JPEGs that would be kept and cannot have an index (progressive, restart markers) so that they "
            "can: other bytes, the same pixels.",
        ),
    ] = False,
    output_format: Annotated[
        Literal["beton", "webdataset"],
        typer.Option("--format", help="beton, or webdataset: a folder of tar archives with DALI's index files."),
    ] = "beton",
    tar_size: Annotated[
        str, typer.Option(help="With --format webdataset: size of an archive, as 256MiB or 1GB.")
    ] = "256MiB",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads [default: the cores at hand].")] = None,
    page_size: Annotated[
        int | None,
        typer.Option(help="Bytes, a power of two from 2 MiB to 2 GiB [default: fits the largest image]."),
    ] = None,
    on_error: Annotated[
        Literal["fail", "skip"],
        typer.Option(help="Broken images: fail (all are listed, nothing is written) or skip them."),
    ] = "fail",
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts of the list, counted from 0; see merge.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a build that was interrupted; it ends in the same bytes.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert images to a .beton file: decoded once, turned upright, RGB, in one file that FFCV reads too."""
    from fasttrain.base.config import load_settings
    from fasttrain.base.console import say
    from fasttrain.beton_build.build import build as run
    from fasttrain.beton_build.format import is_page_size
    from fasttrain.beton_build.mask_lists import find_masks, masks_of_betons, refuse_kept
    from fasttrain.beton_build.mask_rules import read_rule
    from fasttrain.beton_build.options import BuildOptions
    from fasttrain.beton_build.sources import read_source, refuse_one_class
    from fasttrain.beton_build.split import FOLDER
    from fasttrain.beton_build.withhold import withhold_labels as withhold

    if out.suffix != ".beton" and output_format == "beton":
        raise typer.BadParameter(f"the last argument names the file to write and must end in .beton, not {out}")
    if page_size is not None and not is_page_size(page_size):
        raise typer.BadParameter(f"--page-size {page_size} is not a power of two from 2097152 to 2147483648")
    for name, value in (("--val-out", val_out), ("--val-by", val_by)):
        if value is not None and not val_fraction:
            raise typer.BadParameter(f"{name} needs --val-fraction")
    mask_options = {
        "--mask-suffix": mask_suffix,
        "--mask-classes": mask_classes,
        "--palette": palette,
        "--mask-map": mask_map,
        "--ignore": ignore,
    }
    if masks is None and mask_column is None and any(mask_options.values()):
        given = next(name for name, value in mask_options.items() if value)
        raise typer.BadParameter(f"{given} is about masks, and none are given: add --masks or --mask-column")
    if mask_suffix is not None and mask_column is not None:
        raise typer.BadParameter("--mask-suffix is about a folder of masks, and --mask-column names each; give one")
    kept = [name.strip() for entry in keep or [] for name in entry.split(",") if name.strip()]
    kept += [name for name in (val_by,) if name is not None and name not in (FOLDER, *kept)]
    samples = read_source(
        sources,
        classes=classes,
        labels=labels,
        root=root,
        path_column=path_column,
        label_column=label_column,
        image_suffix=image_suffix,
        ids=ids,
        keep=[*kept, *([mask_column] if mask_column and mask_column not in kept else [])],
        labelled=not no_labels,
    )
    options = {
        "mode": mode,
        "quality": quality,
        "max_resolution": max_resolution,
        "min_resolution": min_resolution,
        "smart_threshold": smart_threshold,
        "compress_probability": compress_probability,
        "index": index,
        "repack": repack,
        "format": output_format,
        "tar_bytes": _size_of(tar_size),
        "shard": _parse_shard(shard),
        "resume": resume,
        "workers": workers,
        "on_error": on_error,
        "page_size": page_size,
        "seed": seed,
        "val_fraction": val_fraction,
        "val_by": val_by,
        "val_out": val_out,
        "force": force,
    }
    if classes is None:
        refuse_one_class(samples)
    if masks is None and mask_column is None:
        found = masks_of_betons(samples) if withhold_labels is None else None  # for masks are labels, too
    else:
        refuse_kept(kept)
        rule = read_rule(classes=mask_classes, palette=palette, ignored=ignore or (), table=mask_map)
        found = find_masks(
            samples, rule, root=masks or root or sources[0].parent, suffix=mask_suffix, column=mask_column
        )
        if found.without_image:
            say(f"warning: {found.without_image} masks in {masks} have no image")
    if id_prefix:
        samples = samples.prefixed(id_prefix)
    if withhold_labels is not None:
        samples = withhold(samples, withhold_labels)
    _say_what_was_found(samples, say)
    report = run(samples, out, load_settings(BuildOptions, options, "build"), found)
    result = report.as_json()
    finish(result if as_json else _without_empty(result), as_json)


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    """``2/8`` -> (2, 8)."""
    if text is None:
        return None
    index, separator, count = text.partition("/")
    if not (separator and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise typer.BadParameter(f"--shard takes I/N with I from 0 to N - 1, as 0/4, not {text!r}")
    return int(index), int(count)


def _size_of(text: str) -> int:
    """``256MiB`` -> bytes."""
    try:
        return parse_size(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def merge(
    sources: Annotated[list[Path], typer.Argument(metavar="A.beton B.beton...", help="The files to join, in order.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.beton", help="The file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Join .beton files (the shards of a build, or data sets of equal classes) to one; no image is decoded."""
    from fasttrain.beton_build.merge import merge as run

    finish(run(sources, out, force=force), as_json)


def _say_what_was_found(samples: Any, say: Any) -> None:
    unlabelled = int((samples.labels < 0).sum())
    say(f"{len(samples)} images, {len(samples.class_names)} classes, {unlabelled} without a label")
    if samples.ignored:
        say(f"{samples.ignored} other files ignored")
    if samples.missing:
        first = ", ".join(map(repr, samples.missing[:5]))
        say(f"warning: {len(samples.missing)} listed images do not exist: {first}")


def _without_empty(result: dict[str, Any]) -> dict[str, Any]:
    """For people: no empty entries, and counts as ``name count``."""
    lines = {key: value for key, value in result.items() if value not in (None, [], {}, 0)}
    if "normalised" in lines:
        lines["normalised"] = [f"{count} {what}" for what, count in lines["normalised"].items()]
    if "skipped" in lines:
        lines["skipped"] = len(lines["skipped"])
    if "val" in lines:
        lines["val"] = f"{lines['val']['out']} ({lines['val']['samples']} samples, {lines['val']['bytes']} bytes)"
    return lines


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE.beton")],
    as_json: JsonOption = False,
) -> None:
    """Show what a .beton file holds."""
    from fasttrain.beton_build.describe import describe
    from fasttrain.beton_build.reader import BetonReader

    with BetonReader(file) as reader:
        result = describe(reader)
    if not as_json:
        result["fields"] = [f"{field['name']} ({field['type']})" for field in result["fields"]]
        for side in ("width", "height"):
            result[side] = [f"{name} {value}" for name, value in result[side].items()]
        result["index"] = _index_line(result["index"], result["jpeg"])
        if result["masks"] is not None:
            result["masks"] = _mask_lines(result["masks"])
        result.update({f"build.{key}": value for key, value in result.pop("build").items()})
    finish(result, as_json)


def _index_line(index: dict[str, Any], jpegs: int) -> str:
    """``23 of 24 JPEGs, 1.3 % of their bytes, inside; not: 1 progressive``."""
    line = f"{index['images']} of {jpegs} JPEGs"
    if index["images"]:
        line += f", {100 * index['share']:.1f} % of the images' bytes, {index['where']}"
    without = [f"{count} {reason}" for reason, count in index["not"].items()]
    return line + (f"; not: {', '.join(without)}" if without else "")


def _mask_lines(masks: dict[str, Any]) -> list[str]:
    """``road 31.2 % of the pixels, in 183 images``."""
    shares, images = masks["share"], masks["images"]
    return [f"{name} {100 * shares[name]:.2f} % of the pixels, in {images[name]} images" for name in shares]


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE.beton")],
    workers: Annotated[int | None, typer.Option(min=1, help="Threads [default: the cores at hand].")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every checksum and decode every image of a .beton file; exit code 1 when something is wrong."""
    from fasttrain.base.console import say
    from fasttrain.beton_build.verify import verify as run

    report = run(file, workers)
    for error in report.bad:
        say(str(error))
    result = report.as_json()
    if not as_json:
        result["bad"] = len(report.bad)
    finish(result, as_json)
    if not report.ok:
        raise typer.Exit(1)


def index(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.beton...")],
    workers: Annotated[int | None, typer.Option(min=1, help="Threads [default: the cores at hand].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.beton.index if it exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write FILE.beton.index, so that crops decode only what they show: for files that FFCV wrote, or --no-index."""
    from fasttrain.beton_build.index import index_files

    result = index_files(files, workers=workers, force=force).as_json()
    if not as_json:
        result["not_indexed"] = [f"{count} {reason}" for reason, count in result["not_indexed"].items()]
    finish(result, as_json)
