#include "engine/blocks.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = -1 };

struct block {
    int32_t refs;
    int32_t prev, next; /* in the LRU list (oldest first), or next in the free list */
    bool published, saved, ahead;
    struct hd_block_key key;
};

struct hd_blocks {
    int32_t n_block, n_free, n_cached;
    int32_t free_head;
    int32_t lru_head, lru_tail;
    struct block *block;
    int32_t unsaved_at; /* where the search for unsaved ones goes on */
    void (*on_evict)(void *ud, int32_t block, const struct hd_block_key *key);
    void *evict_ud;
    /* Open addressing, linear probing: block numbers, NONE = empty. */
    int32_t *slot;
    uint32_t mask;
};

enum hd_err hd_blocks_new(struct hd_blocks **out, int32_t n_block)
{
    *out = NULL;
    uint32_t n_slot = 4;
    while (n_slot < (uint32_t)n_block * 2u && n_slot < 1u << 30)
        n_slot *= 2;
    if (n_block < 1 || n_block > 1 << 28)
        return HD_ERR_LIMIT;
    struct hd_blocks *b = calloc(1, sizeof *b);
    if (!b)
        return HD_ERR_NOMEM;
    b->block = calloc((size_t)n_block, sizeof *b->block);
    b->slot = malloc((size_t)n_slot * sizeof *b->slot);
    if (!b->block || !b->slot) {
        hd_blocks_free(b);
        return HD_ERR_NOMEM;
    }
    b->n_block = b->n_free = n_block;
    b->mask = n_slot - 1;
    b->lru_head = b->lru_tail = NONE;
    for (uint32_t i = 0; i < n_slot; i++)
        b->slot[i] = NONE;
    /* Low numbers first: memory of blocks that were never taken is never touched. */
    for (int32_t i = 0; i < n_block; i++)
        b->block[i].next = i + 1 < n_block ? i + 1 : NONE;
    *out = b;
    return HD_OK;
}

void hd_blocks_free(struct hd_blocks *b)
{
    if (!b)
        return;
    free(b->block);
    free(b->slot);
    free(b);
}

/* --- table of keys --------------------------------------------------------------------------- */

static uint32_t home_of(const struct hd_blocks *b, const struct hd_block_key *key)
{
    uint32_t h;
    memcpy(&h, key->bytes, sizeof h);
    return h & b->mask;
}

/* The slot of a key, or the empty one where it would go. */
static uint32_t slot_of(const struct hd_blocks *b, const struct hd_block_key *key)
{
    uint32_t i = home_of(b, key);
    while (b->slot[i] != NONE && memcmp(&b->block[b->slot[i]].key, key, sizeof *key))
        i = (i + 1) & b->mask;
    return i;
}

/* Removes a key and moves later ones of the run back, so that no gap cuts them off. */
static void unpublish(struct hd_blocks *b, int32_t block)
{
    uint32_t hole = slot_of(b, &b->block[block].key);
    b->block[block].published = false;
    b->slot[hole] = NONE;
    for (uint32_t i = (hole + 1) & b->mask; b->slot[i] != NONE; i = (i + 1) & b->mask) {
        uint32_t home = home_of(b, &b->block[b->slot[i]].key);
        if (((i - home) & b->mask) >= ((i - hole) & b->mask)) {
            b->slot[hole] = b->slot[i];
            b->slot[i] = NONE;
            hole = i;
        }
    }
}

/* --- lists ----------------------------------------------------------------------------------- */

static void lru_remove(struct hd_blocks *b, int32_t i)
{
    struct block *x = &b->block[i];
    if (x->prev != NONE)
        b->block[x->prev].next = x->next;
    else
        b->lru_head = x->next;
    if (x->next != NONE)
        b->block[x->next].prev = x->prev;
    else
        b->lru_tail = x->prev;
    b->n_cached--;
}

static void lru_append(struct hd_blocks *b, int32_t i)
{
    b->block[i].prev = b->lru_tail;
    b->block[i].next = NONE;
    if (b->lru_tail != NONE)
        b->block[b->lru_tail].next = i;
    else
        b->lru_head = i;
    b->lru_tail = i;
    b->n_cached++;
}

static void free_push(struct hd_blocks *b, int32_t i)
{
    b->block[i].next = b->free_head;
    b->free_head = i;
    b->n_free++;
}

/* --- what sessions call ------------------------------------------------------------------------
 */

int32_t hd_blocks_take(struct hd_blocks *b)
{
    int32_t i = NONE;
    if (b->n_free) {
        i = b->free_head;
        b->free_head = b->block[i].next;
        b->n_free--;
    } else if (b->n_cached) {
        i = b->lru_head;
        lru_remove(b, i);
        if (b->on_evict && !b->block[i].saved)
            b->on_evict(b->evict_ud, i, &b->block[i].key);
        unpublish(b, i);
    } else {
        return NONE;
    }
    b->block[i].refs = 1;
    b->block[i].saved = b->block[i].ahead = false;
    return i;
}

int32_t hd_blocks_find(struct hd_blocks *b, const struct hd_block_key *key)
{
    int32_t i = b->slot[slot_of(b, key)];
    if (i == NONE)
        return NONE;
    if (!b->block[i].refs)
        lru_remove(b, i);
    b->block[i].refs++;
    return i;
}

void hd_blocks_share(struct hd_blocks *b, int32_t i)
{
    b->block[i].refs++;
}

void hd_blocks_release(struct hd_blocks *b, int32_t i)
{
    if (--b->block[i].refs)
        return;
    if (b->block[i].published)
        lru_append(b, i);
    else
        free_push(b, i);
}

void hd_blocks_publish(struct hd_blocks *b, int32_t i, const struct hd_block_key *key)
{
    uint32_t slot = slot_of(b, key);
    if (b->block[i].published || b->slot[slot] != NONE)
        return;
    b->block[i].key = *key;
    b->block[i].published = true;
    b->slot[slot] = i;
}

void hd_blocks_on_evict(struct hd_blocks *b,
                        void (*fn)(void *ud, int32_t block, const struct hd_block_key *key),
                        void *ud)
{
    b->on_evict = fn;
    b->evict_ud = ud;
}

void hd_blocks_set_saved(struct hd_blocks *b, int32_t i)
{
    b->block[i].saved = true;
}

void hd_blocks_set_ahead(struct hd_blocks *b, int32_t i)
{
    b->block[i].ahead = true;
}

bool hd_blocks_is_ahead(const struct hd_blocks *b, int32_t i)
{
    return b->block[i].ahead;
}

int32_t hd_blocks_unsaved(struct hd_blocks *b, struct hd_block_key *key)
{
    for (int32_t n = 0; n < b->n_block; n++) {
        int32_t i = b->unsaved_at;
        if (b->block[i].published && !b->block[i].saved) {
            *key = b->block[i].key;
            return i;
        }
        b->unsaved_at = (i + 1) % b->n_block;
    }
    return NONE;
}

void hd_blocks_forget(struct hd_blocks *b)
{
    for (int32_t i = 0; i < b->n_block; i++) {
        if (!b->block[i].published)
            continue;
        unpublish(b, i);
        if (!b->block[i].refs) {
            lru_remove(b, i);
            free_push(b, i);
        }
    }
}

int32_t hd_blocks_total(const struct hd_blocks *b)
{
    return b->n_block;
}

int32_t hd_blocks_used(const struct hd_blocks *b)
{
    return b->n_block - b->n_free - b->n_cached;
}

int32_t hd_blocks_available(const struct hd_blocks *b)
{
    return b->n_free + b->n_cached;
}

bool hd_blocks_check(const struct hd_blocks *b)
{
    int32_t n_free = 0, n_cached = 0, n_used = 0, n_published = 0, n_slot = 0;
    for (int32_t i = b->free_head; b->n_free && i != NONE && n_free <= b->n_block;
         i = b->block[i].next, n_free++)
        if (b->block[i].refs || b->block[i].published)
            return false;
    for (int32_t i = b->lru_head; i != NONE && n_cached <= b->n_block;
         i = b->block[i].next, n_cached++)
        if (b->block[i].refs || !b->block[i].published)
            return false;
    for (int32_t i = 0; i < b->n_block; i++) {
        n_used += b->block[i].refs > 0;
        n_published += b->block[i].published;
        if (b->block[i].refs < 0 ||
            (b->block[i].published && b->slot[slot_of(b, &b->block[i].key)] != i))
            return false;
    }
    for (uint32_t i = 0; i <= b->mask; i++)
        n_slot += b->slot[i] != NONE;
    return n_free == b->n_free && n_cached == b->n_cached && n_slot == n_published &&
           n_free + n_cached + n_used == b->n_block;
}
