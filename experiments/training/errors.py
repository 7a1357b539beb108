"""What stops a run: a message that says why and what to do."""

import contextlib
from collections.abc import Iterator


class RunError(Exception):
    """A run cannot start or continue."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns errors in the settings into a message without a traceback."""
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error
