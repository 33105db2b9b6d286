# Curvine. "make help" lists the targets. Objects go to build/, programs to build/bin.
# Variants build beside each other: make SAN=address,undefined | SAN=thread | CC=clang.

SHELL := /bin/bash
.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules

VERSION := 0.1.0
SAN     ?=
WERROR  ?=
ifeq ($(origin CC),default)
CC := gcc
endif
# RocksDB has calls that its C interface lacks: meta/master_flush.cc. Nothing else is C++.
CXX     := $(if $(findstring clang,$(CC)),clang++,g++)
comma   := ,
O       := build$(if $(SAN),/san-$(firstword $(subst $(comma), ,$(SAN))))$(if $(filter-out cc gcc,$(CC)),/$(notdir $(CC)))
# V=1 shows the commands.
Q       := $(if $(V),,@)
say      = $(if $(V),,@printf '  %-4s %s\n' $(1) $(2))
PREFIX     ?= /usr/local
LIBDIR     ?= lib
SYSCONFDIR ?= /etc
DESTDIR    ?=

# CFLAGS and LDFLAGS stay the packager's; ours are in flags. Under sanitizers the compiler takes most of the time.
CFLAGS ?= $(if $(filter address% thread,$(SAN)),-O1 -g1,-O2 -g)
flags  := -std=gnu17 -D_GNU_SOURCE -DCV_VERSION='"$(VERSION)"' -I. -Isrc -pthread -MMD -MP \
          -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings \
          -Wno-unused-parameter -Wno-missing-field-initializers -fno-strict-aliasing -fno-omit-frame-pointer \
          $(if $(WERROR),-Werror) $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all)
CXXFLAGS ?= $(CFLAGS)
cxxflags := -std=c++17 -I. -Isrc -pthread -MMD -MP -Wall -Wextra -Wno-unused-parameter -fno-omit-frame-pointer \
          $(if $(WERROR),-Werror) $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all)
ldflags := -pthread $(if $(SAN),-fsanitize=$(SAN)) -Wl,--as-needed

# Each module is one static archive; its folder's module.mk lists sources and pkg-config packages.
modules := base io wire place rocks conf rpc client ufs raft journal meta master block worker cvfs cli
include $(wildcard src/*/module.mk raft/module.mk meta/module.mk worker/module.mk fuse/module.mk cli/module.mk)

# In link order: a module uses only those behind it.
link_order := cli cvfs worker block master meta journal raft client ufs place rocks rpc conf wire io base
libs       := $(foreach m,$(link_order),$(if $($(m)_src),$(O)/lib/libcv_$(m).a))
# Red Hat's RocksDB has nothing for pkg-config. ROCKSDB=DIR: another one than the system's, in DIR/include and DIR/lib.
ROCKSDB    ?=
rocks      := $(if $(ROCKSDB)$(shell pkg-config --exists rocksdb || echo none),$(or $(ROCKSDB),/usr))
pkgs       := $(sort $(filter-out $(if $(rocks),rocksdb),$(foreach m,$(modules),$($(m)_pkgs))))

pkg_cflags = $(if $(1),$(shell pkg-config --cflags $(1) | sed 's/-I/-isystem /g'))
pkg_libs   = $(if $(1),$(shell pkg-config --libs $(1)))
# Asked for once, when something is built: "make help" and "make deps" work on a machine that has nothing yet.
needs_pkgs := $(if $(filter-out help deps quickstart check format clean deb rpm lab lab-deps lab-smoke fresh,$(or $(MAKECMDGOALS),all)),yes)
# (the Check library: for unit tests only)
all_cflags := $(if $(needs_pkgs),$(if $(ROCKSDB),-isystem $(ROCKSDB)/include) $(call pkg_cflags,$(pkgs) $(shell pkg-config --exists check && echo check)))
all_libs   := $(if $(needs_pkgs),$(if $(ROCKSDB),-L$(ROCKSDB)/lib -Wl$(comma)-rpath$(comma)$(ROCKSDB)/lib) $(if $(rocks),-lrocksdb) $(call pkg_libs,$(pkgs)) -lstdc++)
# Before 7 its C interface lacks some of what is used: src/rocks.
rocks_version := $(if $(needs_pkgs),$(shell printf '\043include <rocksdb/version.h>\nversion ROCKSDB_MAJOR ROCKSDB_MINOR' | \
    $(CXX) $(all_cflags) -E -P -x c++ - 2> /dev/null | awk '$$1 == "version" { print $$2 * 100 + $$3 }'))
ifneq ($(needs_pkgs),)
$(if $(rocks_version),,$(error no RocksDB: make deps))
$(if $(shell pkg-config --exists 'liburing < 2.3' && echo old),$(error liburing $(shell pkg-config --modversion liburing) is too old: 2.3 is the oldest))
$(if $(shell [ $(rocks_version) -ge 626 ] || echo old),$(error RocksDB is too old: 6.26 is the oldest that has what is needed (packaging/deps.list)))
all_cflags += $(if $(shell [ $(rocks_version) -ge 700 ] || echo old),-DCV_ROCKS_OLD)
endif

objs = $(patsubst %.cc,$(O)/obj/%.o,$(patsubst %.c,$(O)/obj/%.o,$(1)))

define module_rules
$(if $($(1)_src),$(O)/lib/libcv_$(1).a: $(call objs,$($(1)_src)))
endef
$(foreach m,$(modules),$(eval $(call module_rules,$(m))))

programs := $(patsubst bin/%.c,$(O)/bin/%,$(wildcard bin/*.c))
programs := $(subst cv_,cv-,$(programs))

##@ Building
.PHONY: help all deps quickstart
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

all: $(programs) libcurvine ## the programs, into build/bin, and libcurvine, into build/lib

deps: ## install everything that building and testing need (apt or dnf)
	packaging/deps.sh all

quickstart: ## from a fresh clone to a mounted sample, read cold and warm (QUICKSTART_DIR: where, ~/curvine-quickstart)
	@packaging/quickstart.sh

$(O)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(flags) $(all_cflags) $(CFLAGS) -fPIC -c $< -o $@

$(O)/obj/%.o: %.cc
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) $(cxxflags) $(all_cflags) $(CXXFLAGS) -fPIC -c $< -o $@

$(O)/lib/%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(call say,AR,$@)
	$(Q)$(AR) rcs $@ $^

# bin/cv_master.c becomes build/bin/cv-master
.SECONDEXPANSION:
$(O)/bin/%: $(O)/obj/bin/$$(subst -,_,$$*).o $(libs)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ldflags) $(LDFLAGS) $< -Wl,--start-group $(libs) -Wl,--end-group $(all_libs) -o $@

# libcurvine: shared (only curvine_* is visible, versioned) and static, with what it stands on.
soname   := libcurvine.so.0
# (without the daemons' options)
lib_src  := $(filter-out %_options.c,$(foreach m,client place rpc io wire base,$($(m)_src)))
.PHONY: libcurvine
libcurvine: $(O)/lib/$(soname) $(O)/lib/libcurvine.a $(O)/lib/curvine.pc

$(O)/lib/$(soname): $(call objs,$(lib_src)) src/client/curvine.map
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,$(soname) -Wl,--version-script,src/client/curvine.map -Wl,-z,defs $(ldflags) $(LDFLAGS) \
	    $(filter %.o,$^) $(all_libs) -o $@
	@ln -sf $(soname) $(O)/lib/libcurvine.so

$(O)/lib/libcurvine.a: $(call objs,$(lib_src))

# Each time: PREFIX may be another one.
.PHONY: FORCE
$(O)/lib/curvine.pc: src/client/curvine.pc.in FORCE
	@mkdir -p $(@D)
	@sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|; s|@LIBDIR@|$(LIBDIR)|' $< > $@

# Programs that only tests use: tests/tools/cv_oracle.c becomes build/tools/cv-oracle, tests/bench/*.c build/bench/*.
tools := $(patsubst tests/tools/cv_%.c,$(O)/tools/cv-%,$(wildcard tests/tools/cv_*.c))
.PHONY: tools
tools: $(tools)
$(O)/tools/cv-failover $(O)/test/test_linear: $(O)/obj/tests/tools/linear.o
$(O)/tools/cv-%: $(O)/obj/tests/tools/cv_%.o $(libs)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ldflags) $(LDFLAGS) $(filter %.o,$^) -Wl,--start-group $(libs) -Wl,--end-group $(all_libs) -o $@

benches := $(patsubst tests/bench/%.c,$(O)/bench/%,$(wildcard tests/bench/bench_*.c))
# Scripts that start whole clusters: one machine's names, three masters, a bucket beside another client.
figures := $(wildcard tests/bench/figures-*)
.PHONY: bench bench-build
bench: all $(benches) ## measure the parts, then whole clusters (T=meta, T=bucket: one), each by itself; says the method
	@set -e; for b in $(if $(T),$(filter %/bench_$(T) %/figures-$(T),$(benches) $(figures)),$(benches) $(figures)); do echo "== $$b"; $$b; done
bench-build: $(benches) ## the benchmark programs, into build/bench
$(O)/bench/%: $(O)/obj/tests/bench/%.o $(libs)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ldflags) $(LDFLAGS) $< -Wl,--start-group $(libs) -Wl,--end-group $(all_libs) -o $@

##@ Tests
# Debian's RocksDB is not built for the thread sanitizer: tests with it say so.
# PURE=1 leaves them out as well.
unit_sources := $(if $(filter thread,$(SAN))$(PURE),$(shell grep -L 'not for the thread sanitizer' tests/unit/test_*.c),\
    $(wildcard tests/unit/test_*.c))
unit_tests := $(patsubst tests/unit/%.c,$(O)/test/%,$(unit_sources))
.PHONY: check unit san bats accept accept-short fuzz layers circles
unit: $(if $(T),$(O)/test/test_$(T),$(unit_tests)) ## unit tests (SAN=address,undefined or SAN=thread: under sanitizers; T=name: one file)
	@tests/run-unit $(if $(T),$(O)/test/test_$(T),$(unit_tests))

$(O)/test/%: $(O)/obj/tests/unit/%.o $(O)/obj/tests/unit/unit.o $(libs)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ldflags) $(LDFLAGS) $(filter %.o,$^) -Wl,--start-group $(libs) -Wl,--end-group \
	    $(all_libs) $(call pkg_libs,check) -o $@

include tests/sim/sim.mk

# The programs first, then side by side: bats, which mostly waits, and with what it leaves of the cores the rest.
check: deps ## everything a change must pass: layers, circles, unit tests, sanitizers, bats (under 10 minutes on two cores)
	@$(MAKE) --no-print-directory layers
	@$(on_all_cores) WERROR=1 all tools bench-build
	@$(MAKE) --no-print-directory WERROR=1 circles
	@tests/side-by-side '$(on_all_cores) WERROR=1 bats' 'nice $(on_all_cores) WERROR=1 unit sim-check && nice $(on_all_cores) PURE=1 san'

# Whatever -j was said: these run beside one another, and what only waits must not hold a job.
on_all_cores = env MAKEFLAGS="$(filter-out -j% --jobserver%,$(MAKEFLAGS))" $(MAKE) --no-print-directory -j$(shell nproc)

san: ## unit tests under address+undefined and thread sanitizers (PURE=1: without those that keep a database)
	@$(MAKE) --no-print-directory SAN=address,undefined unit sim-check
	@$(MAKE) --no-print-directory SAN=thread unit sim-check

# S3 servers are compiled the first time: minutes, which no file's time limit should pay.
bats: all tools bench-build ## the programs from outside, a few files at a time (T=10-config: one file; T="10-config 20-*": several)
	@$(if $(T),,tests/s3/install > $(O)/s3-install.log 2>&1 || tail -n 3 $(O)/s3-install.log)
	@CV_BIN=$(abspath $(O))/bin tests/run-bats $(if $(T),$(patsubst %,tests/bats/%.bats,$(T)))

accept: all tools ## the shows of the issues: kill loops with an oracle, failovers, a bucket (KILLS=30 FAILOVERS=100 OBJECTS=10000 LARGEST=1073741824 CUTS=10)
	@CV_BIN=$(abspath $(O))/bin KILLS=$(or $(KILLS),30) OBJECTS=$(or $(OBJECTS),10000) LARGEST=$(or $(LARGEST),1073741824) bats --print-output-on-failure tests/accept

# Without the kill loops under whole programs, which take as long as the programs do.
accept-short: all tools
	@CV_BIN=$(abspath $(O))/bin KILLS=$(or $(KILLS),6) OBJECTS=$(or $(OBJECTS),300) LARGEST=$(or $(LARGEST),70000000) \
	    bats --print-output-on-failure $(patsubst %,tests/accept/%.bats,kill bucket damage)
	@CV_BIN=$(abspath $(O))/bin FAILOVERS=$(or $(FAILOVERS),6) bats --print-output-on-failure tests/accept/failover.bats
	@CV_BIN=$(abspath $(O))/bin ROUNDS=2 SNAPSHOT_MB=200 bats --print-output-on-failure tests/accept/members.bats tests/accept/snapshot.bats
	@CV_BIN=$(abspath $(O))/bin CUTS=2 bats --print-output-on-failure -f '^(the leader.*both|clients|one way: a leader|fsync.*leader|the disk of the leader.s master|the disks of all)' \
	    tests/accept/partitions.bats tests/accept/disks.bats
	@CV_BIN=$(abspath $(O))/bin bats --print-output-on-failure -f '^(git|tar|SQLite|fio)' tests/accept/apps.bats

.PHONY: soak
soak: all ## what takes a machine of its own for hours: a snapshot of 5 GB under load
	@CV_BIN=$(abspath $(O))/bin SNAPSHOT_MB=$(or $(SNAPSHOT_MB),5000) bats --print-output-on-failure tests/accept/snapshot.bats

# The same programs built without fsync must fail there, or the tests show nothing: build/nosync.
.PHONY: power
power: all tools ## cut the power under the daemons, on loop-mounted file systems; as root (T=journal: one file)
	@$(MAKE) --no-print-directory O=build/nosync CFLAGS="$(CFLAGS) -DCV_TEST_NO_FSYNC" all
	@CV_BIN=$(abspath $(O))/bin CV_BIN_NOSYNC=$(abspath build/nosync)/bin \
	    bats $(if $(T),$(patsubst %,tests/power/%.bats,$(T)),tests/power)

# Packages are built in trees of their releases; the first time makes those (minutes, and needs the mirror of apt).
.PHONY: lab lab-smoke lab-deps
lab-deps: ## install what the lab needs (debootstrap, systemd-nspawn, rpm)
	packaging/deps.sh lab-all
lab: lab-deps ## boot real hosts, install the packages just built, and show what administrators see; as root, under 15 minutes (T=one-host: one file)
	tests/lab/run $(T)
lab-smoke: ## the same with one host; says why where it cannot
	tests/lab/run smoke
.PHONY: fresh
fresh: ## what the README says, typed on a fresh machine that has git, make and a clone; as root (RELEASE=trixie, T="commands clang user")
	packaging/deps.sh lab
	tests/lab/fresh $(or $(RELEASE),bookworm) $(T)

layers: ## hold the real includes against tests/layers.txt
	@tests/check-layers

circles: $(libs) ## hold the calls between object files against tests/circles.txt
	@tests/check-circles $(O)

# Fuzzing builds everything once more, by clang with coverage and sanitizers, in build/fuzz.
FUZZ_SECONDS ?= 10
fuzz_names := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz: ## feed noise to the parsers, each for FUZZ_SECONDS=10 (T=config: one)
	@$(MAKE) --no-print-directory CC=clang SAN=fuzzer-no-link,address,undefined O=build/fuzz \
	    $(patsubst %,build/fuzz/fuzz_%,$(or $(T),$(fuzz_names)))
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/run-fuzz build/fuzz $(or $(T),$(fuzz_names))

$(O)/fuzz_%: $(O)/obj/tests/fuzz/fuzz_%.o $(libs)
	$(call say,LD,$@)
	$(Q)$(CC) -fsanitize=fuzzer $(ldflags) $(LDFLAGS) $< -Wl,--start-group $(libs) -Wl,--end-group $(all_libs) -o $@

##@ Style
# Headers are checked through the sources that include them. A source is looked at again when its object is built again.
# T="src/conf": these folders only.
lint_dirs    := $(or $(T),src raft meta worker fuse cli bin tests)
lint_sources := $(if $(filter lint,$(MAKECMDGOALS)),$(shell find $(lint_dirs) -name '*.c' -not -path 'tests/fuzz/*'))
format_files  = $(shell find $(lint_dirs) -name '*.[ch]')
.PHONY: lint format
lint: $(patsubst %.c,$(O)/lint/%.tidy,$(lint_sources)) ## clang-format, clang-tidy and cppcheck find nothing (T=src/conf: one folder)
	@clang-format --dry-run -Werror $(format_files)
	@mkdir -p $(O)/lint/cppcheck
	@cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 -j 2 \
	    --cppcheck-build-dir=$(O)/lint/cppcheck --suppressions-list=tests/cppcheck.suppress --library=posix --library=tests/cppcheck.cfg \
	    -DCV_VERSION='""' -I. -Isrc $(lint_sources)

$(O)/lint/%.tidy: $(O)/obj/%.o .clang-tidy
	@mkdir -p $(@D)
	$(call say,TIDY,$*.c)
	$(Q)clang-tidy --quiet $*.c -- $(filter-out -MMD -MP,$(flags)) $(all_cflags) 2>/dev/null && touch $@

format: ## lay out all sources as .clang-format says
	clang-format -i $(format_files)

##@ Installing
# Made by the programs from their own tables. SHARE_FROM: taken from there, where the programs built cannot run.
pages := $(patsubst %,$(O)/share/man/%,cv.1 curvine.yaml.5 $(patsubst $(O)/bin/%,%.8,$(filter-out %/cv,$(programs))))
shells := $(patsubst %,$(O)/share/completion/cv.%,bash zsh fish)
.PHONY: install deb rpm
define made
@mkdir -p $(@D)
$(Q)$(if $(SHARE_FROM),cat $(SHARE_FROM)/$(patsubst $(O)/share/%,%,$@),$(1)) > $@.tmp && mv $@.tmp $@
endef
$(O)/share/curvine.yaml.sample: $(O)/bin/cv ; $(call made,$< config sample)
$(O)/share/man/cv.1: $(O)/bin/cv ; $(call made,$< help --man)
$(O)/share/man/curvine.yaml.5: $(O)/bin/cv ; $(call made,$< config sample --man)
$(O)/share/man/%.8: $(O)/bin/% ; $(call made,$< --man)
$(O)/share/completion/cv.%: $(O)/bin/cv ; $(call made,$< completion $*)

install: all $(O)/share/curvine.yaml.sample $(pages) $(shells) ## install below DESTDIR what packaging/files.list names (PREFIX, LIBDIR, SYSCONFDIR)
	@PREFIX=$(PREFIX) LIBDIR=$(LIBDIR) SYSCONFDIR=$(SYSCONFDIR) DESTDIR=$(DESTDIR) packaging/install.sh $(O)

deb: ## packages for this Debian or Ubuntu, into build/deb
	packaging/deb/build.sh
rpm: ## packages for RHEL and its like, into build/rpm
	packaging/rpm/build.sh

##@ Cleaning
.PHONY: clean
clean: ## remove build/
	rm -rf build

-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)
.SECONDARY:
