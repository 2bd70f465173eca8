/* Byte-pair encoding of one word: the pair with the lowest rank merges first, leftmost on ties.
 *
 * Short words scan all pairs for each merge (fastest up to some dozens of bytes). Long ones — a
 * megabyte of one letter is a single word — keep symbols in a linked list and pairs in a heap, so
 * that time grows as n log n. Both give the same ids. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "token/token_impl.h"

enum { SHORT_WORD = 64 };
#define NO_RANK UINT32_MAX
#define NO_PAIR UINT64_MAX

/* --- the table of merges ---------------------------------------------------------------------- */

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t mix(uint64_t pair)
{
    pair *= 0x9e3779b97f4a7c15u;
    return (size_t)(pair ^ pair >> 29);
}

enum hd_err hd_token__merges_init(struct hd_token__merges *merges, size_t n)
{
    size_t size = 1024;
    while (size < n + n / 2)
        size *= 2;
    *merges = (struct hd_token__merges){.mask = size - 1};
    merges->slot = malloc(size * sizeof *merges->slot);
    if (!merges->slot)
        return HD_ERR_NOMEM;
    memset(merges->slot, 0xff, size * sizeof *merges->slot);
    return HD_OK;
}

void hd_token__merges_dispose(struct hd_token__merges *merges)
{
    free(merges->slot);
    *merges = (struct hd_token__merges){0};
}

static struct hd_token__merge *find_merge(const struct hd_token__merges *merges, uint64_t pair)
{
    size_t i = mix(pair) & merges->mask;
    while (merges->slot[i].pair != pair && merges->slot[i].pair != NO_PAIR)
        i = (i + 1) & merges->mask;
    return &merges->slot[i];
}

static enum hd_err add_pair(struct hd_tokenizer *tok, const char *bytes, size_t a, size_t b,
                            const uint64_t hash[3])
{
    uint32_t rank = (uint32_t)tok->merges.n++;
    int32_t left_id = hd_token__vocab_find_hashed(&tok->vocab, bytes, a, hash[0]);
    int32_t right_id = hd_token__vocab_find_hashed(&tok->vocab, bytes + a, b, hash[1]);
    int32_t id = hd_token__vocab_find_hashed(&tok->vocab, bytes, a + b, hash[2]);
    if (left_id < 0 || right_id < 0 || id < 0)
        return HD_ERR_NOTFOUND;
    uint64_t pair = pair_of(left_id, right_id);
    *find_merge(&tok->merges, pair) =
        (struct hd_token__merge){.pair = pair, .rank = rank, .id = id};
    return HD_OK;
}

enum hd_err hd_token__batch_put(struct hd_token__merge_batch *batch, const struct hd_tokenizer *tok,
                                const char *left, size_t n_left, const char *right, size_t n_right)
{
    if (batch->n == 0)
        batch->used = 0;
    if (n_left + n_right > HD_TOKEN_MAX_PAIR || !n_left || !n_right)
        return HD_ERR_FORMAT;
    char *bytes = batch->bytes + batch->used;
    size_t a = hd_token__from_alphabet(bytes, left, n_left);
    size_t b = a == SIZE_MAX ? a : hd_token__from_alphabet(bytes + a, right, n_right);
    if (b == SIZE_MAX)
        return HD_ERR_FORMAT;
    uint64_t *hash = batch->pair[batch->n].hash;
    hash[0] = hd_token__vocab_hash(&tok->vocab, bytes, a);
    hash[1] = hd_token__vocab_hash(&tok->vocab, bytes + a, b);
    hash[2] = hd_token__vocab_hash(&tok->vocab, bytes, a + b);
    for (int i = 0; i < 3; i++)
        hd_token__vocab_fetch_slot(&tok->vocab, hash[i]);
    batch->pair[batch->n].at = batch->used;
    batch->pair[batch->n].a = (uint16_t)a;
    batch->pair[batch->n++].b = (uint16_t)b;
    batch->used += a + b;
    return HD_OK;
}

size_t hd_token__batch_add(struct hd_token__merge_batch *batch, struct hd_tokenizer *tok)
{
    size_t n_missing = 0;
    for (size_t i = 0; i < batch->n; i++)
        for (int j = 0; j < 3; j++)
            hd_token__vocab_fetch_entry(&tok->vocab, batch->pair[i].hash[j]);
    for (size_t i = 0; i < batch->n; i++)
        n_missing += add_pair(tok, batch->bytes + batch->pair[i].at, batch->pair[i].a,
                              batch->pair[i].b, batch->pair[i].hash) != HD_OK;
    batch->n = 0;
    return n_missing;
}

enum hd_err hd_token__merges_add(struct hd_tokenizer *tok, const char *left, size_t n_left,
                                 const char *right, size_t n_right)
{
    char bytes[HD_TOKEN_MAX_PAIR];
    uint64_t hash[3];
    size_t a = n_left + n_right > sizeof bytes || !n_left || !n_right
                   ? SIZE_MAX
                   : hd_token__from_alphabet(bytes, left, n_left);
    size_t b = a == SIZE_MAX ? a : hd_token__from_alphabet(bytes + a, right, n_right);
    if (b == SIZE_MAX) {
        tok->merges.n++;
        return HD_ERR_FORMAT;
    }
    hash[0] = hd_token__vocab_hash(&tok->vocab, bytes, a);
    hash[1] = hd_token__vocab_hash(&tok->vocab, bytes + a, b);
    hash[2] = hd_token__vocab_hash(&tok->vocab, bytes, a + b);
    return add_pair(tok, bytes, a, b, hash);
}

/* Rank of a pair and what it becomes; NO_RANK where it does not merge. */
static uint32_t rank_of(const struct hd_tokenizer *tok, int32_t left, int32_t right, int32_t *id)
{
    const struct hd_token__merge *merge = find_merge(&tok->merges, pair_of(left, right));
    if (merge->pair == NO_PAIR)
        return NO_RANK;
    *id = merge->id;
    return merge->rank;
}

/* --- short words ------------------------------------------------------------------------------ */

static enum hd_err merge_short(const struct hd_tokenizer *tok, struct hd_ids *out, const char *word,
                               size_t len)
{
    int32_t id[SHORT_WORD], into[SHORT_WORD] = {0};
    uint32_t rank[SHORT_WORD];
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        if (tok->byte_id[(uint8_t)word[i]] >= 0)
            id[n++] = tok->byte_id[(uint8_t)word[i]];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = rank_of(tok, id[i], id[i + 1], &into[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_RANK)
            break;
        id[best] = into[best];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            rank[i] = rank[i + 1];
            into[i] = into[i + 1];
        }
        if (best + 1 < n)
            rank[best] = rank_of(tok, id[best], id[best + 1], &into[best]);
        if (best)
            rank[best - 1] = rank_of(tok, id[best - 1], id[best], &into[best - 1]);
    }
    for (size_t i = 0; i < n; i++)
        hd_ids_push(out, id[i]);
    return out->err;
}

/* --- long words ------------------------------------------------------------------------------- */

static enum hd_err heap_push(struct hd_token__work *work, uint64_t key)
{
    if (work->n_heap == work->cap_heap) {
        size_t cap = work->cap_heap ? work->cap_heap * 2 : 1024;
        uint64_t *heap = realloc(work->heap, cap * sizeof *heap);
        if (!heap)
            return HD_ERR_NOMEM;
        work->heap = heap;
        work->cap_heap = cap;
    }
    size_t i = work->n_heap++;
    for (; i && work->heap[(i - 1) / 2] > key; i = (i - 1) / 2)
        work->heap[i] = work->heap[(i - 1) / 2];
    work->heap[i] = key;
    return HD_OK;
}

static uint64_t heap_pop(struct hd_token__work *work)
{
    uint64_t top = work->heap[0], key = work->heap[--work->n_heap];
    size_t n = work->n_heap, i = 0;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && work->heap[child + 1] < work->heap[child])
            child++;
        if (work->heap[child] >= key)
            break;
        work->heap[i] = work->heap[child];
    }
    work->heap[i] = key;
    return top;
}

static enum hd_err reserve(struct hd_token__work *work, size_t n)
{
    if (n <= work->cap)
        return HD_OK;
    free(work->id);
    free(work->prev);
    free(work->next);
    free(work->rank);
    work->cap = n;
    work->id = malloc(n * sizeof *work->id);
    work->prev = malloc(n * sizeof *work->prev);
    work->next = malloc(n * sizeof *work->next);
    work->rank = malloc(n * sizeof *work->rank);
    if (work->id && work->prev && work->next && work->rank)
        return HD_OK;
    work->cap = 0;
    return HD_ERR_NOMEM;
}

/* Notes the rank of the pair that begins at position i, and queues it if it merges. */
static enum hd_err queue_pair(struct hd_token__work *work, uint32_t i, size_t n)
{
    int32_t into;
    uint32_t right = work->next[i];
    work->rank[i] = right < n ? rank_of(work->tok, work->id[i], work->id[right], &into) : NO_RANK;
    return work->rank[i] == NO_RANK ? HD_OK : heap_push(work, (uint64_t)work->rank[i] << 32 | i);
}

/* The pair at i becomes one symbol. Ranks are unique, so an entry of the heap is stale exactly
 * when its rank is no longer the one noted for its position. */
static enum hd_err merge_at(struct hd_token__work *work, uint32_t i, size_t n)
{
    uint32_t right = work->next[i];
    rank_of(work->tok, work->id[i], work->id[right], &work->id[i]);
    work->rank[right] = NO_RANK;
    work->next[i] = work->next[right];
    if (work->next[i] < n)
        work->prev[work->next[i]] = i;
    enum hd_err err = queue_pair(work, i, n);
    return err || !i ? err : queue_pair(work, work->prev[i], n);
}

static enum hd_err merge_long(struct hd_token__work *work, const char *word, size_t len)
{
    size_t n = 0;
    enum hd_err err = reserve(work, len);
    if (err)
        return err;
    for (size_t i = 0; i < len; i++)
        if (work->tok->byte_id[(uint8_t)word[i]] >= 0)
            work->id[n++] = work->tok->byte_id[(uint8_t)word[i]];
    for (size_t i = 0; i < n; i++) {
        work->prev[i] = (uint32_t)i - 1;
        work->next[i] = (uint32_t)i + 1;
    }
    work->n_heap = 0;
    for (size_t i = 0; i < n && !err; i++)
        err = queue_pair(work, (uint32_t)i, n);
    while (work->n_heap && !err) {
        uint64_t top = heap_pop(work);
        if (work->rank[(uint32_t)top] == top >> 32)
            err = merge_at(work, (uint32_t)top, n);
    }
    for (size_t i = 0; i < n && !err; i = work->next[i])
        err = hd_ids_push(work->out, work->id[i]);
    return err;
}

/* --- words ------------------------------------------------------------------------------------ */

static enum hd_err merge_word(struct hd_token__work *work, const char *word, size_t len)
{
    const struct hd_tokenizer *tok = work->tok;
    int32_t whole = tok->ignore_merges ? hd_token__vocab_find(&tok->vocab, word, len) : -1;
    if (whole >= 0)
        return hd_ids_push(work->out, whole);
    if (len <= SHORT_WORD)
        return merge_short(tok, work->out, word, len);
    return merge_long(work, word, len);
}

enum hd_err hd_token__bpe(struct hd_token__work *work, const char *word, size_t len)
{
    if (!work->seen || len < 2 || len > SHORT_WORD)
        return merge_word(work, word, len);
    uint64_t hash = hd_hash64(word, len, 0);
    struct hd_token__seen *seen = &work->seen[hash % HD_TOKEN_SEEN];
    if (seen->hash == hash && seen->len == len && !memcmp(seen->word, word, len)) {
        for (size_t i = 0; i < seen->n; i++)
            hd_ids_push(work->out, work->out->id[seen->at + i]);
        return work->out->err;
    }
    size_t at = work->out->n;
    enum hd_err err = merge_word(work, word, len);
    if (!err)
        *seen = (struct hd_token__seen){.hash = hash,
                                        .word = word,
                                        .len = (uint32_t)len,
                                        .n = (uint32_t)(work->out->n - at),
                                        .at = at};
    return err;
}
