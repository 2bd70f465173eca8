/* What a text says, as far as it can be compared: its content terms and its numbers. Everything
 * that judges an answer (attribution, verification, quoting, confidence) compares these. */
#ifndef HD_KB_EVIDENCE_H
#define HD_KB_EVIDENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kb/analyse.h"
#include "kb/numbers.h"
#include "kb/search.h"

struct hd_kb__fact {
    uint64_t hash; /* of the term */
    float weight;
    bool exact; /* a number or code: present or not, nothing between */
};
struct hd_kb__evidence {
    struct hd_kb__fact *facts; /* owned; distinct, ascending by hash */
    size_t n;
    struct hd_kb__numbers numbers;
    float number_weight; /* of each; 0 where they count as facts */
};

/* Tools for one turn, not thread-safe. */
struct hd_kb__judge {
    struct hd_kb__analyser *analyser;
    struct hd_kb__terms terms;
    struct hd_buf folded;
};
enum hd_err hd_kb__judge_init(struct hd_kb__judge *judge);
void hd_kb__judge_dispose(struct hd_kb__judge *judge);

/* strict: numbers as an answer means them (numbers.h). Weights: words 1, pairs 0.8 (0.1 across the
 * border of two words), codes 1.5, parts 0; numbers 1.5, by value, however they are written. */
enum hd_err hd_kb__evidence_of(struct hd_kb__evidence *out, struct hd_kb__judge *judge,
                               const char *text, size_t len, bool strict);
/* The question's, weighted by how rare its terms are in the base. */
enum hd_err hd_kb__evidence_of_query(struct hd_kb__evidence *out, struct hd_kb__judge *judge,
                                     const char *question, const struct hd_kb__query *query);
void hd_kb__evidence_dispose(struct hd_kb__evidence *evidence);

bool hd_kb__evidence_has(const struct hd_kb__evidence *evidence, uint64_t hash);

/* The share of `what` (by weight) that `by` holds too, leaving out what `except` (nullable) holds;
 * *total (nullable) is the weight that was looked at. 0 of nothing is 0. */
double hd_kb__cover(const struct hd_kb__evidence *what, const struct hd_kb__evidence *by,
                    const struct hd_kb__evidence *except, double *total);
/* Whether every number of `what` stands in `by` or `also` (nullable). */
bool hd_kb__numbers_agree(const struct hd_kb__evidence *what, const struct hd_kb__evidence *by,
                          const struct hd_kb__evidence *also);

/* The text's language by its letters: whether ideographs prevail. */
bool hd_kb__is_chinese(const char *text);
/* Whether its ideographs are traditional ones: several of them, for one may be part of a name. */
bool hd_kb__is_traditional(const char *text);

#endif
