# Every target does its own set-up; nothing needs an activated environment.
PYTHON_ENV := .venv/bin/python
# Two at a time, a file in one go: much of the time is waiting, for Slurm and for processes that start.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
BENCHMARKS := $(wildcard tests/benchmarks/bench_*.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick bench lint lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## make .venv from env/cpu.lock (at once when it is there)
	@env/setup

demo: setup ## the whole pipeline on this machine's CPU; prints the path of the page
	@$(PYTHON_ENV) -m toolkit.launch recipe=demo

test: setup ## every test; the last lines say what was skipped and why
	@env/setup --system || true
	@$(PYTHON_ENV) -m pytest -q $(SIDE_BY_SIDE)

quick: setup ## the tests that need no training and no daemons
	@$(PYTHON_ENV) -m pytest -q -m "not slow" $(SIDE_BY_SIDE)

bench: setup ## measure against peers, side by side
	@$(if $(BENCHMARKS),missed=0; for file in $(BENCHMARKS); do $(PYTHON_ENV) $$file || missed=1; done; exit $$missed,echo "no benchmarks in tests/benchmarks")

lint: setup ## style of Python and shell
	@$(PYTHON_ENV) -m ruff check .
	@if command -v shellcheck >/dev/null; then shellcheck env/setup env/apptainer/install containers/post.sh containers/entry .ci/run $(wildcard slurm/*.sh); else echo "shellcheck is not here: shell scripts unchecked"; fi

lock: setup ## make env/*.lock from env/versions.yaml (needs uv)
	@$(PYTHON_ENV) env/lock.py

clean: ## remove the environment and what tests leave; runs/ stays
	rm -rf .venv .venv.lock .pytest_cache .ruff_cache .hypothesis build dist
	find . -path ./runs -prune -o -name __pycache__ -type d -exec rm -rf {} +
