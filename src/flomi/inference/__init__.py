"""From scores of unseen rows to numbers with errors, a certificate and a verdict; numpy and scipy only.

`influence` has one value a row for every number, `u_statistic` the bound over all pairs, `point_estimate` and `interval` the
estimate and its error, `certificate` the lower bound that holds in finite samples. A check of the verdict is a row of
`verdict.CHECKS` (`check` says what a row is, `evidence` what it may look at, `row_diagnostics` what the rows alone say).
Strategies are pure functions.
"""
