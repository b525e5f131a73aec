"""What a task is: a sampler, the mutual information it was built to have, and maps that keep it."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Map: TypeAlias = Callable[[Array], Array]
Sampler: TypeAlias = Callable[[np.random.Generator, int], tuple[Array, Array]]
LogRatio: TypeAlias = Callable[[Array, Array], Array]
LogDensity: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True)
class Transform:
    """An injective map of rows, with its inverse where there is one.

    I(f(X); h(Y)) = I(X; Y) for injective f and h, so a transform makes a new task of a known one.
    `forward` takes `[n, d]` to `[n, d']`; `inverse` undoes it on the image of `forward`.

    Example:
        >>> import numpy as np
        >>> double = Transform("double", forward=lambda t: 2 * t, inverse=lambda t: t / 2)
        >>> double(np.array([[1.5]])).tolist()
        [[3.0]]
    """

    name: str
    forward: Map = field(repr=False)
    inverse: Map | None = field(default=None, repr=False)

    def __call__(self, values: Array) -> Array:
        return self.forward(values)


@dataclass(frozen=True)
class Task:
    """A joint distribution of x and y whose mutual information is known.

    `mi` is I(X; Y) in nats and `mi_stderr` its standard error, 0 where it is exact (a formula, or a
    quadrature good to 1e-7). `sampler(rng, n)` draws rows; `log_ratio(x, y)` is the exact
    pointwise mutual information log p(x, y) / (p(x) p(y)), or None where it has no tractable form.
    `log_py(y)` is log p(y) by row, where that is known: the bound of Barber and Agakov needs it.

    Example:
        >>> from flomi import tasks
        >>> task = tasks.get("1v1-normal-0.75")
        >>> x, y = task.sample(1000, seed=0)
        >>> x.shape, round(task.mi, 5)
        ((1000, 1), 0.41334)
        >>> bool(abs(task.pmi(x, y).mean() - task.mi) < 0.1)
        True
    """

    name: str
    dim_x: int
    dim_y: int
    mi: float
    sampler: Sampler = field(repr=False)
    log_ratio: LogRatio | None = field(default=None, repr=False)
    mi_stderr: float = 0.0
    log_py: LogDensity | None = field(default=None, repr=False)

    def sample(self, n: int, seed: int) -> tuple[Array, Array]:
        """Draw n independent rows: x `[n, dim_x]` and y `[n, dim_y]`, in float64.

        The same task, n and seed give the same rows. Two tasks draw independent rows from the same seed,
        so that averages over a suite average over noise as well. Raises ValueError for n < 1 or seed < 0.
        """
        rows, start = _whole("n", n, at_least=1), _whole("seed", seed, at_least=0)
        rng = np.random.default_rng([start, zlib.crc32(self.name.encode())])
        x, y = self.sampler(rng, rows)
        return np.ascontiguousarray(x, dtype=np.float64), np.ascontiguousarray(y, dtype=np.float64)

    def pmi(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Array | None:
        """The exact pointwise MI of each row, `[n]` in nats; None where the task has no exact one.

        Rows must lie in the support of the task: an inverse is not defined elsewhere. Raises ValueError
        if the shapes are not `[n, dim_x]` and `[n, dim_y]`.
        """
        x, y = _rows("x", x, self.dim_x), _rows("y", y, self.dim_y)
        if len(x) != len(y):
            raise ValueError(f"x has {len(x)} rows and y has {len(y)}; give both the same rows")
        return None if self.log_ratio is None else self.log_ratio(x, y)

    def transform(
        self, fx: Transform | Map | None = None, fy: Transform | Map | None = None, *, name: str | None = None
    ) -> Task:
        """The task of (fx(x), fy(y)): the same MI, and the same pointwise MI where both maps have inverses.

        `fx` and `fy` are injective maps of rows, `[n, d]` to `[n, d']`; None leaves that side alone. A plain
        function serves where no pointwise MI is needed. Injectivity is the caller's promise.

        Example:
            >>> from flomi import tasks
            >>> bent = tasks.get("1v1-normal-0.75").transform(tasks.transforms.cube)
            >>> bent.name, round(bent.mi, 5)
            ('cube_x-1v1-normal-0.75', 0.41334)
        """
        gx, gy = _as_transform(fx), _as_transform(fy)
        sampler = partial(_push, self.sampler, gx.forward, gy.forward)
        log_ratio = None
        if self.log_ratio is not None and gx.inverse is not None and gy.inverse is not None:
            log_ratio = partial(_pull_back, self.log_ratio, gx.inverse, gy.inverse)
        probe_x, probe_y = sampler(np.random.default_rng(0), 2)
        for argument, probe in (("fx", probe_x), ("fy", probe_y)):
            if np.ndim(probe) != 2 or len(probe) != 2:
                raise ValueError(
                    f"{argument} must map [n, d] to [n, d']; 2 rows became shape {np.shape(probe)}"
                )
        return Task(
            name=name or f"{_label(gx, gy)}-{self.name}",
            dim_x=probe_x.shape[1],
            dim_y=probe_y.shape[1],
            mi=self.mi,
            mi_stderr=self.mi_stderr,
            sampler=sampler,
            log_ratio=log_ratio,
            log_py=self.log_py if fy is None else None,
        )


def stack(name: str, parts: Sequence[Task]) -> Task:
    """Independent tasks side by side: MI and pointwise MI add up, columns are joined in order.

    I((X_1, ..., X_k); (Y_1, ..., Y_k)) = sum_j I(X_j; Y_j) when the pairs (X_j, Y_j) are independent.

    Example:
        >>> from flomi import tasks
        >>> one = tasks.get("1v1-normal-0.75")
        >>> two = tasks.stack("twice", [one, one])
        >>> two.dim_x, round(two.mi / one.mi, 9)
        (2, 2.0)
    """
    if not parts:
        raise ValueError("parts is empty; give at least one task")
    ratios = [part.log_ratio for part in parts if part.log_ratio is not None]
    densities = [part.log_py for part in parts if part.log_py is not None]
    cuts_x = tuple(accumulate(part.dim_x for part in parts))[:-1]
    cuts_y = tuple(accumulate(part.dim_y for part in parts))[:-1]
    return Task(
        name=name,
        dim_x=sum(part.dim_x for part in parts),
        dim_y=sum(part.dim_y for part in parts),
        mi=sum(part.mi for part in parts),
        mi_stderr=float(np.hypot.reduce([part.mi_stderr for part in parts])),
        sampler=partial(_stack_sample, tuple(part.sampler for part in parts)),
        log_ratio=partial(_stack_ratio, tuple(ratios), cuts_x, cuts_y) if len(ratios) == len(parts) else None,
        log_py=partial(_stack_density, tuple(densities), cuts_y) if len(densities) == len(parts) else None,
    )


def _push(sampler: Sampler, fx: Map, fy: Map, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    x, y = sampler(rng, n)
    return fx(x), fy(y)


def _pull_back(log_ratio: LogRatio, inverse_x: Map, inverse_y: Map, x: Array, y: Array) -> Array:
    return log_ratio(inverse_x(x), inverse_y(y))


def _stack_sample(samplers: tuple[Sampler, ...], rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    pairs = [sampler(rng, n) for sampler in samplers]
    return np.hstack([x for x, _ in pairs]), np.hstack([y for _, y in pairs])


def _stack_ratio(
    ratios: tuple[LogRatio, ...], cuts_x: tuple[int, ...], cuts_y: tuple[int, ...], x: Array, y: Array
) -> Array:
    columns = zip(ratios, np.split(x, cuts_x, axis=1), np.split(y, cuts_y, axis=1), strict=True)
    total: Array = np.sum([ratio(a, b) for ratio, a, b in columns], axis=0)
    return total


def _stack_density(densities: tuple[LogDensity, ...], cuts_y: tuple[int, ...], y: Array) -> Array:
    columns = zip(densities, np.split(y, cuts_y, axis=1), strict=True)
    total: Array = np.sum([density(part) for density, part in columns], axis=0)
    return total


def _identity(values: Array) -> Array:
    return values


def _as_transform(f: Transform | Map | None) -> Transform:
    if f is None:
        return Transform("", _identity, _identity)
    if isinstance(f, Transform):
        return f
    if not callable(f):
        raise TypeError(f"a transform must be a Transform, a function or None, not {type(f).__name__}")
    return Transform(getattr(f, "__name__", "map"), f)


def _label(fx: Transform, fy: Transform) -> str:
    if fx.name == fy.name:
        return fx.name or "same"
    return "-".join(f"{f.name}_{side}" for f, side in ((fx, "x"), (fy, "y")) if f.name)


def _whole(argument: str, value: Any, at_least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{argument} must be a whole number, not {type(value).__name__}") from None
    if number < at_least:
        raise ValueError(f"{argument} is {number}; it must be at least {at_least}")
    return number


def _rows(argument: str, values: npt.ArrayLike, dim: int) -> Array:
    rows: Array = np.asarray(values, dtype=np.float64)
    if rows.ndim == 1 and dim == 1:
        rows = rows[:, None]
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise ValueError(f"{argument} has shape {rows.shape}; this task needs [n, {dim}]")
    return rows
