/* The vocabulary: bytes of every id, and normal tokens by their bytes. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "token/token_impl.h"

enum { MAX_BLOB = 1 << 28 }; /* bytes of all tokens together; real ones stay below 4 MB */

void hd_token__vocab_init(struct hd_token__vocab *vocab)
{
    *vocab = (struct hd_token__vocab){0};
    hd_buf_init(&vocab->blob, MAX_BLOB);
    if (getrandom(&vocab->seed, sizeof vocab->seed, GRND_NONBLOCK) != sizeof vocab->seed)
        vocab->seed = (uint64_t)(hd_clock_seconds() * 1e9);
}

void hd_token__vocab_dispose(struct hd_token__vocab *vocab)
{
    free(vocab->entry);
    free(vocab->slot);
    hd_buf_dispose(&vocab->blob);
}

static enum hd_err grow(struct hd_token__vocab *vocab, size_t n)
{
    if (n > HD_TOKEN_MAX_VOCAB)
        return HD_ERR_LIMIT;
    if (n > vocab->cap) {
        size_t cap = n + n / 2 + 64;
        struct hd_token__entry *entry = realloc(vocab->entry, cap * sizeof *entry);
        if (!entry)
            return HD_ERR_NOMEM;
        memset(entry + vocab->cap, 0, (cap - vocab->cap) * sizeof *entry);
        vocab->entry = entry;
        vocab->cap = cap;
    }
    if (n > vocab->n)
        vocab->n = n;
    return HD_OK;
}

enum hd_err hd_token__vocab_set(struct hd_token__vocab *vocab, size_t id, const char *bytes,
                                size_t len, unsigned flags)
{
    enum hd_err err = id < HD_TOKEN_MAX_VOCAB ? grow(vocab, id + 1) : HD_ERR_LIMIT;
    if (err)
        return err;
    size_t at = vocab->blob.len;
    err = hd_buf_append(&vocab->blob, bytes, len);
    if (err)
        return err;
    vocab->entry[id] =
        (struct hd_token__entry){.at = (uint32_t)at, .len = (uint32_t)len, .flags = (uint8_t)flags};
    return HD_OK;
}

/* The slot of these bytes, or the empty one where they belong. */
static uint64_t *find_slot(const struct hd_token__vocab *vocab, const char *bytes, size_t len,
                           uint64_t hash, uint64_t *tag)
{
    size_t i = hash & vocab->mask;
    *tag = hash & 0xffffffff00000000u;
    for (; vocab->slot[i]; i = (i + 1) & vocab->mask) {
        if ((vocab->slot[i] & 0xffffffff00000000u) != *tag)
            continue;
        const struct hd_token__entry *entry = &vocab->entry[(uint32_t)vocab->slot[i] - 1];
        if (entry->len == len && !memcmp(vocab->blob.data + entry->at, bytes, len))
            break;
    }
    return &vocab->slot[i];
}

enum hd_err hd_token__vocab_index(struct hd_token__vocab *vocab)
{
    size_t size = 1024;
    while (size < vocab->n + vocab->n / 2)
        size *= 2;
    vocab->slot = calloc(size, sizeof *vocab->slot);
    if (!vocab->slot)
        return HD_ERR_NOMEM;
    vocab->mask = size - 1;
    for (size_t id = 0; id < vocab->n; id++) {
        const struct hd_token__entry *entry = &vocab->entry[id];
        uint64_t tag;
        if (entry->flags != HD_TOKEN_NORMAL || !entry->len)
            continue;
        const char *bytes = vocab->blob.data + entry->at;
        uint64_t hash = hd_token__vocab_hash(vocab, bytes, entry->len);
        uint64_t *slot = find_slot(vocab, bytes, entry->len, hash, &tag);
        if (!*slot)
            *slot = tag | (id + 1);
    }
    return HD_OK;
}

uint64_t hd_token__vocab_hash(const struct hd_token__vocab *vocab, const char *bytes, size_t len)
{
    return hd_hash64(bytes, len, vocab->seed);
}

void hd_token__vocab_fetch_slot(const struct hd_token__vocab *vocab, uint64_t hash)
{
    __builtin_prefetch(&vocab->slot[hash & vocab->mask]);
}

void hd_token__vocab_fetch_entry(const struct hd_token__vocab *vocab, uint64_t hash)
{
    uint64_t slot = vocab->slot[hash & vocab->mask];
    if (slot)
        __builtin_prefetch(&vocab->entry[(uint32_t)slot - 1]);
}

int32_t hd_token__vocab_find_hashed(const struct hd_token__vocab *vocab, const char *bytes,
                                    size_t len, uint64_t hash)
{
    uint64_t tag;
    uint64_t slot = *find_slot(vocab, bytes, len, hash, &tag);
    return slot ? (int32_t)((uint32_t)slot - 1) : -1;
}

int32_t hd_token__vocab_find(const struct hd_token__vocab *vocab, const char *bytes, size_t len)
{
    return hd_token__vocab_find_hashed(vocab, bytes, len, hd_token__vocab_hash(vocab, bytes, len));
}

/* GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the other 68 bytes, in order, for
 * U+0100 and up. -1: not of the alphabet. */
static int alphabet_byte(unsigned codepoint)
{
    if ((codepoint >= 0x21 && codepoint <= 0x7e) || (codepoint >= 0xa1 && codepoint <= 0xac) ||
        (codepoint >= 0xae && codepoint <= 0xff))
        return (int)codepoint;
    if (codepoint >= 0x100 && codepoint <= 0x120)
        return (int)(codepoint - 0x100); /* 00..20 */
    if (codepoint >= 0x121 && codepoint <= 0x142)
        return (int)(codepoint - 0x121 + 0x7f); /* 7f..a0 */
    return codepoint == 0x143 ? 0xad : -1;
}

size_t hd_token__from_alphabet(char *out, const char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        unsigned codepoint;
        size_t step = hd_utf8_decode(&codepoint, text + i, len - i, NULL);
        int byte = step ? alphabet_byte(codepoint) : -1;
        if (byte < 0)
            return SIZE_MAX;
        out[n++] = (char)byte;
        i += step;
    }
    return n;
}

enum hd_err hd_token__vocab_set_normal(struct hd_token__vocab *vocab, size_t id, const char *text,
                                       size_t len)
{
    char bytes[1024];
    size_t n = len <= sizeof bytes ? hd_token__from_alphabet(bytes, text, len) : SIZE_MAX;
    if (n == SIZE_MAX)
        return hd_token__vocab_set(vocab, id, text, len, HD_TOKEN_NORMAL | HD_TOKEN_RAW);
    return hd_token__vocab_set(vocab, id, bytes, n, HD_TOKEN_NORMAL);
}
