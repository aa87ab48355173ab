# Every target sets itself up. `make` alone shows this help.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3.11
PORT ?= 5000
# Folder of real images for `make real` and `make bench`: <task>/<class>/…
DATA ?=
# `make ui ROOT=.real` shows the runs of `make real`; `make bench ROOT=.real` measures its models.
ROOT ?= .
# Whose training `make bench` measures.
BENCH_TASKS ?= cats_dogs fish_species

VENV := $(CURDIR)/.venv
READY := .venv/.stamp
WEIGHTS := .cache/weights/.stamp
# DVC's stages call `fieldlens` by name.
export PATH := $(VENV)/bin:$(PATH)
# Nothing phones home; the commands themselves set the same (pipelines/quiet.py).
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: help setup repro test test-all check fix ui real clean
.PHONY: bench bench-prepare bench-latency bench-training bench-repro

help:  ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) $(WEIGHTS)  ## make .venv and fetch the default weights; afterwards no network is needed

repro: $(READY) $(WEIGHTS)  ## run the stages that are out of date, from images to released models
	dvc repro -k

test: $(READY)  ## quick tests: no network, no trained model, about a minute
	python -m pytest -q -m "not slow and not network"

test-all: $(READY) $(WEIGHTS)  ## every test
	python -m pytest -q

check: $(READY)  ## format, lint, types, import rules
	ruff format --check .
	ruff check .
	mypy
	lint-imports

fix: $(READY)  ## format, mend what ruff can mend, write dvc.yaml's code deps anew
	ruff format .
	ruff check --fix .
	python tests/contracts/test_dvc_yaml.py --write

ui: $(READY)  ## open MLflow on 127.0.0.1 (PORT=5000, ROOT=.real for the real images)
	cd $(ROOT) && mlflow ui --host 127.0.0.1 --port $(PORT) \
	  --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$$PWD/mlflow.db}" \
	  --default-artifact-root "file://$$PWD/mlartifacts"

bench: bench-prepare bench-latency bench-training bench-repro  ## measure again the figures of docs/LOG.md; takes an hour (DATA=folder, ROOT=.real)

bench-prepare: $(READY)
	python benchmarks/prepare.py $(if $(DATA),--folder "$(DATA)",--images 1000 5000 50000)

bench-latency: $(READY)
	python benchmarks/latency.py --root "$(ROOT)"

bench-training: $(READY) $(WEIGHTS)
	for task in $(BENCH_TASKS); do python benchmarks/training.py --root "$(ROOT)" --task $$task; done

bench-repro: $(READY)
	python benchmarks/repro.py

real: $(READY) $(WEIGHTS)  ## the same pipeline on real images: make real DATA=folder; writes docs/RESULTS.md
	@test -n "$(DATA)" || { echo "make real: name the folder of <task>/<class>/… : make real DATA=…" >&2; exit 2; }
	fieldlens workspace .real --data "$(DATA)"
	status=0; (cd .real && dvc repro -k) || status=$$?; \
	  fieldlens report --root .real --results docs/RESULTS.md; exit $$status

clean:  ## remove caches and build folders; keeps .venv, data, models and reports
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .cache/activations .cache/trunks .cache/checkpoints .cache/locks
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# The stamp goes first and comes last: an interrupted set-up is done again.
$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "make: there is no $(PYTHON). Fieldlens needs Python 3.11; name yours: make PYTHON=python3" >&2; exit 2; }
	rm -f $@
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[train,apps,dev]'
	touch $@

$(WEIGHTS): $(READY) pipelines/backbones/weights.py
	python -m pipelines.backbones.weights
	@mkdir -p $(@D) && touch $@
