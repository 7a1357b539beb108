"""Evaluation and geometry of features (NumPy in, NumPy out)."""
