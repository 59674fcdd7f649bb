"""Widths of figures, as they are typed."""

from __future__ import annotations

import re

from dtsim.reporting.runs import ReportError

PAGE_IN = 7.16
"""Width of a figure across two columns of a page, in inch."""
COLUMN_IN = 3.5
"""Width of a figure in one of two columns, in inch."""
_LENGTH = re.compile(r"(\d+(?:\.\d+)?) ?(in|cm|mm|pt)")
_PER_INCH = {"in": 1.0, "cm": 2.54, "mm": 25.4, "pt": 72.27}  # TeX's points, in which it tells \columnwidth
_NARROWEST_IN, _WIDEST_IN = 2.5, 20.0


def inches(width: str) -> float:
    """The width in inch of "page", "column", or a length such as "3.5in", "88mm" or "252pt".

    Raises:
        ReportError: for a text that is none, or a width that is out of range.
    """
    named = {"page": PAGE_IN, "column": COLUMN_IN}
    if width in named:
        return named[width]
    read = _LENGTH.fullmatch(width.strip())
    if read is None:
        raise ReportError(f"width={width!r}: must be page, column, or a length such as 3.5in, 88mm or 252pt")
    found = float(read[1]) / _PER_INCH[read[2]]
    if not _NARROWEST_IN <= found <= _WIDEST_IN:
        raise ReportError(f"width={width!r}: must be {_NARROWEST_IN:g} to {_WIDEST_IN:g} in")
    return found
