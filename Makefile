# Everything runs from .venv, which `make setup` makes; nothing goes into the system's Python.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-build real test check lint docs bench services dagster dashboard validate lock clean

# The first interpreter here that is new enough; `python3` where none is, so that the check below can say so.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python; do \
    command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 && { echo $$p; exit; }; \
  done; echo python3)
BIN := .venv/bin
DEMO ?= data/demo
PORT ?= 5006
DAGSTER_PORT ?= 3000
AS_ROOT := $(filter 0,$(shell id -u))

help: ## What can be made
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/.ready ## Python environment in .venv, from requirements.lock

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || { \
	  echo "Python 3.12 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Install one, or name it: make PYTHON=/path/to/python3.13 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "This Python cannot make environments: install its venv package (Debian: apt-get install python3-venv)."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps -e .
	@$(BIN)/python -m compileall -q coverage_pipeline coverage_dashboards
	@$(BIN)/python -m coverage_pipeline.pipeline.kernels # compiled once, here, and not by the first build or test
	@touch $@

demo: setup ## Simulate, serve, scan and build an archive, then show it in the browser
	$(BIN)/coverage-planner demo --root $(DEMO) --port $(PORT)

demo-build: setup ## The same without the dashboard; leaves data/demo/coverage.zarr
	$(BIN)/coverage-planner demo --root $(DEMO) --build-only

real: setup ## Build from the recorded catalogue items of ../shared/data, and compare with them
	$(BIN)/python -m pytest -q -rA tests/integration/test_real_items.py

test: setup $(if $(AS_ROOT),services) ## All tests (as root with services, else those skip)
	$(BIN)/python -m pytest -n auto --dist loadscope --durations 15 $(PYTEST_ARGS)

check: lint ## Lint, types and the fast tests, in two minutes
	$(BIN)/python -m pytest -n auto --dist loadscope -q -m 'not live and not slow and not service' $(PYTEST_ARGS)

lint: setup ## ruff, mypy, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

validate: setup ## Whether Dagster can load the definitions
	$(BIN)/dagster definitions validate -w workspace.yaml

docs: setup ## The documentation as a site in site/; a broken link is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs site

bench: setup ## Measurements, one JSON line each
	$(BIN)/python -m benchmarks

services: ## PostGIS, Chromium and aria2 from Debian, for the tests
	@if command -v /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && ls /usr/share/postgresql/*/extension/postgis.control >/dev/null 2>&1 \
	    && command -v chromium >/dev/null 2>&1 && command -v aria2c >/dev/null 2>&1; then echo "services: PostGIS, Chromium and aria2 are there"; \
	elif [ -z "$(AS_ROOT)" ]; then \
	  echo "services: PostGIS, Chromium or aria2 is missing and only root can install them; tests that need them will skip."; \
	elif ! command -v apt-get >/dev/null 2>&1; then \
	  echo "services: this is no Debian; install PostgreSQL with PostGIS, Chromium and aria2 yourself. Tests that need them will skip."; \
	else \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	    postgresql-15-postgis-3 chromium aria2 fonts-dejavu-core >/dev/null; \
	fi

dagster: setup ## The Dagster UI on loopback
	@mkdir -p .dagster && cp dagster.yaml .dagster/
	DAGSTER_HOME=$(CURDIR)/.dagster $(BIN)/dagster dev -w workspace.yaml --host 127.0.0.1 --port $(DAGSTER_PORT)

dashboard: setup ## The dashboard of the cube that the settings name
	$(BIN)/coverage-planner serve --port $(PORT)

lock: setup ## Resolve requirements.lock anew
	$(BIN)/uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.12 --all-extras \
	  pyproject.toml -o requirements.lock

clean: ## Remove the environment and caches; data stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
