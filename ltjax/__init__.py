"""Learning from long-tailed and noisily labelled data in JAX."""

from ltjax import data as data
from ltjax import heads as heads
from ltjax import losses as losses
from ltjax import metrics as metrics
from ltjax._jacobian import Jacobian as Jacobian
from ltjax._jacobian import linearize as linearize
from ltjax._jacobian import linearize_examples as linearize_examples
from ltjax.transforms import AbsgdState as AbsgdState
from ltjax.transforms import GradTailState as GradTailState
from ltjax.transforms import Weighting as Weighting
from ltjax.transforms import absgd as absgd
from ltjax.transforms import absgd_weights as absgd_weights
from ltjax.transforms import gradtail as gradtail
from ltjax.transforms import gradtail_weights as gradtail_weights
from ltjax.transforms import product as product
