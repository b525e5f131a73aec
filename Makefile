# Two commands are all that a newcomer needs: `make demo` and `make test`. Both set up .venv in this folder by themselves,
# from Python (3.10 or newer) and make alone; a second run installs nothing. `make test-slow` is the rest of what must pass.
#   PYTHON=python3.12 make demo     another interpreter
#   JOBS=8 make test                more test processes (each uses one thread)

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# One thread a process, and threads that wait without spinning: two spinning processes on two cores slow each other down
# a hundredfold.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check-format lint types unit unit-slow examples examples-slow docs format clean

# Of ten seconds at most; the others, real_data.py among them, take up to two minutes.
EXAMPLES := $(addprefix examples/,00_standalone_flo.py contrastive.py)
LONG_EXAMPLES := $(filter-out $(EXAMPLES),$(wildcard examples/*.py))
PYTEST = $(ONE_THREAD) $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --durations=10
RUN_EXAMPLES = @set -e; for script in $^; do echo "== $$script"; $(ONE_THREAD) $(BIN)/python -W error $$script; done

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## set up, then estimate mutual information on two real data sets
	$(BIN)/python examples/real_data.py

test: check-format lint types unit examples docs ## set up, then what must pass before every change: about four minutes

test-slow: unit-slow examples-slow ## what takes long: kills, ranks, statistics over many seeds, the other examples

check-format: $(VENV)/.dev ## is the code formatted?
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check .

types: $(VENV)/.dev ## mypy, strict on the package
	$(BIN)/mypy

unit: $(VENV)/.dev ## tests and doctests
	$(PYTEST) -m "not slow"

unit-slow: $(VENV)/.dev ## the tests that are marked as slow
	$(PYTEST) -m slow

examples: $(EXAMPLES) | $(VENV)/.dev ## the short examples run
	$(RUN_EXAMPLES)

examples-slow: $(LONG_EXAMPLES) | $(VENV)/.dev ## the other examples run
	$(RUN_EXAMPLES)

docs: $(VENV)/.dev ## build the documentation into docs/_build/html, warnings being errors
	$(ONE_THREAD) $(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

format: $(VENV)/.dev ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean: ## remove the virtual environment and everything that was built
	rm -rf $(VENV) docs/_build dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps say what .venv holds. torch comes first and alone, so that nothing else chooses its build.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("flomi needs Python 3.10 or newer, and this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) $(TORCH)
	@touch $@

$(VENV)/.run: $(VENV)/.torch pyproject.toml
	$(INSTALL) -c constraints.txt -e '.[plot,report,data]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(INSTALL) -c constraints.txt -e '.[plot,report,data,bench,examples,docs,dev]'
	@touch $(VENV)/.run $@
