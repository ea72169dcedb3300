# `make demo` and `make test` need Python >= 3.10 and nothing else; both use .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo search test test-fast test-thorough coverage bench lint docs clean

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[test]'
	@# on all cores; pip compiles on one, which is half of its time. Files for newer Pythons fail
	@$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null 2>&1 || true
	touch $@

demo: .venv/ready  ## compress the demo checkpoint, search with the cascade, measure, draw: minutes
	@echo "1/4 compress: the joint rule, to 7.5 % of the full tower's time"
	@$(BIN)/python -m compress.joint --config configs/demo-joint.toml --overwrite
	@echo "2/4 compress: early exits alone, to compare with"
	@$(BIN)/python -m compress.early_exit --config configs/demo-exit.toml --overwrite
	@echo "3/4 search 1,000 images by 5,000 captions with each, alone and before the full tower"
	@$(BIN)/python -m evaluation.cascade --config configs/demo.toml --overwrite
	@echo "4/4 draw"
	@$(BIN)/python -m figures.pareto --report results/demo/report.json --overwrite
	@$(BIN)/python -m demo.closing --report results/demo/report.json

search: .venv/ready  ## a collection of 300 drawn scenes, made by two stages, asked three queries
	@echo "1/3 draw"
	@$(BIN)/python -m demo.scenes --images 300 --output results/search/scenes --overwrite
	@echo "2/3 index"
	@$(BIN)/python -m cascade.index results/search/scenes --into results/search/scenes.cascade \
		--first demo/clip-scenes-first --last demo/clip-scenes
	@echo "3/3 search"
	@$(BIN)/python -m cascade.search results/search/scenes.cascade --queries demo/queries.txt -k 3

test: .venv/ready lint  ## lint and the tests, each on one thread, as many at once as there are cores
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-fast: .venv/ready  ## the tests for the edit loop: all but those that tests/slow.txt names
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow"

test-thorough: .venv/ready  ## the tests with all parameters and examples that they have
	THOROUGH=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

coverage: .venv/ready  ## lines that the fast tests run, by file
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow" --cov --cov-report=term-missing

bench: .venv/ready  ## speed, measured and never asserted in `make test`
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/docs-ready  ## the site, in docs/_build; a warning is an error
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "wrote docs/_build/index.html"

.venv/docs-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv build dist docs/_build *.egg-info
