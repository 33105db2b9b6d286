##@ Simulating
# The simulator: build/test/sim runs the very object files of the core; build/test/sim-mutants is the same built once
# more with deliberate bugs that can be switched on (raft/raft_mutants.def, tests/sim/sim_mutants.def).
sim_src   := $(wildcard tests/sim/*.c)
sim_libs  := $(foreach l,raft journal meta wire conf base,$(O)/lib/libcv_$(l).a)
SIM       := $(O)/test/sim
SIM_MUTANTS := $(O)/test/sim-mutants
# How much "make check" does: about a minute of one core with everything, less under sanitizers.
SIM_SEEDS ?= $(if $(filter thread,$(SAN)),150,$(if $(SAN),2000,5000))

$(SIM): $(call objs,$(sim_src)) $(sim_libs)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ldflags) $(LDFLAGS) $^ $(all_libs) -o $@

$(O)/mutants/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(flags) -DRAFT_MUTANTS $(all_cflags) $(CFLAGS) -c $< -o $@

$(SIM_MUTANTS): $(patsubst %.c,$(O)/mutants/%.o,$(sim_src) $(raft_src)) $(filter-out %/libcv_raft.a,$(sim_libs))
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ldflags) $(LDFLAGS) $^ $(all_libs) -o $@

# The message decoder and a core behind it, fed with noise: the target of "make fuzz", without the fuzzer.
NOISE      := $(O)/test/noise_raft_message
NOISE_RUNS ?= $(if $(SAN),20000,200000)
$(NOISE): $(call objs,tests/fuzz/fuzz_raft_message.c tests/fuzz/noise.c) $(sim_libs)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ldflags) $(LDFLAGS) $^ $(all_libs) -o $@

.PHONY: sim sim-check sim-cases sim-nightly sim-coverage sim-mutants
sim: $(SIM) $(if $(SEED),,$(SIM_MUTANTS)) ## simulate the cluster: 10,000 seeds and all mutants (SEED=42: replay one; SIM_ARGS="-v crash=0")
ifneq ($(SEED),)
	@$(SIM) seed $(SEED) $(SIM_ARGS)
else
	@$(SIM) cases
	@$(SIM) file tests/sim/seeds.txt
	@$(SIM) seeds 1 10000 $(SIM_ARGS)
	@tests/sim/gate-test $(SIM_MUTANTS) tests/sim/mutants.txt
	@$(SIM_MUTANTS) gate tests/sim/mutants.txt
endif

# Part of "make check", also under sanitizers: scripted cases, seeds that failed once, some seeds, mutants by cases,
# noise for the message decoder.
sim-check: $(SIM) $(NOISE) $(if $(SAN),,$(SIM_MUTANTS))
	@$(NOISE) tests/fuzz/corpus/raft_message $(NOISE_RUNS)
	@$(SIM) cases
	@$(SIM) file tests/sim/seeds.txt
	@$(SIM) seeds 1 $(SIM_SEEDS) -j 2
	@$(if $(SAN),,$(SIM_MUTANTS) gate tests/sim/mutants.txt --cases)
	@$(if $(SAN),,tests/sim/gate-test $(SIM_MUTANTS) tests/sim/mutants.txt)

sim-nightly: $(SIM) ## simulate a million seeds
	@$(SIM) seeds 1 1000000 $(SIM_ARGS)

# Measure the gate's rates anew, after faults or parameters changed.
sim-mutants: $(SIM_MUTANTS)
	@$(SIM_MUTANTS) measure tests/sim/mutants.txt

COVERAGE_SEEDS ?= 2000
sim-coverage: ## branches of the core that scripted cases and seeds reach, at least 95 %
	@$(MAKE) --no-print-directory O=build/coverage CFLAGS="-O0 -g --coverage" LDFLAGS=--coverage build/coverage/test/sim
	@find build/coverage -name '*.gcda' -delete
	@build/coverage/test/sim cases
	@build/coverage/test/sim seeds 1 $(COVERAGE_SEEDS)
	@tests/sim/coverage build/coverage/obj tests/sim/uncovered.txt

-include $(shell find $(O)/mutants -name '*.d' 2>/dev/null)
