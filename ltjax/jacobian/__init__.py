"""Per-example Jacobians as linear operators."""

from ltjax.jacobian._operator import Jacobian as Jacobian
from ltjax.jacobian._operator import linearize as linearize
from ltjax.jacobian._operator import linearize_examples as linearize_examples
