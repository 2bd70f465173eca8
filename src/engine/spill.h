/* KV blocks on disk: encrypted, authenticated, within a budget; they survive restarts.
 *
 * One file per block under a folder of mode 0700, named by the block's key, which names the whole
 * history of its content (policy.h). Layout, little-endian:
 *   0  magic "HDKVBLK", NUL     8  version u32 = 1      12  bytes of content u32
 *  16  the block's key [32]    48  nonce [12]           60  GCM tag [16]
 *  76  SHA-256 of bytes 0 … 75 [32]                    108  content, AES-256-GCM
 * The header up to the tag is authenticated with the content. A file is written beside its name and
 * renamed, so a process that is killed leaves whole files and scraps; whatever is not whole, not of
 * this key or not in its place fails authentication, is removed, and counts as absent.
 * The AES key lies in `key` (mode 0600): magic "HDKVKEY", NUL, version u32, 32 bytes, SHA-256 of
 * all before. Who loses it loses the cache, nothing else.
 *
 * Owned by one thread. A folder belongs to one process at a time (flock). */
#ifndef HD_ENGINE_SPILL_H
#define HD_ENGINE_SPILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/blocks.h"

struct hd_spill;

/* budget: bytes of files at most. Makes the folder and the key file where absent. */
enum hd_err hd_spill_open(struct hd_spill **out, const char *folder, uint64_t budget,
                          struct hd_errmsg *msg);
void hd_spill_close(struct hd_spill *spill); /* NULL is fine */
bool hd_spill_has(const struct hd_spill *spill, const struct hd_block_key *key);
/* Evicts the least recently used ones until there is room. LIMIT where there cannot be. */
enum hd_err hd_spill_write(struct hd_spill *spill, const struct hd_block_key *key, const void *data,
                           size_t len);
/* NOTFOUND where it is absent or was damaged (then it is removed). */
enum hd_err hd_spill_read(struct hd_spill *spill, const struct hd_block_key *key, void *data,
                          size_t len);
uint64_t hd_spill_bytes(const struct hd_spill *spill);
size_t hd_spill_count(const struct hd_spill *spill);

#endif
