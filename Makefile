# Everything a newcomer types. Needs Python 3.11-3.13, git and make; `make help` says what is there.
# Thin on purpose: inside .venv, `pytest`, `dvc repro` and `scae` do the same work directly.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help env env-device env-site test test-device repro site lock lock-device lock-site mutants lint clean distclean

# Test processes, each with torch and TensorFlow loaded and one thread.
WORKERS ?= 2
# Further arguments for pytest, as in: make test PYTEST_ARGS='--tier=smoke -k warp'
PYTEST_ARGS ?=
# Arguments of `make mutants`.
N ?= 20
SEED ?= 0

# The tools of .venv first on PATH, as after `source .venv/bin/activate`.
IN_VENV := PATH="$(CURDIR)/.venv/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv"

help:
	@echo 'make env      set up .venv from the lock (about 8 GB of disk); nothing to do the second time'
	@echo 'make test     set up, then run the whole test suite   [WORKERS=2 PYTEST_ARGS=...]'
	@echo 'make repro    set up, then run the default pipeline; ends at results/report.html'
	@echo 'make site     set up, then build the site; ends at build/site/index.html'
	@echo 'make mutants  set up, then plant random bugs and see them caught   [N=20 SEED=0]'
	@echo 'make lint     set up, then ruff, what may import what, and types'
	@echo 'make lock     refresh requirements.lock and tools/build.lock (lock-site: tools/site.lock)'
	@echo 'make env-device, test-device, lock-device'
	@echo '              the same for .venv-device, which has what a lent GPU machine has (Python 3.12)'
	@echo 'make clean    remove caches; `make distclean` removes .venv and .venv-device too'
	@echo 'PYTHON=/path/to/python3.12 chooses the interpreter of .venv'

env:
	@tools/setup.sh env

env-device:
	@tools/setup.sh env-device

env-site:
	@tools/setup.sh env-site

# The training stages, then the device tier, as on a lent GPU machine: its versions, a plain tree.
# `rungs` compile, which takes a minute each.
DEVICE := .venv-device/bin/python -m
STAGES := --preset digits --results runs/device/results
test-device: env-device
	@rm -rf runs/device
	@$(DEVICE) pipelines.prepare $(STAGES)
	@$(DEVICE) pipelines.train $(STAGES) --set train.steps=40 --device cpu
	@$(DEVICE) pipelines.evaluate $(STAGES) --set evaluate.require_learning=false --device cpu
	@$(DEVICE) pipelines.aggregate $(STAGES)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS-1} $(DEVICE) pytest --tier=device -k 'not rungs' $(PYTEST_ARGS)

# Ends with the closing line of pytest, so nothing may be printed after it.
test: env
	@mkdir -p results
	@echo 'Tests: pytest with $(WORKERS) processes; JUnit XML in results/junit.xml,' \
	      'parity JSON in results/tests/'
	@$(IN_VENV) TF_CPP_MIN_LOG_LEVEL=$${TF_CPP_MIN_LOG_LEVEL-3} \
	  OMP_NUM_THREADS=$${OMP_NUM_THREADS-1} \
	  pytest -n $(WORKERS) --dist=worksteal --benchmark-disable --junitxml=results/junit.xml \
	  $(PYTEST_ARGS)

# Stages after a failed one still run where they can, and the report is written all the same.
repro: env
	@echo 'Pipeline: dvc repro'
	@export $(IN_VENV) TF_CPP_MIN_LOG_LEVEL=$${TF_CPP_MIN_LOG_LEVEL-3}; \
	  dvc repro --keep-going || { python -m pipelines.report --unfinished; exit 1; }
	@test -f results/report.html || { echo 'dvc repro left no results/report.html' >&2; exit 1; }
	@echo 'Report: results/report.html'

# Programs write the reference pages in .venv; the builder has an environment of its own, since it reads
# the sources and imports none of them. A link that leads nowhere ends the build.
site: env env-site
	@$(IN_VENV) python -m pipelines.pages
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --quiet --strict
	@echo 'Site: build/site/index.html'

mutants: env
	@$(IN_VENV) TF_CPP_MIN_LOG_LEVEL=$${TF_CPP_MIN_LOG_LEVEL-3} \
	  python -m parity_tests.mutants.random_bugs --n $(N) --seed $(SEED)

lint: env
	@$(IN_VENV) ruff check .
	@$(IN_VENV) lint-imports
	@$(IN_VENV) mypy

lock:
	@tools/setup.sh lock

lock-device:
	@tools/setup.sh lock-device

lock-site:
	@tools/setup.sh lock-site

clean:
	@echo 'Removing caches (results, data and .venv stay)'
	@rm -rf .pytest_cache .hypothesis .ruff_cache .benchmarks build dist *.egg-info
	@find . -name __pycache__ -type d -not -path './.venv*' -not -path './.uv/*' -prune \
	  -exec rm -rf {} +

distclean: clean
	@echo 'Removing .venv, .venv-device and .venv-site'
	@rm -rf .venv .venv-device .venv-site .uv
