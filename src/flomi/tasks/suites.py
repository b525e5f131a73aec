"""The suites by name. Each is built when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

import flomi.tasks.base as base
import flomi.tasks.transforms as tf
from flomi.support.names import suggestion
from flomi.tasks.core import Array, Task, Transform

NATS = (2, 4, 6, 8, 10)
RHO = np.linspace(0, 0.99, 20)  # the grid of the paper's estimation experiments


def bmi_v1() -> tuple[Task, ...]:
    """Forty tasks of known MI between 0.17 and 1.71 nats, in one to fifty dimensions a side.

    Reference: Czyz, Grabowski, Vogt, Beerenwinkel and Marx, "Beyond Normal: On the Evaluation of Mutual
    Information Estimators", NeurIPS 2023.
    """
    normal = base.pairs("1v1-normal-0.75", (0.75,), 1, 1)
    cdf_normal = _both(normal, tf.normal_cdf)
    dense = tuple(base.dense(f"multinormal-dense-{d}-{d}-0.5", d, d, 0.5) for d in (2, 3, 5, 25, 50))
    # two coordinates a side, (2 z + e) / sqrt 5 and (2 z + f) / sqrt 5, share their z
    sparse = {d: base.pairs(f"multinormal-sparse-{d}-{d}-2-2.0", (0.8, 0.8), d, d) for d in (2, 3, 5, 25)}
    wide = [sparse[d] for d in (3, 5, 25)]
    cdf_wide = [_both(task, tf.normal_cdf) for task in wide]
    students = [
        base.student(f"student-identity-{d}-{d}-{df}", np.eye(2 * d), d, df)
        for d, df in ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3))
    ]
    asinh_students = [_both(students[i], tf.asinh) for i in (0, 1, 3, 5)]
    return (
        normal,
        cdf_normal,
        base.additive("1v1-additive-0.1", 0.1),
        base.additive("1v1-additive-0.75", 0.75),
        normal.transform(tf.bimodal_x, tf.bimodal_y, name="1v1-bimodal-0.75"),
        normal.transform(tf.wiggly_x, tf.wiggly_y),
        _both(normal, tf.half_cube),
        students[0],
        asinh_students[0],
        cdf_normal.transform(tf.swissroll),
        *dense,
        *sparse.values(),
        *students[1:],
        *cdf_wide,
        *(_both(task, tf.half_cube) for task in wide),
        *(task.transform(tf.spiral(0, 1), tf.spiral(1, 2)) for task in wide),
        *(task.transform(tf.spiral(0, 1), tf.spiral(1, 2)) for task in cdf_wide),
        *asinh_students[1:],
    )


def staircase(dim: int = 20) -> tuple[Task, ...]:
    """Gaussians of 2, 4, 6, 8 and 10 nats: `dim` independent pairs, rho = sqrt(1 - e^(-2 I / dim))."""
    return tuple(_even_pairs(f"staircase-{dim}-{dim}-{nats}", dim, nats) for nats in NATS)


def staircase_100() -> tuple[Task, ...]:
    """The staircase spread over 100 pairs of columns."""
    return staircase(100)


def staircase_cubic() -> tuple[Task, ...]:
    """The staircase with every coordinate of y cubed, which leaves the MI as it is."""
    return tuple(task.transform(None, tf.cube, name=f"cubic-{task.name}") for task in staircase())


def high_mi() -> tuple[Task, ...]:
    """Where bounds meet their ceilings: 1 to 20 nats in 1 to 100 dimensions a side.

    Gaussians with all pairs equally correlated, up to 10 nats in one dimension and 20 in more; then the same
    dependence where no Gaussian formula fits: uniform noise down to width 1e-4, heavy tails, cubes behind a
    rotation, and random invertible networks.
    """
    gaussians = [
        _even_pairs(f"high-mi-{d}-{d}-{nats}", d, nats)
        for d in (1, 5, 20, 100)
        for nats in (1, 2, 5, 10, 20)
        if d > 1 or nats <= 10
    ]
    heavy = [
        base.student(f"high-mi-student-{d}-{d}-{nats}", _even_dispersion(d, nats), d, df=3)
        for d, nats in ((5, 5), (20, 10))
    ]
    cubes = [
        _rotated_cubes(_even_pairs("gaussian", d, nats), f"high-mi-cubic-{d}-{d}-{nats}")
        for d, nats in ((5, 5), (20, 10))
    ]
    flows = [tf.coupling_flow("flow", 5, seed=seed) for seed in (8, 9)]
    warped = [
        _even_pairs("gaussian", 5, nats).transform(*flows, name=f"high-mi-warped-5-5-{nats}")
        for nats in (5, 10)
    ]
    uniform = [base.additive(f"high-mi-additive-{width:g}", width) for width in (1e-2, 1e-3, 1e-4)]
    return (*gaussians, *uniform, *heavy, *cubes, *warped)


def paper() -> tuple[Task, ...]:
    """The Gaussians of the FLO paper: 1 and 10 equally correlated pairs over its grid of 20 correlations, 0 to
    19.6 nats, and the 10 pairs with y rotated at random and then cubed.

    Reference: Guo et al. 2022, arXiv:2107.01131, section 5.
    """
    pairs = {
        d: [base.pairs(f"paper-{d}-{d}-{rho:.4f}", (float(rho),) * d, d, d) for rho in RHO] for d in (1, 10)
    }
    cubes = [_rotated_cubes(task, task.name.replace("paper", "paper-cubic")) for task in pairs[10]]
    return (*pairs[1], *pairs[10], *cubes)


def independence() -> tuple[Task, ...]:
    """Independent standard normals in 1, 20 and 100 dimensions a side."""
    return tuple(base.independent(f"independence-{d}-{d}", d, d) for d in (1, 20, 100))


def wild() -> tuple[Task, ...]:
    """Twenty distributions outside every benchmark, held out from all tuning."""
    from flomi.tasks.wild import wild

    return wild()


SUITES: dict[str, Callable[[], tuple[Task, ...]]] = {
    "bmi-v1": bmi_v1,
    "staircase": staircase,
    "staircase-100": staircase_100,
    "staircase-cubic": staircase_cubic,
    "high-mi": high_mi,
    "paper": paper,
    "independence": independence,
    "wild": wild,
}


def suite(name: str) -> tuple[Task, ...]:
    """The tasks of a suite, in its order. Raises ValueError for a name that is not in `SUITES`.

    Example:
        >>> [task.dim_x for task in suite("independence")]
        [1, 20, 100]
    """
    if name not in SUITES:
        raise ValueError(f"no suite is called {name!r}; {suggestion(name, SUITES, 3)}")
    return _built(name)


def get(name: str) -> Task:
    """The task of that name, from whichever suite holds it. Raises ValueError for an unknown name.

    Example:
        >>> round(get("staircase-20-20-6").mi, 9)
        6.0
    """
    known = []
    for suite_name in SUITES:
        for task in _built(suite_name):
            if task.name == name:
                return task
            known.append(task.name)
    raise ValueError(f"no task is called {name!r}; {suggestion(name, known, 3)}")


@cache
def _built(name: str) -> tuple[Task, ...]:
    return SUITES[name]()


def _both(task: Task, f: Transform) -> Task:
    return task.transform(f, f)


def _even_rho(dim: int, nats: float) -> float:
    """The correlation that gives `nats` in all when each of `dim` pairs has it."""
    return float(np.sqrt(-np.expm1(-2 * nats / dim)))


def _even_pairs(name: str, dim: int, nats: float) -> Task:
    return base.pairs(name, (_even_rho(dim, nats),) * dim, dim, dim)


def _even_dispersion(dim: int, nats: float) -> Array:
    c: Array = np.eye(2 * dim)
    i = np.arange(dim)
    c[i, dim + i] = c[dim + i, i] = _even_rho(dim, nats)
    return c


def _rotated_cubes(task: Task, name: str) -> Task:
    """y rotated at random (one rotation for ever), then cubed coordinate by coordinate."""
    turn = tf.linear("turn", tf.random_rotation(task.dim_y, seed=10))
    return task.transform(None, turn).transform(None, tf.cube, name=name)
