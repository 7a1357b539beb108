"""The time to compile steps is measured anew in every round."""

import jax

from benchmarks import compilation
from benchmarks.models import TINY


def test_every_round_traces_and_compiles(monkeypatch):
    cleared = []  # and not for the tests that follow in this process
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    names = ("sgd", *compilation.PRODUCTS)
    found = compilation.measure(TINY, names, rounds=2)
    assert tuple(found) == names
    for seconds in found.values():
        assert seconds.shape == (2, 2)
        assert (seconds > 0).all()
    assert len(cleared) == 6
