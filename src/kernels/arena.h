/* Where the copies of a model's weights live: one piece of memory per model.
 *
 *   PRIVATE  anonymous pages, huge ones where the system gives them
 *   MEMFD    an anonymous file of this process, sealed once it is filled: nothing can change it
 *   SHM      a file in /dev/shm that outlives the process: the next one with the same key finds it
 *            filled and has nothing to read. It belongs to the user (0600), is named
 *            holdfast-KEY and stays until it is removed or the machine restarts.
 *
 * A shared file begins with a page of its own: magic, version, size, state, checksum of these. Who
 * fills it holds an exclusive lock meanwhile, so a half-filled file of a killed process is told
 * from one in the making. */
#ifndef HD_KERNELS_ARENA_H
#define HD_KERNELS_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum hd_arena_kind { HD_ARENA_PRIVATE, HD_ARENA_MEMFD, HD_ARENA_SHM };

struct hd_arena;

/* key: for SHM, letters, digits and '-'; what differs must have different keys. BUSY where another
 * process is filling this one, LIMIT where /dev/shm has no room. */
enum hd_err hd_arena_new(struct hd_arena **out, enum hd_arena_kind kind, size_t bytes,
                         const char *key, struct hd_errmsg *msg);
void *hd_arena_data(const struct hd_arena *arena); /* zeroed, unless it was found filled */
bool hd_arena_found(const struct hd_arena *arena); /* SHM: it was filled before */
/* The contents are complete: read-only from here on. Once, by one thread. */
void hd_arena_seal(struct hd_arena *arena);
void hd_arena_free(struct hd_arena *arena); /* NULL is fine; a sealed shared file stays */
/* Removes shared files of this user whose key begins with prefix, except `keep` (nullable) and
 * those in use. Returns how many. */
int hd_arena_remove(const char *prefix, const char *keep);

#endif
