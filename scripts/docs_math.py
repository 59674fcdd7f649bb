"""Typeset mathematics for the site: TeX between dollars becomes MathML at build time, so pages need no script.

`pymdownx.arithmatex` finds formulas and `latex2mathml` converts them. A displayed formula with `\\tag{n}` is numbered,
and links may point to it as `#eq-n`.
"""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element
from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString

TAG = re.compile(r"\\tag\{(\w+)\}")
_DELIMITERS = re.compile(r"^\\[(\[](.*)\\[)\]]$", re.DOTALL)
_AFTER_INLINE, _BEFORE_ANCHORS = 20, 5  # priorities of Markdown's inline patterns and of MkDocs' search for anchors


class FormulaError(ValueError):
    """A formula that cannot be converted."""


def mathml(tex: str, *, display: bool) -> ElementTree.Element:
    """`tex` as a MathML element.

    Raises:
        FormulaError: naming the formula, where it holds a command that is not known.
    """
    try:
        math = convert_to_element(tex, display="block" if display else "inline")
    except Exception as error:  # the library raises classes of many kinds
        raise FormulaError(f"{tex!r} cannot be typeset: {type(error).__name__} {error}") from error
    for element in math.iter():
        if element.text:  # the library writes character references, which are text to Markdown
            element.text = AtomicString(unescape(element.text))
            if element.text == "&" or (element.text.startswith("\\") and len(element.text) > 1):
                raise FormulaError(f"{tex!r} cannot be typeset: latex2mathml does not know {element.text}")
    return math


class _Formulas(Treeprocessor):
    """Replaces what arithmatex found."""

    def run(self, root: ElementTree.Element) -> None:
        for element in list(root.iter()):
            if element.get("class") == "arithmatex":
                found = _DELIMITERS.match((element.text or "").strip())
                if found is None:
                    raise FormulaError(f"{element.text!r} is not delimited as expected")
                # arithmatex escapes blocks as HTML, though Markdown does so again.
                _replace(element, unescape(found[1]) if element.tag == "div" else found[1])


def _replace(element: ElementTree.Element, tex: str) -> None:
    number = TAG.search(tex)
    element.text = None
    element.append(mathml(TAG.sub("", tex).strip(), display=element.tag == "div"))
    if number:
        element.set("class", "arithmatex equation")
        element.set("id", f"eq-{number[1]}")
        link = ElementTree.SubElement(element, "a", {"class": "number", "href": f"#eq-{number[1]}"})
        link.text = AtomicString(f"({number[1]})")


class MathExtension(Extension):
    """To be used with pymdownx.arithmatex and its option `generic`."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Run after formulas are found and before anchors are collected."""
        md.treeprocessors.register(_Formulas(md), "mathml", (_AFTER_INLINE + _BEFORE_ANCHORS) / 2)
