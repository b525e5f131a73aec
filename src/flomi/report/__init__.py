"""Plots and self-contained pages of results.

`plots` has a function a panel, `page` puts them beside the numbers of one result, `webpage` makes one file of it that loads
nothing, `style` has the colours of every figure. A new panel: a function in `plots`, and its place in `page` and the template.
"""

from __future__ import annotations

from flomi.report.page import plot, write

__all__ = ["plot", "write"]
