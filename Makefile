# SPDX-License-Identifier: MIT
# The commands of this project. Each sets up what it needs first; nothing is done twice.
#   make train ARGS="--epochs 2"      ARGS goes to the command behind the target
#   make PYTHON=python3.12 test       another interpreter for .venv (3.11 or newer)

PYTHON ?= python3
ARGS ?=
JOBS ?= $(shell nproc)
BIN := .venv/bin
STAMP := .venv/trit-setup.stamp
# The GPU's kernels where there are a driver and a compiler for them. make build CUDA=ON or CUDA=OFF says it outright.
CUDA ?= $(if $(and $(shell command -v nvidia-smi),$(or $(shell command -v nvcc),$(wildcard /usr/local/cuda/bin/nvcc))),ON,OFF)
BUILD := $(BIN)/cmake --build --preset release --parallel $(JOBS)

.DEFAULT_GOAL := help
.PHONY: help train build test bench wheel data fuzz interop format lint docs setup configure clean

help: ## this list
	@echo "trit: ternary (1.58-bit) linear layers. Targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo 'Options go through ARGS: make train ARGS="--epochs 2 --out runs/mine"; make train ARGS=--help lists them.'

train: configure ## train SimpleBitNetCNN on CIFAR-10, export it packed, run it without torch
	@$(BUILD) --target bin/trit bin/train_cifar10
	@$(BIN)/python scripts/train.py $(ARGS)

build: configure ## build everything
	@$(BUILD)

test: configure ## build everything and run all tests (real images: TRIT_CIFAR10=FOLDER)
	@$(BUILD)
	@$(BIN)/ctest --preset release $(ARGS)

bench: configure ## run the benchmarks
	@$(BUILD)
	@$(BIN)/python bench/run.py $(ARGS)

wheel: setup ## the Python package as a wheel in dist/ (with the GPU half where nvcc is)
	@$(BIN)/python scripts/wheel.py $(ARGS)

data: setup ## fetch the data set alone and say where it lies
	@$(BIN)/python scripts/get_data.py $(ARGS)

fuzz: setup ## fuzz the file readers, 10 minutes each (ARGS="--seconds 60", ARGS="--runs 10000000 gguf")
	@$(BIN)/python fuzz/run.py $(ARGS)

interop: configure ## GGUF files against ggml's own code and in llama.cpp, from the packages llama-cpp-python and xllamacpp
	@$(BUILD) --target bin/trit
	@$(BIN)/python tests/io/interop_ggml.py $(ARGS)
	@$(BIN)/python tests/io/interop_llama_cpp.py

format: setup ## format the C++ sources in place
	@git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs $(BIN)/clang-format -i

lint: configure ## clang-format and clang-tidy, as CI does
	@$(BIN)/python scripts/lint.py $(ARGS)

docs: ## the API reference of include/trit by Doxygen: build-docs/html/index.html
	@$(PYTHON) scripts/setup.py --docs
	@mkdir -p build-docs
	@sed -n 's/^#define TRIT_VERSION "\(.*\)"/PROJECT_NUMBER = \1/p' include/trit/version.h | cat Doxyfile - | doxygen -
	@echo "build-docs/html/index.html"

setup: ## system packages and .venv; every other target calls it
	@$(PYTHON) scripts/setup.py

configure: build/build.ninja

# ninja itself runs CMake again when a CMake file has changed; a new .venv wants a new configuration.
build/build.ninja: $(STAMP) CMakePresets.json
	@$(BIN)/cmake --preset release --fresh -DTRIT_CUDA=$(CUDA)
	@touch $@
$(STAMP): setup
	@:

clean: ## remove what was built (keeps .venv, data and runs)
	rm -rf build build-wheel build-debug build-asan build-cuda build-cuda-torch build-fuzz build-aarch64 build-no-torch build-docs
