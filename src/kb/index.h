/* The inverted index: terms, and for each the chunks that hold it.
 *
 * Postings of a term lie in blobs, one per block of 2048 chunk ids:
 *     varint (chunk id - previous id), varint (text count * 2 + has heading count),
 *     [varint heading count]
 * ids ascending, the first counted from the block's begin. A chunk's own list of terms is kept
 * beside (chunk_terms: varint term id differences, ascending), so that removing it finds every
 * posting without analysing anything again. */
#ifndef HD_KB_INDEX_H
#define HD_KB_INDEX_H

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "kb/analyse.h"
#include "kb/store.h"

enum { HD_KB__BLOCK = 2048 };

/* Collects postings of new chunks in memory until they are flushed inside a transaction. */
struct hd_kb__indexer;
enum hd_err hd_kb__indexer_new(struct hd_kb__indexer **out, struct hd_kb__store *store);
void hd_kb__indexer_free(struct hd_kb__indexer *indexer);
/* Adds a chunk; ids must ascend. Writes the chunk's own list at once. */
enum hd_err hd_kb__indexer_add(struct hd_kb__indexer *indexer, int64_t chunk,
                               const struct hd_kb__terms *text, const struct hd_kb__terms *heading,
                               struct hd_errmsg *msg);
/* Writes the collected postings; the indexer is empty afterwards. */
enum hd_err hd_kb__indexer_flush(struct hd_kb__indexer *indexer, struct hd_errmsg *msg);

/* Removes a chunk from all postings, and terms that no chunk holds any more. */
enum hd_err hd_kb__index_remove(struct hd_kb__store *store, int64_t chunk, struct hd_errmsg *msg);

/* Calls fn for every chunk that holds a term. NOTFOUND is no error: df is 0 then. */
typedef void (*hd_kb__posting_fn)(void *ud, int64_t chunk, uint32_t n_text, uint32_t n_heading);
struct hd_kb__term_ref {
    int64_t id, df; /* df 0: the base does not know the term */
};
enum hd_err hd_kb__term_find(struct hd_kb__store *store, const char *text, size_t len,
                             struct hd_kb__term_ref *out, struct hd_errmsg *msg);
enum hd_err hd_kb__postings(struct hd_kb__store *store, int64_t term, hd_kb__posting_fn fn,
                            void *ud, struct hd_errmsg *msg);

/* Varints, little end first. get returns the bytes used, 0 where malformed. */
enum hd_err hd_kb__put_varint(struct hd_buf *out, uint64_t value);
size_t hd_kb__get_varint(uint64_t *out, const unsigned char *data, size_t len);

#endif
