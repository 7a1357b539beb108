"""The time to compile steps is measured anew in every round."""

from benchmarks import compilation
from benchmarks.models import TINY


def test_every_round_traces_and_compiles():
    found = compilation.measure(TINY, ("sgd", "absgd"), rounds=2)
    assert set(found) == {"sgd", "absgd"}
    for seconds in found.values():
        assert seconds.shape == (2, 2)
        assert (seconds > 0).all()
