# make demo   trains on a real game and compares both modes on unseen levels (about ten minutes)
# make test   runs the tests, whole files side by side on up to four cores
# make coverage   the same, and which lines they reach (slower)
# make lint   formatting, style and types
# Each sets up .venv by itself; nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := runs/demo
export PYTHONUNBUFFERED := 1

.PHONY: demo test coverage lint format clean

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info < (3, 13); sys.exit(None if ok else "Python %d.%d found, 3.10 to 3.12 needed: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/forethought train procgen:fruitbot --run $(DEMO) --env.distinct-actions \
		--schedule.prefill-updates 2000 --schedule.rounds 12 --schedule.round-updates 110
	$(BIN)/forethought compare $(DEMO) --episodes 64 --no-train-levels

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m coverage run --source=agent,modules,planners,envs -m pytest
	for folder in agent modules planners envs; do $(BIN)/python -m coverage report --include="$$folder/*" --skip-covered; done

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/installed
	$(BIN)/python -m pip install --quiet --no-deps --target build/installed .
	cd build && MYPYPATH=installed ../$(BIN)/python -m mypy --config-file ../pyproject.toml -p forethought

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage
