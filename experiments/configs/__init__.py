"""Named runs, one module per paper.

``python -m experiments.train NAME`` runs a preset on whatever device there is; any
setting can be overridden on the command line. The text of a module says what is
published and where its presets differ; a preset holds its published figure. All presets
hold out a validation set, which the published runs did not do everywhere:
``--data.val-size 0`` gives their counts.

Presets of convolutional networks have a ``NAME-small`` twin for a CPU: a small network
and few epochs on the same data, to see a method work, not to compare with published
numbers. `evidence` holds comparisons at that size.
"""

from experiments.configs import (
    absgd,
    clothing1m,
    elm,
    evidence,
    gdw,
    gradtail,
    ldam,
    logit_adjustment,
    own,
    smoke,
    weight_balancing,
)
from experiments.configs.presets import Preset as Preset
from experiments.configs.presets import Published as Published
from experiments.configs.presets import has_small_twin, small
from experiments.configs.presets import needs as needs
from experiments.configs.settings import TrainConfig as TrainConfig

_FULL: dict[str, Preset] = {
    **smoke.PRESETS,
    **own.PRESETS,
    **gdw.PRESETS,
    **absgd.PRESETS,
    **clothing1m.PRESETS,
    **weight_balancing.PRESETS,
    **logit_adjustment.PRESETS,
    **ldam.PRESETS,
    **elm.PRESETS,
    **gradtail.PRESETS,
    **evidence.PRESETS,
}
PRESETS: dict[str, Preset] = _FULL | {
    f"{name}-small": small(preset)
    for name, preset in _FULL.items()
    if has_small_twin(preset)
}
