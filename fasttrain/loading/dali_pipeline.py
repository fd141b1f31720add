"""DALI's part of the `dali` backend: one pipeline that carries out the geometry of `BatchPlan`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types

from fasttrain.loading.backend import Normalisation
from fasttrain.loading.plan import BatchPlan

_FILTERS = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
_STREAMS, _START, _SHAPE, _FROM, _TO = "streams", "start", "shape", "from", "to"


@dataclass(frozen=True)
class Output:
    """What a pipeline gives: (height, width, 3) of uint8, or floating-point where there is a normalisation."""

    height: int
    width: int
    interpolation: str
    dtype: Literal["uint8", "float32", "float16"]
    normalisation: Normalisation | None

    @classmethod
    def of(cls, plan: BatchPlan, out: torch.Tensor, normalisation: Normalisation | None) -> "Output":
        """For a batch; DALI stores no bfloat16, so that one comes as float32."""
        if normalisation is None:
            return cls(plan.height, plan.width, plan.interpolation, "uint8", None)
        dtype: Literal["float32", "float16"] = "float16" if out.dtype == torch.float16 else "float32"
        return cls(plan.height, plan.width, plan.interpolation, dtype, normalisation)


class DaliPipeline:
    """Decodes the boxes of JPEG streams, resizes them, takes the window, flips, normalises.

    On a GPU (`device_id`) the streams are decoded by nvJPEG and the output stays there. One batch is in work at a time;
    its output is a buffer of its own, which the next batch leaves alone (DALI's dynamic executor).

    Args:
        capacity: largest batch.
        fast: DALI's fast inverse DCT, and on a GPU chroma without interpolation.
    """

    def __init__(self, output: Output, capacity: int, threads: int, device_id: int | None, fast: bool) -> None:
        self.capacity = capacity
        self._pipeline = Pipeline(
            batch_size=capacity, num_threads=threads, device_id=device_id, prefetch_queue_depth=1, exec_dynamic=True
        )
        with self._pipeline:
            self._pipeline.set_outputs(_graph(output, "cpu" if device_id is None else "mixed", fast))
        self._pipeline.build()

    def start(self, streams: Sequence[np.ndarray], plan: BatchPlan, positions: np.ndarray) -> None:
        """Start on the entries `positions` of a plan.

        Args:
            streams: (bytes,) uint8 of each of them. DALI reads them where they lie, so they must be kept, unchanged,
                until `outputs` has returned and what it gave was copied (`no_copy` of ``fn.external_source``).
        """
        boxes, resized = plan.boxes[positions], plan.resized[positions]
        self._pipeline.feed_input(_STREAMS, list(streams))
        self._pipeline.feed_input(_START, _argument(boxes[:, [1, 0]], np.int32))
        self._pipeline.feed_input(_SHAPE, _argument(boxes[:, [3, 2]], np.int32))
        # The window, in pixels of the box; a region that runs backwards is a flip.
        scale = boxes[:, 2:] / resized
        first, last = (
            plan.offsets[positions] * scale,
            (plan.offsets[positions] + np.array([plan.width, plan.height])) * scale,
        )
        flips = np.stack([plan.hflip[positions], plan.vflip[positions]], 1)
        self._pipeline.feed_input(_FROM, _argument(np.where(flips, last, first)[:, ::-1], np.float32))
        self._pipeline.feed_input(_TO, _argument(np.where(flips, first, last)[:, ::-1], np.float32))
        self._pipeline.schedule_run()

    def outputs(self, stream: torch.cuda.Stream | None) -> Any:
        """DALI's TensorList of the batch that was started, on a GPU ready for `stream`.

        Raises:
            RuntimeError: DALI cannot decode one of its images; the pipeline is of no use any more.
        """
        return self._pipeline.outputs(stream)[0]


def _graph(output: Output, decoder: Literal["cpu", "mixed"], fast: bool) -> Any:
    numbers = {
        name: fn.external_source(name=name, device="cpu", ndim=1, dtype=dtype)
        for name, dtype in ((_START, types.INT32), (_SHAPE, types.INT32), (_FROM, types.FLOAT), (_TO, types.FLOAT))
    }
    images = fn.decoders.image_slice(
        fn.external_source(name=_STREAMS, device="cpu", ndim=1, dtype=types.UINT8, no_copy=True),
        start=numbers[_START],
        shape=numbers[_SHAPE],
        axes=[0, 1],
        device=decoder,
        output_type=types.RGB,
        adjust_orientation=False,  # streams are taken as they are stored
        use_fast_idct=fast,
        jpeg_fancy_upsampling=not fast,
    )
    images = fn.resize(
        images,
        size=[output.height, output.width],
        roi_start=numbers[_FROM],
        roi_end=numbers[_TO],
        interp_type=_FILTERS[output.interpolation],
        antialias=True,
    )
    if output.normalisation is None:
        return images
    scale, shift = np.array(output.normalisation.scale), np.array(output.normalisation.shift)
    return fn.crop_mirror_normalize(
        images,
        mean=(-shift / scale).tolist(),
        std=(1 / scale).tolist(),
        dtype=types.FLOAT16 if output.dtype == "float16" else types.FLOAT,
        output_layout="HWC",
    )


def _argument(values: np.ndarray, dtype: type) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=dtype)
