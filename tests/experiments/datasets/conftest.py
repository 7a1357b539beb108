"""No network, and no data but that of the test."""

import os
import socket

import pytest

REAL = os.environ.get("LTJAX_DATA")


@pytest.fixture(autouse=True)
def offline(request, monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("a data set must not use the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    if "needs_data" not in request.fixturenames:
        monkeypatch.delenv("LTJAX_DATA", raising=False)


@pytest.fixture
def needs_data(monkeypatch):
    """Keeps the folder of real data sets; skips the test where there is none."""
    if REAL is None:
        pytest.skip("LTJAX_DATA does not name a folder of real data sets")
    monkeypatch.setenv("LTJAX_DATA", REAL)
