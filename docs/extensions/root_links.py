"""Lets pages of the repository's root be included, and linked to, as pages of the site.

On GitHub, ``CONTRIBUTING.md`` links to ``docs/data.md``, and ``docs/data.md`` to
``../SECURITY.md``. On the site they lie side by side.
"""

import re
from typing import Any

_PAGES = {
    "README": "index",
    "CHANGELOG": "changelog",
    "CONTRIBUTING": "contributing",
    "SECURITY": "security",
}
_LINK = re.compile(rf"\]\((?:\.\./)?({'|'.join(_PAGES)})\.md")


def _on_site(text: str) -> str:
    """A page of ``docs/`` with its links out of that folder led back into it."""
    return _LINK.sub(lambda match: f"]({_PAGES[match[1]]}.md", text)


def _read(app: Any, docname: str, content: list[str]) -> None:
    content[0] = _on_site(content[0])


def _include(app: Any, path: Any, docname: str, content: list[str]) -> None:
    content[0] = _on_site(content[0]).replace("](docs/", "](")


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("include-read", _include)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
