"""The command line: parse, call, print.

`commands` has the program and its errors; `estimate`, `bench`, `reproduce` and `doctor` a command each; `options` the words of
`flomi estimate --help`, `outputs` what is printed and written. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

from flomi.cli.commands import app, main

__all__ = ["app", "main"]
