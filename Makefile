# `make help` lists the targets.
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup browser up down check test again prove bench reference audit fuzz

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

WORKERS ?= 3
test: browser ## every proof in its bounded form
	$(PY) -m pytest -m "not prove" -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=15

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

audit: setup ## what is known against pinned packages; "not run" where nobody can be asked
	@test -x .cache/audit/bin/pip-audit || { $(PY) -m venv .cache/audit && .cache/audit/bin/python -m pip install \
	  --quiet --disable-pip-version-check --require-hashes -r tests/audit/constraints.txt; } || true
	@.cache/audit/bin/python tests/advisories.py

MINUTES ?= 10
FUZZ = PYTHONPATH=.cache/fuzz PATH="$(CURDIR)/.venv/bin:$$PATH" tests/fuzz/fuzz.py -verbosity=0
fuzz: setup ## bytes from strangers against the payload decoder and the topic parser
	@test -d .cache/fuzz/atheris || $(PY) -m pip install --quiet --disable-pip-version-check --no-deps \
	  --require-hashes --target .cache/fuzz -r tests/fuzz/constraints.txt
	@for target in payload topic; do \
	  export FUZZ_TARGET=$$target kept=tests/fuzz/corpus/$$target new=.cache/fuzz-$$target; mkdir -p $$new; \
	  echo "fuzz: $$target"; \
	  $(FUZZ) $$new $$kept -max_len=2048 -max_total_time=$$(($(MINUTES) * 30)) -print_final_stats=1 \
	    -artifact_prefix=$$new- && $(FUZZ) -merge=1 $$kept $$new || exit 1; \
	done
