"""Scripts use third-party packages that promote dtypes on purpose."""

import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    """Replaces the library's strict setting by JAX's default."""
