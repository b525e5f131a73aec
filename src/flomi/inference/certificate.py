"""A confidence lower bound on mutual information that holds in finite samples, without a normal approximation.

How to call it: one ``PairScores`` of held-out rows and one of calibration rows for each fold, where the score
``p(x, y)`` (an estimate of the PMI: ``-u`` for FLO) was fitted on rows outside the held-out part::

    certificate([(held_out, calibration), ...], alpha=0.05, seed=0).value        # nats

The construction, in the symbols of the paper. For any score p, clipped to [-B1, B2], and any constant a,

    theta = E[p] - a - E_m[e^(p - a)] + 1  <=  I                               (NWJ; m is p(x)p(y))

and for two independent rows i, j the variable W_ij = (p_ii + p_jj)/2 - a - e^(p_ij - a) + 1 has mean theta and is
bounded. So under the null hypothesis I <= theta0, and for a bet b with 1 + b (W - theta0) >= 0,

    e(matching) = prod over the matched rows (i, j) of [ 1 + b (W_ij - theta0) ]

has mean at most 1 for every fixed matching of the rows into disjoint pairs, and so has its average over a random
matching. That average is what makes all pairs count. It is estimated without bias, and without a loss of validity,
by sequential importance sampling: the next free row i contributes the mean of its factors over all free partners j,
and one j is drawn in proportion to its factor and leaves with i.

What is proved. With rows (or groups) independent and (p, clip, a, bet, reference) fixed by other rows:
each fold's e-value has mean at most 1 under I <= theta0 and is non-increasing in theta0; the mean over folds and over
bets keeps this, whatever the dependence between folds; by Markov's inequality the set {theta0: e < 1/alpha} contains I
with probability at least 1 - alpha, and the certificate is its lowest point. A *product* over folds would not be valid under
cross-fitting, since each fold's score has seen the rows of all others.
What is a choice, and touches usefulness only: how clip, scale, a and bet are found (a second-order expansion of the
log-wealth on the calibration rows).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from flomi.support.settings import UNMEASURED, setting

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CertificateSettings:
    """What is searched, and how many pairs are looked at. Validity depends on none of it; usefulness and time do."""

    scales: tuple[float, ...] = setting((1.25, 1.0, 0.8, 0.6, 0.4), "below 1 they undo overconfident scores")
    clips_low: tuple[float, ...] = setting((0.5, 1.0, 2.0, 4.0), f"{UNMEASURED}steps of the search")
    clips_high: tuple[float, ...] = setting(
        (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0),
        "above 8, more than e^8 rows are needed to pay for the range",
    )
    offsets: tuple[float, ...] = setting(
        tuple(k / 4 for k in range(-2, 17)), "of a above the log-mean, which buys range at high MI"
    )
    start: tuple[float, float, float] = setting((1.0, 2.0, 2.0), f"{UNMEASURED}scale, low and high")
    sweeps: int = setting(2, f"{UNMEASURED}over high, scale and low")
    bets: tuple[float, ...] = setting(
        (0.6, 1.0, 1.5),
        "a mixture insures against a wrong guess of the best bet, for log 3 of log-wealth at most",
    )
    largest_stake: float = setting(
        0.98, "of the permitted bet: at 1 a single worst pair would lose everything"
    )
    negatives: int = setting(
        128, "more partners a row change the average over matchings by less than its own noise"
    )
    matchings: int = setting(8, f"{UNMEASURED}the draws that the average over matchings is made of")
    matched_units: int = setting(3000, "in all draws: of many rows one draw is close to the average")
    calibration_rows: int = setting(1000, f"{UNMEASURED}more no longer move the choice")
    calibration_negatives: int = setting(64, f"{UNMEASURED}more no longer move the choice")


SETTINGS = CertificateSettings()


@dataclass(frozen=True)
class PairScores:
    """Scores of one part's rows: matching pairs, and non-matching pairs by cyclic shifts.

    ``pos[i] = p(x_i, y_i)`` of shape [n]; ``neg[i, k] = p(x_i, y_j)`` with ``j = (i + shifts[k]) mod n``, of shape
    [n, m]; ``shifts`` [m] with values in 1 ... n-1; all in nats. All n - 1 shifts are all pairs.
    ``groups`` [n] holds labels of dependent rows (one subject, say): the group is then the unit, a
    negative inside a group is ignored, and rows must have been put in random order before the shifts were taken.

    Raises ValueError where shapes disagree, a shift is a multiple of n, or a score is NaN.

    Example:
        >>> import numpy as np
        >>> scores = PairScores(np.zeros(3), np.ones((3, 2)), shifts=np.array([1, 2]))
        >>> scores.pos.tolist(), scores.neg[0].tolist()
        ([0.0, 0.0, 0.0], [1.0, 1.0])
    """

    pos: Array
    neg: Array
    shifts: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        pos = np.asarray(self.pos, dtype=np.float64)
        neg = np.asarray(self.neg, dtype=np.float64)
        shifts = np.asarray(self.shifts, dtype=np.int64)
        n = pos.shape[0] if pos.ndim == 1 else -1
        if n < 2:
            raise ValueError(f"pos must hold one score for each of at least 2 rows, found shape {pos.shape}")
        if neg.ndim != 2 or neg.shape != (n, shifts.size) or shifts.size == 0:
            raise ValueError(
                f"neg must have shape [n, m] = [{n}, {shifts.size}] (m = the number of shifts, at least 1), "
                f"found {neg.shape}"
            )
        if np.any(shifts % n == 0):
            raise ValueError(f"shifts must not be multiples of n = {n}: a negative would be the positive")
        if np.isnan(pos).any() or np.isnan(neg).any():
            raise ValueError("pos and neg must not hold NaN: look for a critic that diverged")
        for name, value in (("pos", pos), ("neg", neg), ("shifts", shifts)):
            object.__setattr__(self, name, value)
        if self.groups is not None:
            if np.shape(self.groups) != (n,):
                raise ValueError(
                    f"groups must hold one label a row, shape ({n},), found {np.shape(self.groups)}"
                )
            labels = np.unique(np.asarray(self.groups), return_inverse=True)[1].astype(np.int64)
            object.__setattr__(self, "groups", labels.reshape(-1))

    def between_groups(self) -> tuple[Array, Array]:
        """neg, -inf where both rows are of one group, and which pairs that leaves [n, m]."""
        if self.groups is None:
            return self.neg, np.ones_like(self.neg)
        n = len(self.pos)
        keep = self.groups[:, None] != self.groups[(np.arange(n)[:, None] + self.shifts) % n]
        if not keep.any():
            raise ValueError("groups must hold at least 2 groups in each held-out part, found 1")
        return np.where(keep, self.neg, -np.inf), keep.astype(np.float64)

    def thin(self, count: int) -> PairScores:
        """The same rows with the first ``count`` of their shifts."""
        if self.shifts.size <= count:
            return self
        return PairScores(self.pos, self.neg[:, :count], self.shifts[:count], self.groups)


@dataclass(frozen=True)
class Strategy:
    """What calibration rows decide: scale and clip of the score, the constant a, the bet, the value to expect."""

    scale: float
    low: float
    high: float
    a: float
    bet: float
    expected: float

    @property
    def floor(self) -> float:
        """The lowest value that W can take."""
        return -self.low - self.a + 1.0 - float(np.exp(self.high - self.a))

    def terms(self, scores: PairScores) -> tuple[Array, Array]:
        """Linear and exponential parts, [n] and [n, m]: W_ij = (linear_i + linear_j)/2 - exponential_ij."""
        linear = np.clip(self.scale * scores.pos, -self.low, self.high) - self.a + 1.0
        return linear, np.exp(np.clip(self.scale * scores.neg, -self.low, self.high) - self.a)


@dataclass(frozen=True)
class EValue:
    """One fold's e-value as a function of theta0: for each matching drawn, the W of its pairs and its weight."""

    matchings: tuple[tuple[Array, float], ...]
    strategy: Strategy

    def log(self, theta: float) -> float:
        """log e(theta0), the mean over matchings and bets; it never rises with theta0."""
        limit = SETTINGS.largest_stake / (theta - self.strategy.floor)
        bets = np.minimum(self.strategy.bet * np.asarray(SETTINGS.bets), limit)
        wealth = np.stack([v + np.log1p(bets[:, None] * (w - theta)).sum(axis=1) for w, v in self.matchings])
        return float(np.logaddexp.reduce(wealth, axis=None) - np.log(wealth.size))


@dataclass(frozen=True)
class Certificate:
    """The one-sided confidence lower bound ``value`` at level ``1 - alpha``, nats, and how each fold came to it."""

    value: float
    alpha: float
    strategies: tuple[Strategy, ...]
    pairs: int


def _promise(scores: PairScores, units: int, need: float) -> Callable[[float, float, float], Strategy]:
    """The best (a, bet) for a given scale and clip, with the certificate to expect, from calibration rows."""
    n = scores.pos.size
    rows, count = np.arange(min(n, SETTINGS.calibration_rows)), scores.shifts.size
    pos, row = scores.pos[rows], scores.neg[rows]
    column = scores.neg[(rows[:, None] - scores.shifts) % n, np.arange(count)]  # [j, k] = p(x_(j - s_k), y_j)

    @cache
    def scaled(scale: float) -> tuple[Array, Array, Array]:
        with np.errstate(over="ignore"):
            return scale * pos, np.exp(scale * row), np.exp(scale * column)

    def unit_means(values: Array) -> Array:
        if scores.groups is None:
            return values
        labels = np.unique(scores.groups[rows], return_inverse=True)[1].reshape(-1)
        return np.asarray(np.bincount(labels, values) / np.bincount(labels))

    def promise(scale: float, low: float, high: float) -> Strategy:
        raw, raw_row, raw_column = scaled(scale)
        p = np.clip(raw, -low, high)
        e_row, e_column = (np.clip(e, np.exp(-low), np.exp(high)) for e in (raw_row, raw_column))
        f, h = e_row.mean(axis=1), e_column.mean(axis=1)
        z = 0.5 * float(f.mean() + h.mean())
        # one negative's variance around its row's mean: the noise of f and h, which is not the units' variance
        noise = (
            float(np.vdot(e_row, e_row) + np.vdot(e_column, e_column)) / e_row.size
            - float(f @ f + h @ h) / f.size
        )
        p, q = unit_means(p), unit_means(f + h - z)
        cov = np.cov(np.stack([p, q])) if p.size > 1 else np.eye(2)
        a = np.log(z) + np.asarray(SETTINGS.offsets)
        shrink = np.exp(-a)
        spread = cov[0, 0] - 2 * shrink * cov[0, 1] + shrink**2 * max(cov[1, 1] - noise / count, 0.0)
        spread = np.maximum(spread, 0.0) + shrink**2 * max(noise, 0.0) / units + 1e-9
        mean = float(p.mean()) - a + 1.0 - z * shrink
        floor = -low - a + 1.0 - shrink * np.exp(high)
        theta = mean
        for _ in range(4):  # the limit on the bet depends on theta
            limit = SETTINGS.largest_stake / (np.maximum(theta, 0.0) - floor)
            bet = np.minimum(2.0 * np.sqrt(2.0 * need / (units * spread)), limit)
            theta = mean - 2.0 * need / (units * bet) - 0.25 * bet * spread
        k = int(np.argmax(theta))
        return Strategy(scale, low, high, float(a[k]), float(bet[k]), float(theta[k]))

    return promise


def calibrate(scores: PairScores, units: int, *, alpha: float = 0.05) -> Strategy:
    """Scale, clip, a and bet that promise the highest certificate on ``units`` held-out rows (or groups).

    With L = p - a + 1 - e^-a (f(x) + h(y) - E_m[e^p]) the linear part of a row's contribution, V its variance and b the
    bet on a pair, the log-wealth at theta0 is about (units/2) (b (E[L] - theta0) - b^2 V/4), and has to reach log(1/alpha).
    The search changes one of high, scale, low at a time.
    """
    promise = _promise(scores.thin(SETTINGS.calibration_negatives), units, float(np.log(1.0 / alpha)))
    best = promise(*SETTINGS.start)
    steps = (("high", SETTINGS.clips_high), ("scale", SETTINGS.scales), ("low", SETTINGS.clips_low))
    for name, values in SETTINGS.sweeps * steps:
        at = {"scale": best.scale, "low": best.low, "high": best.high}  # in the order of the arguments
        best = max(
            [best, *(promise(*{**at, name: value}.values()) for value in values)],
            key=lambda found: found.expected,
        )
    return best


def _partners(
    scores: PairScores, linear: Array, kernel: Array
) -> tuple[Array, list[NDArray[np.int64]], list[Array]]:
    """For each unit: its linear term, its possible partners, and the exponential term with each."""
    n, index = scores.pos.size, np.arange(scores.pos.size)[:, None]
    forward, backward = (index + scores.shifts) % n, (index - scores.shifts) % n
    if scores.groups is None:
        other = np.concatenate([forward, backward], axis=1)
        value = np.concatenate([kernel, kernel[backward, np.arange(scores.shifts.size)]], axis=1)
        return linear, list(other), list(value)
    groups, units = scores.groups, int(scores.groups.max()) + 1
    first, second = groups[np.broadcast_to(index, forward.shape)].ravel(), groups[forward].ravel()
    keep = first != second
    left, right, value = first[keep], second[keep], kernel.ravel()[keep]
    keys = np.concatenate([left * units + right, right * units + left])
    key, where = np.unique(keys, return_inverse=True)
    value = np.bincount(where.reshape(-1), np.concatenate([value, value])) / np.bincount(where.reshape(-1))
    cuts = np.searchsorted(key // units, np.arange(1, units))
    mean = np.bincount(groups, linear) / np.bincount(groups)
    return mean, np.split(key % units, cuts), np.split(value, cuts)


def e_value(scores: PairScores, strategy: Strategy, *, seed: int = 0) -> EValue:
    """The e-value of one held-out part, given a strategy that was chosen on other rows.

    E[e(theta0)] <= 1 for every theta0 >= I, for independent rows (or groups). Its weight refers to the matching drawn at
    theta0 = ``strategy.expected``, where the average over partners is exact.
    """
    rng = np.random.default_rng(seed)
    scores = scores.thin(SETTINGS.negatives)
    linear, partners, kernels = _partners(scores, *strategy.terms(scores))
    units = linear.size
    if units < 2:
        raise ValueError(f"groups must hold at least 2 groups in each held-out part, found {units}")
    theta = max(strategy.expected, 0.0)
    bet = min(strategy.bet, SETTINGS.largest_stake / (theta - strategy.floor))
    count = max(1, min(SETTINGS.matchings, SETTINGS.matched_units // units))
    return EValue(tuple(_match(linear, partners, kernels, bet, theta, rng) for _ in range(count)), strategy)


def _match(
    linear: Array,
    partners: list[NDArray[np.int64]],
    kernels: list[Array],
    bet: float,
    theta: float,
    rng: np.random.Generator,
) -> tuple[Array, float]:
    """One matching by sequential importance sampling: W of its pairs, and log of (uniform chance / chance of drawing it)."""
    free = np.ones(linear.size, dtype=bool)
    draws = rng.random(linear.size)
    w, log_weight = [], 0.0
    for i in rng.permutation(linear.size).tolist():
        if not free[i]:
            continue
        free[i] = False
        still = free[partners[i]]
        j = partners[i][still]
        if j.size == 0:  # all its possible partners are gone: the row bets nothing
            continue
        w_ij = 0.5 * (linear[i] + linear[j]) - kernels[i][still]
        total = (1.0 + bet * (w_ij - theta)).cumsum()
        k = min(int(total.searchsorted(draws[i] * total[-1], side="right")), j.size - 1)
        free[j[k]] = False
        log_weight += float(np.log(total[-1] / j.size) - np.log1p(bet * (w_ij[k] - theta)))
        w.append(w_ij[k])
    return np.asarray(w), log_weight


def certificate(
    folds: Sequence[tuple[PairScores, PairScores]],
    *,
    alpha: float = 0.05,
    seed: int = 0,
) -> Certificate:
    """Confidence lower bound on I: P(value <= I) >= 1 - alpha, for any score, any n, any distribution.

    ``folds`` holds (held-out rows, calibration rows) of each fold. The value is never below 0, since I is not, and cannot
    exceed about log n: no distribution-free bound can. The folds' e-values are averaged. Nats.

    Raises ValueError for an empty list or an alpha outside (0, 1).
    References: Waudby-Smith and Ramdas (2024), JRSS-B 86, for betting; McAllester and Stratos (2020).

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> def part(n, rho=0.9):                                       # I = 0.83 nats, exact scores
        ...     x = rng.standard_normal(n)
        ...     y = rho * x + np.sqrt(1 - rho**2) * rng.standard_normal(n)
        ...     quad = (rho * x[:, None]) ** 2 + (rho * y) ** 2 - 2 * rho * x[:, None] * y
        ...     p = -0.5 * np.log(1 - rho**2) - quad / (2 * (1 - rho**2))
        ...     shifts, rows = np.arange(1, n), np.arange(n)[:, None]
        ...     return PairScores(np.diagonal(p), p[rows, (rows + shifts) % n], shifts)
        >>> bool(0.5 < certificate([(part(1000), part(300))]).value < 0.83)
        True
    """
    if not folds:
        raise ValueError("folds must hold at least one (held-out, calibration) pair, found none")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, found {alpha}")
    seeds = np.random.SeedSequence(seed).generate_state(len(folds)).tolist()
    values = []
    for k, (held_out, calibration) in enumerate(folds):
        units = held_out.pos.size if held_out.groups is None else int(held_out.groups.max()) + 1
        strategy = calibrate(calibration, units, alpha=alpha)
        values.append(e_value(held_out, strategy, seed=seeds[k]))

    def log_e(theta: float) -> float:
        logs = np.array([value.log(theta) for value in values])
        return float(np.logaddexp.reduce(logs) - np.log(len(logs)))

    need = float(np.log(1.0 / alpha))
    low, high = 0.0, max(value.strategy.high - value.strategy.a + 1.0 for value in values)
    if log_e(low) < need:
        high = low
    for _ in range(50):
        theta = 0.5 * (low + high)
        low, high = (theta, high) if log_e(theta) >= need else (low, theta)
    strategies = tuple(value.strategy for value in values)
    return Certificate(low, alpha, strategies, sum(value.matchings[0][0].size for value in values))
