# make demo   one simulated intraoperative session, end to end      (PREOP=volume SEED=n OUT=folder)
# make test   linters, types, unit, scene and peer tests
# make bench  every benchmark; make bench-NAME one of them          make soak  long fuzz and soak
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
export PYTHONPATH := $(CURDIR)/IntraopMRIReconstruction:$(CURDIR)/IntraopMRI:$(CURDIR)/Testing
# One BLAS thread: a second process on the cores otherwise costs several times the work.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

SOURCES := IntraopMRI IntraopMRIReconstruction Testing
BENCHES := $(patsubst Testing/benchmarks/bench_%.py,%,$(wildcard Testing/benchmarks/bench_*.py))

.PHONY: demo test lint types unit bench soak setup setup-bench screenshots app cmake-lists clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile | head -3

setup: $(VENV)/.ready

$(VENV)/.ready: Testing/requirements.txt Testing/requirements-data.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, found: $$($(PYTHON) --version). Name another with make PYTHON=python3.12"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: sudo apt-get install python3-venv"; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -r Testing/requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r Testing/requirements-data.txt
	@touch $@

# The peers want other versions of numpy and scipy than Slicer bundles: an environment of their own.
$(VENV)-bench/.ready: $(VENV)/.ready Testing/benchmarks/requirements.txt
	@test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -r Testing/requirements.txt -r Testing/benchmarks/requirements.txt
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r Testing/requirements-data.txt
	@touch $@

setup-bench: $(VENV)-bench/.ready

demo: setup
	@Testing/system-packages.sh demo
	$(PY) -m IntraopMRILib.cli demo --out $(or $(OUT),demo-output) $(if $(PREOP),--preop "$(PREOP)") $(if $(SEED),--seed $(SEED))

test: setup
	@Testing/system-packages.sh test
	@$(MAKE) --no-print-directory lint types unit

lint: setup
	$(PY) -m ruff check $(SOURCES)
	$(PY) -m ruff format --check $(SOURCES)

types: setup
	$(PY) -m mypy IntraopMRI/IntraopMRILib IntraopMRIReconstruction/IntraopMRIReconstructionLib Testing

# The panels have a process of their own: they reload the modules as a person in Slicer may, under everything else.
unit: setup
	$(PY) -m pytest Testing/host Testing/panels
	$(PY) -m pytest --ignore=Testing/host --ignore=Testing/panels

bench: $(addprefix bench-,$(BENCHES))

bench-%: setup-bench
	@Testing/system-packages.sh bench
	$(VENV)-bench/bin/python Testing/benchmarks/bench_$*.py

soak: setup
	$(PY) Testing/benchmarks/soak.py
	$(PY) Testing/benchmarks/soak_links.py
	$(PY) Testing/benchmarks/soak_storm.py

# The modules in a window, without Slicer; pictures of it where there is no screen.
app: setup
	@Testing/system-packages.sh app
	$(PY) -m host

# Pictures of every page, taken during a simulated session, and of the demo's views: those that the README shows.
screenshots: setup
	@Testing/system-packages.sh demo
	$(PY) Testing/panels/screenshots.py
	$(PY) -m IntraopMRILib.cli demo --seed 3 --out demo-output
	cp demo-output/brain/pointer.png Resources/Screenshots/brain-pointer.png
	cp demo-output/spine/overview.png Resources/Screenshots/spine-overview.png

# Slicer packages exactly the files that the two CMakeLists.txt name.
cmake-lists:
	@$(PYTHON) Testing/extension/cmake_lists.py

clean:
	rm -rf $(VENV) $(VENV)-bench demo-output bench-output build
