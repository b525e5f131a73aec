"""Named columns in memory, and how arrays, tensors and frames become them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

Place = Callable[[int], str]  # from the number of a row, from 0, to words that say where it stands
row_number: Place = "row {}".format


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns of equal standing: each value has shape [n] or, from array files, [n, ...]; `notes` are doubts.

    `place` says in words where a row, counted from 0, stands: for messages.
    """

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    notes: tuple[str, ...] = ()
    place: Place = row_number


def as_table(value: Any, role: str) -> Table:
    """The columns of an array, tensor, list, or a frame or series of pandas, polars or any library that narwhals knows.

    Raises TypeError for what is no data at all and ValueError for what has no rows; `role` ("x") names the argument.
    """
    if isinstance(value, (str, bytes, os.PathLike)):
        raise TypeError(
            f"{role} is the text {str(value)[:60]!r}, not data; to read a file use flomi.data.read(path, x=..., y=...)"
        )
    if value is None or isinstance(value, (Mapping, Set, Iterator)):
        raise TypeError(
            f"{role} is a {type(value).__name__}; give an array, a tensor, a list, or a frame or series of columns"
        )
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor(value, role)
    if hasattr(value, "toarray") and not isinstance(value, np.ndarray):
        raise TypeError(f"{role} is a sparse matrix; pass {role}.toarray()")
    if not isinstance(value, (np.ndarray, list, tuple)):
        table = _frame(value, role)
        if table is not None:
            return table
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        value = np.ma.filled(value.astype(np.float64), np.nan)
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists, and objects whose own conversion refuses
        raise ValueError(
            f"{role} cannot be made an array ({first_words(error)}); every row needs the same number of values"
        ) from None
    if array.ndim == 0:
        raise ValueError(
            f"{role} is a single value ({str(value)[:40]}); it needs one value, or one row of values, per observation"
        )
    if array.dtype.names:
        names = array.dtype.names
        return Table(names, tuple(array[name] for name in names))
    return Table((role,), (array,))


def _tensor(value: Any, role: str) -> Table:
    if value.is_complex():
        raise ValueError(f"{role} holds complex numbers; give the real and the imaginary part as two columns")
    if value.ndim == 0:
        raise ValueError(
            f"{role} is a single value; it needs one value, or one row of values, per observation"
        )
    return Table((role,), (value.detach().cpu().to_dense().double().numpy(),))


def _frame(value: Any, role: str) -> Table | None:
    import narwhals as nw

    try:
        frame = nw.from_native(value, allow_series=True)
    except TypeError:
        return None
    except Exception as error:
        raise ValueError(f"{role} cannot be read as a frame ({first_words(error)})") from None
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, nw.Series):
        return Table((str(frame.name) if frame.name is not None else role,), (frame.to_numpy(),))
    return Table(
        tuple(map(str, frame.columns)),
        tuple(np.asarray(frame.get_column(name).to_numpy()) for name in frame.columns),
    )


def first_words(error: Exception) -> str:
    """The start of an error's text, on one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
