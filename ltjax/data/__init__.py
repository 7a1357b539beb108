"""Splits, noise, meta sets and samplers (NumPy in, NumPy out)."""
