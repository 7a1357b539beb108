import json
import os

import jax
import numpy as np

from experiments.records.environment import environment


def test_versions_of_further_packages_and_the_cores_of_the_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    found = json.loads(json.dumps(environment("numpy", "no-such-package")))
    versions = found["versions"]
    assert versions["jax"] == jax.__version__
    assert versions["numpy"] == np.__version__
    assert versions["no-such-package"] is None
    assert found["device"]["cpu_cores"] == 2
