# `make demo` and `make test` need nothing but Python 3.11 or newer: the first use makes .venv and installs into it.
# They use the network only for that; the stamp below is renewed when the listed versions change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HOURS := kill coverage first_samples travel  # benchmarks that take long, to be run by themselves

.PHONY: help install demo test slow fixtures kill lint bench clean

help:
	@echo "make demo    compare the model families on small digits and write a report"
	@echo "make test    the quick tests"
	@echo "make slow    the tests that take minutes"
	@echo "make fixtures  the folder of broken and unusual images"
	@echo "make kill    kill trainings at every moment and compare what is left"
	@echo "make lint    formatting, lint and types"
	@echo "make bench   the benchmarks, one after the other"
	@echo "make clean   remove the environment, caches and builds (runs and reports stay)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/trilemma compare data=digits

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

fixtures: $(STAMP)
	$(BIN)/python -m pytest tests/data/test_fixtures.py tests/data/test_data_colour.py

kill: $(STAMP)
	$(BIN)/python benchmarks/kill.py

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(STAMP)
	@set -e; for script in $(filter-out $(HOURS:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(BIN)/python "$$script"; done
	$(BIN)/python benchmarks/plain_loop.py --figure

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
