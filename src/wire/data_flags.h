/* SPDX-License-Identifier: Apache-2.0 */
/* Bits in the fields of messages_data.def. Values are retired, never reused. */
#pragma once

/* Ids, versions and epochs that a later incarnation of the cluster gives out begin above anything an earlier one can have
 * reached that the state it began from does not know of (design section 5): those of incarnation n above (n - 1) times this. */
#define INCARNATION_STEP (1ull << 36)

/* block_read, block_open, block_fill: flags */
enum block_request_flag {
    BLOCK_PIN = 1,     /* fill: keep it until it is unpinned or removed */
    BLOCK_AHEAD = 2,   /* nobody waits for it yet: behind those that somebody waits for */
    BLOCK_NO_FILL = 4, /* read: -ENODATA instead of fetching */
    BLOCK_VERIFY = 8,  /* read: an earlier answer did not match its checksums: the worker looks at the chunks first */
};

/* answers: flags */
enum block_answer_flag {
    BLOCK_CRC_UNITS = 1, /* read: crcs of units instead of one of the data */
    BLOCK_SEGMENT = 2,   /* open: of a file many blocks share */
    BLOCK_WHOLE = 4,     /* open: every byte of the block is readable, and stays so */
};

/* blocks_check: verdicts. GIVEN_UP: written under a grant of an earlier incarnation that the master's state knows nothing of
 * (cv-journal force-new-cluster lost it): kept, but it answers that it is damaged. */
enum block_verdict { BLOCK_KEEP = 0, BLOCK_DROP = 1, BLOCK_GIVEN_UP = 2 };

/* presence, block_state: flags. OPEN: chunks without checksums yet, they get them when writing has paused. DAMAGED: written
 * data that does not match its checksums any more. */
enum block_state_flag {
    BLOCK_DIRTY = 1,
    BLOCK_PACKED = 2,
    BLOCK_PINNED = 4,
    BLOCK_LOST = 8,
    BLOCK_OPEN = 16,
    BLOCK_DAMAGED = 32,
};
