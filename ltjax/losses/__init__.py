"""Losses, one value per example."""

from ltjax.losses._adjustment import balanced_softmax as balanced_softmax
from ltjax.losses._adjustment import (
    logit_adjusted_cross_entropy as logit_adjusted_cross_entropy,
)
from ltjax.losses._elm import elm as elm
from ltjax.losses._elm import positive_share as positive_share
from ltjax.losses._elm import update_centers as update_centers
from ltjax.losses._margin import ldam as ldam
from ltjax.losses._multilabel import (
    multilabel_cross_entropy as multilabel_cross_entropy,
)
from ltjax.losses._penalty import feature_penalty as feature_penalty
from ltjax.losses._reweighting import (
    class_balanced_cross_entropy as class_balanced_cross_entropy,
)
from ltjax.losses._reweighting import class_balanced_focal as class_balanced_focal
from ltjax.losses._reweighting import class_balanced_sigmoid as class_balanced_sigmoid
from ltjax.losses._reweighting import class_balanced_weights as class_balanced_weights
from ltjax.losses._reweighting import focal as focal
from ltjax.losses._reweighting import target_weights as target_weights
from ltjax.losses._robust import (
    generalized_cross_entropy as generalized_cross_entropy,
)
from ltjax.losses._robust import symmetric_cross_entropy as symmetric_cross_entropy
from ltjax.losses._robust import (
    truncated_generalized_cross_entropy as truncated_generalized_cross_entropy,
)
