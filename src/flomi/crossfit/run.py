"""The run over folds: in threads, in processes, or shared by ranks; finished folds are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from flomi.critics import CRITICS
from flomi.critics.table import CriticKind, default_candidates
from flomi.crossfit.checkpoint import Checkpoint
from flomi.crossfit.fold import Fold, run_fold
from flomi.crossfit.options import Options
from flomi.crossfit.splits import make_splits
from flomi.crossfit.training_rows import training_rows
from flomi.data.pairs import Pairs
from flomi.parallel import side_by_side
from flomi.preprocess import IndependentColumns
from flomi.support.settings import UNMEASURED, setting
from flomi.training.candidate import seed_of

Critics = Mapping[str, str | nn.Module]


@dataclass(frozen=True)
class RunSettings:
    """What a run over folds takes."""

    least_training: int = setting(
        10,
        f"{UNMEASURED}training rows for a user's module; the package's critics say in CRITICS what they need",
    )
    threads: int = setting(
        5,
        "folds side by side at most, those of effort='standard': each has the pairs that it evaluates in memory",
    )


SETTINGS = RunSettings()


@torch.inference_mode(False)  # fitting needs gradients, whatever the caller's loop is doing
@torch.enable_grad()
def cross_fit(options: Options, data: Pairs, *, ranks: bool = False) -> list[Fold]:
    """Every fold; those finished before a Ctrl-C are kept, and those in the checkpoint are not run again.

    `ranks`: the processes of torch.distributed, which hold the same rows, share the folds, and each gets all of them.
    """
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    splits = make_splits(len(data.x), options.n_folds, options.seed, data.groups, options.folds, data.rows)
    if ranks:  # a user's splitter may draw anew in every process
        shared = [splits]
        dist.broadcast_object_list(shared)
        (splits,) = shared
    critics = [options.critics or _default_critics(options, x, y, split.training) for split in splits]
    _check_rows(critics, data, min(len(split.training) for split in splits), len(splits))
    kept = None if options.checkpoint is None else Checkpoint(options.checkpoint, options, data, splits)

    def job(k: int) -> Callable[[], Fold]:
        run = partial(
            run_fold, critics[k], options, (x, y), splits[k],
            pairs=options.pairs // len(splits), most_pairs=options.most_pairs // len(splits),
            seed=seed_of(options.seed, k), groups=data.groups,
            progress=f"fold {k + 1} of {len(splits)}" if options.progress and options.n_jobs == 1 else None,
        )  # fmt: skip
        return run if kept is None else partial(_once, kept, k, run)

    if not ranks:
        return _run([job(k) for k in range(len(splits))], options, critics)
    rank, world = dist.get_rank(), dist.get_world_size()
    mine: list[Fold] | BaseException
    try:
        mine = _run([job(k) for k in range(rank, len(splits), world)], options, critics)
    except (Exception, KeyboardInterrupt) as error:
        mine = error  # the others wait for it
    shares: list[list[Fold] | BaseException] = [[] for _ in range(world)]
    dist.all_gather_object(shares, mine)
    folds: list[list[Fold]] = []
    for share in shares:
        if isinstance(share, BaseException):
            raise share
        folds.append(share)
    return [share[k] for k in range(max(map(len, folds))) for share in folds if k < len(share)]


def _default_critics(options: Options, x: Tensor, y: Tensor, training: np.ndarray) -> Critics:
    """What competes in a fold where no critic was named, by its training rows."""
    sides = [v[training].flatten(1) for v in (x, y)]
    rows = training_rows(*(v[:, IndependentColumns.fit(v).columns].numpy() for v in sides))
    names = default_candidates(rows, density="density" in options.bound.needs, costly=options.costly)
    return {name: name for name in names}


def _check_rows(critics: Sequence[Critics], data: Pairs, least: int, n_folds: int) -> None:
    """ValueError unless the `least` rows that a fold trains on are enough for every critic."""
    needed = max(
        CRITICS[critic].least_rows if isinstance(critic, str) else SETTINGS.least_training
        for fold in critics
        for critic in fold.values()
    )
    if least < needed:
        largest = "" if data.groups is None else f" (one group holds {np.bincount(data.groups).max():,})"
        raise ValueError(
            f"{len(data.x):,} rows{largest} in {n_folds} folds leave {least} to train on, and this critic needs {needed}: "
            f"use fewer folds, more rows{'' if data.groups is None else ', smaller groups'} or another critic"
        )


def _run(jobs: list[Callable[[], Fold]], options: Options, critics: Sequence[Critics]) -> list[Fold]:
    """The folds of the jobs, in processes or threads as the options say, up to a Ctrl-C."""
    if options.n_jobs > 1:
        from joblib import Parallel, delayed

        rows = {name: CRITICS[name] for fold in critics for name in fold.values() if isinstance(name, str)}
        return list(Parallel(n_jobs=options.n_jobs)(delayed(_with_rows)(rows, job) for job in jobs))
    # networks trained by the bound draw from torch's global generator, which threads would share
    apart = all(isinstance(c, str) and CRITICS[c].build is None for fold in critics for c in fold.values())
    threads = min(torch.get_num_threads(), len(jobs), SETTINGS.threads)
    folds: list[Fold] = []
    interrupted = False
    if apart and threads > 1 and torch.device(options.fit.device).type == "cpu":
        folds, interrupted = side_by_side(jobs, threads)
    else:
        try:
            for job in jobs:
                folds.append(job())
                if folds[-1].interrupted:
                    break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        if not folds:
            raise KeyboardInterrupt
        folds[-1].interrupted = True
    return folds


def _with_rows(rows: dict[str, CriticKind], job: Callable[[], Fold]) -> Fold:
    """A fold in another process, which may not know the rows that were added to CRITICS at run time."""
    CRITICS.update(rows)
    return job()


def _once(kept: Checkpoint, k: int, run: Callable[[], Fold]) -> Fold:
    """Fold k from the checkpoint, or run and kept there."""
    fold = kept.load(k)
    if fold is None:
        fold = run()
        kept.save(k, fold)
    return fold
