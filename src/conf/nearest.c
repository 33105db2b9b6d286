/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/nearest.h"

#include <ctype.h>

#include "base/cleanup.h"

static uint32_t distance(struct text a, struct text b)
{
    /* Row i of the table needs the two rows before it. */
    uint32_t rows[3][NEAREST_WORD_MAX + 1];
    for (uint32_t j = 0; j <= b.n; j++)
        rows[0][j] = j;
    for (uint32_t i = 1; i <= a.n; i++) {
        uint32_t *row = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
        row[0] = i;
        for (uint32_t j = 1; j <= b.n; j++) {
            int ca = tolower((unsigned char)a.p[i - 1]), cb = tolower((unsigned char)b.p[j - 1]);
            uint32_t either = min(up[j], row[j - 1]) + 1, change = up[j - 1] + (ca != cb);
            row[j] = min(either, change);
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b.p[j - 2]) && cb == tolower((unsigned char)a.p[i - 2]))
                row[j] = min(row[j], up2[j - 2] + 1);
        }
    }
    return rows[a.n % 3][b.n];
}

void nearest_offer(struct nearest *n, const char *word)
{
    struct text w = text_of(word);
    if (n->wanted.n == 0 || n->wanted.n > NEAREST_WORD_MAX || w.n > NEAREST_WORD_MAX)
        return;
    /* Near: one slip in a short word, one in three letters at most. A word that continues what was typed is near too. */
    uint32_t d = distance(n->wanted, w), limit = max(1u, min(n->wanted.n, w.n) / 3);
    if (d > limit && n->wanted.n >= 3 && w.n > n->wanted.n && memcmp(w.p, n->wanted.p, n->wanted.n) == 0)
        d = limit;
    if (d <= limit && (!n->word || d < n->distance)) {
        n->word = word;
        n->distance = d;
    }
}
