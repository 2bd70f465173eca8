/* Hashes: SHA-256 (libcrypto) for identity, git's SHA-1 where a hub knows no other, FNV-1a for
 * tables. */
#ifndef HD_BASE_HASH_H
#define HD_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct hd_sha256; /* a running digest; not thread-safe */
enum hd_err hd_sha256_new(struct hd_sha256 **out);
void hd_sha256_update(struct hd_sha256 *sha, const void *data, size_t len);
/* Writes 64 lower-case hexadecimal digits and a NUL, and frees sha. */
void hd_sha256_finish(struct hd_sha256 *sha, char hex[65]);
void hd_sha256_free(struct hd_sha256 *sha); /* without a result; NULL is fine */
enum hd_err hd_sha256_hex(char hex[65], const void *data, size_t len);

/* What git calls a file of these bytes: SHA-1 of "blob LEN", a NUL and the bytes, 40 digits. */
enum hd_err hd_git_blob_hex(char hex[41], const void *data, size_t len);

uint64_t hd_hash64(const void *data, size_t len, uint64_t seed); /* FNV-1a, 64 bits, mixed */
/* For large pieces, as fast as memory: against damage, not against people. One changed word always
 * changes the result. */
uint64_t hd_hash64_bulk(const void *data, size_t len, uint64_t seed);

#endif
