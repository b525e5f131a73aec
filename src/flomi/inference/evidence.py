"""The facts of a run that its verdict rests on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """What is known of a run; values in nats, None where unknown.

    `above` is the standard error upwards, where it is more than that downwards, `stderr`. `independent` is how many rows, or
    groups of them, are independent, where it is not all n.
    `bound`, `plug_in`, `imbalance` are the held-out FLO score's; `requested_bound` is the value of the bound asked for and
    `ceiling` its cap, log(m + 1) for InfoNCE; `effective_pairs` is that number of pairs in the partition term.
    `reference_bound` is the held-out bound of a simpler critic, which `reference_name` names in words, and `reference_stderr`
    its standard error. `second_opinions` are (words, value, standard error) of estimators that
    seldom read too high. `unreplicated_gain` is what networks gained on training and on validation rows and test rows don't
    show, `late_validation_gain` what the validation bound gained in the last tenth of training. `automatic`: critic="auto" was
    asked for. `sight`: where nothing was found, the smallest MI that would have been, by kind of dependence. `own_critic`: the
    critic is the user's, and gets the columns as they are.

    The rest is what `describe_rows` finds: `duplicates`, the share of rows that repeat another row in x and y together;
    `effective_share`, that of rows left of them as independent ones, if their order is that of time; `entropy_x`, `entropy_y` of
    sides that are discrete; `linear_noise`, `local_noise`, the smallest share of variance in one direction or column of y (or
    x) that x (or y) leaves open, linearly or by nearest neighbours (the latter only for what looks exact);
    `unscaled_columns`, in words, those far from mean 0 and standard deviation 1.
    """

    n: int
    dim_x: int
    dim_y: int
    mi: float
    stderr: float = 0.0
    above: float | None = None
    independent: int | None = None
    bound: float | None = None
    bound_stderr: float = 0.0
    bound_name: str = "flo"
    requested_bound: float | None = None
    ceiling: float | None = None
    plug_in: float | None = None
    imbalance: float | None = None
    imbalance_stderr: float = 0.0
    effective_pairs: float | None = None
    lower_bound: float | None = None
    fold_values: tuple[float, ...] = ()
    fold_stderrs: tuple[float, ...] = ()
    reference_bound: float | None = None
    reference_stderr: float = 0.0
    reference_name: str = "a simpler critic"
    second_opinions: tuple[tuple[str, float, float], ...] = ()
    unreplicated_gain: float = 0.0
    late_validation_gain: float | None = None
    interrupted: bool = False
    automatic: bool = False
    sight: dict[str, float] | None = None
    own_critic: bool = False
    duplicates: float = 0.0
    effective_share: float | None = None
    entropy_x: float | None = None
    entropy_y: float | None = None
    linear_noise: float | None = None
    local_noise: float | None = None
    unscaled_columns: str | None = None
    units: str = "nats"
