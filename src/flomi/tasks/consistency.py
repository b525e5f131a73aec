"""Self-consistency: where the true MI is not known, ratios of MIs still are.

x is an image and y = x_t its top t rows; the same serves for any table, whose columns then count as the rows.

    independence      I(x; x'_t) = 0                                 x' another image
    monotonicity      I(x; x_t) does not fall as t grows
    data processing   I((x, x); (x_t, x_s)) / I(x; x_t) = 1          s < t, so x_s tells nothing that x_t did not
    additivity        I((x, x'); (x_t, x'_t)) / I(x; x_t) = 2        x' another image

Reference: Song and Ermon, "Understanding the Limitations of Variational Mutual Information Estimators", ICLR 2020.
(There independence is t = 0, a y of nothing but masked pixels, which is too easy to tell an estimator by.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flomi.tasks.core import Array
from flomi.tasks.images import DATASETS, images

__all__ = ["DATASETS", "Pairing", "Ratio", "images", "pairings", "ratios", "self_consistency"]

TOP, OTHER, PROCESSED, TWO = "top", "other", "processed", "two"


@dataclass(frozen=True)
class Pairing:
    """One way to make x and y of images: what a test of this page estimates the MI of.

    `kind` is "top" (y the top rows of x), "other" (of another image), "processed" or "two", and `top` the number t
    of rows. `images` is `[n, rows, values a row]`.
    """

    name: str
    kind: str
    top: int
    images: Array = field(repr=False, compare=False)

    @property
    def dim_x(self) -> int:
        """Columns of x."""
        return self._copies * int(np.prod(self.images.shape[1:]))

    @property
    def dim_y(self) -> int:
        """Columns of y."""
        rows = self.top + (_fewer(self.images, self.top) if self.kind == PROCESSED else 0)
        return (2 if self.kind == TWO else 1) * rows * int(self.images.shape[2])

    @property
    def _copies(self) -> int:
        return 2 if self.kind in (PROCESSED, TWO) else 1

    def sample(self, n: int, seed: int) -> tuple[Array, Array]:
        """n rows of different images: x `[n, dim_x]` and y `[n, dim_y]`; "other" and "two" take two images a row.

        The same n and seed draw the same images for every kind. Raises ValueError where there are too few images.
        """
        need = 2 * n if self.kind in (OTHER, TWO) else n
        if not 1 <= need <= len(self.images):
            raise ValueError(
                f"n is {n}: {self.name} needs {need:,} different images and there are {len(self.images):,}; "
                f"ask for 1 to {len(self.images) * n // max(need, 1):,} rows"
            )
        order = np.random.default_rng(seed).permutation(len(self.images))
        one, two = self.images[order[:n]], self.images[order[n:need]]
        parts_x, parts_y = {
            TOP: ([one], [one[:, : self.top]]),
            OTHER: ([one], [two[:, : self.top]]),
            PROCESSED: ([one, one], [one[:, : self.top], one[:, : _fewer(one, self.top)]]),
            TWO: ([one, two], [one[:, : self.top], two[:, : self.top]]),
        }[self.kind]
        return _flat(parts_x), _flat(parts_y)


@dataclass(frozen=True)
class Ratio:
    """One test's outcome: `ratio` as found with the top `top` rows, what it must be, and how far off it is.

    For "monotonicity" the ratio is the smallest step from one t to the next, over the MI of the most rows; `expected`
    is 0 and only a negative one is an error.
    """

    test: str
    top: int
    ratio: float
    expected: float

    @property
    def error(self) -> float:
        """The distance of `ratio` from `expected`; 0 for a positive step of "monotonicity"."""
        if self.test == "monotonicity":
            return max(0.0, -self.ratio)
        return abs(self.ratio - self.expected)


def pairings(
    images: npt.ArrayLike, name: str = "images", tops: Sequence[int] | None = None
) -> tuple[Pairing, ...]:
    """What has to be estimated for all tests on these images.

    images: `[n, rows, columns]`, `[n, rows, columns, channels]`, or a table `[n, columns]`. tops: the numbers t of rows,
    from 2 up; a quarter, half, three quarters and all if left out. Raises ValueError for other shapes or numbers.

    Example:
        >>> import numpy as np
        >>> [pairing.name for pairing in pairings(np.zeros((50, 8, 8)), "blank", tops=[4, 8])]
        ['blank-other-4', 'blank-top-4', 'blank-top-8', 'blank-processed-4', 'blank-two-4']
    """
    values: Array = np.asarray(images, dtype=np.float64)
    if values.ndim < 2 or values.shape[1] < 2 or len(values) < 2:
        raise ValueError(
            f"images has shape {values.shape}; give [n, rows, columns] or [n, columns], 2 or more of each"
        )
    stacked = values.reshape(len(values), values.shape[1], -1)
    rows = stacked.shape[1]
    chosen = sorted({max(2, rows * k // 4) for k in (1, 2, 3, 4)} if tops is None else set(tops))
    if not chosen or chosen[0] < 2 or chosen[-1] > rows:
        raise ValueError(f"tops is {list(tops or [])}; give numbers of rows from 2 to {rows}")
    inner = chosen[:-1] or chosen
    middle = inner[len(inner) // 2]
    kinds = [
        (OTHER, middle),
        *((TOP, t) for t in chosen),
        *((kind, t) for kind in (PROCESSED, TWO) for t in inner),
    ]
    return tuple(Pairing(f"{name}-{kind}-{t}", kind, t, stacked) for kind, t in kinds)


def ratios(values: Mapping[tuple[str, int], float]) -> tuple[Ratio, ...]:
    """The tests' outcomes from the estimates of `pairings`, by their (kind, top); those that lack an estimate are left out.

    Example:
        >>> found = ratios({("top", 2): 1.0, ("top", 4): 2.0, ("processed", 2): 1.1, ("two", 2): 1.8})
        >>> [(r.test, r.top, round(r.ratio, 2), r.expected) for r in found]
        [('monotonicity', 4, 0.5, 0.0), ('data processing', 2, 1.1, 1.0), ('additivity', 2, 1.8, 2.0)]
    """
    top = {t: value for (kind, t), value in sorted(values.items()) if kind == TOP}

    def compared(test: str, kind: str, expected: float) -> list[Ratio]:
        mine = sorted((t, value) for (k, t), value in values.items() if k == kind and t in top)
        return [Ratio(test, t, _over(value, top[t]), expected) for t, value in mine]

    climb = []
    if len(top) > 1:
        smallest = float(np.diff(list(top.values())).min())
        climb = [Ratio("monotonicity", max(top), _over(smallest, top[max(top)]), 0.0)]
    return (
        *compared("independence", OTHER, 0.0),
        *climb,
        *compared("data processing", PROCESSED, 1.0),
        *compared("additivity", TWO, 2.0),
    )


def self_consistency(
    images: npt.ArrayLike,
    estimate: Callable[[Array, Array], Any],
    *,
    n: int | None = None,
    seed: int = 0,
    tops: Sequence[int] | None = None,
) -> tuple[Ratio, ...]:
    """Song and Ermon's tests of an estimator on data of your own, whose MI nobody knows.

    images: as in `pairings`. estimate: takes x `[n, d]` and y `[n, e]` and returns what float() takes, in any unit; such
    as `flomi.estimate`. n: rows of each estimate, half the images if left out (two of the tests use two a row).

    Example:
        >>> import numpy as np
        >>> table = np.random.default_rng(0).normal(size=(100, 4))
        >>> def rank(x, y):  # no good estimator: it never looks at x
        ...     return np.linalg.matrix_rank(y)
        >>> for r in self_consistency(table, rank, tops=[2, 4]):
        ...     print(r.test, r.top, r.ratio, "ok" if r.error < 0.1 else "off")
        independence 2 1.0 off
        monotonicity 4 0.5 ok
        data processing 2 1.0 ok
        additivity 2 2.0 ok
    """
    plan = pairings(images, tops=tops)
    rows = len(plan[0].images) // 2 if n is None else n
    return ratios({(p.kind, p.top): float(estimate(*p.sample(rows, seed))) for p in plan})


def _fewer(images: Array, top: int) -> int:
    """The rows left of `top` by the data processing test: 3 of 28 are taken away, at least one."""
    return max(1, top - max(1, round(3 * int(images.shape[1]) / 28)))


def _flat(parts: list[Array]) -> Array:
    return np.hstack([part.reshape(len(part), -1) for part in parts])


def _over(value: float, whole: float) -> float:
    return value / whole if whole else float("nan")
