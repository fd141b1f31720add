"""Exact evaluation and prediction of masks."""

from fasttrain.inference.segmentation.confusion import ConfusionMatrix as ConfusionMatrix
from fasttrain.inference.segmentation.evaluate import evaluate_masks as evaluate_masks
from fasttrain.inference.segmentation.forward import slide as slide
from fasttrain.inference.segmentation.forward import whole as whole
from fasttrain.inference.segmentation.predict import predict_masks as predict_masks
from fasttrain.inference.segmentation.scores import ViewSettings as ViewSettings
