# Each target sets up .venv by itself; it needs Python 3.11 and make only.

# Asking the interpreter for its path, because a pyenv shim can be on PATH
# without a Python 3.11 behind it.
PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' \
	2>/dev/null || echo python3)
BIN := .venv/bin
RUN_DIR := runs/mnist

# TensorFlow's start-up notes would bury our own output.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-all lint clean
# Two installations into one environment must not run at once.
.NOTPARALLEL:

demo: .venv/installed
	$(BIN)/python -m transgan_tf.train --dataset=mnist --run_dir=$(RUN_DIR)
	$(BIN)/python -m transgan_tf.sample --run_dir=$(RUN_DIR) \
		--num_images=64 --seed=0 --output=$(RUN_DIR)/demo.png
	@echo "The grid of 64 samples is $(RUN_DIR)/demo.png"

test: .venv/installed-dev
	$(BIN)/python -m pytest

test-all: .venv/installed-dev
	$(BIN)/python -m pytest -m ""

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Leaves data/, runs/ and models/: they are the user's work.
clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist *.egg-info
	find transgan_tf pipeline serving tests -name __pycache__ -prune \
		-exec rm -rf {} +

.venv/installed: setup.py pyproject.toml | $(BIN)/pip
	$(BIN)/pip install -e .
	touch $@

.venv/installed-dev: setup.py pyproject.toml | $(BIN)/pip
	$(BIN)/pip install -e ".[dev]"
	touch $@

$(BIN)/pip:
	$(PYTHON) -m venv .venv
