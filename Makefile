# One command each; every one installs the Debian packages it needs (root or sudo) and builds what it runs.
#   make demo    the main job, with the real qs, in a temporary directory
#   make test    release build, every test; at the end what was skipped and why, and ctest's summary
#   make check   ASan+UBSan, clang, clang-tidy, fuzz targets for a while
#   make bench   speed, as ratios against peers
#   make soak    open-ended: simulation seeds, fuzzing, kill rounds (SOAK_SECONDS, default 3600)
JOBS ?= 2
CTEST_FLAGS ?= --output-on-failure --no-tests=error

.PHONY: all demo test check bench soak install clean

all:
	@scripts/install-packages
	@cmake --preset release >/dev/null
	@cmake --build --preset release -j $(JOBS) --target qs

demo: all
	@python3 scripts/demo.py build/release/qs

test:
	@scripts/install-packages check
	@cmake --preset release -DQS_BUILD_BENCH=OFF
	@cmake --build --preset release -j $(JOBS)
	@scripts/fuzz $(JOBS)
	@scripts/test build/release -j $(JOBS) $(CTEST_FLAGS)

check:
	@scripts/install-packages check
	@scripts/check $(JOBS)

bench:
	@scripts/install-packages bench
	@cmake --preset release -DQS_BUILD_BENCH=ON
	@cmake --build --preset release -j $(JOBS)
	@scripts/bench

soak:
	@scripts/install-packages check
	@scripts/soak $(JOBS)

install: all
	@cmake --install build/release

clean:
	rm -rf build
