"""Messages about a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names most like `name`, whatever the case of their letters.

    >>> nearest("Gausian", ["gaussian", "student"])
    ['gaussian']
    """
    folded = {other.casefold(): other for other in known}
    return [folded[hit] for hit in difflib.get_close_matches(name.casefold(), list(folded), most, cutoff)]


def suggestion(name: str, known: Iterable[str], most: int = 1) -> str:
    """What to say of an unknown name: the nearest known ones, or all of them.

    >>> suggestion("gausian", ["gaussian", "student"]), suggestion("x", ["gaussian", "student"])
    ('did you mean gaussian?', 'there are gaussian, student')
    """
    known = list(known)
    close = nearest(name, known, most)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
