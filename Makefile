# Every target sets up what it needs, in $(VENV), and does it once: Python 3.10 or newer, make and bash are enough.
# PYTHON=... chooses the interpreter. Without it the first one that really runs is taken (a version manager's shim may
# be there and dead), 3.11 before the others, because constraints.txt pins torch there.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup setup-jetson demo engines wheelhouse test check check-tensorrt bench chaos trt-bindings FORCE

PYTHON ?=
VENV := .venv
LOWEST_VENV := .venv310
ENGINES := dist/engines
WHEELHOUSE := dist/wheelhouse
DEVICE_CHECKS := dist/check-tensorrt
RUNTIME := onnx_trt_ep
PROVIDER :=
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --quiet install

PYENV_PYTHONS = "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions
CANDIDATES = $(or $(PYTHON),python3.11 python3 python3.10 python3.12 python3.13 $(PYENV_PYTHONS)/3.1[0-3].*/bin/python3)
CANDIDATES_310 = python3.10 python3 $(PYENV_PYTHONS)/3.10.*/bin/python3

# $(call find_python,candidates,condition): a shell command that prints the first candidate that runs and meets it
find_python = for python in $(1); do \
    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not ($(2)))' 2>/dev/null; then echo "$$python"; break; fi; done

# An interpreter that was asked for by name and is not the one in $(VENV) makes $(VENV) anew.
ifneq ($(PYTHON),)
base_prefix = $(shell $(1) -c 'import sys; print(sys.base_prefix)' 2>/dev/null)
ifneq ($(call base_prefix,$(PYTHON)),$(call base_prefix,$(BIN)/python))
$(VENV)/installed: FORCE
endif
endif

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## everything below does this by itself: a virtual environment with all that is pinned

demo: $(VENV)/installed ## the whole story on this machine: provision, take off, fly, throttle, crash, recover
	@$(BIN)/c7 demo

engines: $(VENV)/installed ## the demo's engines for this very machine, in dist/engines (RUNTIME=... PROVIDER=... choose)
	@plan=$$($(BIN)/python -m actors.demo.engines $(ENGINES) --runtime $(RUNTIME) $(if $(PROVIDER),--provider $(PROVIDER)))
	$(BIN)/c7 provision "$$plan"
	$(BIN)/c7 engines verify "$$plan"
	echo "$$(du -sh $(ENGINES) | cut -f1) in $(abspath $(ENGINES)): plan, models and store, to be published as they are"

# Never the extra `tensorrt`: JetPack brings its own. pip reads a marker for the machine that runs it, so that none could
# keep TensorRT out of a wheelhouse that a workstation gathers.
JETSON_EXTRAS := test,demo,tensorrt-tools

# JetPack 6 is Ubuntu 22.04: glibc 2.35, CPython 3.10. pip takes the tags by name and derives no older ones from them.
JETSON := --python-version 3.10 --implementation cp --only-binary=:all: --platform linux_aarch64 \
    --platform manylinux2014_aarch64 $(foreach glibc,17 24 26 27 28 31 34 35,--platform manylinux_2_$(glibc)_aarch64)

# pip reads a requirement's markers for the Python that runs it, so that only Python 3.10 finds all that a Jetson needs.
# The wheel is named by its path: an index may give its name to anybody.
wheelhouse: $(LOWEST_VENV)/installed ## all wheels that a Jetson without a network needs, in dist/wheelhouse
	@if [ ! -e $(LOWEST_VENV)/installed ]; then
	    echo "Expected Python 3.10, the Jetson's, with its modules venv and ensurepip; none of these is one that runs:" >&2
	    echo $(CANDIDATES_310) >&2
	    exit 1
	fi
	pip="$(LOWEST_VENV)/bin/python -m pip --disable-pip-version-check --quiet"
	rm -rf $(WHEELHOUSE) build && mkdir -p $(WHEELHOUSE)  # build/ keeps modules that are gone, and packs them again
	$$pip wheel --no-deps --no-build-isolation -w $(WHEELHOUSE) .
	rm -rf build
	wanted=("$$(echo $(WHEELHOUSE)/c7_inference-*.whl)[$(JETSON_EXTRAS)]" setuptools)
	$$pip download $(JETSON) -c constraints-lowest.txt --find-links $(WHEELHOUSE) -d $(WHEELHOUSE) "$${wanted[@]}"
	resolved=$$(mktemp -d) && trap 'rm -rf "$$resolved"' EXIT
	$$pip install --dry-run --no-index $(JETSON) -c constraints-lowest.txt --find-links $(WHEELHOUSE) --target "$$resolved" "$${wanted[@]}"
	echo "$$(ls $(WHEELHOUSE)/*.whl | wc -l) wheels, $$(du -sh $(WHEELHOUSE) | cut -f1), in $(abspath $(WHEELHOUSE)); they resolve without an index"
	echo "Not among them, because JetPack brings its own: tensorrt, torch, onnxruntime. On the Jetson, in a checkout:"
	echo "PIP_NO_INDEX=1 PIP_FIND_LINKS=$(WHEELHOUSE) make setup-jetson"

test: $(VENV)/installed $(LOWEST_VENV)/installed ## all tests; again on Python 3.10, where there is one, with the lowest versions and no torch
	@failed=0
	lowest="no working Python 3.10 here: the lowest versions were not tested"
	lowest_run=
	if [ -e $(LOWEST_VENV)/installed ]; then  # beside the other run: each leaves one of two cores idle
	    $(LOWEST_VENV)/bin/python -m pytest -q -m "not torch and not chaos" >$(LOWEST_VENV)/tests.txt 2>&1 & lowest_run=$$!
	    trap 'kill $$lowest_run 2>/dev/null || true' EXIT
	fi
	$(BIN)/python -m pytest -q | tee $(VENV)/tests.txt || failed=1
	if [ -n "$$lowest_run" ]; then
	    wait $$lowest_run || failed=1
	    cat $(LOWEST_VENV)/tests.txt
	    lowest="$$($(LOWEST_VENV)/bin/python -V), lowest versions, no torch: $$(tail -n 1 $(LOWEST_VENV)/tests.txt)"
	fi
	echo
	echo "$$($(BIN)/python -V), pinned versions: $$(tail -n 1 $(VENV)/tests.txt)"
	echo "$$lowest"
	exit $$failed

check: $(VENV)/installed ## ruff (lint and format), mypy, import contracts
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed ## what a message costs, in time and memory, what a restart does; what verifying engines costs
	@for subject in message_path message_stalls message_memory thermal_read restart_latency engine_restart verification; do
	    $(BIN)/python -m benchmarks.$$subject
	done

chaos: $(VENV)/installed ## the tests that break things for minutes
	@$(BIN)/python -m pytest -q -s -m chaos

# What other runtimes do on a GPU needs libraries of their own, and is none of this.
ASKED_OF_A_DEVICE := tests/runtimes/cuda tests/runtimes/tensorrt tests/runtimes/test_runtime_contract.py

# Both run, whatever the first one says: a figure beside a red test says more of a board than either.
check-tensorrt: $(VENV)/installed ## where TensorRT and a GPU are: what only they can prove, then what the demo's engines cost there
	@$(BIN)/python -c "$$tensorrt_is_here"
	mkdir -p $(DEVICE_CHECKS)
	failed=0
	$(BIN)/python -m pytest -ra -m "tensorrt or gpu" $(ASKED_OF_A_DEVICE) 2>&1 | tee $(DEVICE_CHECKS)/tests.txt || failed=1
	$(BIN)/python -m benchmarks.tensorrt_engines 2>&1 | tee $(DEVICE_CHECKS)/engines.txt || failed=1
	echo "What was said is in $(abspath $(DEVICE_CHECKS)), the table in $(abspath benchmarks/results)"
	exit $$failed

define tensorrt_is_here
import sys
from messages import C7Error
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.tensorrt.library import import_tensorrt
try:
    print("TensorRT", import_tensorrt().__version__)
    open_cuda(0).close()
except C7Error as error:
    sys.exit(f"Nothing can be checked here. {error}")
endef
export tensorrt_is_here

trt-bindings: $(VENV)/trt-bindings/installed $(LOWEST_VENV)/trt-bindings/installed ## fetches NVIDIA's bindings of TensorRT, for the tests that hold our code and its doubles against them

%/trt-bindings/installed: %/installed tests/bindings/requirements.txt tests/bindings/set_up.sh $(wildcard tests/bindings/stub/*)
	@if [ -e $*/installed ]; then tests/bindings/set_up.sh $*/bin/python $(@D); fi

ifneq ($(wildcard $(VENV)/jetson),)
$(VENV)/installed: $(VENV)/jetson
	@touch $@
else
$(VENV)/installed: pyproject.toml constraints.txt Makefile
	@if [ -e /etc/nv_tegra_release ]; then
	    echo "This is a Jetson: run 'make setup-jetson' first. It takes JetPack's own TensorRT, torch and ONNX Runtime." >&2
	    exit 1
	fi
	if [ -n "$(PYTHON)" ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then
	    python=$$($(call find_python,$(CANDIDATES),sys.version_info >= (3, 10)))
	    if [ -z "$$python" ]; then
	        echo "Expected Python 3.10 or newer, with its modules venv and ensurepip; none of these is one that runs:" >&2
	        echo $(CANDIDATES) >&2
	        echo "Install one (Debian, Ubuntu: python3 and python3-venv), or name yours: make setup PYTHON=..." >&2
	        exit 1
	    fi
	    "$$python" -m venv --clear $(VENV)
	fi
	version=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	extras=dev,demo,onnx
	if grep -q "^torch==.*== \"$$version\"" constraints.txt; then extras+=,torch
	else echo "constraints.txt pins no torch for Python $$version: it is not installed, and its tests are skipped"; fi
	cpu_only=
	if [ "$$(uname -sm)" != "Linux x86_64" ]; then cpu_only=onnxruntime; fi  # onnxruntime-gpu has no wheel there
	echo "Setting up $(VENV) with Python $$version; the first time this downloads for minutes"
	$(BIN)/python $(PIP) -c constraints.txt setuptools
	$(BIN)/python $(PIP) -c constraints.txt --no-build-isolation -e ".[$$extras]" $$cpu_only
	touch $@
endif

$(LOWEST_VENV)/installed: pyproject.toml constraints-lowest.txt Makefile
	@python=$$($(call find_python,$(CANDIDATES_310),sys.version_info[:2] == (3, 10)))
	if [ -z "$$python" ]; then rm -rf $(LOWEST_VENV); exit; fi  # `make test` says so at its end
	echo "Setting up $(LOWEST_VENV) with $$("$$python" -V) and the lowest versions"
	if ! $(LOWEST_VENV)/bin/python -m pip --version >/dev/null 2>&1; then "$$python" -m venv --clear $(LOWEST_VENV); fi
	$(LOWEST_VENV)/bin/python $(PIP) -c constraints-lowest.txt setuptools
	$(LOWEST_VENV)/bin/python $(PIP) -c constraints-lowest.txt --no-build-isolation -e ".[test,demo]" onnxruntime
	touch $@

# TensorRT, torch and ONNX Runtime are built for the board by NVIDIA: they are looked for before anything is installed,
# and again afterwards, so that none of them can have come from an index. The lowest versions are taken because JetPack's
# torch and ONNX Runtime are built against NumPy 1.
define from_the_system
import importlib, pathlib, sys
for name, package in (("tensorrt", "python3-libnvinfer"), ("torch", "NVIDIA's torch wheel"), ("onnxruntime", "NVIDIA's onnxruntime-gpu wheel")):
    try:
        found = pathlib.Path(importlib.import_module(name).__file__).resolve()
    except ImportError as error:
        sys.exit(f"expected JetPack's own {name} for {sys.executable}; found: {error}. Install {package}, then run make setup-jetson again")
    if pathlib.Path("$(VENV)").resolve() in found.parents:
        sys.exit(f"expected JetPack's own {name}; found {found}, which an index put there. Remove $(VENV), then run make setup-jetson again")
    print(f"{name}: {found.parent}")
endef
export from_the_system

setup-jetson: $(VENV)/jetson ## on a Jetson: the same, with JetPack's own TensorRT, torch and ONNX Runtime

$(VENV)/jetson: pyproject.toml constraints-lowest.txt Makefile
	@python=$(or $(PYTHON),/usr/bin/python3)
	"$$python" -c "$$from_the_system"
	"$$python" -m venv --system-site-packages $(VENV)
	$(BIN)/python $(PIP) -c constraints-lowest.txt setuptools
	$(BIN)/python $(PIP) -c constraints-lowest.txt --no-build-isolation -e ".[$(JETSON_EXTRAS)]"
	$(BIN)/python -c "$$from_the_system"
	touch $@ $(VENV)/installed
