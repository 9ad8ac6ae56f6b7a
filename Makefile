# `make run` and `make test` set up all they need in a virtual environment of their own (.venv).
PYTHON ?= python3
MYPY ?= --num-workers 2
WORKERS ?= auto
PIP = .venv/bin/pip --disable-pip-version-check

# What is imported is compiled when it first is, and once, whatever the shell says: tests start the simulator as a
# process many times, and of the 16,000 files that are installed they read a fifth.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check clean

run: .venv/core
	.venv/bin/python -m sim scenarios/v3_2048gpu.yaml

# A file of tests stays with one process, so that what its tests share is made once, in the order of tests/conftest.py;
# torch takes no threads beside it.
test: .venv/tests
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

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

.venv/torch: .venv/check
	$(PIP) install --quiet --no-compile -e '.[numerics]' -c constraints.txt
	touch $@

# HolisticTraceAnalysis asks for a notebook server, whose 80 packages nothing here imports.
.venv/tests: .venv/torch
	$(PIP) install --quiet --no-compile -e '.[dev,search,cluster]' -c constraints.txt
	$(PIP) install --quiet --no-compile --no-deps 'HolisticTraceAnalysis>=0.5'
	touch $@

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache .hypothesis
