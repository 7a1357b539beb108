"""Losses, weightings and optimisers, and the training step that they make."""

from experiments.methods.configs import LOSSES as LOSSES
from experiments.methods.configs import WEIGHTINGS as WEIGHTINGS
from experiments.methods.configs import MethodConfig as MethodConfig
from experiments.methods.configs import OptimizerConfig as OptimizerConfig
from experiments.methods.losses import BalancedSoftmax as BalancedSoftmax
from experiments.methods.losses import ClassBalanced as ClassBalanced
from experiments.methods.losses import Context as Context
from experiments.methods.losses import CrossEntropy as CrossEntropy
from experiments.methods.losses import Elm as Elm
from experiments.methods.losses import Focal as Focal
from experiments.methods.losses import (
    GeneralizedCrossEntropy as GeneralizedCrossEntropy,
)
from experiments.methods.losses import Huber as Huber
from experiments.methods.losses import InverseDensity as InverseDensity
from experiments.methods.losses import Ldam as Ldam
from experiments.methods.losses import LogitAdjusted as LogitAdjusted
from experiments.methods.losses import Loss as Loss
from experiments.methods.losses import SquaredError as SquaredError
from experiments.methods.losses import SymmetricCrossEntropy as SymmetricCrossEntropy
from experiments.methods.losses import (
    TruncatedGeneralizedCrossEntropy as TruncatedGeneralizedCrossEntropy,
)
from experiments.methods.step import Batch as Batch
from experiments.methods.step import Method as Method
from experiments.methods.step import State as State
from experiments.methods.step import make_method as make_method
from experiments.methods.weightings import Absgd as Absgd
from experiments.methods.weightings import Gdw as Gdw
from experiments.methods.weightings import GradTail as GradTail
from experiments.methods.weightings import L2rw as L2rw
from experiments.methods.weightings import MwNet as MwNet
from experiments.methods.weightings import NoWeighting as NoWeighting
from experiments.methods.weightings import Weighting as Weighting
