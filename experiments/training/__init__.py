"""The training program: step, evaluation and checkpoints."""
