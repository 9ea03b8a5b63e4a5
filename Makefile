# `make help` lists the targets.
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup browser up down check test again prove bench reference

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: ## install what is missing: Debian packages, TimescaleDB, the Python environment
	@bash src/paqett/local/setup.sh

up: setup ## run everything on this machine; Ctrl-C stops it
	@exec .venv/bin/paqett up $(ARGS)

down: ## stop what `make up` started elsewhere
	@.venv/bin/paqett up --stop

check: setup ## format, lint, types, import layers
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

browser: # what the tests of the pages need besides
	@bash src/paqett/local/setup.sh --tests

test: browser ## every proof in its bounded form
	$(PY) -m pytest -m "not prove" -n 2 --dist loadfile --no-loadscope-reorder --durations=15

again: # the tests that failed, one after the other
	@$(PY) -c 'import json; failed = json.load(open(".pytest_cache/v/cache/lastfailed")); \
	  print("again:", *failed, sep="\n  "); exit(not 0 < len(failed) <= $(AT_MOST))'
	$(PY) -m pytest -m "not prove" --last-failed --last-failed-no-failures none

prove: browser ## the long form of every proof, into benchmarks/results/
	$(PY) -m pytest -m prove --stepwise --junitxml=benchmarks/results/prove.xml

bench: setup ## measure against the ceiling of the same run
	$(PY) benchmarks/run.py

reference: setup ## write the pages of the docs that come from the program itself
	$(PY) tests/reference.py
