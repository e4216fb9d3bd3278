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
.PHONY: help venv tools format lint types contracts check test fuzz demo bench wheel clean

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

tools: ## install what the tests need besides Python, where that can be done: systemd-analyze, chromium
	@missing=; \
	[ "$$(uname)" != Linux ] || command -v systemd-analyze > /dev/null || missing=" systemd"; \
	[ -n "$$CHROMIUM" ] || command -v chromium > /dev/null || command -v chromium-browser > /dev/null || \
		command -v google-chrome > /dev/null || missing="$$missing chromium"; \
	[ -z "$$missing" ] || { \
		sudo=; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
		$$sudo apt-get update -qq && $$sudo apt-get install -qq -y $$missing; } || \
		echo "some tests will fail: apt-get install$$missing" >&2

format: $(READY) ## rewrite the code in the house format
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict
	@$(BIN)/mypy --strict audience_sync

contracts: $(READY) ## who may import whom
	@$(BIN)/lint-imports

check: tools lint types contracts ## lint, types, contracts and all tests
	@$(BIN)/pytest -n 2 --quiet

test: check ## the same as check

fuzz: $(READY) ## the property tests with examples that no run has seen
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -n 2 --quiet tests/properties

demo: $(READY) ## two days of the example shop, told to a sandbox, in build/demo
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@cd $(DEMO) && PATH="$(CURDIR)/$(BIN):$$PATH" DAYS="$(DAYS)" sh $(CURDIR)/examples/demo.sh

bench: $(READY) ## measure on this machine
	@$(BIN)/python -m bench

wheel: $(READY) ## build dist/*.whl and dist/*.tar.gz
	@$(BIN)/python -m build --no-isolation --outdir dist .

clean: ## remove everything that make made
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
