"""The child's end of the pipe: one JSON order a line on standard input, one JSON answer a line on standard output.

Every side imports this under its own interpreter, so it uses the standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(make: Callable[..., Callable[[int], Any]], versions: dict[str, str]) -> None:
    """{"make": {...}} prepares a configuration; {"run": N} runs N steps of it and answers with their seconds and result."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    run: Callable[[int], Any] | None = None
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any] = {"versions": versions}
        if "make" in order:
            run = make(**order["make"])
        elif run is None:
            raise ValueError("make a configuration before running steps of it")
        else:
            wall, processor = time.perf_counter(), time.process_time()
            answer["result"] = run(order["run"])
            answer["processor"] = time.process_time() - processor
            answer["wall"] = time.perf_counter() - wall
        print(json.dumps(answer), file=out, flush=True)
