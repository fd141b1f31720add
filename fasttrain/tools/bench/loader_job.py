"""What a contestant of the loader benchmark is asked to do, and who takes part."""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fasttrain.base.errors import ConfigError

EVAL_CROP_PCT = 0.875  # short side 256 for a crop of 224
CONTESTANTS = "fasttrain.tools.bench.contestants"


@dataclass(frozen=True)
class LoaderJob:
    """One run of one contestant.

    Attributes:
        function: ``module:function`` that takes the job and yields image batches, (B, 3, size, size).
        work: ``train``: RandomResizedCrop(size, scale), flip, normalise; ``eval``: short side size / 0.875, centre;
            ``raw``: as ``train``, from stored pixels.
        threads: worker threads or processes.
        warmup, counted: batches that are not timed, and those after them that are.
        passes: how often the images are gone through within the epoch, which is longer than what is counted.
        files: folder of JPEG files, in class folders; `tars`: the same in WebDataset archives.
        beton: the same bytes, and the random-access index of each (pixels for ``raw``); `ffcv_jpg`: the images
            re-encoded by FFCV's writer.
        mean, std: per channel, of the normalised images as a whole.
        cold: nothing of the files is in memory yet, and no image is to be read twice.
    """

    function: str
    work: str
    size: int
    scale: tuple[float, float]
    dtype: str
    batch_size: int
    threads: int
    warmup: int
    counted: int
    passes: int
    images: int
    files: str
    tars: str
    beton: str
    ffcv_jpg: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    cold: bool = False

    @property
    def train(self) -> bool:
        """Whether the view is the random one."""
        return self.work != "eval"

    @property
    def short_side(self) -> int:
        """Shorter side that the eval view resizes to."""
        return int(self.size / EVAL_CROP_PCT)

    def paths(self) -> list[str]:
        """The JPEG files, as often as they are gone through."""
        return sorted(str(path) for path in Path(self.files).glob("*/*.jpg")) * self.passes

    def write(self, path: Path) -> None:
        """Store it for the contestant's process."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "LoaderJob":
        """What `write` stored."""
        stored: dict[str, Any] = json.loads(path.read_text())
        lists = {key: tuple(value) for key, value in stored.items() if isinstance(value, list)}
        return cls(**{**stored, **lists})


@dataclass(frozen=True)
class Entrant:
    """A loader that may take part.

    Attributes:
        source: what it reads: ``jpeg`` (the same bytes for all), ``jpeg-ffcv`` (re-encoded by FFCV) or ``raw``.
        packages: what it imports.
        install: how to get them.
    """

    name: str
    function: str
    source: str
    works: tuple[str, ...]
    packages: tuple[str, ...] = ()
    install: str = ""
    ours: bool = False

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if not _is_installed(package)]


JPEG_WORKS = ("train", "eval")
OUR_LIBJPEG = "fasttrain-libjpeg"
FFCV = (("ffcv",), "pip install ffcv numba opencv-python-headless")
PEERS = (
    Entrant("torchvision-v1", f"{CONTESTANTS}.torch_files:torchvision_v1", "jpeg", JPEG_WORKS, ("torchvision",)),
    Entrant("torchvision-v2", f"{CONTESTANTS}.torch_files:torchvision_v2", "jpeg", JPEG_WORKS, ("torchvision",)),
    Entrant("timm", f"{CONTESTANTS}.timm_files:timm_loader", "jpeg", JPEG_WORKS, ("timm",)),
    Entrant(
        "simplejpeg",
        f"{CONTESTANTS}.cv2_files:simplejpeg_cv2",
        "jpeg",
        JPEG_WORKS,
        ("simplejpeg", "cv2"),
        "pip install simplejpeg opencv-python-headless",
    ),
    Entrant(
        "webdataset",
        f"{CONTESTANTS}.webdataset_tars:webdataset_loader",
        "jpeg",
        JPEG_WORKS,
        ("webdataset",),
        "pip install webdataset",
    ),
    Entrant(
        "dali-cpu",
        f"{CONTESTANTS}.dali_files:dali_cpu",
        "jpeg",
        JPEG_WORKS,
        ("nvidia.dali",),
        "pip install nvidia-dali-cuda130",
    ),
    Entrant("ffcv", f"{CONTESTANTS}.ffcv_beton:ffcv_same", "jpeg", JPEG_WORKS, *FFCV),
    Entrant("ffcv-jpg", f"{CONTESTANTS}.ffcv_beton:ffcv_jpg", "jpeg-ffcv", JPEG_WORKS, *FFCV),
    Entrant("ffcv-raw", f"{CONTESTANTS}.ffcv_beton:ffcv_same", "raw", ("raw",), *FFCV),
)


def entrants(backends: Sequence[str]) -> list[Entrant]:
    """Everyone: each backend of ours under its own name, the native one without the JPEGs' index, then the peers."""
    every = (*JPEG_WORKS, "raw")
    ours = [Entrant(name, f"{CONTESTANTS}.ours:{name}", "", every, ours=True) for name in backends]
    if "native" in backends:
        ours.append(Entrant(OUR_LIBJPEG, f"{CONTESTANTS}.ours:libjpeg", "jpeg", JPEG_WORKS, ours=True))
    return [*ours, *PEERS]


def choose(known: Sequence[Entrant], only: Sequence[str]) -> list[Entrant]:
    """Those named in `only` (all, if it is empty) that are installed.

    Raises:
        ConfigError: a name is unknown, or stands for something that is not installed.
    """
    by_name = {entrant.name: entrant for entrant in known}
    for name in only:
        if name not in by_name:
            raise ConfigError(f"no contestant is named {name!r} here; there are: {', '.join(by_name)}")
        if by_name[name].missing():
            raise ConfigError(f"{name} takes no part: {absence(by_name[name])}")
    return [entrant for entrant in known if not entrant.missing() and (not only or entrant.name in only)]


def absence(entrant: Entrant) -> str:
    """Why a contestant takes no part, and what to do."""
    remedy = entrant.install or "pip install " + " ".join(entrant.packages)
    return f"{', '.join(entrant.missing())} is not installed ({remedy})"


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
