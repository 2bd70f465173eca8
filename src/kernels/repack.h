/* Repacked weights on disk: one file per model that holds the copies in the layout of x86/pack.h,
 * so that the next process has nothing to repack and shares the pages with others.
 *
 *   head   magic "HDREPACK", version, layout, identity of what was repacked, sizes, its checksum
 *   body   the source's path; a row per weight (type, shape, place, first checksum); a 64-bit
 *          checksum for each piece of about 256 KB of the copies
 *   data   the copies, each at a multiple of 4 KB; data begins at a multiple of 2 MiB and the file
 *          ends at one, so that all of it can lie in huge pages
 *
 * What is believed: head and body only if their checksums are right and every row equals what this
 * program would make of this model; a piece of a copy only after its checksum was computed over the
 * very bytes that products will read. A piece that fails is repacked from the model's file instead,
 * there and then, and the file counts as damaged. So a file that is cut, half written, foreign or
 * rotten costs time, never a number. Not covered: pages of a map that rot on disk after they were
 * checked, left memory and were read again.
 *
 * Two ways to use it. As a map: pages are shared with other processes, need no first touch, and may
 * be dropped under pressure. A file system with large folios (ext4 from Linux 6.16, XFS) gives
 * huge pages to a map that asks for them; small ones made generating from shared memory a third
 * slower, so where the system gives only small ones the bytes are read into anonymous huge pages
 * instead.
 *
 * Threads: open, map, write and free by one thread each; pieces are checked by any number. */
#ifndef HD_KERNELS_REPACK_H
#define HD_KERNELS_REPACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct hd_weight;
struct hd_repack;

/* The layout's number. Whoever changes a byte of what x86/pack.c makes raises it
 * (tests/unit/kernels/repack_test.c notices); files of another number are made anew. */
enum { HD_REPACK_VERSION = 1, HD_REPACK_LAYOUT = 1 };

/* Which file, of what. All borrowed for the call. */
struct hd_repack_key {
    const char *path;     /* of the file of copies */
    const char *identity; /* 64 hexadecimal digits: of the model's file as it is now */
    const char *source;   /* the model's path, for those who clean up */
    struct hd_weight *const *weights;
    size_t n;
};

/* Copies of all weights together, as they lie in memory and in the file. */
size_t hd_repack_bytes(struct hd_weight *const *weights, size_t n);

/* Opens and checks head and body. NOTFOUND where there is none; FORMAT (damaged), UNSUPPORTED
 * (another version or layout), DENIED (not a private file of this user) with a sentence: it is to
 * be made anew. */
enum hd_err hd_repack_open(struct hd_repack **out, const struct hd_repack_key *key,
                           struct hd_errmsg *msg);
void hd_repack_free(struct hd_repack *repack); /* NULL is fine; after the weights' last use */
/* Maps the data. NULL where the map cannot be made, or where its pages would be small and `small`
 * is false. Copy-on-write: a piece that fails its check is replaced in this process alone. */
void *hd_repack_map(struct hd_repack *repack, bool small);
/* Whether the data lies in the page cache, as far as a look at every 2 MB of it tells. */
bool hd_repack_resident(const struct hd_repack *repack);
/* Lets weight i take its pieces from here: of the map, into which hd_weight_place has put it, or
 * read into the memory that it was given. */
void hd_repack_attach(struct hd_repack *repack, struct hd_weight *weight, size_t i);
/* All pieces were taken: the map becomes read-only. */
void hd_repack_seal(struct hd_repack *repack);
/* Pieces that had to be repacked because of a wrong checksum or a failed read. */
size_t hd_repack_n_bad(const struct hd_repack *repack);

/* Writes the file from finished copies: to PATH.tmp, synced, renamed. Goes past the page cache, so
 * that the next reader gets huge pages. BUSY where another process is writing it, CANCELLED where
 * *stop became true; nothing is left then. */
enum hd_err hd_repack_write(const struct hd_repack_key *key, const atomic_bool *stop,
                            struct hd_errmsg *msg);
/* Puts the file's pages in the place of the copies at `memory` (contiguous, hd_repack_bytes),
 * 16 MB at a time, each compared first; products may run meanwhile. Stops early, with the rest left
 * as it was, where bytes differ (FORMAT), pages would be small and `small` is false (UNSUPPORTED),
 * or *stop becomes true (CANCELLED). */
enum hd_err hd_repack_move(struct hd_repack *repack, void *memory, size_t bytes, bool small,
                           const atomic_bool *stop, struct hd_errmsg *msg);

/* What a file says of itself, for cleaning up and for showing. */
struct hd_repack_info {
    char identity[65];
    char *source; /* owned */
    uint64_t bytes;
    uint32_t version, layout;
};
enum hd_err hd_repack_look(struct hd_repack_info *out, int fd, struct hd_errmsg *msg);

#endif
