"""A trained model for other programs: ONNX, an ExportedProgram, or TorchScript, with what is needed to feed it."""

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fasttrain.base.atomic import atomic_path
from fasttrain.base.errors import ConfigError, WeightsError
from fasttrain.models.opened import OpenedModel

Inputs = Literal["normalised", "uint8"]
FORMATS = {".onnx": "ONNX", ".pt2": "ExportedProgram", ".ts": "TorchScript"}
METADATA = "fasttrain.json"
_TOLERANCE = 1e-3  # between the model's logits and those of what was exported, relative to the largest


class _Fed(nn.Module):
    """A model that takes pixels as they come out of a decoder."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.model((images.float() - self.mean) / self.std)
        return result


def export_model(opened: OpenedModel, out: Path, inputs: Inputs = "normalised") -> dict[str, Any]:
    """Write a model to `out`, in the format that its ending says, and run what was written once beside the model.

    The input is ``images`` (B, 3, size, size) in RGB, B free: float32, normalised as the eval view says, or uint8 with
    the normalisation inside of the graph. The output is ``logits`` (B, C) float32. Eval view and class names lie in the
    file as JSON: ONNX metadata ``fasttrain``, else the extra file ``fasttrain.json``.

    Returns:
        {out, format, input, size, classes, bytes, largest_difference}.

    Raises:
        ConfigError: the ending is none of a format, or a package for it is missing.
        WeightsError: the model cannot be exported, or what was written gives other logits.
    """
    kind = FORMATS.get(out.suffix)
    if kind is None:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in FORMATS.items())
        raise ConfigError(f"{out} ends in no known format; name it {known}")
    _require_packages(kind)
    view = opened.view
    module = opened.module.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    if inputs == "uint8":
        module = _Fed(module, view.mean, view.std).eval()
    example = _example(inputs, view.size)
    with torch.no_grad():
        expected = module(example)
    out.parent.mkdir(parents=True, exist_ok=True)
    write = {"ONNX": _write_onnx, "ExportedProgram": _write_program, "TorchScript": _write_script}[kind]
    with atomic_path(out) as part:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the exporters, about themselves
                found = write(module, example, part, json.dumps(_metadata(opened, inputs)))
        except Exception as error:  # exporters raise many kinds
            raise WeightsError(f"{opened.name} cannot be exported as {kind}: {error}") from error
        difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
        if not difference <= _TOLERANCE:
            raise WeightsError(f"{opened.name} as {kind} gives other logits (by {difference:.2g} of the largest)")
    return {
        "out": str(out),
        "format": kind,
        "input": inputs,
        "size": view.size,
        "classes": opened.num_classes,
        "bytes": out.stat().st_size,
        "largest_difference": difference,
    }


def _require_packages(kind: str) -> None:
    wanted = ("onnx", "onnxscript", "onnxruntime") if kind == "ONNX" else ()
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX export needs {', '.join(missing)}: pip install 'fasttrain[onnx]'")


def _example(inputs: Inputs, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if inputs == "uint8":
        return torch.randint(0, 256, (2, 3, size, size), generator=generator, dtype=torch.uint8)
    return torch.randn(2, 3, size, size, generator=generator)


def _metadata(opened: OpenedModel, inputs: Inputs) -> dict[str, Any]:
    return {
        "model": opened.name,
        "class_names": opened.class_names,
        "eval_view": opened.view.model_dump(mode="json"),
        "input": inputs,
        "weights_hash": opened.weights_hash,
    }


def _program(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(module, (example,), dynamic_shapes=({0: batch},))


def _write_onnx(module: nn.Module, example: Tensor, path: Path, metadata: str) -> Tensor:
    import onnx
    import onnxruntime

    program = torch.onnx.export(
        module,
        (example,),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {"fasttrain": metadata})
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": example.numpy()})[0])


def _write_program(module: nn.Module, example: Tensor, path: Path, metadata: str) -> Tensor:
    with path.open("wb") as file:
        torch.export.save(_program(module, example), file, extra_files={METADATA: metadata})
    with path.open("rb") as file, torch.no_grad():
        found: Tensor = torch.export.load(file).module()(example)
    return found


def _write_script(module: nn.Module, example: Tensor, path: Path, metadata: str) -> Tensor:
    with torch.no_grad():
        script = torch.jit.trace(module, example)
        torch.jit.save(script, str(path), _extra_files={METADATA: metadata})
        found: Tensor = torch.jit.load(str(path))(example)
    return found
