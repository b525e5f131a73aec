"""Plots and self-contained pages of results."""

from __future__ import annotations

from flomi.report.page import plot, write

__all__ = ["plot", "write"]
