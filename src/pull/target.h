/* The file that a pull fills: <file>.partial, what of it is finished, and its way to <file>.
 *
 * Beside <file>.partial lies a journal, <file>.partial.journal: lines of text, each with a
 * checksum,
 *
 *     HDPULL01 SIZE IDENTITY CHECK      what is being fetched; IDENTITY is the SHA-256 of the
 *                                       whole, or "git-" and git's name for it
 *     source LABEL ETAG CHECK           where from, and the file's version there ("-": none given)
 *     done BEGIN END CHECK              bytes [BEGIN, END) are on the disk
 *
 * A `done` line is written, and synced, only after its bytes are synced: after a crash of the
 * program or of the machine, what the journal says is true, and a torn last line is ignored. So a
 * pull goes on where it was, from the same source or from another one that offers the same hash.
 *
 * <file> appears by rename, after the hash of the whole was checked: never half done.
 *
 * Threads: hd_target_write, _commit, _next_gap, _progress may be called by many threads at once;
 * everything else by one, while none of these runs. */
#ifndef HD_PULL_TARGET_H
#define HD_PULL_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct hd_target;

/* Locks <models>/<file> against other pulls, in whatever process (BUSY if one runs). */
enum hd_err hd_target_open(struct hd_target **out, const char *models, const char *file,
                           struct hd_errmsg *msg);
/* Unlocks; what is unfinished stays for the next time. NULL is fine. */
void hd_target_close(struct hd_target *target);

/* Opens the partial file for `size` bytes whose whole has the hash `identity`, and takes over what
 * the journal says is finished, unless it speaks of another file, or of another version (`etag`,
 * may be "") at the source `label`: then from scratch. LIMIT, with the figures, where the disk
 * lacks the space (plus `extra` bytes for the source's own use). May be called again, for the next
 * source. */
enum hd_err hd_target_begin(struct hd_target *target, uint64_t size, const char *identity,
                            const char *label, const char *etag, uint64_t extra,
                            struct hd_errmsg *msg);
/* Whether an earlier run has fetched every byte of that file and only the check is due; looks,
 * before _begin, and changes nothing. */
bool hd_target_is_complete(struct hd_target *target, uint64_t size, const char *identity);
/* Forgets and removes what was fetched. */
void hd_target_discard(struct hd_target *target);

enum hd_err hd_target_write(struct hd_target *target, uint64_t offset, const void *data, size_t len,
                            struct hd_errmsg *msg);
/* Bytes [begin, end) were written: syncs them, then says so in the journal. */
enum hd_err hd_target_commit(struct hd_target *target, uint64_t begin, uint64_t end,
                             struct hd_errmsg *msg);
/* The first unfinished stretch at or after `from`, at most `max` bytes; false if there is none. */
bool hd_target_next_gap(struct hd_target *target, uint64_t from, uint64_t max, uint64_t *begin,
                        uint64_t *end);
/* Whether all of [begin, end) is finished. */
bool hd_target_has(struct hd_target *target, uint64_t begin, uint64_t end);

/* Bytes that have come, finished or not yet: adds delta, returns the sum. For progress alone. */
uint64_t hd_target_progress(struct hd_target *target, int64_t delta);
uint64_t hd_target_size(const struct hd_target *target); /* 0 before _begin */
/* Whether a failure was this machine's (disk full, I/O error): another source would not help. */
bool hd_target_failed(const struct hd_target *target);

/* SHA-256 of the partial file; tick(done, ud) is called now and then and may stop it. */
enum hd_err hd_target_hash(struct hd_target *target, char hex[65],
                           enum hd_err (*tick)(uint64_t done, void *ud), void *ud,
                           struct hd_errmsg *msg);
/* What git calls the partial file (base/hash.h); in memory at once, so for small files. */
enum hd_err hd_target_git_blob(struct hd_target *target, char hex[41], struct hd_errmsg *msg);
/* Makes what will be published out of the partial file: fn writes it to fd. Its size and SHA-256 go
 * to *size and hex. The partial file stays until _publish. */
enum hd_err hd_target_convert(struct hd_target *target,
                              enum hd_err (*fn)(int fd, const char *path, struct hd_errmsg *msg),
                              uint64_t *size, char hex[65], struct hd_errmsg *msg);
/* Gives the file, or what was made of it, its final name and removes the journal. */
enum hd_err hd_target_publish(struct hd_target *target, struct hd_errmsg *msg);
/* Tries to make the partial file share the blocks of fd (same file system, copy on write); false
 * where that cannot be. */
bool hd_target_clone(struct hd_target *target, int fd);

/* Whether the disk has room for what is missing of `size` bytes, and `extra`; before or after
 * _begin. */
enum hd_err hd_target_check_space(struct hd_target *target, uint64_t size, uint64_t extra,
                                  struct hd_errmsg *msg);
/* LIMIT, with the figures, where the file system of `folder` has less than `bytes` free. */
enum hd_err hd_space_check(const char *folder, const char *what, uint64_t bytes,
                           struct hd_errmsg *msg);
/* "1.12 GB", "491 MB": decimal units, as disks and networks count. */
const char *hd_size_text(char out[32], uint64_t bytes);

#endif
