"""Where in the data the dependence sits: one number a row for each side, to look at."""

from __future__ import annotations

import numpy as np

from flomi.inference.influence import Array

COMPONENTS = 20  # principal components a side that the canonical variates are made of


def project(
    x: Array, y: Array, x_names: tuple[str, ...], y_names: tuple[str, ...]
) -> tuple[Array, tuple[str, str]]:
    """[n, 2] one number a row for each side: the column where there is one, else the first canonical variate; and their labels.

    Canonical correlation analysis on at most 20 principal components a side: for looking at, not for the estimate.
    """
    sides = []
    for v in (x, y):
        flat = v.reshape(len(v), -1)
        flat = flat / np.abs(flat).max(0).clip(min=1e-300)  # so that no square overflows
        centred = (flat - flat.mean(0)) / flat.std(0).clip(min=1e-300)
        sides.append(np.linalg.svd(centred, full_matrices=False)[0][:, :COMPONENTS])
    left, _, right = np.linalg.svd(sides[0].T @ sides[1])
    columns, labels = [], []
    for side, v, basis, direction, names in (
        ("x", x, sides[0], left[:, 0], x_names),
        ("y", y, sides[1], right[0], y_names),
    ):
        single = v.size == len(v)
        columns.append(v.reshape(-1) if single else basis @ direction * np.sqrt(len(v)))
        labels.append(names[0] if single else f"first canonical variate of {side}")
    return np.stack(columns, 1), (labels[0], labels[1])
