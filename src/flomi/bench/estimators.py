"""Estimators by name: flomi itself, each of its critics, classical baselines, every bound in `BOUNDS`, functions of one's own.

An estimator takes (x, y, seed) and returns an `Answer`; one of one's own is named `module:function` and may return a number
or a mapping with the names of `Answer` instead.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

from flomi.bench.baselines import Answer, Array, NotApplicable, gaussian, histogram, kde, ksg
from flomi.support.names import suggestion

GROUPS = ("flomi", "critics", "baselines", "bounds")


@dataclass(frozen=True)
class Estimator:
    """A name, a sentence, the group it is shown with, and the function; `needs_py` says that it takes `log_py=` too."""

    name: str
    about: str
    group: Literal["flomi", "critics", "baselines", "bounds", "own"]
    run: Callable[..., Answer]
    needs_py: bool = False


def catalogue() -> dict[str, Estimator]:
    """All estimators that have a name of their own, in the order in which they are shown; the tables are read anew each time.

    Of `CRITICS` these are the rows that `flomi.estimate` can use as they are: all but the networks that a bound trains, which
    the bounds' own estimators show.

    >>> list(catalogue())[:4]
    ['auto', 'auto-fast', 'gaussian', 'ksg-3']
    """
    from flomi.bench.variational import variational
    from flomi.bounds import BOUNDS
    from flomi.critics import CRITICS

    sides = {"lower": "lower bound", "upper": "upper bound", "none": "no bound"}
    rows = [
        Estimator("auto", "flomi.estimate at its defaults", "flomi", _flomi),
        Estimator("auto-fast", 'flomi.estimate with effort="fast"', "flomi", partial(_flomi, effort="fast")),
        Estimator("gaussian", "canonical correlations, as if the data were Gaussian", "baselines", gaussian),
    ]
    for k in (3, 5, 10):
        rows.append(Estimator(f"ksg-{k}", f"{k} nearest neighbours (KSG)", "baselines", partial(ksg, k=k)))
    rows += [
        Estimator("histogram", "bins of equal frequency, few columns only", "baselines", histogram),
        Estimator("kde", "Gaussian kernel densities, few columns only", "baselines", kde),
    ]
    for bound in BOUNDS.values():
        about = f"{sides[bound.side]}; {bound.reference}"
        run = partial(variational, bound=bound.name)
        rows.append(Estimator(bound.name, about, "bounds", run, needs_py=bound.known_marginal))
    for kind in CRITICS.values():
        if kind.build is None:
            about = f"flomi.estimate with this critic alone: {kind.about}"
            run = partial(_critic, critic=kind.name)
            rows.append(Estimator(f"critic:{kind.name}", about, "critics", run))
    return {row.name: row for row in rows}


def expand(names: Iterable[str]) -> list[str]:
    """Names with groups ("bounds", "baselines") replaced by their members, each name once, all of them known.

    Raises ValueError for a name that there is not.

    >>> expand(["baselines", "flo"])
    ['gaussian', 'ksg-3', 'ksg-5', 'ksg-10', 'histogram', 'kde', 'flo']
    """
    known = catalogue()
    found: dict[str, None] = {}
    for name in names:
        members = [row.name for row in known.values() if row.group == name] if name in GROUPS else [name]
        for member in members:
            resolve(member)
            found[member] = None
    return list(found)


def resolve(name: str) -> Estimator:
    """The estimator of that name; of `module:function` the function, found as `python -m` finds modules: from here first.

    Raises ValueError for an unknown name, a module that can't be imported, or a function that is not there.
    """
    known = catalogue()
    if name in known:
        return known[name]
    if ":" not in name or name.startswith("critic:"):
        raise ValueError(
            f"no estimator is called {name!r}; {suggestion(name, known)} (or module:function for one of your own)"
        )
    return Estimator(name, "your own", "own", partial(_own, _function(name)))


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        loaded = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a module may do at import
        raise _broken(name, module, error) from None
    if not hasattr(loaded, attribute):
        raise ValueError(f"estimator {name!r}: module {module} has no {attribute!r}")
    found = getattr(loaded, attribute)
    if not callable(found):
        raise ValueError(f"estimator {name!r} is no function")
    return found  # type: ignore[no-any-return]


def _broken(name: str, module: str, error: BaseException) -> ValueError:
    place = f"{error.filename}, line {error.lineno}" if isinstance(error, SyntaxError) else _last_line(error)
    what = error.msg if isinstance(error, SyntaxError) else error
    reason = f"({what})" if place is None else f"({type(error).__name__}: {what}; {place})"
    return ValueError(f"estimator {name!r}: {module!r} can't be imported {reason}")


def _last_line(error: BaseException) -> str | None:
    """File and line of the last code outside of Python's importing that ran; None if there was none but this file's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__) and not frame.filename.startswith("<frozen ")
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else None


def _own(function: Callable[..., Any], x: Array, y: Array, seed: int) -> Answer:
    """What a function of one's own returned, checked and as an `Answer`."""
    given = function(x, y, seed)
    values = dict(given) if isinstance(given, Mapping) else {"estimate": given}
    allowed = [f.name for f in fields(Answer)]
    wrong = ", ".join(sorted(map(str, set(values) - set(allowed))))
    if not wrong and values.get("estimate") is None:
        wrong = "no estimate" if isinstance(given, Mapping) else "None"
    verdict = str(values.pop("verdict", ""))
    numbers = {}
    for name, value in values.items():
        if value is None or wrong:
            continue
        try:
            numbers[name] = _number(value)
        except (TypeError, ValueError):
            shape = tuple(getattr(value, "shape", ()))
            kind = f"{type(value).__name__} of shape {shape}" if shape else type(value).__name__
            wrong = f"{name} as {kind}" if isinstance(given, Mapping) else f"a value of type {kind}"
    if wrong:
        raise ValueError(
            f"it returned {wrong}; return a number, or a mapping with estimate and any of {', '.join(allowed[1:])}"
        )
    return Answer(**numbers, verdict=verdict)


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes)) or getattr(value, "ndim", 0) > 0:
        raise TypeError
    return float(value)


def _flomi(x: Array, y: Array, seed: int, **options: Any) -> Answer:
    from flomi.estimator import estimate

    r = estimate(x, y, seed=seed, **options)
    more = {"bound": r.bound, "plug_in": r.plug_in, "lower_bound": r.lower_bound}
    known = {name: value for name, value in more.items() if math.isfinite(value)}
    return Answer(r.mi, r.stderr, *r.ci, **known, verdict=r.verdict)


def _critic(x: Array, y: Array, seed: int, critic: str) -> Answer:
    try:
        return _flomi(x, y, seed, critic=critic)
    except ValueError as error:  # such as a critic of one column against one, for more
        raise NotApplicable(str(error)) from None
