/* Looking in the documents' other language, where those of the question's own do not answer:
 * translate the question (translate.h), search with the translation among passages of the other
 * language, and read these with the question as it was asked (read.h). */
#ifndef HD_KB_OTHER_LANGUAGE_H
#define HD_KB_OTHER_LANGUAGE_H

#include "kb/kb_impl.h"
#include "kb/passages.h"
#include "kb/read.h"

struct hd_kb__other;

/* Remembers what a later search needs; keeps nothing open. question, options' strings and who are
 * borrowed. */
enum hd_err hd_kb__other_new(struct hd_kb__other **out, const struct hd_kb *kb,
                             const struct hd_principal *who,
                             const struct hd_kb_ask_options *options, const char *question,
                             const char *model, size_t n_passage);
void hd_kb__other_free(struct hd_kb__other *other); /* NULL is fine */

/* The translation's request; then, with each result, what to submit next, or NULL. A base that
 * cannot be read any more (removed meanwhile) is one without passages. */
const struct hd_request *hd_kb__other_begin(struct hd_kb__other *other);
void hd_kb__other_feed(struct hd_kb__other *other, const char *text, size_t len);
const struct hd_request *hd_kb__other_next(struct hd_kb__other *other,
                                           const struct hd_result *result,
                                           struct hd_kb__judge *judge);
/* The request of now, NULL before begin and at the end. */
const struct hd_request *hd_kb__other_request(const struct hd_kb__other *other);

/* Once done: whether an answer was read, and from which passages; both belong to `other`. The
 * reading's total holds all requests, the translation's too. */
void hd_kb__other_result(struct hd_kb__other *other, struct hd_kb__reading *reading,
                         struct hd_kb__passages **passages);

#endif
