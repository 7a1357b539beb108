"""Learning from long-tailed and noisily labelled data in JAX.

Arguments are checked against their docstrings: a ``TypeError`` or ``ValueError`` names
the argument, what it was and what was expected. Shapes and dtypes are checked while
tracing, values only where they are concrete. ``Raises`` sections list the rest.
"""

from importlib import metadata as _metadata

from ltjax import data as data
from ltjax import heads as heads
from ltjax import losses as losses
from ltjax import metrics as metrics
from ltjax import transforms as transforms
from ltjax.jacobian import Check as Check
from ltjax.jacobian import Jacobian as Jacobian
from ltjax.jacobian import NoiseScale as NoiseScale
from ltjax.jacobian import check as check
from ltjax.jacobian import clipped_sum as clipped_sum
from ltjax.jacobian import gram as gram
from ltjax.jacobian import independent as independent
from ltjax.jacobian import linearize as linearize
from ltjax.jacobian import linearize_examples as linearize_examples
from ltjax.jacobian import linearize_microbatches as linearize_microbatches
from ltjax.jacobian import noise_scale as noise_scale
from ltjax.jacobian import project as project
from ltjax.transforms import AbsgdState as AbsgdState
from ltjax.transforms import GdwState as GdwState
from ltjax.transforms import GradTailState as GradTailState
from ltjax.transforms import L2rwState as L2rwState
from ltjax.transforms import MaxNormState as MaxNormState
from ltjax.transforms import Weighting as Weighting
from ltjax.transforms import absgd as absgd
from ltjax.transforms import absgd_weights as absgd_weights
from ltjax.transforms import apply_weighting_net as apply_weighting_net
from ltjax.transforms import gdw as gdw
from ltjax.transforms import gdw_weights as gdw_weights
from ltjax.transforms import gradtail as gradtail
from ltjax.transforms import gradtail_weights as gradtail_weights
from ltjax.transforms import init_weighting_net as init_weighting_net
from ltjax.transforms import l2rw as l2rw
from ltjax.transforms import l2rw_weights as l2rw_weights
from ltjax.transforms import logit_cotangents as logit_cotangents
from ltjax.transforms import max_norm as max_norm
from ltjax.transforms import product as product
from ltjax.transforms import weighted_value_and_grad as weighted_value_and_grad
from ltjax.transforms import zero_mean_weights as zero_mean_weights

__version__ = _metadata.version("ltjax")
