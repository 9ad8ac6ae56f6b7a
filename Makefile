# `make run` and `make test` set up all they need in a virtual environment of their own (.venv).
PYTHON ?= python3
PIP = .venv/bin/pip --disable-pip-version-check

# What is imported is compiled once, whatever the shell says: tests start the simulator as a process many times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check clean

run: .venv/core
	.venv/bin/python -m sim scenarios/v3_2048gpu.yaml

# A file of tests stays with one process, so that what its tests share is made once; torch takes no threads beside it.
test: .venv/tests
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile

check: .venv/tests
	.venv/bin/ruff check .
	.venv/bin/mypy

.venv/core: pyproject.toml constraints.txt
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	$(PIP) install --quiet -e . -c constraints.txt
	touch $@

.venv/tests: .venv/core
	$(PIP) install --quiet -e '.[dev,trace,numerics]' -c constraints.txt
	touch $@

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache .hypothesis
