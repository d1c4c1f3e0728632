# Each target sets up .venv by itself; it needs Python 3.11 and make only.

# Asking the interpreter for its path, because a pyenv shim can be on PATH
# without a Python 3.11 behind it.
PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' \
	2>/dev/null || echo python3)
BIN := .venv/bin
PIPELINE_ROOT := pipelines/demo
MODEL_DIR := models/demo

# TensorFlow's start-up notes would bury our own output.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-all lint clean
# Two installations into one environment must not run at once.
.NOTPARALLEL:

# Fewer steps than the preset's 12,000, for slower machines' sake, and so a
# higher FID to be allowed.
demo: .venv/installed
	$(BIN)/python -m pipeline.run --dataset=mnist --steps=8000 \
		--max_fid=15 --require_push \
		--pipeline_root=$(PIPELINE_ROOT) --model_dir=$(MODEL_DIR)
	$(BIN)/python -m serving.demo --model_dir=$(MODEL_DIR) \
		--output=$(PIPELINE_ROOT)/demo.png
	@echo "64 images by the embedded server: $(PIPELINE_ROOT)/demo.png"

test: .venv/installed-dev
	$(BIN)/python -m pytest

test-all: .venv/installed-dev
	$(BIN)/python -m pytest -m ""

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Leaves data/, runs/, pipelines/ and models/: they are the user's work.
clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist *.egg-info
	find transgan_tf pipeline serving tests -name __pycache__ -prune \
		-exec rm -rf {} +

.venv/installed: setup.py pyproject.toml | $(BIN)/pip
	$(BIN)/pip install -e ".[pipeline,serving]"
	touch $@

.venv/installed-dev: setup.py pyproject.toml | $(BIN)/pip
	$(BIN)/pip install -e ".[dev]"
	touch $@

$(BIN)/pip:
	$(PYTHON) -m venv .venv
