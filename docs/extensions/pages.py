"""Changes to pages as they are read.

Pages of the repository's root are pages of the site: on GitHub, ``CONTRIBUTING.md``
links to ``docs/data.md``, and ``docs/data.md`` to ``../SECURITY.md``; on the site they
lie side by side. And a number stays in one line with its deviation.
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
    text = _LINK.sub(lambda match: f"]({_PAGES[match[1]]}.md", text)
    return text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _read(app: Any, docname: str, content: list[str]) -> None:
    content[0] = _on_site(content[0])


def _include(app: Any, path: Any, docname: str, content: list[str]) -> None:
    content[0] = _on_site(content[0]).replace("](docs/", "](")


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("include-read", _include)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
