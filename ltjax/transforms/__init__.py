"""Gradient transformations."""

from ltjax.transforms._absgd import AbsgdState as AbsgdState
from ltjax.transforms._absgd import absgd as absgd
from ltjax.transforms._absgd import absgd_weights as absgd_weights
from ltjax.transforms._gradtail import GradTailState as GradTailState
from ltjax.transforms._gradtail import gradtail as gradtail
from ltjax.transforms._gradtail import gradtail_weights as gradtail_weights
from ltjax.transforms._max_norm import MaxNormState as MaxNormState
from ltjax.transforms._max_norm import max_norm as max_norm
from ltjax.transforms._weighting import Weighting as Weighting
from ltjax.transforms._weighting import product as product
