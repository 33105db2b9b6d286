/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-forge DIR INDEX: change one byte of an entry in the log of a journal that does not run, so well that nothing on that
 * node notices: its checksums are right, and the chain is made anew up to the end. Only other nodes know better.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/hash.h"
#include "raft/journal_db.h"

static int fail(int r, const char *what, const struct buf *why)
{
    fprintf(stderr, "cv-forge: %s: %s %.*s\n", what, cv_error_text(r), (int)why->n, (const char *)why->p);
    return 1;
}

/* The entry anew behind the chain so far. flip: another byte, too. */
static void forge(const struct journal_db *d, uint64_t index, const char *value, size_t n, bool flip, uint64_t *chain,
                  rocksdb_writebatch_t *batch)
{
    uint8_t key[8], *row = malloc(n);
    struct journal_entry_head head;
    put_be64(key, index);
    memcpy(row, value, n);
    memcpy(&head, row, sizeof(head));
    if (flip)
        row[n - 1] ^= 1;
    head.data_crc = crc32c(0, row + sizeof(head), head.size);
    head.chain = *chain = journal_chain(*chain, head.term, head.type, row + sizeof(head), head.size);
    journal_entry_seal(index, &head);
    memcpy(row, &head, sizeof(head));
    rocksdb_writebatch_put_cf(batch, d->family[JOURNAL_LOG], (char *)key, sizeof(key), (char *)row, n);
    free(row);
}

int main(int argc, char **argv)
{
    struct journal_db d = JOURNAL_DB_NONE;
    struct buf why = {0};
    char path[4096];
    if (argc != 3)
        return fprintf(stderr, "usage: cv-forge DIR INDEX\n"), 2;
    uint64_t wanted = strtoull(argv[2], NULL, 10), chain = 0, last = 0;
    snprintf(path, sizeof(path), "%s/log", argv[1]);
    int r = journal_db_open(path, JOURNAL_DB_WRITE, 0, &why, &d);
    if (r < 0)
        return fail(r, path, &why);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    rocksdb_iterator_t *it = rocksdb_create_iterator_cf(d.db, d.scan, d.family[JOURNAL_LOG]);
    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t key_size, n;
        uint64_t index = get_be64(rocksdb_iter_key(it, &key_size));
        const char *value = rocksdb_iter_value(it, &n);
        if (index < wanted)
            memcpy(&chain, value + offsetof(struct journal_entry_head, chain), sizeof(chain));
        else
            forge(&d, index, value, n, index == wanted, &chain, batch);
        last = index;
    }
    rocksdb_iter_destroy(it);
    char *error = NULL;
    rocksdb_write(d.db, d.sync, batch, &error);
    rocksdb_writebatch_destroy(batch);
    journal_db_close(&d);
    if ((r = journal_db_error(error, "write", &why)) < 0)
        return fail(r, path, &why);
    printf("entry %s of %llu is another one now\n", argv[2], (unsigned long long)last);
    return last < wanted;
}
