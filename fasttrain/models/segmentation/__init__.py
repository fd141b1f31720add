"""Segmentation models: timm backbones with a DAFormer head, and those of segmentation-models-pytorch."""

from fasttrain.models.segmentation.create import create_segmenter as create_segmenter
from fasttrain.models.segmentation.opened import OpenedSegmenter as OpenedSegmenter
from fasttrain.models.segmentation.opened import open_segmenter as open_segmenter
from fasttrain.models.segmentation.segmenter import Segmenter as Segmenter
from fasttrain.models.segmentation.settings import SegmenterSettings as SegmenterSettings
