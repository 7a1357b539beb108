"""Unbiased rounding of expected numbers."""

import numpy as np
import pytest

from ltjax.data import _rounding


class _Start:
    """A generator with a chosen random start."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


@pytest.mark.parametrize("start", [0.0, 0.5, 1 - 2**-53])
def test_whole_numbers_stay_whole_despite_rounding(start):
    tenths = np.full(10, 0.1)  # their running sum ends at 0.9999999999999999
    assert np.cumsum(tenths)[-1] < 1
    assert _rounding.round_unbiased(tenths, _Start(start)).sum() == 1
    whole = np.array([3.0, 0.0, 1.0])
    np.testing.assert_array_equal(_rounding.round_unbiased(whole, _Start(start)), whole)


def test_mean_is_kept():
    expected = np.array([0.3, 2.5, 0.0, 1.9, 0.8])
    starts = (np.arange(1000) + 0.5) / 1000
    rounded = [_rounding.round_unbiased(expected, _Start(u)) for u in starts]
    assert (np.abs(rounded - expected) < 1).all()
    np.testing.assert_allclose(np.mean(rounded, axis=0), expected, atol=1e-3)
    assert set(np.sum(rounded, axis=1)) == {5, 6}  # 5.5
