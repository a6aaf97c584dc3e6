# make train   creates the environment, installs, trains on generated lesions (one to two minutes)
# make test    creates the environment, installs, runs the whole test suite
# make lint    checks style and format
# make clean   removes the environment
#
# make gpu-check            with CUDA: tests, gradients, training and speed on the GPU; uses what is installed
# make gpu-check OUT=dir    writes its results there instead of docs/gpu

PYTHON ?= python3
BIN = .venv/bin

.PHONY: train test lint gradcheck gpu-check clean

train: .venv/installed
	$(BIN)/r2unet train --size 64 --images 360 --epochs 6 --lr 3e-3 --augment 0.25 --out runs/generated --resume

test: .venv/installed-test
	$(BIN)/python -m pytest

lint: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

gradcheck: .venv/installed
	$(BIN)/python -m minidl.gradcheck

gpu-check:
	PYTHONPATH=. $(PYTHON) -m benchmarks.gpu_check --out $(or $(OUT),docs/gpu)

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; name one: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/installed-test: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@ .venv/installed
