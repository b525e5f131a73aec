"""Cross-fitting, downwards: `options`, `splits`, `run` over the folds, and when all are there `assemble`.

`fold` is one fold: fit the candidates, `select` on validation rows, `evaluate` on test rows. `checkpoint` keeps finished
folds, `storage` fitted estimators; both formats have a number, which goes up when what is written changes. An effort is a row
of `options.EFFORTS`. Nothing here knows a critic's or a bound's name.
"""
