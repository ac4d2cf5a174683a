# `make help` lists the verbs. Every verb sets up .venv first if it has to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(wildcard csrc/*/*.cpp csrc/*/*.h)
SIDE_SOURCES := $(wildcard tests/fakes/*.cpp tests/native/sanitize/*.cpp tests/native/sanitize/*.h tools/cupti_probe/*)
DEMO := build/demo.qmt
H200 := tests/data/h200-vllm-gptq.qmt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-gpu lint format sanitize bench docs clean

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml setup.py constraints-dev.txt $(NATIVE)
	@echo "setting up $(VENV): a few minutes the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints-dev.txt -e '.[engine,dev,docs]'
	touch $@

demo: $(STAMP)  ## trace the embedded model on this machine and print its report, then the report of an H200
	rm -rf $(DEMO)
	mkdir -p build
	$(BIN)/qmeter-native trace --model builtin:stdlib-lm --requests 8 --input-len 128 --output-len 32 --output $(DEMO)
	@echo; echo "vLLM, recorded on an NVIDIA H200:"
	$(BIN)/qmeter-native report $(H200)

test: $(STAMP)  ## run the test suite (about three minutes on 2 cores)
	$(BIN)/python -m pytest -q -n 2 -m 'not slow and not gpu'

test-slow: $(STAMP)  ## run the long lane too: long tests, sanitizers, ABI check
	$(BIN)/python -m pytest -q -n 2 -m slow
	$(MAKE) sanitize
	$(BIN)/python tools/check_abi.py

test-gpu: $(STAMP)  ## run the tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -q -m gpu tests/gpu

lint: $(STAMP)  ## ruff, mypy --strict, import-linter, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(NATIVE) $(SIDE_SOURCES)

format: $(STAMP)  ## format Python and C++
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE) $(SIDE_SOURCES)

sanitize: $(STAMP)  ## run the native core under ASan, UBSan and TSan, on fakes of NVML and CUPTI
	tools/sanitize.sh

bench: $(STAMP)  ## measure what can be measured without a GPU; results go to docs/results
	$(BIN)/python tools/bench_analysis.py

docs: $(STAMP)  ## build the guide into site/
	$(BIN)/mkdocs build -q --strict

clean:  ## remove what was built
	rm -rf build site $(VENV) qmeter_native/*.so
