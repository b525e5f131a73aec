"""Training: the one loop, and what goes through it.

`loop` runs a task by a schedule and keeps its history. Tasks: networks trained by a bound and the log-offset (`bound`),
ensembles on a base and the base that is learned (`ensemble`). `candidate` fits one row of `CRITICS`, or the user's own module,
with the preprocessing before it; `user_models` tries the user's critics and bounds on a few rows first. What is trained
another way is a task of its own; the loop stays.
"""
