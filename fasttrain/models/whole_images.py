"""Checkpoints of models that give something for each pixel, and are fed with whole images."""

from pathlib import Path

from fasttrain.base.errors import WeightsError
from fasttrain.loading.segmentation_views import WholeView
from fasttrain.loading.views import parse_view
from fasttrain.models.checkpoint import CheckpointInfo
from fasttrain.models.weights import read_metadata


def read_checkpoint(path: str | Path, part: str, wanted: str) -> tuple[Path, CheckpointInfo, WholeView]:
    """The weight file of a checkpoint or of a run's folder (its last one), its record, and its view.

    Args:
        part: of the record, that such a model has.
        wanted: what to do instead, where the model is of another kind.

    Raises:
        WeightsError: nothing there, or a checkpoint of something else.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "last.safetensors"
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file")
    record = read_metadata(path)
    if record.get(part) is None:
        held = "holds another kind of model" if "model" in record else "is no checkpoint of fasttrain"
        named = f" ({record['model']})" if "model" in record else ""
        raise WeightsError(f"{path} {held}{named}, and {wanted}")
    info = CheckpointInfo.from_record(record, path)
    view = parse_view(info.eval_view)
    if not isinstance(view, WholeView):
        raise WeightsError(f"checkpoint {path} stores a {view.kind} view where one of whole images belongs")
    return path, info, view
