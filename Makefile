# `make demo` and `make test` do everything, also on a fresh machine with Python 3.11 or newer.
# Another interpreter: make PYTHON=python3.13 test (after make clean).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   := build/demo
DAYS   := 2026-01-31T00:00:00Z 2026-02-01T00:00:00Z

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help venv format lint types contracts check test demo bench wheel clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(READY) ## create .venv with everything needed to work on the code

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "audience-sync needs Python 3.11 or newer; try: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	@echo "Preparing $(VENV) (once, about a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

format: $(READY) ## rewrite the code in the house format
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict
	@$(BIN)/mypy --strict audience_sync

contracts: $(READY) ## who may import whom
	@$(BIN)/lint-imports

check: lint types contracts ## lint, types, contracts and all tests
	@$(BIN)/pytest -n 2 --quiet

test: check ## the same as check

demo: $(READY) ## two days of the example shop, in build/demo
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@set -e; cd $(DEMO); PATH="$(CURDIR)/$(BIN):$$PATH"; unset AUDIENCE_SYNC_CONFIG; \
	step() { printf '\n$$ audience-sync %s\n' "$$*"; audience-sync "$$@"; }; \
	step init --example; \
	for day in $(DAYS); do step diff --now $$day; step sync --now $$day; done; \
	step status; \
	printf '\nThe first calls, of the initial sync ($(DEMO)/calls.ndjson):\n'; head -n 3 calls.ndjson; \
	printf '\nThe last calls, of the second day:\n'; tail -n 3 calls.ndjson

bench: $(READY) ## measure on this machine
	@$(BIN)/python -m bench

wheel: $(READY) ## build dist/*.whl and dist/*.tar.gz
	@$(BIN)/python -m build --no-isolation --outdir dist .

clean: ## remove everything that make made
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
