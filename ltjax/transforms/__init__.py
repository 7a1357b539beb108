"""Gradient transformations."""

from ltjax.transforms._absgd import AbsgdState as AbsgdState
from ltjax.transforms._absgd import absgd as absgd
from ltjax.transforms._absgd import absgd_weights as absgd_weights
from ltjax.transforms._gdw import GdwState as GdwState
from ltjax.transforms._gdw import gdw as gdw
from ltjax.transforms._gdw_weights import gdw_weights as gdw_weights
from ltjax.transforms._gdw_weights import logit_cotangents as logit_cotangents
from ltjax.transforms._gdw_weights import zero_mean_weights as zero_mean_weights
from ltjax.transforms._gradtail import GradTailState as GradTailState
from ltjax.transforms._gradtail import gradtail as gradtail
from ltjax.transforms._gradtail_weights import aligned as aligned
from ltjax.transforms._gradtail_weights import bump as bump
from ltjax.transforms._gradtail_weights import gated as gated
from ltjax.transforms._gradtail_weights import gradtail_weights as gradtail_weights
from ltjax.transforms._l2rw import L2rwState as L2rwState
from ltjax.transforms._l2rw import l2rw as l2rw
from ltjax.transforms._l2rw import l2rw_weights as l2rw_weights
from ltjax.transforms._max_norm import MaxNormState as MaxNormState
from ltjax.transforms._max_norm import max_norm as max_norm
from ltjax.transforms._value_and_grad import (
    weighted_value_and_grad as weighted_value_and_grad,
)
from ltjax.transforms._weighting import Weighting as Weighting
from ltjax.transforms._weighting import product as product
from ltjax.transforms._weighting_net import apply_weighting_net as apply_weighting_net
from ltjax.transforms._weighting_net import init_weighting_net as init_weighting_net
