# `make run` and `make test` set up all they need in a virtual environment of their own (.venv).
PYTHON ?= python3
MYPY ?= --num-workers 2
PIP = .venv/bin/pip --disable-pip-version-check

# What is imported is compiled when it first is, and once, whatever the shell says: tests start the simulator as a
# process many times, and of the 16,000 files that are installed they read a fifth.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test early late check clean

run: .venv/core
	.venv/bin/python -m sim scenarios/v3_2048gpu.yaml

# A file of tests stays with one process, so that what its tests share is made once; torch takes no threads beside it.
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile
EARLY = engine schedules communication disturbances layout

test: .venv/tests
	$(PYTEST)

# Rooms whose tests need nothing beyond the core and pytest, and all others: `.ci/run` unpacks the rest beside the first.
early: .venv/check
	$(PYTEST) $(EARLY:%=tests/sim/%)

late: .venv/tests
	$(PYTEST) $(EARLY:%=--ignore=tests/sim/%)

check: .venv/check
	.venv/bin/ruff check .
	.venv/bin/mypy $(MYPY)

.venv/core: pyproject.toml constraints.txt
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --no-compile -e . -c constraints.txt
	touch $@

.venv/check: .venv/core
	$(PIP) install --quiet --no-compile -e '.[check,test]' -c constraints.txt
	touch $@

.venv/tests: .venv/check
	$(PIP) install --quiet --no-compile -e '.[dev,trace,numerics,search,cluster]' -c constraints.txt
	touch $@

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache .hypothesis
