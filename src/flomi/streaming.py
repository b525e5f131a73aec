"""`flomi.streaming.read`, which is `flomi.data.streaming.read`."""

from __future__ import annotations

from flomi.data.streaming import ROWS, read

__all__ = ["ROWS", "read"]
