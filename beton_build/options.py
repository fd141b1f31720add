"""How a data set is converted, as settings."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from fasttrain.base.config import Settings
from fasttrain.beton_build.prepare import DEFAULT_QUALITY, DEFAULT_SMART_THRESHOLD

Mode = Literal["keep", "jpg", "raw", "smart", "proportion"]
Format = Literal["beton", "webdataset"]


class BuildOptions(Settings):
    """How to convert. The command line's help explains each.

    Attributes:
        shard: (i, n): only the i-th of n parts of the list, counted from 0.
        format: one `.beton` file, or a folder of WebDataset tar archives with DALI's index files.
        index: store a random-access index beside each JPEG that can have one (in a `.beton`).
        repack: code JPEGs that would be kept and cannot have such an index so that they can, without loss.
        val_by: column whose values (``folder``: first folder of an id) are split alike within each class.
        tar_bytes: size at which a tar archive is ended and the next one begun.
        resume: go on with a build that was interrupted.
        force: replace files that exist.
    """

    mode: Mode = "keep"
    quality: int = Field(default=DEFAULT_QUALITY, ge=1, le=100)
    max_resolution: int | None = Field(default=None, ge=1)
    min_resolution: int | None = Field(default=None, ge=1)
    smart_threshold: int = Field(default=DEFAULT_SMART_THRESHOLD, ge=0)
    compress_probability: float = Field(default=0.5, ge=0, le=1)
    index: bool = True
    repack: bool = False
    format: Format = "beton"
    tar_bytes: int = Field(default=256 << 20, ge=1)
    workers: int | None = Field(default=None, ge=1)
    on_error: Literal["fail", "skip"] = "fail"
    page_size: int | None = None
    seed: int = Field(default=0, ge=0)
    val_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    val_by: str | None = None
    val_out: Path | None = None
    shard: tuple[int, int] | None = None
    resume: bool = False
    force: bool = False

    def recorded(self) -> dict[str, object]:
        """The options that determine what is written, for the output's own description."""
        how = {"workers", "val_out", "resume", "force", "page_size", "tar_bytes"}
        return self.model_dump(mode="json", exclude=how)
