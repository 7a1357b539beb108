"""The training program: steps, evaluation and checkpoints."""

from experiments.training.errors import RunError as RunError
from experiments.training.loop import train as train
from experiments.training.machine import Machine as Machine
from experiments.training.rehearsal import rehearse as rehearse
