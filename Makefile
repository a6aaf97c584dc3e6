# make train       create the environment, install, and train on generated lesions (one to two minutes)
# make test        create the environment, install, and run the whole test suite, on all cores
# make lint        check style and formatting
# make gradcheck   check every derivative against finite differences
# make exercise N=3 E=2    check the exercises of chapter 3, or only the second of them
# make docs        build the site of the chapters and the API reference in build/site
# make assault SECONDS=3600 SEED=0    attack the program with damaged files, kills and second processes
# make clean       remove the environment
# make notebook    write docs/annotated-r2unet.ipynb, the chapters as one Jupyter notebook
#
# make gpu-check            on a CUDA GPU: tests, gradients, training and speed; uses the installed packages
# make gpu-check OUT=dir    write the results to dir instead of docs/gpu

PYTHON ?= python3
BIN = .venv/bin

.PHONY: train test lint gradcheck exercise assault docs notebook gpu-check clean

train: .venv/installed
	$(BIN)/r2unet train --size 64 --images 360 --epochs 6 --lr 3e-3 --augment 0.25 --out runs/generated --resume

test: .venv/installed-test
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

gradcheck: .venv/installed
	$(BIN)/python -m minidl.gradcheck

exercise: .venv/installed
	@$(BIN)/python -m exercises $(N) $(E)

docs: .venv/installed-docs
	$(BIN)/python docs/site/build.py --out build/site

notebook: .venv/installed
	$(BIN)/python docs/site/notebook.py

assault: .venv/installed-test
	$(BIN)/python -m tests.assault --seconds $(or $(SECONDS),600) --seed $(or $(SEED),0)

gpu-check:
	PYTHONPATH=. $(PYTHON) -m benchmarks.gpu_check --out $(or $(OUT),docs/gpu)

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; select it with: make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/installed-test: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@ .venv/installed

.venv/installed-docs: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@ .venv/installed
