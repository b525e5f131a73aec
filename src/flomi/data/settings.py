"""Numbers that decide what is read, drawn and doubted."""

from __future__ import annotations

from dataclasses import dataclass

from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class DataSettings:
    """Thresholds of `flomi.data`, each with its reason."""

    min_rows: int = setting(50, f"{UNMEASURED}with fewer rows no held-out number means anything")
    rows: int = setting(
        200_000,
        "drawn of a larger file: networks see fewer in all of their steps at effort='standard' (300 steps of 512 rows), and the "
        "standard error of 2 nats in 10 Gaussian columns, a spread of 1.8 a row, is below 0.005",
    )
    widest: int = setting(
        256, f"{UNMEASURED}columns of x and y together up to which the correlations of all rows are taken"
    )
    sketch_size: int = setting(
        32_768,
        "values a column of a block: the standard deviation of a rank is at most rows / (2 size), here 1.5e-5 of the rows",
    )
    sketch_numbers: int = setting(2**20, "most values of a block, all columns together: 8 MiB")
    sketch_least: int = setting(
        256, f"{UNMEASURED}values a column of a block, however many columns there are"
    )
    distinct: float = setting(
        0.5, f"{UNMEASURED}share of different values among rows, above which they are many"
    )
    atom: float = setting(
        0.05, f"{UNMEASURED}share of a column's rows at one value, above which it is an atom"
    )
    codes: int = setting(
        10, f"{UNMEASURED}so many different values beside atoms may still be the rare ones of a code"
    )
    rounding: float = setting(
        1e-15, "spread of a constant that was computed, relative to its size: a few units in the last place"
    )
    sentinels: tuple[float, ...] = setting(
        (-99.0, -999.0, -9999.0, -99999.0), f"{UNMEASURED}numbers that often stand for a missing value"
    )
    sentinel_gap: float = setting(
        0.5, f"{UNMEASURED}a sentinel is doubted where every other value is above this part of it"
    )
    marks: tuple[str, ...] = setting(
        ("?", "-", "--", ".", "*", "missing", "unknown", "none", "na", "n.a.", "n/a"),
        f"{UNMEASURED}texts that often stand for a missing value, besides an empty cell",
    )


SETTINGS = DataSettings()
