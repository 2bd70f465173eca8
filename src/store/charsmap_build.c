/* A Darts-clone double array over the UTF-8 bytes of code points.
 *
 * A node's children lie at base ^ label, label 0 being its value. A unit keeps its label, whether
 * it has a value, and base ^ its own position in 21 bits (reading: token/charsmap.c). A reader
 * knows a child by its label alone, so no two nodes may share a base. */
#include "store/charsmap_build.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

enum { BLOCK = 256, WINDOW = 16 * BLOCK, MAX_UNITS = 1 << 21, MAX_TEXT = 1 << 24 };

struct key {
    char bytes[4];
    uint8_t len;
    uint32_t value;
};

struct builder {
    struct key *key; /* [n], ascending by bytes */
    uint32_t *unit;  /* [n_unit] */
    uint8_t *taken;  /* [n_unit] bit 0: the unit is in use, bit 1: it is some node's base */
    size_t n_unit;
    size_t low; /* everything below is in use */
    enum hd_err err;
};

enum { UNIT = 1, BASE = 2 };

static bool grow(struct builder *b, size_t n)
{
    n = (n + BLOCK - 1) / BLOCK * BLOCK;
    if (n <= b->n_unit)
        return true;
    uint32_t *unit = n <= MAX_UNITS ? realloc(b->unit, n * sizeof *unit) : NULL;
    if (unit)
        b->unit = unit;
    uint8_t *taken = unit ? realloc(b->taken, n) : NULL;
    if (!taken) {
        b->err = n <= MAX_UNITS ? HD_ERR_NOMEM : HD_ERR_LIMIT;
        return false;
    }
    b->taken = taken;
    memset(unit + b->n_unit, 0, (n - b->n_unit) * sizeof *unit);
    memset(taken + b->n_unit, 0, n - b->n_unit);
    b->n_unit = n;
    return true;
}

static bool fits(const struct builder *b, size_t base, const uint8_t *label, int n)
{
    if (b->taken[base] & BASE)
        return false;
    for (int i = 0; i < n; i++)
        if (b->taken[base ^ label[i]] & UNIT)
            return false;
    return true;
}

/* The lowest base, in the last blocks, where all children are free; labels ascend. */
static size_t find_base(struct builder *b, const uint8_t *label, int n)
{
    while (b->low < b->n_unit && b->taken[b->low] & UNIT)
        b->low++;
    size_t from = b->n_unit > WINDOW ? b->n_unit - WINDOW : 0;
    for (size_t p = from > b->low ? from : b->low;; p++) {
        if (p >= b->n_unit && !grow(b, p + 1))
            return 0;
        if (fits(b, p ^ label[0], label, n))
            return p ^ label[0];
    }
}

/* Places the children of the node at `unit`: keys [begin, end) share their first `depth` bytes. */
static void place(struct builder *b, size_t unit, size_t begin, size_t end, unsigned depth)
{
    uint8_t label[256] = {0};
    size_t first[257]; /* where the keys of each label begin */
    int n = 0;
    for (size_t i = begin; i < end; i++) {
        const struct key *key = &b->key[i];
        uint8_t c = depth < key->len ? (uint8_t)key->bytes[depth] : 0;
        if (n && label[n - 1] == c)
            continue;
        label[n] = c;
        first[n++] = i;
    }
    first[n] = end;
    size_t base = find_base(b, label, n);
    if (b->err)
        return;
    b->taken[base] |= BASE;
    for (int i = 0; i < n; i++)
        b->taken[base ^ label[i]] |= UNIT;
    b->unit[unit] |= (uint32_t)(base ^ unit) << 10;
    for (int i = 0; i < n && !b->err; i++) {
        size_t child = base ^ label[i];
        if (!label[i]) {
            b->unit[unit] |= 1u << 8;
            b->unit[child] = 1u << 31 | b->key[first[i]].value;
            continue;
        }
        b->unit[child] = label[i];
        place(b, child, first[i], first[i + 1], depth + 1);
    }
}

static enum hd_err read_entries(struct builder *b, struct hd_buf *text,
                                const struct hd_charsmap_entry *entry, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t code = entry[i].code;
        if (!code || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ||
            (i && code <= entry[i - 1].code) ||
            !hd_utf8_valid(entry[i].text, strlen(entry[i].text)))
            return HD_ERR_INVALID;
        b->key[i].len = (uint8_t)hd_utf8_encode(b->key[i].bytes, code);
        b->key[i].value = (uint32_t)text->len;
        hd_buf_append(text, entry[i].text, strlen(entry[i].text) + 1);
    }
    return text->err;
}

static void put_u32(struct hd_buf *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        hd_buf_putc(out, (char)(value >> 8 * i));
}

enum hd_err hd_charsmap_build(struct hd_buf *out, const struct hd_charsmap_entry *entry, size_t n)
{
    struct builder b = {.low = 1}; /* unit 0 is the root */
    struct hd_buf text;
    if (n > HD_CHARSMAP_MAX_ENTRIES)
        return HD_ERR_LIMIT;
    hd_buf_init(&text, MAX_TEXT);
    b.key = calloc(n + 1, sizeof *b.key);
    b.err = b.key ? read_entries(&b, &text, entry, n) : HD_ERR_NOMEM;
    if (!b.err && grow(&b, 1)) {
        b.taken[0] = UNIT;
        if (n)
            place(&b, 0, 0, n, 0);
    }
    if (!b.err) {
        put_u32(out, (uint32_t)(b.n_unit * 4));
        for (size_t i = 0; i < b.n_unit; i++)
            put_u32(out, b.unit[i]);
        b.err = hd_buf_append(out, hd_buf_str(&text), text.len);
    }
    free(b.key);
    free(b.unit);
    free(b.taken);
    hd_buf_dispose(&text);
    return b.err;
}
