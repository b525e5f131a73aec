"""A critic from a random forest: one side's law given the other, by the rows that share leaves with it.

Trees take columns of any kind as they are, find the few that matter among many, and cut where the law changes. Their leaves
weigh the training rows; kernels on the other side turn the weights into a density.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flomi.bounds import log_mean_exp, off_diagonal
from flomi.critics.base import SETTINGS as TRUNCATION
from flomi.critics.base import Critic
from flomi.preprocess import RankNormal
from flomi.support.settings import UNMEASURED, setting

TINY = 1e-30


@dataclass(frozen=True)
class ForestSettings:
    least_rows: int = setting(50, f"{UNMEASURED}so that a tree has some leaves, and rows left out of it")
    trees: int = setting(
        60,
        "100 gain 0.004 nats a task for half as much time again (eight random tasks of the first half, 2026-11-30)",
    )
    leaf: int = setting(
        3,
        "rows of a tree's own in a leaf at least: held-out values at 1,000 rows sum over these tasks to 3.77 with 8, 3.92 with "
        "5 and 4.02 with 3 (half of the rows drawn)",
    )
    bag: float = setting(
        0.7,
        "share of the rows that a tree draws, with replacement: sums over these tasks are 3.89 with 0.35, 4.02 with 0.5 and 4.10 "
        "with 0.7",
    )
    rows: int = setting(
        1000, f"{UNMEASURED}that the trees and the kernels are made of; time grows with their square"
    )
    predicted: int = setting(
        6, f"{UNMEASURED}columns whose law is told by kernels, at most: they need rows nearby"
    )
    levels: int = setting(
        20, f"{UNMEASURED}different values of a column that is compared by equality, at most"
    )
    rows_per_level: int = setting(10, f"{UNMEASURED}mean number of rows a value of such a column, at least")
    other: float = setting(
        0.01,
        "kernel of two different values of such a column, where equal ones have 1: with 0.05 a class among ten gives 0.3 nats "
        "less of digits, and with 0.003 mixed columns give 0.004 less (2026-11-30)",
    )
    widths: tuple[float, ...] = setting((0.1, 0.2, 0.4, 0.8), f"{UNMEASURED}of the kernel, in normal scores")
    floors: tuple[float, ...] = setting(
        (0.01, 0.03, 0.1, 0.3), f"{UNMEASURED}shares of independence mixed in"
    )


SETTINGS = ForestSettings()


class ForestCritic(Critic):
    r"""Log ratio of a conditional density by a random forest's weights to its mean over the rows; g = PMI, u = -g.

    .. math::
        g(s, t) = \log \Big( (1 - \epsilon) \frac{\sum_l w_l(s) K(t, t_l)}{\sum_l \bar w_l K(t, t_l)} + \epsilon \Big), \qquad
        w_l(s) = \frac{1}{T} \sum_{k=1}^{T} \frac{1[s_l \in L_k(s)]}{|L_k(s)|}

    L_k(s) are the rows in the leaf of tree k that s falls into, and the mean weight makes the ratio average 1 over s. K is a
    Gaussian kernel on normal scores, times 0.01 for every discrete column of t that differs. s and t are the two sides, in the
    order, with the width and with the share of independence that make those rows most likely which the trees had not drawn.
    Trees split by columns of t, their squares and products, and their values where they are discrete. `left_out` and the
    truncation come from such rows too: on its own rows a forest reads far too high. At most 1,000 rows are used, and t has at
    most 6 columns. x: [n, dim_x], y: [n, dim_y]. References: Meinshausen 2006, "Quantile regression forests"; Breiman 2001.

    >>> x = torch.randn(1000, 3).double()
    >>> y = x[:, :1] * torch.where(torch.rand(1000, 1) < 0.5, 1, -1) + 0.2 * torch.randn(1000, 1)
    >>> 0.5 < ForestCritic.fit(x, y).left_out < 1.2
    True
    """

    row = "forest"
    submodules = (("ranks_x", RankNormal), ("ranks_y", RankNormal))

    ranks_x: RankNormal
    ranks_y: RankNormal
    from_x: Tensor
    feature: Tensor  # [nodes] of all trees, what a node looks at
    threshold: Tensor  # [nodes]
    branches: Tensor  # [nodes, 2], a leaf's are itself
    roots: Tensor  # [trees]
    start: Tensor  # [nodes], where in `members` a leaf's rows are
    size: Tensor  # [nodes], how many these are
    members: Tensor  # [trees * rows]
    column: Tensor  # [k], the discrete column of t that
    level: Tensor  # [k], takes this value
    smooth: Tensor  # columns of t that are not discrete
    centers: Tensor  # [rows, columns of the embedding], t_l
    share: Tensor  # [rows], mean weight
    width: Tensor
    floor: Tensor

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> ForestCritic:
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < SETTINGS.least_rows:
            found, least = f"{list(x.shape)} and {list(y.shape)}", SETTINGS.least_rows
            raise ValueError(f"x and y must be [n, d] with the same n, at least {least}, found {found}")
        if min(x.shape[1], y.shape[1]) > SETTINGS.predicted:
            raise ValueError(
                f"x and y have {x.shape[1]} and {y.shape[1]} columns; one side must have at most {SETTINGS.predicted}"
            )
        some = torch.linspace(0, len(x) - 1, min(len(x), SETTINGS.rows)).round().long()
        x, y = x[some], y[some]
        ranks = RankNormal.fit(x), RankNormal.fit(y)
        zx, zy = (rank(v) for rank, v in zip(ranks, (x, y), strict=True))
        best = -math.inf
        for from_x, s, t, v in ((True, zx, zy, y), (False, zy, zx, x)):
            if t.shape[1] > SETTINGS.predicted:
                continue
            column, level, smooth = _discrete(v)
            trees, drawn = _grow(s, _targets(t[:, smooth], (v[:, column] == level).to(t)))
            tried = cls(
                ranks_x=ranks[0], ranks_y=ranks[1], from_x=torch.tensor(from_x), column=column, level=level, smooth=smooth,
                width=t.new_tensor(1.0), floor=t.new_tensor(0.0), **trees,
            )  # fmt: skip
            weights = tried._weights(tried._leaves(s), left_out=~drawn)
            tried.register_buffer("share", weights.mean(0))
            for width in SETTINGS.widths if len(smooth) else SETTINGS.widths[:1]:
                tried.width.fill_(width)
                centers = tried._embed(v, t)
                kernel = tried._kernel(centers, centers).fill_diagonal_(0)
                ratio = (weights * kernel).sum(1) / (kernel @ tried.share).clamp_(min=TINY)
                for floor in SETTINGS.floors:
                    value = float(((1 - floor) * ratio + floor).log().mean())
                    if value > best:
                        best, chosen = value, (tried, weights, centers, width, floor)
        critic, weights, centers, width, floor = chosen
        critic.width.fill_(width)
        critic.floor.fill_(floor)
        critic.register_buffer("centers", centers)
        critic._truncate_left_out(weights)
        return critic

    def _truncate_left_out(self, weights: Tensor) -> None:
        """Truncation, and `left_out`, from pairs of rows whose trees had drawn neither, and that are no centres of their own."""
        few = torch.arange(len(self.centers))[:: math.ceil(len(self.centers) / TRUNCATION.rows)]
        kernel = self._kernel(self.centers[few], self.centers)
        kernel[torch.arange(len(few)), few] = 0
        g = self.combine(weights[few] @ self._relative(kernel).T, weights[:0], weights[:0])
        self.truncate(g, g.diagonal(), least_shift=0.0)
        g = self._truncated(g)
        self.left_out = float(g.diagonal().mean() - log_mean_exp(off_diagonal(g).flatten()))

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        zx, zy = self.ranks_x(x), self.ranks_y(y)
        s, t, v = (zx, zy, y) if self.from_x else (zy, zx, x)
        of_s = self._weights(self._leaves(s))
        of_t = self._relative(self._kernel(self._embed(v, t), self.centers))
        return (of_s, of_t) if self.from_x else (of_t, of_s)

    def combine(self, inner: Tensor, of_x: Tensor, of_y: Tensor) -> Tensor:
        return inner.mul_(1 - self.floor).add_(self.floor).log_()

    def _leaves(self, s: Tensor) -> Tensor:
        """[n, trees] the leaf of each tree that a row falls into."""
        return _fall(s, self.roots, self.feature, self.threshold, self.branches)

    def _weights(self, leaves: Tensor, left_out: Tensor | None = None) -> Tensor:
        """[n, rows] w_l(s); of the fit's own rows by the trees that have `left_out` [n, trees] them, none to itself."""
        n, trees = leaves.shape
        count = len(self.members) // trees
        weights = self.threshold.new_zeros(n, count)
        used = torch.ones_like(leaves, dtype=torch.bool) if left_out is None else left_out
        for leaf, use in zip(leaves.T, used.T, strict=True):
            rows = use.nonzero()[:, 0]
            size, start = self.size[leaf[rows]], self.start[leaf[rows]]
            owner = rows.repeat_interleave(size)
            place = torch.arange(len(owner)) - (size.cumsum(0) - size - start).repeat_interleave(size)
            others = size if left_out is None else (size - 1).clamp(min=1)
            value = others.to(weights).reciprocal().repeat_interleave(size)
            weights.view(-1).index_add_(0, owner * count + self.members[place], value)
        weights /= used.sum(1, keepdim=True).clamp(min=1)
        return weights if left_out is None else weights.fill_diagonal_(0)

    def _embed(self, v: Tensor, t: Tensor) -> Tensor:
        """Columns whose squared distances are -2 log K: scaled normal scores, and one for every value of a discrete column."""
        hot = (v[:, self.column] == self.level).to(t) * math.sqrt(-math.log(SETTINGS.other))
        return torch.cat([t[:, self.smooth] / self.width, hot], 1)

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        squares = a.square().sum(1)[:, None] - 2 * a @ b.T + b.square().sum(1)
        return squares.clamp_(min=0).mul_(-0.5).exp_()

    def _relative(self, kernel: Tensor) -> Tensor:
        """The kernels over their mean by weight."""
        return kernel / (kernel @ self.share).clamp(min=TINY)[:, None]


def _discrete(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which columns are discrete, once for each value [k], these values [k], and which columns are not."""
    columns: list[Tensor] = []
    levels: list[Tensor] = []
    smooth: list[int] = []
    for j, values in enumerate(v.T):
        found = values.unique()
        if len(found) <= min(SETTINGS.levels, len(v) // SETTINGS.rows_per_level):
            columns.append(torch.full((len(found),), j))
            levels.append(found)
        else:
            smooth.append(j)
    if not levels:
        return torch.zeros(0, dtype=torch.long), v[:0, 0], torch.tensor(smooth)
    return torch.cat(columns), torch.cat(levels), torch.tensor(smooth, dtype=torch.long)


def _targets(t: Tensor, hot: Tensor) -> Tensor:
    """What trees split by: columns of t, their squares and products, each with variance 1, and shares of discrete values."""
    i, j = torch.triu_indices(t.shape[1], t.shape[1])
    moments = torch.cat([t, t[:, i] * t[:, j]], 1)
    moments -= moments.mean(0)
    return torch.cat([moments / moments.square().mean(0).sqrt().clamp(min=TINY), hot], 1)


def _grow(s: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The trees as buffers, and [n, trees] whether a tree had drawn a row."""
    from sklearn import config_context
    from sklearn.ensemble import RandomForestRegressor

    n = len(s)
    # checks are a third of the time of small trees
    with config_context(skip_parameter_validation=True, assume_finite=True):
        forest = RandomForestRegressor(
            SETTINGS.trees, min_samples_leaf=SETTINGS.leaf, max_features=math.ceil(s.shape[1] / 2),
            max_samples=SETTINGS.bag, random_state=0, n_jobs=1,
        ).fit(s.numpy(), targets.numpy())  # fmt: skip
    drawn = torch.zeros(n, SETTINGS.trees, dtype=torch.bool)
    for k, rows in enumerate(forest.estimators_samples_):
        drawn[torch.as_tensor(rows).long(), k] = True
    trees = [tree.tree_ for tree in forest.estimators_]
    counts = torch.tensor([tree.node_count for tree in trees])
    roots = counts.cumsum(0) - counts
    feature, threshold, left, right = (
        torch.cat([torch.as_tensor(getattr(tree, name)) for tree in trees])
        for name in ("feature", "threshold", "children_left", "children_right")
    )
    leaf = feature < 0
    children = torch.stack([left, right], 1) + roots.repeat_interleave(counts)[:, None]
    children = torch.where(leaf[:, None], torch.arange(len(leaf))[:, None], children)
    feature, threshold = feature.clamp(min=0), threshold.to(s)
    # numbers of nodes rise from tree to tree
    leaves = _fall(s, roots, feature, threshold, children).T.flatten()
    size = leaves.bincount(minlength=len(leaf))
    return {
        "feature": feature, "threshold": threshold, "branches": children, "roots": roots,
        "members": leaves.argsort(stable=True) % n, "size": size, "start": size.cumsum(0) - size,
    }, drawn  # fmt: skip


def _fall(s: Tensor, roots: Tensor, feature: Tensor, threshold: Tensor, children: Tensor) -> Tensor:
    """[n, trees] the node where each row ends."""
    node = roots.expand(len(s), -1)
    while True:
        right = s.gather(1, feature[node]) > threshold[node]
        below = children[node, right.long()]
        if torch.equal(below, node):
            return node
        node = below
