"""Per-example Jacobians as linear operators."""

from ltjax.jacobian._assertion import independent as independent
from ltjax.jacobian._check import Check as Check
from ltjax.jacobian._check import check as check
from ltjax.jacobian._linearize import linearize as linearize
from ltjax.jacobian._linearize import linearize_examples as linearize_examples
from ltjax.jacobian._microbatches import (
    linearize_microbatches as linearize_microbatches,
)
from ltjax.jacobian._operator import Jacobian as Jacobian
from ltjax.jacobian._statistics import NoiseScale as NoiseScale
from ltjax.jacobian._statistics import clipped_sum as clipped_sum
from ltjax.jacobian._statistics import gram as gram
from ltjax.jacobian._statistics import noise_scale as noise_scale
from ltjax.jacobian._statistics import project as project
