"""Measure again the MI of the tasks that have no formula, and print the table of flomi/tasks/truth.py (about ten minutes).

python benchmarks/truth.py
"""

from __future__ import annotations

from flomi.tasks import get
from flomi.tasks.truth import MEASURED, measure

if __name__ == "__main__":
    for name in MEASURED:
        mi, stderr = measure(get(name), n=10_000_000)
        print(f'    "{name}": ({mi:.6f}, {stderr:.6f}),', flush=True)
