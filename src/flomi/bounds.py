"""The whole framework: every popular variational bound on mutual information, over one function.

Notation (Guo et al. 2022). (x, y) ~ p(x, y) is a positive pair, y' ~ p(y) a negative, g(x, y) a critic on the log scale,
u(x, y) the dual, a(x) a baseline. PMI(x, y) = log p(x, y) / (p(x) p(y)) and I = E[PMI], in nats. Further

    Z(x)    = E_{y'}[ e^{g(x, y')} ]
    t(x, y) = E_{y'}[ e^{g(x, y') - g(x, y)} ] = Z(x) e^{-g(x, y)}

For every g and u,

    I  >=  E[-log t]  >=  E[ 1 - u - t e^{-u} ]        because  -log t = max_u { 1 - u - t e^{-u} },  attained at u = log t.

`fenchel(log_t, u)` is the right-hand side per positive; a bound is a choice of u. The functions below take `Scores` and
return one value per row of the batch, whose mean is the bound. They stay in log space and clamp nothing. A few need as many
candidates with the positive among them as without it; they call on m negatives, and on m - 1 of them where the positive
takes the place of one (`drop=1`).

What cannot be told from a formula stands in the table `BOUNDS`: on which side of I the population value lies at any critic,
the optimum, what is maximised where that differs from the value, and how PMI is read out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = [
    "BOUNDS",
    "Bound",
    "Negatives",
    "RunningNormaliser",
    "Scores",
    "fenchel",
    "get",
    "log_mean_exp",
    "off_diagonal",
]


def fenchel(log_t: Tensor, u: Tensor) -> Tensor:
    r"""Fenchel-Legendre lower bound on -log t.

    .. math:: 1 - u - e^{\log t - u} \le -\log t \quad\text{for every } u, \text{ with equality at } u = \log t.

    Shapes: both [n] (or broadcastable); nats. Reference: Guo et al. 2022, section 3.

    >>> fenchel(torch.tensor(0.5), torch.tensor(0.5)).item()
    -0.5
    >>> fenchel(torch.tensor(0.5), torch.tensor(2.0)).item() < -0.5
    True
    """
    return 1 - u - torch.exp(log_t - u)


def log_mean_exp(a: Tensor, dim: int = -1) -> Tensor:
    """log of the mean of e^a along `dim`, without overflow; LME in the formulas.

    >>> log_mean_exp(torch.tensor([1000.0, 1000.0])).item()
    1000.0
    """
    return torch.logsumexp(a, dim) - math.log(a.shape[dim])


def off_diagonal(g: Tensor) -> Tensor:
    """All but the diagonal of [..., n, n], as a view [..., n - 1, n]: the diagonal gets no gradient at all.

    >>> off_diagonal(torch.arange(9).view(3, 3)).flatten()
    tensor([1, 2, 3, 5, 6, 7])
    """
    n = g.shape[-1]
    # without the last entry, the diagonal is the first of every n + 1
    off: Tensor = g.flatten(-2)[..., :-1].unflatten(-1, (n - 1, n + 1))[..., 1:]
    return off


class Negatives(Protocol):
    """The critic's scores g(x_i, y'_ik) of m negatives a row, however they lie in memory (see scores.py)."""

    @property
    def count(self) -> int | Tensor:
        """m, the number of negatives of each row; [n] where rows differ."""
        ...

    def lme(self, over: Literal["y", "x"] = "y", drop: int = 0) -> Tensor:
        """[n] log-mean-exp over the negatives y' of each x_i (or over the x' of each y_j), leaving out `drop` of the m."""
        ...

    def lme_all(self) -> Tensor:
        """Scalar log-mean-exp over all n m negatives."""
        ...

    def mean(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Scalar mean of f(g(x, y')) over all n m negatives, f elementwise."""
        ...

    def probe(self, rows: int) -> Tensor:
        """[rows, ...] the scores of the first few rows, -inf for what is no negative; without gradient."""
        ...


@dataclass(frozen=True)
class Scores:
    """What every bound is a function of: the critic on one batch of n positives and their negatives.

    `pos` [n] is g(x_i, y_i); `u` [n] the dual and `baseline` [n] the function a(x_i), where the critic has them. For
    density bounds g is log q(y | x), and `marginal` [n] is log q(y_i), or log p(y_i) where it is known.
    """

    pos: Tensor
    neg: Negatives | None = None
    u: Tensor | None = None
    baseline: Tensor | None = None
    marginal: Tensor | None = None

    def need(self, name: Literal["neg", "u", "baseline", "marginal"]) -> Tensor:
        """The field `name`, or a ValueError that says who has to provide it."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(
                f"this bound needs scores with `{name}`, and the critic gave none: see Bound.needs"
            )
        return value  # type: ignore[no-any-return]

    @property
    def negatives(self) -> Negatives:
        """`neg`, or a ValueError where the scores have none."""
        return self.need("neg")  # type: ignore[return-value]

    @property
    def log_t(self) -> Tensor:
        """[n] log t(x_i, y_i) = LME_k g(x_i, y'_ik) - g(x_i, y_i), measured on this row's own negatives."""
        return self.negatives.lme() - self.pos


# --- One function per bound -------------------------------------------------------------------------------------------


def dv(s: Scores) -> Tensor:
    """Donsker-Varadhan: E[g] - log E_m[e^g], one normaliser for the whole batch: u = log E_m[e^g] - g."""
    return s.pos - s.negatives.lme_all()


def nwj(s: Scores) -> Tensor:
    """Nguyen-Wainwright-Jordan, shifted so that the optimum is the PMI: 1 + E[g] - E_m[e^g]: u = -g."""
    return fenchel(s.log_t, -s.pos)


def tuba(s: Scores) -> Tensor:
    """TUBA: 1 + E[g - a(x)] - E_neg[e^{g' - a(x)}]: u = a(x) - g."""
    return fenchel(s.log_t, s.need("baseline") - s.pos)


def infonce(s: Scores) -> Tensor:
    """InfoNCE, K = m + 1 candidates: E[g - log (1/K) sum_k e^{g_k}], the positive counted: u = log t_K, also in t."""
    m = s.negatives.count
    return s.pos - (torch.logaddexp(s.pos, s.negatives.lme() + _log(m)) - _log(m + 1))


def i_alpha(s: Scores, alpha: float = 0.5) -> Tensor:
    """alpha-InfoNCE: 1 + E[log(e^g / M)] - E[e^{g'} / M'], between TUBA (alpha = 0) and InfoNCE (alpha = 1).

    M = alpha (mean of e^g over K candidates) + (1 - alpha) e^{a(x)}. K = m: in M the positive takes the place of one of
    the m negatives, in M' all m are independent of x, so the value is an exact lower bound at every m.
    """
    log_alpha, log_rest = _log(alpha), _log(1 - alpha) + s.need("baseline")
    lme = s.negatives.lme()
    log_m = torch.logaddexp(log_alpha + _candidates(s), log_rest)
    log_m_prime = torch.logaddexp(log_alpha + lme, log_rest)
    return 1 + s.pos - log_m - torch.exp(lme - log_m_prime)


def js_objective(s: Scores) -> Tensor:
    """Jensen-Shannon (logistic) objective: -E[softplus(-g)] - E_m[softplus(g)]; its maximiser is the PMI."""
    return -softplus(-s.pos) - s.negatives.mean(softplus)


def smile(s: Scores, clip: float = 5.0) -> Tensor:
    """SMILE: E[g] - log E_m[ clip(e^g, e^-T, e^T) ]. Not a bound for finite T: E[g] enters unclipped."""
    if math.isinf(clip):
        return dv(s)
    return s.pos - torch.log(s.negatives.mean(lambda g: torch.exp(g.clamp(-clip, clip))))


def flo(s: Scores) -> Tensor:
    """FLO: 1 - E_neg[ u + e^{-u + g' - g} ], u(x, y) learned. At the optimum g = PMI + c(x) and u = -PMI."""
    return fenchel(s.log_t, s.need("u"))


def flo_ux(s: Scores) -> Tensor:
    """FLO with u restricted to a function of x. Valid, not tight: its supremum is E_x[ D_{1/2}(p(y|x) || p(y)) ]."""
    return fenchel(s.log_t, s.need("baseline"))


def fdv(s: Scores) -> Tensor:
    """FDV's value, leave-one-out Donsker-Varadhan: E[-log t_i], biased upward since log t_i is a log of a sample mean."""
    return -s.log_t


def fdv_objective(s: Scores) -> Tensor:
    """FDV: fenchel at u = sg[log t_i], so the value is -log t_i and the gradient is that of FlatNCE."""
    return fenchel(s.log_t, s.log_t.detach())


def flatnce_objective(s: Scores) -> Tensor:
    """FlatNCE: -e^{l_i - sg[l_i]}, l_i = log sum_j e^{g_ij - g_ii}: always -1; only its gradient speaks."""
    return -torch.exp(s.log_t - s.log_t.detach())


def plug_in(s: Scores) -> Tensor:
    """E[g]: the value of the f-DIME and anchor estimators, whose optimum is the PMI. No bound."""
    return s.pos


def hd_objective(s: Scores) -> Tensor:
    """HD-DIME, squared Hellinger: 2 - E[e^{-g/2}] - E_m[e^{g/2}]."""
    return 2 - torch.exp(-s.pos / 2) - s.negatives.mean(lambda g: torch.exp(g / 2))


def anchor_objective(s: Scores, nu: float = 1.0) -> Tensor:
    """InfoNCE-anchor, K = m: InfoNCE with a further class "none of the candidates is the positive" of prior weight nu.

    K/(K+nu) E_pos[ g_1 - log(nu + sum_k e^{g_k}) ] + nu/(K+nu) E_null[ log nu - log(nu + sum_k e^{g_k}) ], where among the
    K candidates of the first term is the positive, and of the second none. The optimum is the PMI, without a log-offset.
    """
    k, log_nu = s.negatives.count, s.pos.new_tensor(math.log(nu))
    with_positive = s.pos - torch.logaddexp(log_nu, _candidates(s) + _log(k))
    without = math.log(nu) - torch.logaddexp(log_nu, s.negatives.lme() + _log(k))
    return (k * with_positive + nu * without) / (k + nu)


def club(s: Scores) -> Tensor:
    """CLUB: E[log q(y|x)] - E_m[log q(y|x)]. Above I with the exact q (there it is the Jeffreys divergence)."""
    return s.pos - s.negatives.mean(lambda g: g)


def l1out(s: Scores) -> Tensor:
    """Leave-one-out: E[ log q(y_i|x_i) - log mean_{j != i} q(y_i|x_j) ]. Above I with the exact q, at every n."""
    return s.pos - s.negatives.lme(over="x")


def ba(s: Scores) -> Tensor:
    """Barber-Agakov: E[log q(y|x)] + H(Y), with H(Y) = -E[log p(y)] from the known p(y)."""
    return s.pos - s.need("marginal")


def doe(s: Scores) -> Tensor:
    """Difference of entropies: E[-log q(y)] - E[-log q(y|x)]; both densities are fitted, so it is no bound."""
    return s.pos - s.need("marginal")


def likelihood(s: Scores) -> Tensor:
    """E[log q(y|x)] (+ E[log q(y)] where it is fitted too): what the density-based estimators maximise."""
    return s.pos if s.marginal is None else s.pos + s.marginal


# --- Shared pieces ----------------------------------------------------------------------------------------------------


def _log(a: float | Tensor) -> float | Tensor:
    if isinstance(a, Tensor):
        return a.log()
    return math.log(a) if a > 0 else -math.inf


def _candidates(s: Scores) -> Tensor:
    """[n] LME over K = m candidates, the positive and m - 1 negatives."""
    m = s.negatives.count
    if m == 1:
        return s.pos
    return torch.logaddexp(s.pos, s.negatives.lme(drop=1) + _log(m - 1)) - _log(m)


class RunningNormaliser(nn.Module):
    """MINE's state: a running average of E_m[e^g], kept as its logarithm.

    The objective E[g] - E_m[e^g] / sg[average] has the gradient E[dg] - E_m[e^g dg] / average, in which the bias of the
    batch normaliser is averaged away. Reference: Belghazi et al. 2018, section 3.2.
    """

    log_average: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("log_average", torch.tensor(math.nan))

    def objective(self, s: Scores) -> Tensor:
        """[n] values to maximise; updates the average first."""
        log_now = s.negatives.lme_all()
        with torch.no_grad():
            if self.log_average.isnan():
                self.log_average.copy_(log_now)
            else:
                old, new = self.log_average + math.log(self.decay), log_now + math.log(1 - self.decay)
                self.log_average.copy_(torch.logaddexp(old, new))
        return s.pos - torch.exp(log_now - self.log_average)


def _pmi_g(s: Scores) -> Tensor:
    return s.pos


def _pmi_offset(s: Scores) -> Tensor:
    return -s.log_t  # g minus its log-offset c(x), measured as log Z(x) on this row's negatives


def _pmi_constant(s: Scores) -> Tensor:
    return s.pos - s.negatives.lme_all()


# --- The one table ----------------------------------------------------------------------------------------------------

Value = Callable[[Scores], Tensor]


@dataclass(frozen=True)
class Bound:
    """One row of the framework: pure functions of `Scores`, and what holds for them.

    `value` is the number reported, `objective` what training maximises (None: the value itself), both [n] per row.
    `side` says where the population value lies relative to I at any critic: "lower", "upper" (with the exact conditional
    density), or "none". `pmi` reads the pointwise MI of the positives out of the scores. `needs` names what the scores
    must carry: "neg", "u", "baseline", "density" (g is log q(y|x)), "marginal". `cap` gives the largest value that m
    negatives allow, where there is one. `criterion` is what early stopping watches on validation rows, where the
    objective can't be (it is constant, or has state). `state`, where not None, makes a module whose method
    `objective(scores)` replaces `objective`. `replaces` says that the positive takes the place of one of the m negatives, so
    that there are K = m candidates (else m + 1), and every row must have equally many; `known_marginal` that `marginal` must be
    the true log p(y), which only the user can give.
    """

    name: str
    value: Value
    objective: Value | None = None
    side: Literal["lower", "upper", "none"] = "none"
    pmi: Value = _pmi_offset
    needs: frozenset[str] = frozenset({"neg"})
    optimum: str = ""
    cap: Callable[[int], float] | None = None
    criterion: Value | None = None
    state: Callable[[], RunningNormaliser] | None = None
    replaces: bool = False
    known_marginal: bool = False
    reference: str = ""

    def maximise(self, s: Scores, state: RunningNormaliser | None = None) -> Tensor:
        """Scalar that a training step maximises: the mean of the objective (through `state`, where the bound has one)."""
        if state is not None:
            return state.objective(s).mean()
        return (self.objective or self.value)(s).mean()

    def monitor(self, s: Scores) -> Tensor:
        """Scalar by which early stopping judges the critic on rows not trained on."""
        return (self.criterion or self.objective or self.value)(s).mean()


def _neg(*more: str) -> frozenset[str]:
    return frozenset({"neg", *more})


_OFFSET = "g = PMI + c(x)"
_PMI = "g = PMI"
_EXACT_Q = "q(y|x) = p(y|x)"
_DENSITY = frozenset({"density"})

_ROWS = (
    Bound("flo", flo, side="lower", pmi=lambda s: -s.need("u"), needs=_neg("u"), optimum=f"{_OFFSET}, u = -PMI",
          reference="Guo et al. 2022, arXiv:2107.01131"),
    Bound("flo-ux", flo_ux, side="lower", pmi=lambda s: s.need("baseline") - 2 * s.log_t, needs=_neg("baseline"),
          optimum="g = PMI/2 + c(x); not tight: E_x of the Renyi divergence of order 1/2",
          reference="ablation; Guo et al. 2022 (there under the name TUBA, bilinear)"),
    Bound("dv", dv, side="lower", pmi=_pmi_constant, optimum="g = PMI + const",
          reference="Donsker and Varadhan 1983"),
    Bound("mine", dv, side="lower", pmi=_pmi_constant, optimum="g = PMI + const", criterion=dv, state=RunningNormaliser,
          reference="Belghazi et al. 2018, arXiv:1801.04062"),
    Bound("nwj", nwj, side="lower", pmi=_pmi_g, optimum=f"{_PMI} (1 + PMI in the textbook form)",
          reference="Nguyen, Wainwright and Jordan 2010, arXiv:0809.0853"),
    Bound("tuba", tuba, side="lower", pmi=lambda s: s.pos - s.need("baseline"), needs=_neg("baseline"),
          optimum=f"{_OFFSET}, a = log Z", reference="Poole et al. 2019, arXiv:1905.06922"),
    Bound("infonce", infonce, side="lower", pmi=_pmi_offset, optimum=_OFFSET, cap=lambda m: math.log(m + 1),
          reference="van den Oord et al. 2018, arXiv:1807.03748"),
    Bound("i-alpha", i_alpha, side="lower", pmi=_pmi_offset, needs=_neg("baseline"),
          optimum=f"{_OFFSET}, a = log Z, as m grows (at any m only for alpha 0 and 1)",
          cap=lambda m: 1 + math.log(m / 0.5), replaces=True, reference="Poole et al. 2019, arXiv:1905.06922 (alpha = 0.5)"),
    Bound("js", nwj, js_objective, side="lower", pmi=_pmi_g, optimum=_PMI,
          reference="Hjelm et al. 2019, arXiv:1808.06670; Poole et al. 2019"),
    Bound("smile", smile, js_objective, side="none", pmi=_pmi_g, optimum=_PMI,
          reference="Song and Ermon 2020, arXiv:1910.06222 (T = 5)"),
    Bound("smile-1", partial(smile, clip=1.0), js_objective, side="none", pmi=_pmi_g, optimum=_PMI,
          reference="Song and Ermon 2020, arXiv:1910.06222 (T = 1)"),
    Bound("smile-inf", partial(smile, clip=math.inf), js_objective, side="lower", pmi=_pmi_g, optimum=_PMI,
          reference="Song and Ermon 2020, arXiv:1910.06222 (T infinite: the DV value)"),
    Bound("fdv", fdv, fdv_objective, side="none", pmi=_pmi_offset, optimum=_OFFSET, criterion=fdv,
          reference="Guo et al. 2022; Chen et al. 2021, arXiv:2107.01152"),
    Bound("flatnce", infonce, flatnce_objective, side="lower", pmi=_pmi_offset, optimum=_OFFSET,
          cap=lambda m: math.log(m + 1), criterion=infonce,
          reference="Chen et al. 2021, arXiv:2107.01152 (the value shown is InfoNCE's)"),
    Bound("kl-dime", plug_in, nwj, side="none", pmi=_pmi_g, optimum=_PMI,
          reference="Letizia et al. 2024, f-DIME, arXiv:2305.20025"),
    Bound("gan-dime", plug_in, js_objective, side="none", pmi=_pmi_g, optimum=_PMI,
          reference="Letizia et al. 2024, f-DIME, arXiv:2305.20025"),
    Bound("hd-dime", plug_in, hd_objective, side="none", pmi=_pmi_g, optimum=_PMI,
          reference="Letizia et al. 2024, f-DIME, arXiv:2305.20025"),
    Bound("anchor", plug_in, anchor_objective, side="none", pmi=_pmi_g, optimum=_PMI, replaces=True,
          reference="Ryu et al. 2025, arXiv:2510.25983 (nu = 1)"),
    Bound("club", club, likelihood, side="upper", pmi=l1out, needs=_neg("density"), optimum=_EXACT_Q,
          reference="Cheng et al. 2020, arXiv:2006.12013"),
    Bound("l1out", l1out, likelihood, side="upper", pmi=l1out,
          needs=_neg("density"), optimum=_EXACT_Q, reference="Poole et al. 2019, arXiv:1905.06922"),
    Bound("ba", ba, lambda s: s.pos, side="lower", pmi=ba, needs=_DENSITY | {"marginal"}, optimum=_EXACT_Q, known_marginal=True,
          reference="Barber and Agakov 2003; p(y) must be known"),
    Bound("doe", doe, likelihood, side="none", pmi=doe, needs=_DENSITY | {"marginal"},
          optimum=f"{_EXACT_Q}, q(y) = p(y)", reference="McAllester and Stratos 2020, arXiv:1811.04251"),
)  # fmt: skip

BOUNDS: dict[str, Bound] = {row.name: row for row in _ROWS}


def get(bound: str | Bound | Value) -> Bound:
    """The `Bound` meant by a name, a `Bound`, or one function of `Scores` that returns [n] values to maximise.

    >>> get("nwj").side
    'lower'
    >>> get(lambda s: s.pos - s.negatives.lme_all()).side
    'none'
    """
    if isinstance(bound, Bound):
        return bound
    if isinstance(bound, str):
        if bound not in BOUNDS:
            raise ValueError(
                f"bound={bound!r} is not known; choose one of {', '.join(BOUNDS)}, or pass a function of Scores"
            )
        return BOUNDS[bound]
    if callable(bound):
        return Bound(
            getattr(bound, "__name__", "own"), bound, needs=_neg("u", "baseline"), optimum="not stated"
        )
    raise TypeError(f"bound must be a name, a Bound or a function of Scores, not {type(bound).__name__}")
