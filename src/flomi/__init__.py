"""flomi: mutual information between multivariate variables, by contrastive Fenchel-Legendre optimisation.

    >>> import flomi
    >>> callable(flomi.estimate)
    True

Names are imported when they are first used, so that `import flomi` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from flomi._version import __version__

__all__ = ["MIEstimate", "MIEstimator", "__version__", "bounds", "critics", "estimate", "losses", "tasks"]

_HOME = {"MIEstimate": "estimator", "MIEstimator": "estimator", "estimate": "estimator"}

if TYPE_CHECKING:
    from flomi import bounds, critics, losses, tasks
    from flomi.estimator import MIEstimate, MIEstimator, estimate
else:  # out of a type checker's sight, so that it still reports a misspelt name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'flomi' has no attribute {name!r}; it offers {', '.join(__all__)}")
        if name in _HOME:
            return getattr(import_module(f"flomi.{_HOME[name]}"), name)
        return import_module(f"flomi.{name}")


def __dir__() -> list[str]:
    return __all__
