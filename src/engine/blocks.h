/* KV blocks of one model: who holds which, and which may be reused for an equal beginning.
 *
 * A block holds the keys and values of HD_KV_BLOCK consecutive tokens of one sequence. It is
 *   free     never written, or its content is worthless;
 *   used     held by one or more sessions (reference count);
 *   cached   held by nobody, full, known by its key; reused or evicted, least recently used first.
 * A key names the whole history of a block (engine/request.c), so equal keys mean equal content.
 *
 * Invariants (hd_blocks_check): refs > 0 ⇔ used; a block is in exactly one of the free list, the
 * LRU list, or use; every published key is found at its block; counts add up.
 *
 * Owned by the scheduler thread. Nothing here allocates after hd_blocks_new. */
#ifndef HD_ENGINE_BLOCKS_H
#define HD_ENGINE_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct hd_blocks;
struct hd_block_key {
    uint8_t bytes[32]; /* SHA-256 */
};

enum hd_err hd_blocks_new(struct hd_blocks **out, int32_t n_block);
void hd_blocks_free(struct hd_blocks *blocks); /* NULL is fine */

/* A block with one reference, evicting a cached one if none is free; -1 where all are used. */
int32_t hd_blocks_take(struct hd_blocks *blocks);
/* The published block of a key with one more reference, or -1. */
int32_t hd_blocks_find(struct hd_blocks *blocks, const struct hd_block_key *key);
/* One more reference to a block that is used. */
void hd_blocks_share(struct hd_blocks *blocks, int32_t block);
void hd_blocks_release(struct hd_blocks *blocks, int32_t block);
/* Makes a held, completely written block findable. Nothing where the key is known already. */
void hd_blocks_publish(struct hd_blocks *blocks, int32_t block, const struct hd_block_key *key);
/* Called before a cached block that is not saved is reused for something else. */
void hd_blocks_on_evict(struct hd_blocks *blocks,
                        void (*fn)(void *ud, int32_t block, const struct hd_block_key *key),
                        void *ud);
/* Marks that last until the block is taken anew: saved elsewhere; computed ahead of any request. */
void hd_blocks_set_saved(struct hd_blocks *blocks, int32_t block);
void hd_blocks_set_ahead(struct hd_blocks *blocks, int32_t block);
bool hd_blocks_is_ahead(const struct hd_blocks *blocks, int32_t block);
/* A published block that is not saved, and its key; -1 where there is none. */
int32_t hd_blocks_unsaved(struct hd_blocks *blocks, struct hd_block_key *key);
/* Forgets all keys (cached blocks become free). */
void hd_blocks_forget(struct hd_blocks *blocks);

int32_t hd_blocks_total(const struct hd_blocks *blocks);
int32_t hd_blocks_used(const struct hd_blocks *blocks);
int32_t hd_blocks_available(const struct hd_blocks *blocks); /* free or cached */
bool hd_blocks_check(const struct hd_blocks *blocks);

#endif
