/* BM25 over passages and their headings.
 *
 *   score(passage) = sum over query terms q of  weight(q) · idf(q) · tf·(k1+1) / (tf + k1)
 *   tf  = n_text / (1 - b + b·length/mean length) + heading weight · n_heading
 *   idf = ln(1 + (N - df + 0.5) / (df + 0.5))
 *
 * The constants were fitted on bench/retrieval.py's sets. */
#ifndef HD_KB_SEARCH_H
#define HD_KB_SEARCH_H

#include "kb/kb_impl.h"

/* A question's terms as the base knows them. */
struct hd_kb__query_term {
    int64_t id, df; /* df 0: the base does not hold it */
    double idf, weight;
    uint32_t term; /* index into terms */
};
struct hd_kb__query {
    struct hd_kb__terms terms;
    struct hd_kb__query_term *items; /* distinct terms */
    size_t n;
    int64_t n_chunk; /* of the base */
};
void hd_kb__query_dispose(struct hd_kb__query *query);

/* A second text (the turn before) that helps to find passages, at a lower weight. */
struct hd_kb__query_text {
    const char *text;
    double weight;
};

/* Searches with the mutex held and within one read transaction, and hands out the query. query is
 * owned by the caller (dispose even on error). */
enum hd_err hd_kb__search(struct hd_kb *kb, const struct hd_principal *who,
                          const struct hd_kb__query_text *texts, size_t n_text,
                          const struct hd_kb_search_options *options, struct hd_kb_hits *out,
                          struct hd_kb__query *query, struct hd_errmsg *msg);

#endif
