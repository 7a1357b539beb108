"""Learning from long-tailed and noisily labelled data in JAX."""

from ltjax import data as data
from ltjax import heads as heads
from ltjax import losses as losses
from ltjax import metrics as metrics
from ltjax._jacobian import Jacobian as Jacobian
from ltjax._jacobian import linearize as linearize
from ltjax._jacobian import linearize_examples as linearize_examples
