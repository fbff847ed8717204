# `make` lists what it can do. Every target but `gpu` and `test-gpu` makes .venv first, where that has not been done, and
# installs into it. Those two take the .venv that is there, or else a python3 that has what vitbench needs, because a GPU
# that is lent for minutes leaves no time for more.
PYTHON ?= python3
BIN := .venv/bin
PYTHON_THERE = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
SITE := $(BIN)/python -m sphinx -c docs --fail-on-warning --keep-going --nitpicky --quiet
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

help:  ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

demo: .venv  ## train a ViT, run the quickstart study, print its table and draw its figure (4 minutes)
	$(BIN)/vitbench train model=vit pe=learned optim.steps=150 data.test_images=1000
	$(BIN)/vitbench sweep study=quickstart hydra/launcher=joblib
	$(BIN)/vitbench table study=quickstart
	$(BIN)/vitbench plot study=quickstart file=figures/quickstart.svg

test: .venv  ## the fast tests (5 to 9 minutes)
	$(THREADS) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

test-slow: .venv  ## the long tests: killed runs, full disks, odd files, the wheel
	$(THREADS) $(BIN)/python -m pytest -n 2 --dist loadgroup -m "slow and not gpu"

test-oldest: .venv-oldest/installed  ## a step, tables and images, with the oldest packages that vitbench takes
	$(THREADS) .venv-oldest/bin/python -m pytest -n 2 -m "not slow and not gpu" $(OF_OLD)

test-gpu:  ## the tests that need a GPU
	@$(PYTHON_THERE) -c 'import sys, torch; torch.cuda.is_available() or sys.exit("make test-gpu: torch sees no GPU here")'
	PYTHONPATH=$(CURDIR):$(PYTHONPATH) $(PYTHON_THERE) -m pytest -m gpu tests/gpu

lint: .venv  ## ruff, and that imports go down (import-linter)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv  ## mypy
	$(BIN)/mypy

report: .venv  ## make results/ again from its runs.csv, and check it
	$(BIN)/vitbench report
	$(BIN)/vitbench report check=true

docs: .venv  ## make a site of docs/: build/docs/index.html
	$(SITE) -b html . build/docs

linkcheck: .venv  ## try every link of docs/ to another site, which needs a network
	$(SITE) -b linkcheck . build/linkcheck

reference: .venv  ## write the pages of docs/reference/ that are made from the code: settings, commands, records, names
	@PYTHONPATH=$(CURDIR):$(PYTHONPATH) $(BIN)/python tools/settings_reference.py
	@PYTHONPATH=$(CURDIR):$(PYTHONPATH) $(BIN)/python tools/records_page.py
	@PYTHONPATH=$(CURDIR):$(PYTHONPATH) $(BIN)/python tools/result_names_page.py

bench: .venv  ## measure the speed on this machine's processor into results/bench/cpu.json (30 minutes)
	$(THREADS) $(BIN)/vitbench bench device=cpu file=results/bench/cpu.json
	$(BIN)/vitbench report

LOCK := $(BIN)/uv pip compile pyproject.toml --extra test --generate-hashes --python-version 3.11 --no-annotate --quiet
lock: .venv  ## choose the newest and the oldest versions of what vitbench needs again, with their hashes, into requirements/
	$(BIN)/pip install --quiet uv
	$(LOCK) --extra docs --extra release --universal --upgrade --output-file requirements/newest.txt
	$(LOCK) --extra trackio --resolution lowest-direct --python-platform linux --upgrade --output-file requirements/oldest.txt

# each variable that was given travels as a word: make gpu limit=540 out=FOLDER
gpu:  ## run the GPU tests, the measurements and a study on a GPU within limit=540 seconds (docs/how-to/gpu.md)
	@PYTHONPATH=$(CURDIR):$(PYTHONPATH) $(PYTHON_THERE) tools/gpu.py $(filter-out PYTHON=% BIN=%,$(MAKEOVERRIDES))

# words as for `gpu`: make rounds kinds=kill,damage rounds=3
rounds: .venv  ## kill and damage runs, starve them of disk and memory, and compare what they leave (docs/explanation/reliability.md)
	@PYTHONPATH=$(CURDIR):$(PYTHONPATH) $(BIN)/python tools/rounds.py $(filter-out PYTHON=% BIN=%,$(MAKEOVERRIDES))

# GPU machines often have a torch that is not new; pyproject.toml says which one is old enough. With TORCH_OF=.venv the
# torch and the CUDA of that environment stay (3 GB), and all other packages are the oldest: so CI does it.
OF_OLD := $(addprefix tests/,trackers training/test_fake_cuda.py training/test_graph.py $(if $(TORCH_OF),data/test_decode.py comparing fitting using test_plot.py))
WITHOUT_TORCH := awk '/^[a-z]/ {keeps = !/^(torch|torchvision|triton|nvidia-|cuda-)/} keeps'
.venv-oldest/installed: pyproject.toml requirements/oldest.txt
	$(PYTHON) -m venv .venv-oldest
	$(if $(TORCH_OF),$(WITHOUT_TORCH),cat) requirements/oldest.txt > .venv-oldest/requirements.txt
	.venv-oldest/bin/pip install --quiet --no-deps --require-hashes -r .venv-oldest/requirements.txt
	.venv-oldest/bin/pip install --quiet --no-deps -e .
	$(if $(TORCH_OF),echo $(CURDIR)/$(TORCH_OF)/lib/python3*/site-packages > $$(echo .venv-oldest/lib/python3*/site-packages)/torch.pth)
	@touch $@

# a stamp, so that an interrupted installation is done again
.venv: .venv/installed
.venv/installed: pyproject.toml requirements/newest.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "vitbench needs Python 3.11 to 3.13; $$($(PYTHON) -V) was found. Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --require-hashes -r requirements/newest.txt
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $@

.PHONY: help demo test test-slow test-oldest test-gpu lint types report docs linkcheck reference bench lock gpu rounds
