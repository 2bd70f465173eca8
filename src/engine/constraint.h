/* Constrained answers: a request's grammar, compiled once for all requests that send the same.
 *
 * Made on the submitting thread; the scheduler's thread does the rest. The grammar holds for the
 * answer: a thought before it is free, and behind </think> two line feeds may precede the text. */
#ifndef HD_ENGINE_CONSTRAINT_H
#define HD_ENGINE_CONSTRAINT_H

#include <stdatomic.h>

#include "holdfast/holdfast.h"
#include "token/grammar/grammar.h"

struct hd_constraint;
struct hd_grammar_cache; /* of a model: its vocabulary as a tree, and the last grammars; thread-safe
                          */

/* Makes the cache at *cache where there is none yet. INVALID, UNSUPPORTED or LIMIT with a sentence
 * for a grammar that cannot be used. *out stays NULL where the request constrains nothing. */
enum hd_err hd_constraint_new(struct hd_constraint **out, _Atomic(struct hd_grammar_cache *) *cache,
                              const struct hd_tokenizer *tok, int n_vocab,
                              const struct hd_request *request, bool after_thought,
                              struct hd_errmsg *msg);
void hd_constraint_free(struct hd_constraint *constraint);
void hd_grammar_cache_free(struct hd_grammar_cache *cache);

/* Sets the logits of what may not come to minus infinity. INVALID where nothing may. */
enum hd_err hd_constraint_mask(struct hd_constraint *constraint, float *logits, int n_vocab);
/* Goes on by a token of the answer. */
enum hd_err hd_constraint_accept(struct hd_constraint *constraint, int32_t id);
/* Whether the text is complete and cannot go on. */
bool hd_constraint_done(struct hd_constraint *constraint);

#endif
