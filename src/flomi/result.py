"""`MIEstimate`: the record that carries an estimate and everything needed to judge it."""

from __future__ import annotations

import dataclasses
import html
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MIEstimate", "number"]

NATS_PER_BIT = math.log(2)


@dataclass(frozen=True, eq=False)
class MIEstimate:
    """A mutual information with what is needed to judge it, in nats unless `units` says bits.

    float(r) is mi, and a format such as f"{r:.3f}" formats it.

    mi, stderr, ci: point estimate, its standard error and 95 % interval; mi_method says how it was made.
    lower_bound: one-sided 95 % confidence lower bound on I, valid in finite samples whatever the critic.
    bound, bound_stderr: held-out value of the bound asked for, `bound_name`, which lies on `bound_side` of I.
    plug_in, imbalance: mean PMI read-out, and the normalisation error E[e^{log t - u}] - 1, 0 at the optimum.
    pmi: [n] out-of-sample pointwise MI, row i for row i of the input (NaN where a row was left out or no
    model was finished).
    critic, candidates: which critic won, and what each competitor reached on held-out rows.
    verdict, warnings: "ok", "caution" or "unreliable", and why, in sentences.
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

    def __float__(self) -> float:
        return self.mi

    def __format__(self, spec: str) -> str:
        return format(self.mi, spec) if spec else str(self)

    def __str__(self) -> str:
        mi, stderr, low, high, least = (
            number(v, self.stderr) for v in (self.mi, self.stderr, *self.ci, self.lower_bound)
        )
        return (
            f"{mi} ± {stderr} {self.units} (95 % interval {low} to {high}), at least {least} with 95 % confidence; "
            f"verdict: {self._judgement()}"
        )

    def __repr__(self) -> str:
        return f"<MIEstimate {self}>"

    def _judgement(self) -> str:
        count = len(self.warnings)
        return self.verdict + (f" ({count} warning{'s' if count > 1 else ''})" if count else "")

    def _repr_html_(self) -> str:
        """The short table that a notebook shows, with the warnings in full."""
        mi, stderr, low, high, least, bound, spread = (
            number(v, self.stderr)
            for v in (self.mi, self.stderr, *self.ci, self.lower_bound, self.bound, self.bound_stderr)
        )
        rows = [
            ("mutual information", f"{mi} ± {stderr} {self.units} (95 % interval {low} to {high})"),
            ("at least", f"{least} {self.units} (95 % confidence)"),
            (f"held-out {self.bound_name.upper()}", f"{bound} ± {spread}"),
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
        scaled: dict[str, Any] = {
            name: getattr(self, name) * k
            for name in ("mi", "stderr", "lower_bound", "bound", "bound_stderr", "plug_in", "pmi")
        }
        entries = {
            name: {**c, "bound": c["bound"] * k, "stderr": c["stderr"] * k}
            for name, c in self.candidates.items()
        }
        curves = [
            {
                **h,
                "train": [v * k for v in h["train"]],
                "validation": [v * k for v in h["validation"]],
                "ceiling": None if h["ceiling"] is None else h["ceiling"] * k,
            }
            for h in self.history
        ]
        ci = (self.ci[0] * k, self.ci[1] * k)
        return dataclasses.replace(self, ci=ci, candidates=entries, history=curves, units=units, **scaled)

    def to_dict(self, *, pmi: bool = False) -> dict[str, Any]:
        """Everything as JSON-able values; the [n] arrays only if asked for. NaN becomes None."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("pmi", "projection"):
            record[name] = record[name].tolist() if pmi else None
        return {name: _plain(value) for name, value in record.items() if value is not None}

    def plot(self) -> Figure:
        """A figure: training curves or candidates, the PMI histogram, a scatter coloured by PMI (needs flomi[plot])."""
        from flomi.report import page as report

        return report.plot(self)

    def report(self, path: str | Path) -> Path:
        """Write a self-contained HTML page (needs flomi[report]); returns its path."""
        from flomi.report import page as report

        return report.write(self, path)


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


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
