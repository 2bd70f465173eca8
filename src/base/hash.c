#include "base/hash.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hd_sha256 {
    EVP_MD_CTX *ctx;
};

enum hd_err hd_sha256_new(struct hd_sha256 **out)
{
    struct hd_sha256 *sha = calloc(1, sizeof *sha);
    *out = NULL;
    if (!sha)
        return HD_ERR_NOMEM;
    sha->ctx = EVP_MD_CTX_new();
    if (!sha->ctx || !EVP_DigestInit_ex(sha->ctx, EVP_sha256(), NULL)) {
        hd_sha256_free(sha);
        return HD_ERR_NOMEM;
    }
    *out = sha;
    return HD_OK;
}

void hd_sha256_update(struct hd_sha256 *sha, const void *data, size_t len)
{
    EVP_DigestUpdate(sha->ctx, data, len);
}

static void write_hex(char *hex, const unsigned char *md, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", md[i]);
}

void hd_sha256_finish(struct hd_sha256 *sha, char hex[65])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_DigestFinal_ex(sha->ctx, md, &n);
    write_hex(hex, md, 32);
    hd_sha256_free(sha);
}

void hd_sha256_free(struct hd_sha256 *sha)
{
    if (!sha)
        return;
    EVP_MD_CTX_free(sha->ctx);
    free(sha);
}

enum hd_err hd_sha256_hex(char hex[65], const void *data, size_t len)
{
    struct hd_sha256 *sha;
    enum hd_err err = hd_sha256_new(&sha);
    if (err)
        return err;
    hd_sha256_update(sha, data, len);
    hd_sha256_finish(sha, hex);
    return HD_OK;
}

enum hd_err hd_git_blob_hex(char hex[41], const void *data, size_t len)
{
    char head[32];
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int head_len = snprintf(head, sizeof head, "blob %zu", len) + 1; /* the NUL too */
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool done = ctx && EVP_DigestInit_ex(ctx, EVP_sha1(), NULL) &&
                EVP_DigestUpdate(ctx, head, (size_t)head_len) && EVP_DigestUpdate(ctx, data, len) &&
                EVP_DigestFinal_ex(ctx, md, &n) && n == 20;
    EVP_MD_CTX_free(ctx);
    if (!done)
        return HD_ERR_NOMEM;
    write_hex(hex, md, n);
    return HD_OK;
}

uint64_t hd_hash64(const void *data, size_t len, uint64_t seed)
{
    const unsigned char *p = data;
    uint64_t h = 0xcbf29ce484222325u ^ seed;
    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

/* Eight independent chains, so that the multiplications of one hide behind the others'. Each step
 * is a bijection of the chain's state for a given word and of the word for a given state; the
 * rotation brings high bits, which a product only moves up, back down. */
uint64_t hd_hash64_bulk(const void *data, size_t len, uint64_t seed)
{
    enum { LANES = 8, STEP = 8 * LANES };
    const uint64_t odd = 0x9e3779b97f4a7c15u;
    const unsigned char *p = data;
    uint64_t lane[LANES], h = seed ^ (uint64_t)len * odd;
    for (int i = 0; i < LANES; i++)
        lane[i] = seed + odd * (uint64_t)(i + 1);
    for (; len >= STEP; len -= STEP, p += STEP)
        for (int i = 0; i < LANES; i++) {
            uint64_t word;
            memcpy(&word, p + 8 * i, 8);
            word = (lane[i] ^ word) * odd;
            lane[i] = word << 29 | word >> 35;
        }
    for (int i = 0; i < LANES; i++) {
        h = (h ^ lane[i]) * odd;
        h = h << 31 | h >> 33;
    }
    return hd_hash64(p, len, h);
}
