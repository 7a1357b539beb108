"""Writes formulas as MathML, which browsers draw themselves: no script, no network.

A formula that cannot be read is a warning, and so an error of the build.
"""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

_LOG = logging.getLogger(__name__)
_ALIASES = {  # commands that docutils knows by another name only
    r"\big": r"\bigl",
    r"\Big": r"\Bigl",
    r"\bigg": r"\biggl",
    r"\dots": r"\ldots",
    r"\texttt": r"\mathtt",
}
_OPERATOR = r"\\(?:log|exp|min|max|cos|arg)(?![A-Za-z])"
# TeX sets a thin space between such a name and what it is beside, unless that is a sign
# or a bracket.
_BEFORE = re.compile(rf"(?<=[\w}}])\s*(?={_OPERATOR})")
_AFTER = re.compile(
    rf"({_OPERATOR})\s*(?=[A-Za-z0-9]|\\(?!big|Big|left|[,;!])[A-Za-z])"
)


def _mathml(node: nodes.Element, *, as_block: bool) -> str:
    tex = node.astext()
    if r"\\" in tex and r"\begin" not in tex:
        tex = rf"\begin{{aligned}}{tex}\end{{aligned}}"
    tex = _AFTER.sub(r"\1\\,", _BEFORE.sub(r"\\,", tex))
    tex = re.sub(r"\\[A-Za-z]+", lambda m: _ALIASES.get(m[0], m[0]), tex)
    try:
        return tex2mathml(tex, as_block=as_block)
    except MathError as error:
        _LOG.warning("%s in the formula %r", error, node.astext(), location=node)
        return ""


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def _display(translator: Any, node: nodes.math_block) -> None:
    formula = _mathml(node, as_block=True)
    translator.body.append(f'<div class="formula">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
