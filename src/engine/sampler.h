/* The sampler: from a row of logits to a token.
 *
 * Order: penalties on the logits, bias, then, unless the temperature is 0 (the largest logit, ties
 * to the lowest id), temperature, top-k, top-p over what top-k left, min-p. One random number per
 * token, so the same seed and the same logits give the same text. A sampler belongs to one session;
 * the scratch may be shared by sessions of one thread. Picking allocates nothing. */
#ifndef HD_ENGINE_SAMPLER_H
#define HD_ENGINE_SAMPLER_H

#include <stdint.h>

#include "base/error.h"
#include "holdfast/holdfast.h"

struct hd_sampler;
struct hd_candidate { /* scratch: n_vocab of them */
    float logit;
    int32_t id;
};

/* INVALID with a sentence for a value out of range. */
enum hd_err hd_sampling_check(const struct hd_sampling *sampling, struct hd_errmsg *msg);
enum hd_err hd_sampler_new(struct hd_sampler **out, const struct hd_sampling *sampling,
                           int n_vocab);
void hd_sampler_free(struct hd_sampler *sampler); /* NULL is fine */
/* Copies what is to be added to logits, behind the penalties. Ids must be within the vocabulary. */
enum hd_err hd_sampler_bias(struct hd_sampler *sampler, const struct hd_logit_bias *bias, size_t n);

/* Tells the sampler of a token in the sequence. Prompt tokens count for the repetition penalty,
 * generated ones for all three. */
void hd_sampler_accept(struct hd_sampler *sampler, int32_t id, int is_generated);
/* Changes the logits. -1 where no logit is a number. */
int32_t hd_sampler_pick(struct hd_sampler *sampler, float *logits, struct hd_candidate *scratch);
/* The logit that id had before picking changed it to `logit`; before the pick is accepted. */
float hd_sampler_raw(const struct hd_sampler *sampler, int32_t id, float logit);

#endif
