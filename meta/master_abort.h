/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RocksDB that ends the process. Some builds of it (Debian's 7.8.3) have their assertions in, and a disk that fails in the
 * middle of a write makes one of them fail, in a thread of RocksDB, before anybody hears of the error: all that is said is a
 * line of its source. This says what that means, where people look for it.
 */
#pragma once

/* From now on, for the whole process: behind such a line, one that names dir and what to do. */
void master_abort_explain(const char *dir);
