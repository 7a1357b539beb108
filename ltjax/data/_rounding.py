"""Unbiased rounding of expected numbers."""

import numpy as np


def round_unbiased(expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rounds each number up or down, and their sum too, so that means are kept.

    Systematic sampling: along the running sum, counts the points of a unit grid with a
    random start. The sum is rounded to 6 places before, so that whole numbers stay
    whole despite the error of summation.
    """
    fraction, whole = np.modf(np.round(np.cumsum(expected), 6))
    passed = whole + (fraction + rng.random() >= 1)
    return np.diff(passed, prepend=0.0).astype(np.int64)
