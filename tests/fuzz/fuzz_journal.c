/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a stored entry or row of the journal: refused, or exactly what was sealed. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "raft/journal_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct journal_entry_head head;
    struct journal_ident_row ident;
    struct journal_mark mark;
    (void)journal_entry_open(7, data, size, &head);
    (void)journal_row_open("ident", 5, data, size, &ident, sizeof(ident));
    if (size < sizeof(head))
        return 0;
    /* The same with checksums that fit, so that what lies behind them is reached. */
    uint8_t *copy = malloc(size);
    assert(copy);
    memcpy(copy, data, size);
    memcpy(&head, copy, sizeof(head));
    head.data_crc = crc32c(0, copy + sizeof(head), size - sizeof(head));
    journal_entry_seal(7, &head);
    memcpy(copy, &head, sizeof(head));
    struct journal_entry_head back;
    if (journal_entry_open(7, copy, size, &back) == 0)
        assert(back.size == size - sizeof(back));
    if (size >= sizeof(mark)) {
        memcpy(&mark, data, sizeof(mark));
        journal_row_seal("x", 1, &mark, sizeof(mark));
        assert(journal_row_open("x", 1, &mark, sizeof(mark), &mark, sizeof(mark)) == 0);
    }
    free(copy);
    return 0;
}
