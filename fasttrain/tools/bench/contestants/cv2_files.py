"""JPEG files through simplejpeg and OpenCV, in torch's DataLoader."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from torchvision.transforms import RandomResizedCrop

from fasttrain.loading.views import IMAGENET_MEAN, IMAGENET_STD
from fasttrain.tools.bench.contestants.torch_files import Files, dataloader_images
from fasttrain.tools.bench.loader_job import LoaderJob

RATIO = (3 / 4, 4 / 3)
SCALE = (1 / (255 * np.array(IMAGENET_STD))).astype(np.float32)
OFFSET = (-np.array(IMAGENET_MEAN) / np.array(IMAGENET_STD)).astype(np.float32)


class Transform:
    """(H, W, 3) uint8 → (3, size, size)."""

    def __init__(self, job: LoaderJob) -> None:
        self._size, self._short, self._train, self._scale = job.size, job.short_side, job.train, tuple(job.scale)
        self._dtype = np.dtype(job.dtype)

    def __call__(self, pixels: np.ndarray) -> torch.Tensor:
        cv2.setNumThreads(0)  # each worker is one thread; cheap, and workers start from a copy of the parent
        window = self._train_window(pixels) if self._train else self._eval_window(pixels)
        normalised = (window * SCALE + OFFSET).astype(self._dtype, copy=False)
        return torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))

    def _train_window(self, pixels: np.ndarray) -> np.ndarray:
        top, left, height, width = RandomResizedCrop.get_params(
            torch.empty((1, *pixels.shape[:2])), list(self._scale), list(RATIO)
        )
        window = _resize(pixels[top : top + height, left : left + width], (self._size, self._size))
        return cv2.flip(window, 1) if torch.rand(()) < 0.5 else window

    def _eval_window(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        factor = self._short / min(height, width)
        resized = _resize(pixels, (max(round(width * factor), self._size), max(round(height * factor), self._size)))
        top, left = ((side - self._size) // 2 for side in resized.shape[:2])
        return resized[top : top + self._size, left : left + self._size]


def _resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] <= pixels.shape[1] and size[1] <= pixels.shape[0]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _decode(path: str) -> np.ndarray:
    return simplejpeg.decode_jpeg(Path(path).read_bytes(), colorspace="RGB")


def simplejpeg_cv2(job: LoaderJob) -> Iterator[torch.Tensor]:
    """libjpeg-turbo by simplejpeg, geometry by OpenCV."""
    return dataloader_images(Files(job.paths(), _decode, Transform(job)), job)
