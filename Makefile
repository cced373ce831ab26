# Every target does its own set-up (hack/setup.py), which costs nothing the second time.
# The set-up's own Python: `make setup PYTHON=python3.12`.
PYTHON ?= python3
# Resolved before PATH changes, so that it is never the .venv's own.
override PYTHON := $(shell command -v $(PYTHON) || echo $(PYTHON))
SETUP := $(PYTHON) hack/setup.py

export PATH := $(CURDIR)/.tools/bin:$(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo unit test test-all bench check format clean

# Tests wait for servers and clusters more than they compute: two processes for each core. Each
# begins with a part of the tests in their order, so that those of a file share what it sets up.
WORKERS ?= $(shell echo $$((2 * $$(nproc))))
unit: WORKERS = $(shell nproc)
PYTEST = .venv/bin/python -m pytest -q -n $(WORKERS) --dist worksteal

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 10

setup: ## .venv with kfdeploy, and the outside programs in .tools/bin; says first what it will build
	@$(SETUP)

demo: ## the main job on a small bundled upstream, with two registries on loopback
	@$(SETUP) python git kustomize registry
	@.venv/bin/python hack/demo.py $(DEMO_ARGS)

unit: ## the tests that need no cluster, no registry and no Kubeflow release
	@$(SETUP) python git kustomize
	$(PYTEST) -m "not (servers or programs or kubeflow or slow)" $(PYTEST_ARGS)

test: ## all tests but the slowest sweeps; PYTEST_ARGS='-k scan -x'
	@$(SETUP)
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-all: ## the slowest sweeps, which `make test` leaves out
	@$(SETUP)
	@$(SETUP) helm3 kyverno training-operator
	$(PYTEST) -m slow $(PYTEST_ARGS)

bench: ## the benchmarks, side by side with other tools
	@$(SETUP)
	.venv/bin/python -m tests.bench $(BENCH_ARGS)

check: ## formatting, lint, types
	@$(SETUP) python
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy

format: ## mend formatting and what lint can mend
	@$(SETUP) python
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

clean: ## what set-up and the tools made here; the tools' shared cache stays
	rm -rf .venv .tools .kfdeploy .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
