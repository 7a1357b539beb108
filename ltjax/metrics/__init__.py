"""Evaluation and geometry of features (NumPy in, NumPy out)."""

from ltjax.metrics._accuracy import ShotAccuracy as ShotAccuracy
from ltjax.metrics._accuracy import balanced_accuracy as balanced_accuracy
from ltjax.metrics._accuracy import iou as iou
from ltjax.metrics._accuracy import per_class_accuracy as per_class_accuracy
from ltjax.metrics._accuracy import shot_accuracy as shot_accuracy
from ltjax.metrics._accuracy import top_k_accuracy as top_k_accuracy
from ltjax.metrics._calibration import ReliabilityBins as ReliabilityBins
from ltjax.metrics._calibration import (
    expected_calibration_error as expected_calibration_error,
)
from ltjax.metrics._calibration import reliability_bins as reliability_bins
from ltjax.metrics._collapse import NeuralCollapse as NeuralCollapse
from ltjax.metrics._collapse import neural_collapse as neural_collapse
from ltjax.metrics._directions import CosineStatistics as CosineStatistics
from ltjax.metrics._directions import cosine_statistics as cosine_statistics
from ltjax.metrics._directions import hoyer_sparsity as hoyer_sparsity
from ltjax.metrics._labels import Detection as Detection
from ltjax.metrics._labels import detection as detection
from ltjax.metrics._labels import label_quality as label_quality
from ltjax.metrics._regression import RegressionErrors as RegressionErrors
from ltjax.metrics._regression import regression_errors as regression_errors
from ltjax.metrics._separation import Tightness as Tightness
from ltjax.metrics._separation import (
    fisher_discriminant_ratio as fisher_discriminant_ratio,
)
from ltjax.metrics._separation import tightness as tightness
from ltjax.metrics._shots import Shots as Shots
from ltjax.metrics._shots import class_shots as class_shots
from ltjax.metrics._shots import target_shots as target_shots
