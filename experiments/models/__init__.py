"""Networks for the experiments, and their functional form."""

from experiments.models.config import ModelConfig as ModelConfig
from experiments.models.config import Outputs as Outputs
from experiments.models.network import Apply as Apply
from experiments.models.network import functional as functional
from experiments.models.network import make_model as make_model
from experiments.models.resnet import RESNETS as RESNETS
from experiments.models.resnet import Residual as Residual
from experiments.models.resnet import ResNetSpec as ResNetSpec
