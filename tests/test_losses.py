"""Losses are minus their bounds, in whatever memory layout, precision and direction; their read-outs; their errors."""

from __future__ import annotations

import copy
import gc
import io
import math
import warnings
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from flomi import bounds, losses
from flomi.bounds import BOUNDS, Scores
from flomi.losses import (
    LOSSES,
    ContrastiveLoss,
    FDVLoss,
    FlatNCELoss,
    FLOLoss,
    InfoNCELoss,
    NWJLoss,
    TUBALoss,
)
from flomi.losses.pairs import ProductNegatives
from flomi.scores import Dense

EVERY = pytest.mark.parametrize("name", LOSSES)
STREAMED = ("flo", "infonce", "flatnce", "fdv", "nwj", "dv", "tuba")
N, D = 9, 5
LABELS = torch.tensor([0, 1, 2, 0, 3, 1, 4, 0, 5])


def features(n: int = N, d: int = D, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    q, k = torch.randn(2, n, d, dtype=dtype, generator=torch.Generator().manual_seed(3))
    return q.requires_grad_(), (0.5 * q.detach() + k).requires_grad_()


def make(name: str, dim: int = D, **options: object) -> ContrastiveLoss:
    """The loss in float64, its networks moved away from 0, and always the same."""
    torch.manual_seed(0)
    loss = LOSSES[name](dim, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for p in loss.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return loss


def gradients(loss: ContrastiveLoss, value: Tensor, *inputs: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(value, [*inputs, *loss.parameters()], allow_unused=True)
    return [torch.zeros(()) if v is None else v for v in found]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- A loss is minus its bound ----------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("unit_norm", [True, False])
def test_loss_is_minus_the_objective_of_a_bilinear_critic(name: str, unit_norm: bool) -> None:
    loss = make(name, temperature=0.5, normalize=unit_norm)
    q, k = features()
    value = loss(q, k)
    x, y = (normalize(q, dim=-1), normalize(k, dim=-1)) if unit_norm else (q, k)
    g = x @ y.T / 0.5
    s = Scores(
        g.diagonal(),
        Dense(g),
        loss.u(torch.cat([x, y], -1)) if loss.u else None,
        loss.a(x) if loss.a else None,
    )
    bound = BOUNDS[name]
    objective = bound.maximise(s, bound.state().double() if bound.state else None)
    close(value, -objective)
    for ours, theirs in zip(gradients(loss, value, q, k), gradients(loss, -objective, q, k), strict=True):
        close(ours, theirs, 1e-10)
    close(loss.value(q, k), bound.value(s).mean())
    assert loss.mi() == pytest.approx(bound.value(s).mean().item(), abs=1e-9)


def test_flo_loss_is_minus_flo() -> None:
    loss, (q, k) = make("flo", temperature=0.2), features()
    x, y = normalize(q, dim=-1), normalize(k, dim=-1)
    g = x @ y.T / 0.2
    assert loss.u is not None
    close(loss(q, k), -bounds.flo(Scores(g.diagonal(), Dense(g), loss.u(torch.cat([x, y], -1)))).mean())


@EVERY
def test_pmi_is_the_bounds_own_read_out_by_row(name: str) -> None:
    q, k = features()
    loss = make(name)
    pmi = loss.pmi(q, k)
    assert pmi.shape == (N,) and not pmi.requires_grad and loss.running.sum() == 0
    x, y = normalize(q, dim=-1), normalize(k, dim=-1)
    g = 10 * x @ y.T
    if name == "flo":
        assert loss.u is not None
        close(pmi, -loss.u(torch.cat([x, y], -1)))
    elif loss.bound.pmi is bounds._pmi_g:
        close(pmi, g.diagonal())
    elif loss.bound.pmi is bounds._pmi_offset:  # over the others of its row
        others = g.fill_diagonal_(-math.inf).logsumexp(1) - math.log(N - 1)
        close(pmi, 10 * (x * y).sum(1) - others)


def test_infonce_is_cross_entropy_minus_log_k() -> None:
    q, k = features()
    logits = normalize(q, dim=-1) @ normalize(k, dim=-1).T / 0.1
    expected = cross_entropy(logits, torch.arange(N), reduction="none") - math.log(N)
    close(InfoNCELoss(reduction="none")(q, k), expected)
    both = (expected.mean() + cross_entropy(logits.T, torch.arange(N)) - math.log(N)) / 2
    close(InfoNCELoss(symmetric=True)(q, k), both)


@EVERY
def test_reductions(name: str) -> None:
    q, k = features()
    rows, total, mean = (make(name, reduction=r)(q, k) for r in ("none", "sum", "mean"))
    assert rows.shape == (N,)
    close(rows.sum(), total)
    close(rows.mean(), mean)


@EVERY
def test_symmetric_is_the_mean_of_both_directions(name: str) -> None:
    loss, (q, k) = make(name, symmetric=True), features()
    back = copy.deepcopy(loss)
    back.symmetric = False
    there = copy.deepcopy(back)
    back.a = loss.a_back
    if loss.u is not None:  # u stays the same function of (query, key)
        first = back.u.net[0]  # type: ignore[union-attr]
        first.weight.data = torch.cat([first.weight.data[:, D:], first.weight.data[:, :D]], 1)
    close(loss(q, k), (there(q, k) + back(k, q)) / 2)


def test_learned_temperature_is_kept_as_its_logarithm() -> None:
    loss, (q, k) = InfoNCELoss(temperature=0.2, learn_temperature=True), features()
    close(loss(q, k), InfoNCELoss(temperature=0.2)(q, k), 1e-6)
    assert dict(loss.named_parameters()).keys() == {"log_tau"}
    assert loss.temperature == pytest.approx(0.2)
    optimiser = torch.optim.SGD(loss.parameters(), lr=0.1)
    loss(q, k).backward()
    optimiser.step()
    assert loss.temperature != pytest.approx(0.2)
    assert not list(InfoNCELoss().parameters())


# --- Memory layouts ---------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("symmetric", [False, True])
def test_chunked_is_dense(name: str, chunk: int, symmetric: bool) -> None:
    q, k = features()
    found = []
    for size in (None, chunk):
        loss = make(name, chunk=size, symmetric=symmetric, learn_temperature=True)
        value = loss(q, k)
        found.append([value, *gradients(loss, value, q, k), torch.tensor([loss.mi(), loss.ness()])])
    for a, b in zip(*found, strict=True):
        assert torch.isfinite(a).all()
        close(b, a, 1e-10)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("i-alpha", "anchor")])
@pytest.mark.parametrize("positives", ["own", "all"])
def test_chunked_is_dense_with_labels(name: str, positives: str) -> None:
    q, k = features()
    found = []
    for size in (None, 4):
        loss = make(name, chunk=size, symmetric=True, positives=positives)
        value = loss(q, k, labels=LABELS)
        found.append([value, *gradients(loss, value, q, k)])
    for a, b in zip(*found, strict=True):
        close(b, a, 1e-10)


@pytest.mark.parametrize(
    "name", [name for name in STREAMED if name not in ("flatnce", "fdv")]
)  # these hold parts fixed
def test_chunked_gradients_are_those_of_finite_differences(name: str) -> None:
    loss, (q, k) = make(name, 3, chunk=2), features(4, 3)
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b), (q, k))


def test_chunks_keep_memory_below_the_matrix() -> None:
    seen: list[int] = []

    class Spy(ProductNegatives):
        def hide(self, g: Tensor, start: int, drop: int = 0) -> Tensor:
            seen.append(g.numel())
            return super().hide(g, start, drop)

    a, b = torch.randn(2, 100, 3, requires_grad=True)
    Spy(a, b, 0, chunk=10).lme().sum().backward()
    assert seen == [1000] * 20  # ten blocks, once for the value and once for the gradient


def test_memory_is_free_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        a, b = torch.randn(2, 8, 3, requires_grad=True)
        pairs = ProductNegatives(a * 2, b, 0)
        value = (pairs.lme() + pairs.lme_all()).sum()
        alive = weakref.ref(pairs)
        del pairs
        value.backward()
        assert alive() is None
    finally:
        gc.enable()


# --- FlatNCE ----------------------------------------------------------------------------------------------------------


def test_flatnce_gradient_identities() -> None:
    q, k = features()
    g = normalize(q, dim=-1) @ normalize(k, dim=-1).T / 0.1
    p_pos = torch.softmax(g, 1).diagonal()
    rows = [loss(reduction="none")(q, k) for loss in (InfoNCELoss, FlatNCELoss, FDVLoss)]
    close(rows[1], torch.ones(N).double())
    for i in range(N):
        infonce, flat, fdv = (torch.autograd.grad(r[i], q, retain_graph=True)[0] for r in rows)
        close(infonce, (1 - p_pos[i]) * flat, 1e-11)
        close(fdv, flat, 1e-11)


def test_flatnce_keeps_its_gradient_where_infonce_loses_it() -> None:
    key = torch.eye(8)
    for loss, alive in ((InfoNCELoss, False), (FlatNCELoss, True), (FDVLoss, True)):
        query = (40 * torch.eye(8)).requires_grad_()  # a margin of 40
        loss(temperature=1.0, normalize=False)(query, key).backward()
        assert bool((query.grad.diagonal() != 0).all()) == alive  # type: ignore[union-attr]


# --- Labels and given negatives ---------------------------------------------------------------------------------------


def test_equal_labels_are_no_negatives_of_each_other() -> None:
    q, k = features()
    logits = normalize(q, dim=-1) @ normalize(k, dim=-1).T / 0.1
    same = (LABELS[:, None] == LABELS) & ~torch.eye(N, dtype=torch.bool)
    m = N - 1 - same.sum(1)
    expected = cross_entropy(logits.masked_fill(same, -math.inf), torch.arange(N), reduction="none")
    loss = InfoNCELoss(reduction="none")
    close(loss(q, k, labels=LABELS), expected - (m + 1).double().log())
    assert loss.ceiling == pytest.approx(math.log(round(m.float().mean().item()) + 1))
    (slope,) = torch.autograd.grad(loss(q, k, labels=LABELS)[0], k)
    assert not slope[LABELS == 0][1:].any() and slope[LABELS != 0].all()


@EVERY
def test_labels_that_all_differ_change_nothing(name: str) -> None:
    if name in ("i-alpha", "anchor"):
        return
    q, k = features()
    for positives in ("own", "all"):
        loss = make(name, positives=positives)
        close(loss(q, k, labels=torch.arange(N)), make(name)(q, k))


@pytest.mark.parametrize("name", STREAMED)
def test_all_positives_weigh_the_same_for_each_anchor(name: str) -> None:
    q, k = features()
    loss = make(name, positives="all", reduction="none")
    value = loss(q, k, labels=LABELS)
    one = make(name, reduction="none")
    for i in (0, 4):
        each = []
        for p in torch.nonzero(LABELS[i] == LABELS)[:, 0].tolist():
            swapped = k.clone()
            swapped[i], swapped[p] = k[p], k[i]
            each.append(one(q, swapped, labels=LABELS)[i])
        if name != "dv":  # the swap moves pairs of other rows too, and with them the one normaliser
            close(value[i], torch.stack(each).mean(), 1e-10)


@EVERY
def test_given_negatives_shared_or_for_each_row(name: str) -> None:
    q, k = features()
    pool = torch.randn(4, D, dtype=torch.float64)
    shared = make(name)(q, k, pool)
    close(make(name)(q, k, pool.expand(N, 4, D)), shared)
    close(make(name, chunk=2)(q, k, pool), shared)
    others = torch.stack([torch.cat([k[:i], k[i + 1 :]]) for i in range(N)])
    if name not in ("i-alpha", "anchor"):  # these leave out one negative, and the order says which
        close(make(name)(q, k, others), make(name)(q, k))
    make(name)(q[:1], k[:1], pool)  # one row is enough


# --- Precision --------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features(name: str, dtype: torch.dtype) -> None:
    loss = LOSSES[name](D, temperature=0.5, symmetric=True)
    q, k = (v.detach().to(dtype).requires_grad_() for v in features())
    value = loss(q, k)
    value.backward()
    assert value.dtype == torch.float32 and torch.isfinite(value)
    assert q.grad is not None and q.grad.dtype == dtype and torch.isfinite(q.grad).all()
    close(value.detach(), loss(q.detach().float(), k.detach().float()).detach(), 1e-6)


@EVERY
@pytest.mark.parametrize("chunk", [None, 3])
def test_autocast_does_not_reach_the_scores(name: str, chunk: int | None) -> None:
    loss = LOSSES[name](D, temperature=0.05, chunk=chunk)
    q, k = (v.detach().float().requires_grad_() for v in features())
    plain = torch.autograd.grad(loss(q, k), [q, k])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(q, k)
        if name in STREAMED:  # a gradient asked for inside, against advice, keeps its precision too
            torch.autograd.grad(value, [q, k], retain_graph=True)
    found = torch.autograd.grad(value, [q, k])
    close(value, loss(q, k), 1e-5 if name == "mine" else 1e-6)
    if name != "mine":  # its running average has moved
        for a, b in zip(found, plain, strict=True):
            close(a, b, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_training_in_half_precision(dtype: torch.dtype) -> None:
    model, loss = nn.Linear(D, 16), FLOLoss(16, learn_temperature=True)
    model.to(dtype), loss.to(dtype)
    assert loss.running.dtype == torch.float32  # where 0.99 of an average is not the average itself
    optimiser = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.05)
    x = torch.randn(64, D)
    for _ in range(30):
        optimiser.zero_grad()
        loss(model(x.to(dtype)), model((x + 0.1 * torch.randn(64, D)).to(dtype))).backward()
        optimiser.step()
    assert all(torch.isfinite(p).all() for p in [*model.parameters(), *loss.parameters()])
    assert loss.mi() > 0.5


def test_large_margins_stay_finite() -> None:
    key = torch.randn(6, D)
    for sign in (1, -1):
        for name, kind in LOSSES.items():
            query = (sign * 20 * key).requires_grad_()
            if name in ("nwj", "kl-dime", "tuba", "hd-dime", "i-alpha") and sign < 0:
                continue  # their value is e to the power of it
            kind(D)(query, key).backward()
            assert torch.isfinite(query.grad).all(), name  # type: ignore[arg-type]


# --- Read-outs and state ----------------------------------------------------------------------------------------------


def test_read_outs_run_and_are_saved() -> None:
    loss, (q, k) = FLOLoss(D, decay=0.5, temperature=1.0).double(), features()
    assert math.isnan(loss.mi()) and math.isnan(loss.ness()) and loss.ceiling is None
    values = []
    for step in range(4):
        with torch.no_grad():
            values.append(-loss(q + step, k).item())
    weights = torch.tensor([0.125, 0.25, 0.5, 1.0]).double()
    expected = (weights * torch.tensor(values)).sum() / weights.sum()
    assert loss.mi() == pytest.approx(expected.item(), abs=1e-9)
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    again = FLOLoss(D)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.mi() == pytest.approx(loss.mi(), abs=1e-6)
    before = loss.mi()
    loss.eval()
    loss(q, k)
    loss.value(q, k)
    assert loss.mi() == before
    loss.train()
    loss(q * math.nan, k)
    assert loss.mi() == before


def test_ceiling_is_log_k_and_holds() -> None:
    loss = InfoNCELoss(temperature=0.01)
    loss(torch.eye(16), torch.eye(16))
    assert loss.ceiling == pytest.approx(math.log(16))
    assert loss.mi() == pytest.approx(math.log(16), abs=1e-5)
    loss = FLOLoss(16)
    loss(torch.eye(16), torch.eye(16))
    assert loss.ceiling is None


def test_ness_between_one_hard_negative_and_all_alike() -> None:
    q = torch.eye(6)
    alike, hard = InfoNCELoss(), InfoNCELoss(temperature=0.01)
    alike(q, torch.ones(6, 6))
    hard(q, q.roll(1, 0))
    assert alike.ness() == pytest.approx(1)
    assert hard.ness() == pytest.approx(1 / 5)
    g = torch.randn(N, D)
    w = torch.softmax((normalize(g, dim=-1) @ normalize(g, dim=-1).T / 0.1).fill_diagonal_(-math.inf), 1)
    (loss := InfoNCELoss())(g, g)
    assert loss.ness() == pytest.approx((1 / ((N - 1) * w.square().sum(1))).mean().item(), abs=1e-5)


@pytest.mark.slow
def test_flo_learns_a_known_mutual_information() -> None:
    """Two Gaussian pairs: the critic may be any bilinear form, so only the held-out bound can be asked for: below I, not far."""
    rho, d = 0.8, 2
    truth = -d / 2 * math.log(1 - rho**2)

    def sample(n: int) -> tuple[Tensor, Tensor]:
        x, e = torch.randn(2, n, d)
        return x, rho * x + math.sqrt(1 - rho**2) * e

    left, right = (nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, 16)) for _ in range(2))
    loss = FLOLoss(16, temperature=1.0, normalize=False, symmetric=True)
    optimiser = torch.optim.Adam([*left.parameters(), *right.parameters(), *loss.parameters()], lr=3e-3)
    for _ in range(400):
        x, y = sample(256)
        optimiser.zero_grad()
        loss(left(x), right(y)).backward()
        optimiser.step()
    x, y = sample(2000)
    assert truth - 0.15 < loss.value(left(x), right(y)).item() < truth + 0.1
    assert loss.mi() == pytest.approx(truth, abs=0.2)


# --- Parameters that nobody trains ------------------------------------------------------------------------------------


def test_parameters_that_never_move_are_told_once() -> None:
    loss, (q, k) = FLOLoss(D), features(4, dtype=torch.float32)
    for _ in range(99):
        loss(q, k)
    with pytest.warns(UserWarning, match=r"FLOLoss has parameters.*give them to the optimiser") as caught:
        loss(q, k)
    assert caught[0].filename == __file__
    loss(q, k)  # warnings are errors here: no second one


@pytest.mark.parametrize("why", ["trained", "frozen", "none", "evaluated"])
def test_no_warning_without_reason(why: str) -> None:
    loss: ContrastiveLoss = InfoNCELoss() if why == "none" else TUBALoss(D)
    q, k = features(4, dtype=torch.float32)
    if why == "frozen":
        loss.requires_grad_(False)
    if why == "evaluated":
        loss.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(120):
            loss(q, k)
            if why == "trained" and step == 50:
                with torch.no_grad():
                    next(loss.parameters()).add_(1e-3)


# --- Errors, the table ------------------------------------------------------------------------------------------------

X = torch.randn(4, 3)


@pytest.mark.parametrize(
    ("options", "arguments", "error", "message"),
    [
        ({}, (X.numpy(), X), TypeError, "query must be a tensor, not ndarray"),
        ({}, (X, None), TypeError, "key must be a tensor"),
        ({}, (X.long(), X), TypeError, "query has type torch.int64"),
        ({}, (X[0], X[0]), ValueError, r"query has shape \(3,\): give one feature vector a row"),
        ({}, (X, X[:3]), ValueError, r"same shape.*found \(4, 3\) and \(3, 3\)"),
        ({}, (X[:1], X[:1]), ValueError, "query has 1 rows"),
        ({}, (X[:0], X[:0]), ValueError, "query has 0 rows"),
        ({"dim": 5}, (X, X), ValueError, "3 columns.*dim=5"),
        ({}, (X, X, X[:, :2]), ValueError, r"use \[m, 3\] or \[4, m, 3\]"),
        ({}, (X, X, X.expand(2, 4, 3)), ValueError, r"negatives has shape \(2, 4, 3\)"),
        ({}, (X, X, X[:0]), ValueError, "at least one of each"),
        ({}, (X, X, X, torch.arange(4)), ValueError, "do not go with negatives="),
        ({"symmetric": True}, (X, X, X), ValueError, "do not go with symmetric=True"),
        ({}, (X, X, None, torch.arange(3)), ValueError, r"labels has shape \(3,\)"),
        ({}, (X, X, None, torch.zeros(4)), ValueError, "labels are all the same"),
        ({}, (X, X, None, [0, 1, 2, 3]), TypeError, "labels must be a tensor, not list"),
        ({"positives": "all"}, (X, X), ValueError, "needs labels="),
    ],
)
def test_a_wrong_call_says_what_to_do(
    options: dict[str, object],
    arguments: tuple[object, ...],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        InfoNCELoss(**options)(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"FLOLoss needs dim="),
        ({"dim": 0}, "dim=0"),
        ({"dim": 3, "temperature": 0.0}, "temperature=0.0"),
        ({"dim": 3, "temperature": math.nan}, "temperature=nan"),
        ({"dim": 3, "chunk": 0}, "chunk=0"),
        ({"dim": 3, "decay": 1.0}, "decay=1.0"),
        ({"dim": 3, "reduction": "avg"}, "reduction='avg' is not known; choose one of mean, sum, none"),
        ({"dim": 3, "positives": "some"}, "positives='some' is not known; choose one of own, all"),
    ],
)
def test_a_wrong_option_says_what_to_do(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FLOLoss(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["i-alpha", "anchor"])
def test_bounds_that_leave_one_out_take_no_labels(name: str) -> None:
    with pytest.raises(ValueError, match="leave out labels="):
        LOSSES[name](3)(X, X, labels=torch.arange(4))


def test_base_class_has_no_bound() -> None:
    with pytest.raises(TypeError, match="has no bound"):
        ContrastiveLoss()


def test_table_holds_every_public_loss_and_every_bound_that_fits() -> None:
    public = {v for name, v in vars(losses).items() if name.endswith("Loss")} - {ContrastiveLoss}
    assert public == set(LOSSES.values())
    fits = {name for name, row in BOUNDS.items() if not row.needs & {"density"}}
    assert fits - set(LOSSES) == {
        "flo-ux",
        "smile-1",
        "smile-inf",
    }  # an ablation, and other read-outs of SMILE
    for name, kind in LOSSES.items():
        has = bool(list(kind(4).parameters()))
        assert has == bool(BOUNDS[name].needs & {"u", "baseline"})
        doc = kind.__doc__ or ""
        assert ("**it has parameters**" in doc.split("\n")[0]) == has


def test_swapping_infonce_for_flo_is_one_line() -> None:
    for kind in (InfoNCELoss, FLOLoss, NWJLoss):
        assert kind(3, temperature=0.5, symmetric=True, chunk=2)(X, X).ndim == 0


def test_own_bound_becomes_a_loss() -> None:
    class Own(ContrastiveLoss):
        bound = bounds.get(lambda s: bounds.fenchel(s.log_t, 0.5 * (s.need("u") - s.pos)))

    assert Own(3)(X, X).requires_grad
