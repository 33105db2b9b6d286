/* SPDX-License-Identifier: Apache-2.0 */
/*
 * noise SEEDS RUNS: a fuzz target without a fuzzer, for "make check": the committed seeds, then RUNS inputs made
 * of them by cutting, joining and changing bytes, the same ones every time. It sees no coverage, so it finds less than
 * "make fuzz"; but it runs everywhere, under every sanitizer, in a bounded time.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEEDS_MAX = 64, INPUT_MAX = 4096 };

static struct input {
    size_t n;
    uint8_t bytes[INPUT_MAX];
} seeds[SEEDS_MAX], made;
static uint32_t count;

static void load(const char *dir)
{
    struct dirent **names;
    int n = scandir(dir, &names, NULL, alphasort); /* in the same order everywhere */
    for (int i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
        FILE *f = names[i]->d_name[0] != '.' && count < SEEDS_MAX ? fopen(path, "rb") : NULL;
        free(names[i]);
        if (!f)
            continue;
        seeds[count].n = fread(seeds[count].bytes, 1, INPUT_MAX, f);
        count++;
        fclose(f);
    }
    if (n >= 0)
        free(names);
}

/* A piece of some seed behind what is there. */
static void join(struct prng *r)
{
    const struct input *s = &seeds[prng_below(r, count)];
    size_t from = s->n ? prng_below(r, (uint32_t)s->n) : 0;
    size_t n = s->n - from;
    n = n < INPUT_MAX - made.n ? n : INPUT_MAX - made.n;
    memcpy(made.bytes + made.n, s->bytes + from, n);
    made.n += n;
}

static void change(struct prng *r)
{
    static const uint8_t interesting[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff};
    if (!made.n)
        return;
    size_t at = prng_below(r, (uint32_t)made.n);
    switch (prng_below(r, 4)) {
    case 0: made.bytes[at] ^= (uint8_t)(1u << prng_below(r, 8)); break;
    case 1: made.bytes[at] = interesting[prng_below(r, sizeof(interesting))]; break;
    case 2: made.bytes[at] = (uint8_t)prng_next(r); break;
    default: made.n = prng_below(r, 4) ? made.n : at; break; /* cut */
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    load(argv[1]);
    if (!count) {
        fprintf(stderr, "noise: no seeds in %s\n", argv[1]);
        return 1;
    }
    for (uint32_t i = 0; i < count; i++)
        LLVMFuzzerTestOneInput(seeds[i].bytes, seeds[i].n);
    struct prng r = {1};
    uint32_t runs = (uint32_t)strtoul(argv[2], NULL, 10);
    for (uint32_t i = 0; i < runs; i++) {
        made = seeds[prng_below(&r, count)];
        for (uint32_t k = prng_below(&r, 3); k > 0; k--)
            join(&r);
        for (uint32_t k = 1 + prng_below(&r, 8); k > 0; k--)
            change(&r);
        uint8_t *exact = malloc(made.n + 1); /* ends with the input: a read beyond is seen */
        if (!exact)
            return 1;
        memcpy(exact + 1, made.bytes, made.n);
        LLVMFuzzerTestOneInput(exact + 1, made.n);
        free(exact);
    }
    printf("%u seeds and %u inputs made of them\n", count, runs);
    return 0;
}
