/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/manifest.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"

#define MANIFEST_MAGIC   0x5453464e414d5643ull /* "CVMANFST" */
#define MANIFEST_VERSION 1
#define HEAD_SIZE        16

void manifest_fini(struct manifest *m)
{
    for (uint32_t i = 0; i < m->file_count; i++)
        free(m->files[i].crcs);
    free(m->files);
    buf_fini(&m->conf);
    *m = (struct manifest){.id = 0};
}

uint64_t manifest_bytes(const struct manifest *m)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->file_count; i++)
        bytes += m->files[i].size;
    return bytes;
}

static bool name_is_plain(struct text name)
{
    if (name.n == 0 || name.n > MANIFEST_NAME_MAX || name.p[0] == '.')
        return false;
    for (uint32_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._-", c)) || !c)
            return false;
    }
    return true;
}

int manifest_add(struct manifest *m, struct text name, uint64_t size, struct manifest_file **ret)
{
    if (!name_is_plain(name) || m->file_count >= MANIFEST_FILES_MAX || size > (uint64_t)MANIFEST_BYTES_MAX << 20)
        return -EINVAL;
    if (m->file_count && text_compare(text_of(m->files[m->file_count - 1].name), name) >= 0)
        return -EINVAL;
    if (m->file_count == m->file_room) {
        uint32_t room = m->file_room ? 2 * m->file_room : 64;
        struct manifest_file *files = realloc(m->files, room * sizeof(*files));
        if (!files)
            return -ENOMEM;
        m->files = files;
        m->file_room = room;
    }
    struct manifest_file *f = &m->files[m->file_count];
    *f = (struct manifest_file){.size = size};
    memcpy(f->name, name.p, name.n);
    f->crcs = calloc(manifest_chunks(size) + 1, sizeof(f->crcs[0]));
    if (!f->crcs)
        return -ENOMEM;
    m->file_count++;
    *ret = f;
    return 0;
}

const struct manifest_file *manifest_find(const struct manifest *m, const char *name)
{
    uint32_t low = 0, high = m->file_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int c = strcmp(m->files[middle].name, name);
        if (c == 0)
            return &m->files[middle];
        if (c < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- encoding ----------------------------------------------------------------------------------------------------- */

static int put_u8(struct buf *b, uint8_t v)
{
    return buf_append(b, &v, 1);
}

static int put_u32(struct buf *b, uint32_t v)
{
    uint8_t p[4];
    put_le32(p, v);
    return buf_append(b, p, sizeof(p));
}

static int put_u64(struct buf *b, uint64_t v)
{
    uint8_t p[8];
    put_le64(p, v);
    return buf_append(b, p, sizeof(p));
}

static int put_file(struct buf *b, const struct manifest_file *f)
{
    int r = put_u8(b, (uint8_t)strlen(f->name));
    if (r == 0)
        r = buf_append(b, f->name, strlen(f->name));
    if (r == 0)
        r = put_u64(b, f->size);
    if (r == 0)
        r = put_u64(b, f->hash);
    for (uint32_t i = 0; r == 0 && i < manifest_chunks(f->size); i++)
        r = put_u32(b, f->crcs[i]);
    return r;
}

static int put_body(struct buf *b, const struct manifest *m)
{
    const uint64_t words[] = {m->index, m->term, m->chain, m->conf_index, m->created_ns};
    int r = put_u64(b, m->id);
    if (r == 0)
        r = buf_append(b, m->cluster.b, UUID_SIZE);
    for (size_t i = 0; r == 0 && i < array_size(words); i++)
        r = put_u64(b, words[i]);
    if (r == 0)
        r = put_u32(b, m->state_version);
    if (r == 0)
        r = put_u32(b, m->incarnation);
    if (r == 0)
        r = put_u32(b, (uint32_t)m->conf.n);
    if (r == 0)
        r = buf_append(b, m->conf.p, m->conf.n);
    if (r == 0)
        r = put_u32(b, m->file_count);
    for (uint32_t i = 0; r == 0 && i < m->file_count; i++)
        r = put_file(b, &m->files[i]);
    return r;
}

int manifest_encode(const struct manifest *m, struct buf *out)
{
    size_t begin = out->n;
    int r = put_u64(out, MANIFEST_MAGIC);
    if (r == 0)
        r = put_u32(out, MANIFEST_VERSION);
    if (r == 0)
        r = put_u32(out, 0);
    if (r == 0)
        r = put_body(out, m);
    if (r == 0 && out->n - begin + 4 > MANIFEST_BYTES_MAX)
        r = -EFBIG;
    if (r == 0) {
        put_le32(out->p + begin + 12, (uint32_t)(out->n - begin - HEAD_SIZE));
        r = put_u32(out, crc32c(0, out->p + begin, out->n - begin));
    }
    if (r < 0)
        out->n = begin;
    return r;
}

/* ---- decoding ----------------------------------------------------------------------------------------------------- */

struct reader {
    const uint8_t *p;
    size_t left;
};

static const uint8_t *get(struct reader *rd, size_t n)
{
    if (rd->left < n)
        return NULL;
    const uint8_t *p = rd->p;
    rd->p += n;
    rd->left -= n;
    return p;
}

static bool get_u32(struct reader *rd, uint32_t *ret)
{
    const uint8_t *p = get(rd, 4);
    if (p)
        *ret = get_le32(p);
    return p != NULL;
}

static bool get_u64(struct reader *rd, uint64_t *ret)
{
    const uint8_t *p = get(rd, 8);
    if (p)
        *ret = get_le64(p);
    return p != NULL;
}

static int get_file(struct reader *rd, struct manifest *m)
{
    const uint8_t *length = get(rd, 1), *name = length ? get(rd, *length) : NULL;
    uint64_t size, hash;
    if (!name || !get_u64(rd, &size) || !get_u64(rd, &hash))
        return -CV_BAD_FORMAT;
    /* Before anything of that size is allocated. */
    if (size > (uint64_t)MANIFEST_BYTES_MAX << 20 || manifest_chunks(size) > rd->left / 4)
        return -CV_BAD_FORMAT;
    struct manifest_file *f;
    int r = manifest_add(m, (struct text){(const char *)name, *length}, size, &f);
    if (r < 0)
        return r == -EINVAL ? -CV_BAD_FORMAT : r;
    f->hash = hash;
    for (uint32_t i = 0; i < manifest_chunks(size); i++)
        if (!get_u32(rd, &f->crcs[i]))
            return -CV_BAD_FORMAT;
    return 0;
}

static int get_body(struct reader *rd, struct manifest *m)
{
    uint64_t *words[] = {&m->index, &m->term, &m->chain, &m->conf_index, &m->created_ns};
    if (!get_u64(rd, &m->id))
        return -CV_BAD_FORMAT;
    const uint8_t *p = get(rd, UUID_SIZE);
    if (!p)
        return -CV_BAD_FORMAT;
    memcpy(m->cluster.b, p, UUID_SIZE);
    for (size_t i = 0; i < array_size(words); i++)
        if (!get_u64(rd, words[i]))
            return -CV_BAD_FORMAT;
    uint32_t n, files;
    if (!get_u32(rd, &m->state_version) || !get_u32(rd, &m->incarnation) || !get_u32(rd, &n) || !(p = get(rd, n)))
        return -CV_BAD_FORMAT;
    int r = buf_append(&m->conf, p, n);
    if (r == 0 && (!get_u32(rd, &files) || files > MANIFEST_FILES_MAX))
        r = -CV_BAD_FORMAT;
    for (uint32_t i = 0; r == 0 && i < files; i++)
        r = get_file(rd, m);
    return r == 0 && rd->left ? -CV_BAD_FORMAT : r;
}

int manifest_decode(const void *p, size_t n, struct manifest *ret)
{
    const uint8_t *bytes = p;
    if (n < HEAD_SIZE + 4 || n > MANIFEST_BYTES_MAX || get_le64(bytes) != MANIFEST_MAGIC)
        return -CV_BAD_FORMAT;
    if (get_le32(bytes + 8) != MANIFEST_VERSION)
        return get_le32(bytes + 8) > MANIFEST_VERSION ? -CV_FORMAT_TOO_NEW : -CV_BAD_FORMAT;
    if (get_le32(bytes + 12) != n - HEAD_SIZE - 4)
        return -CV_BAD_FORMAT;
    if (crc32c(0, bytes, n - 4) != get_le32(bytes + n - 4))
        return -CV_BAD_CHECKSUM;
    struct reader rd = {bytes + HEAD_SIZE, n - HEAD_SIZE - 4};
    struct manifest m = {.id = 0};
    int r = get_body(&rd, &m);
    if (r < 0)
        manifest_fini(&m);
    else
        *ret = m;
    return r;
}
