"""`MIEstimate`: the record that carries an estimate and everything needed to judge it."""

from __future__ import annotations

import dataclasses
import html
import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flomi.inference.influence import mean_stderr
from flomi.support.jsonable import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Difference", "MIEstimate", "number"]

NATS_PER_BIT = math.log(2)
BY_ROW = ("pmi", "projection", "folds", "groups")  # fields of one value, or several, a row
FORMAT = 2  # of `to_dict`; 1 had no findings, influence values, parts of the error, folds or level


@dataclass(frozen=True, eq=False)
class MIEstimate:
    """A mutual information with what is needed to judge it, in nats unless `units` says bits.

    float(r) is mi, and a format such as f"{r:.3f}" formats it.

    mi, stderr, ci: point estimate, its standard error and 95 % interval; mi_method says how it was made.
    level: of the interval and of the certificate, 0.95 unless `level=` changes it. error_parts: what stderr is made of: sampling
    of the rows, its second-order part, the model, and the folds. missed: the standard error, upwards only, of what the model
    cannot express: it widens the upper side of the interval. influence: [n] one value a row, of mean mi, whose spread is the
    sampling error; influences has those of bound, plug_in and imbalance too. r1 - r2 is a `Difference` with its own error.
    lower_bound: one-sided confidence lower bound on I, valid in finite samples whatever the critic; NaN where there is none.
    bound, bound_stderr: value on test rows of the bound chosen, `bound_name`, which lies on `bound_side` of I.
    plug_in, imbalance: mean PMI read-out, and the normalisation error E[e^{log t - u}] - 1, 0 at the optimum.
    pmi: [n] out-of-sample pointwise MI, row i for row i of the input (NaN where a row was left out or no
    model was finished).
    critic, candidates: which critic won, and what each candidate reached on test rows.
    verdict, warnings, findings: "ok", "none found", "caution" or "unreliable", and why: in sentences, and as records with codes.
    folds: [n] which fold tested the row, from 0; the same `folds=` for another estimate makes the two comparable row by row.
    history: training curves, one per fold and trained candidate. projection: [n, 2], one number a row for x and for y.
    """

    mi: float
    stderr: float
    ci: tuple[float, float]
    mi_method: str
    lower_bound: float
    bound: float
    bound_stderr: float
    bound_name: str
    bound_side: Literal["lower", "upper", "none"]
    plug_in: float
    imbalance: float
    pmi: np.ndarray
    critic: str
    candidates: dict[str, dict[str, Any]]
    verdict: Literal["ok", "none found", "caution", "unreliable"]
    warnings: tuple[str, ...]
    history: list[dict[str, Any]]
    projection: np.ndarray
    projection_labels: tuple[str, str]
    config: dict[str, Any]
    seconds: float
    n: int
    dim_x: int
    dim_y: int
    units: Literal["nats", "bits"] = "nats"
    level: float = 0.95
    error_parts: dict[str, float] = field(default_factory=dict)
    missed: float = 0.0
    influences: dict[str, np.ndarray] = field(default_factory=dict)
    folds: np.ndarray | None = None
    groups: np.ndarray | None = None
    findings: tuple[dict[str, Any], ...] = ()

    @property
    def influence(self) -> np.ndarray:
        """[n] one value a row, of mean `mi`, whose spread is the sampling error of `mi`."""
        if "mi" not in self.influences:
            raise ValueError(
                "this result was saved by a version that kept no influence values; estimate again"
            )
        return self.influences["mi"]

    def __sub__(self, other: MIEstimate) -> Difference:
        if not isinstance(other, MIEstimate):
            return NotImplemented
        return difference(self, other)

    def __float__(self) -> float:
        return self.mi

    def __format__(self, spec: str) -> str:
        return format(self.mi, spec) if spec else str(self)

    def __str__(self) -> str:
        mi, stderr, low, high, least = (
            number(v, self.stderr) for v in (self.mi, self.stderr, *self.ci, self.lower_bound)
        )
        proven = f"at least {least} with {self.percent} confidence"
        proven = "no certificate" if math.isnan(self.lower_bound) else proven
        return f"{mi} ± {stderr} {self.units} ({self.percent} interval {low} to {high}), {proven}; verdict: {self._judgement()}"

    @property
    def percent(self) -> str:
        """The level in words: "95 %"."""
        return f"{100 * self.level:g} %"

    def __repr__(self) -> str:
        return f"<MIEstimate {self}>"

    def _judgement(self) -> str:
        count = len(self.warnings)
        return self.verdict + (f" ({count} warning{'s' if count > 1 else ''})" if count else "")

    def _repr_html_(self) -> str:
        """The short table that a notebook shows, with the warnings in full."""
        values = self.mi, self.stderr, *self.ci, self.lower_bound, self.bound, self.bound_stderr
        mi, stderr, low, high, least, bound, spread = (number(v, self.stderr) for v in values)
        proven = f"{least} {self.units} ({self.percent} confidence)"
        rows = [
            ("mutual information", f"{mi} ± {stderr} {self.units} ({self.percent} interval {low} to {high})"),
            ("at least", "no certificate" if math.isnan(self.lower_bound) else proven),
            (f"{self.bound_name.upper()} on test rows", f"{bound} ± {spread}"),
            ("critic", self.critic),
            ("verdict", self._judgement()),
            *(("", sentence) for sentence in self.warnings),
        ]
        cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
        return f"<table>{''.join(cells)}</table>"

    def to(self, units: Literal["nats", "bits"]) -> MIEstimate:
        """The same result in "nats" or "bits"."""
        if units not in ("nats", "bits"):
            raise ValueError(f"units={units!r} is not known; choose 'nats' or 'bits'")
        if units == self.units:
            return self
        k = 1 / NATS_PER_BIT if units == "bits" else NATS_PER_BIT
        names = ("mi", "stderr", "lower_bound", "bound", "bound_stderr", "plug_in", "pmi")
        scaled: dict[str, Any] = {name: getattr(self, name) * k for name in names}
        entries, curves = {}, []
        for name, c in self.candidates.items():
            entries[name] = {**c, "bound": c["bound"] * k, "stderr": c["stderr"] * k}
        for h in self.history:
            read = {name: [v * k for v in h[name]] for name in ("train", "validation")}
            curves.append({**h, **read, "ceiling": None if h["ceiling"] is None else h["ceiling"] * k})
        ci = (self.ci[0] * k, self.ci[1] * k)
        return dataclasses.replace(
            self, ci=ci, candidates=entries, history=curves, units=units, **scaled,
            error_parts={name: part * k for name, part in self.error_parts.items()},
            missed=self.missed * k,
            influences={
                name: values if name == "imbalance" else values * k for name, values in self.influences.items()
            },
        )  # fmt: skip

    def spread(self, rows: np.ndarray, n: int) -> MIEstimate:
        """The same result for n rows of which these were used: what is by row has NaN, or -1, for the others."""

        def full(values: np.ndarray) -> np.ndarray:
            found = np.full((n, *values.shape[1:]), -1 if values.dtype.kind == "i" else np.nan, values.dtype)
            found[rows] = values
            return found

        changes: dict[str, Any] = {"influences": {name: full(v) for name, v in self.influences.items()}}
        by_row = {name: getattr(self, name) for name in BY_ROW}
        changes |= {name: full(values) for name, values in by_row.items() if values is not None}
        return dataclasses.replace(self, **changes)

    def to_dict(self, *, pmi: bool = False) -> dict[str, Any]:
        """Everything as JSON-able values; the [n] arrays only if asked for. NaN becomes None."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in BY_ROW:
            record[name] = record[name].tolist() if pmi and record[name] is not None else None
        record["influences"] = {k: v.tolist() for k, v in self.influences.items()} if pmi else None
        record["format"] = FORMAT
        return {name: plain(value) for name, value in record.items() if value is not None}

    def plot(self) -> Figure:
        """A figure: training curves or candidates, the PMI histogram, a scatter coloured by PMI (needs flomi[plot])."""
        from flomi.report import page as report

        return report.plot(self)

    def report(self, path: str | Path) -> Path:
        """Write a self-contained HTML page (needs flomi[report]); returns its path."""
        from flomi.report import page as report

        return report.write(self, path)


@dataclass(frozen=True, eq=False)
class Difference:
    """The difference of two mutual informations estimated on the same rows and folds, with its error.

    value, stderr, ci: in `units`; influence: [n] the difference of the rows' influence values.
    """

    value: float
    stderr: float
    ci: tuple[float, float]
    influence: np.ndarray
    level: float
    units: Literal["nats", "bits"]

    def __float__(self) -> float:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __str__(self) -> str:
        value, stderr, low, high = (number(v, self.stderr) for v in (self.value, self.stderr, *self.ci))
        return f"{value} ± {stderr} {self.units} ({100 * self.level:g} % interval {low} to {high})"

    def __repr__(self) -> str:
        return f"<Difference {self}>"


def difference(first: MIEstimate, second: MIEstimate) -> Difference:
    r"""first - second, for results on the same rows and folds.

    .. math:: \mathrm{se}^2 = \frac{\mathrm{Var}(v - w)}{n} + s_1^2 + s_2^2 + m^2

    v, w are the rows' influence values, which move together where both results rest on the same rows, so that the first
    term is smaller than two sampling errors; s are their second-order parts, of order 1/n, which rule near independence.
    m holds what folds and models leave open in both; where both have the same critic chosen among the same candidates, their
    models err alike, and the difference of these parts counts. What the first may miss widens the interval upwards, what the
    second may miss downwards. Rows of one group count together. That row i is the same in
    both is the caller's promise. ValueError for results of other folds, groups, levels or units.
    """
    if first.units != second.units:
        raise ValueError(
            f"the results are in {first.units} and {second.units}; write r.to({first.units!r}) for the second"
        )
    if first.folds is None or second.folds is None or not np.array_equal(first.folds, second.folds):
        raise ValueError(
            "the results rest on other rows or folds; estimate both on the same rows, with the same seed and number of folds, or "
            "pass the folds of the first to the second: estimate(x, z, folds=r.folds)"
        )
    if first.level != second.level:
        raise ValueError(
            f"the results have levels {first.level:g} and {second.level:g}; estimate both with the same level="
        )
    one, other = (np.zeros(0) if r.groups is None else r.groups for r in (first, second))
    if not np.array_equal(one, other):
        raise ValueError("the results have other groups; give the same groups= to both, or to none")
    rows = first.folds >= 0
    influence = first.influence - second.influence
    groups = None if first.groups is None else first.groups[rows]
    sampling = mean_stderr(influence[rows], groups)
    alike = first.critic == second.critic and first.candidates.keys() == second.candidates.keys()
    parts = [sampling] + [
        r.error_parts.get(name, 0.0) for r in (first, second) for name in ("second_order", "folds")
    ]
    models = [r.error_parts["model"] for r in (first, second)]
    parts += [models[0] - models[1]] if alike else models
    stderr, value = math.hypot(*parts), first.mi - second.mi
    above, below = first.missed, second.missed
    if alike:
        above, below = max(above - below, 0.0), max(below - above, 0.0)
    quantile = NormalDist().inv_cdf((1 + first.level) / 2)
    low, high = value - quantile * math.hypot(stderr, below), value + quantile * math.hypot(stderr, above)
    return Difference(value, stderr, (low, high), influence, first.level, first.units)


def number(value: float | None, error: float | None = None) -> str:
    """Three decimals, or as many as show two digits of the error; powers of ten from a million on.

    >>> number(0.41234, 0.01), number(-0.0001), number(-2.6e55), number(float("nan"))
    ('0.412', '0.000', '-2.6e+55', 'n/a')
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    decimals = 3
    if error is not None and 0 < error < math.inf:
        decimals = min(max(1 - math.floor(math.log10(error)), 3), 8)
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text  # no minus before a zero
