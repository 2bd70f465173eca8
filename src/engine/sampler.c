#include "engine/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/row.h"

struct hd_sampler {
    struct hd_sampling p;
    int n_vocab;
    struct hd_rng rng;
    bool penalties;
    /* only with penalties */
    uint8_t *seen;     /* [n_vocab] in the prompt or generated */
    int32_t *count;    /* [n_vocab] generated */
    int32_t *distinct; /* the ids seen, so that a step need not walk the vocabulary */
    int n_distinct;
    struct hd_logit_bias *bias; /* [n_bias] */
    size_t n_bias;
};

static bool within(float value, float min, float max)
{
    return value >= min && value <= max; /* false for NaN */
}

enum hd_err hd_sampling_check(const struct hd_sampling *s, struct hd_errmsg *msg)
{
    if (!within(s->temperature, 0, 100))
        return hd_fail(msg, HD_ERR_INVALID, "temperature is %g, must be 0 to 100",
                       (double)s->temperature);
    if (!within(s->top_p, 0, 1))
        return hd_fail(msg, HD_ERR_INVALID, "top_p is %g, must be 0 to 1", (double)s->top_p);
    if (s->top_k < 0)
        return hd_fail(msg, HD_ERR_INVALID, "top_k is %d, must not be negative", s->top_k);
    if (!within(s->min_p, 0, 1))
        return hd_fail(msg, HD_ERR_INVALID, "min_p is %g, must be 0 to 1", (double)s->min_p);
    if (!within(s->repetition_penalty, 0.01f, 10))
        return hd_fail(msg, HD_ERR_INVALID,
                       "repetition penalty is %g, must be 0.01 to 10 (1 = off)",
                       (double)s->repetition_penalty);
    if (!within(s->presence_penalty, -10, 10) || !within(s->frequency_penalty, -10, 10))
        return hd_fail(msg, HD_ERR_INVALID,
                       "presence and frequency penalties must be -10 to 10 (0 = off)");
    return HD_OK;
}

enum hd_err hd_sampler_new(struct hd_sampler **out, const struct hd_sampling *sampling, int n_vocab)
{
    *out = NULL;
    struct hd_sampler *s = calloc(1, sizeof *s);
    if (!s)
        return HD_ERR_NOMEM;
    s->p = *sampling;
    s->n_vocab = n_vocab;
    s->rng.state = sampling->seed;
    s->penalties = sampling->repetition_penalty != 1 || sampling->presence_penalty != 0 ||
                   sampling->frequency_penalty != 0;
    if (s->penalties) {
        s->seen = calloc((size_t)n_vocab, sizeof *s->seen);
        s->count = calloc((size_t)n_vocab, sizeof *s->count);
        s->distinct = malloc((size_t)n_vocab * sizeof *s->distinct);
        if (!s->seen || !s->count || !s->distinct) {
            hd_sampler_free(s);
            return HD_ERR_NOMEM;
        }
    }
    *out = s;
    return HD_OK;
}

void hd_sampler_free(struct hd_sampler *s)
{
    if (!s)
        return;
    free(s->seen);
    free(s->count);
    free(s->distinct);
    free(s->bias);
    free(s);
}

enum hd_err hd_sampler_bias(struct hd_sampler *s, const struct hd_logit_bias *bias, size_t n)
{
    if (!n)
        return HD_OK;
    s->bias = malloc(n * sizeof *s->bias);
    if (!s->bias)
        return HD_ERR_NOMEM;
    memcpy(s->bias, bias, n * sizeof *s->bias);
    s->n_bias = n;
    return HD_OK;
}

void hd_sampler_accept(struct hd_sampler *s, int32_t id, int is_generated)
{
    if (!s->penalties || id < 0 || id >= s->n_vocab)
        return;
    if (!s->seen[id]) {
        s->seen[id] = 1;
        s->distinct[s->n_distinct++] = id;
    }
    s->count[id] += is_generated != 0;
}

/* Repetition: Keskar et al. 2019 (divides what is positive, multiplies what is negative);
 * presence and frequency: as the OpenAI API defines them. */
static void penalise(const struct hd_sampler *s, float *logits)
{
    for (int i = 0; i < s->n_distinct; i++) {
        int32_t id = s->distinct[i];
        float l = logits[id];
        l = l > 0 ? l / s->p.repetition_penalty : l * s->p.repetition_penalty;
        if (s->count[id])
            l -= s->p.presence_penalty + s->p.frequency_penalty * (float)s->count[id];
        logits[id] = l;
    }
}

float hd_sampler_raw(const struct hd_sampler *s, int32_t id, float logit)
{
    for (size_t i = 0; i < s->n_bias; i++)
        if (s->bias[i].id == id)
            logit -= s->bias[i].bias;
    if (!s->penalties || !s->seen[id])
        return logit;
    if (s->count[id])
        logit += s->p.presence_penalty + s->p.frequency_penalty * (float)s->count[id];
    return logit > 0 ? logit * s->p.repetition_penalty : logit / s->p.repetition_penalty;
}

/* --- a heap that gives the likeliest first, ties to the lowest id ------------------------------
 */

static bool before(const struct hd_candidate *a, const struct hd_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sift(struct hd_candidate *heap, int n, int i)
{
    struct hd_candidate x = heap[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &x))
            break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

/* Moves the best to heap[n - 1]; the heap is then one shorter. */
static struct hd_candidate *pop(struct hd_candidate *heap, int n)
{
    struct hd_candidate best = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = best;
    sift(heap, n - 1, 0);
    return &heap[n - 1];
}

static double weight(const struct hd_sampler *s, float logit, float max)
{
    return exp(((double)logit - max) / s->p.temperature);
}

static double sum_of_weights(const struct hd_sampler *s, const float *logits, float max)
{
    float scale = s->p.temperature > 1e-6f ? 1 / s->p.temperature : 1e6f;
    return hd_row_sum_exp(logits, s->n_vocab, max, scale);
}

/* No filter: one walk over the vocabulary. */
static int32_t pick_any(struct hd_sampler *s, const float *logits, float max)
{
    double total = sum_of_weights(s, logits, max), sum = 0;
    int32_t last = -1;
    double target = hd_rng_uniform(&s->rng) * total;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (!isfinite(logits[i]))
            continue;
        sum += weight(s, logits[i], max);
        last = i;
        if (sum > target)
            break;
    }
    return last;
}

/* The k best, of which the worst is heap[0]; n of them, where there are so many. */
static int collect_best(const struct hd_sampler *s, const float *logits, int k,
                        struct hd_candidate *heap)
{
    int n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        struct hd_candidate x = {logits[i], i};
        if (!isfinite(x.logit) || (n == k && !(x.logit > heap[0].logit)))
            continue;
        int at = n < k ? n++ : 0;
        if (at) { /* grows from the end */
            for (; at && before(&heap[(at - 1) / 2], &x); at = (at - 1) / 2)
                heap[at] = heap[(at - 1) / 2];
        } else {
            for (int child; (child = 2 * at + 1) < n; at = child) {
                child += child + 1 < n && before(&heap[child], &heap[child + 1]);
                if (!before(&x, &heap[child]))
                    break;
                heap[at] = heap[child];
            }
        }
        heap[at] = x;
    }
    return n;
}

/* Collects what can be in the nucleus. All candidates below a share of (1 - top_p) / n_vocab weigh
 * less than 1 - top_p together, so the nucleus, made of the largest, never reaches them. */
static int collect(const struct hd_sampler *s, const float *logits, float max, double *total,
                   struct hd_candidate *out)
{
    int n = 0;
    double least = 0, cut = -INFINITY;
    if (s->p.top_k && s->p.top_k < s->n_vocab / 8)
        return collect_best(s, logits, s->p.top_k, out);
    *total = sum_of_weights(s, logits, max);
    if (!s->p.top_k)
        least = *total * (1 - (double)s->p.top_p) / s->n_vocab;
    if (least < s->p.min_p && !s->p.top_k && s->p.top_p >= 1)
        least = s->p.min_p;
    if (least > 0) /* a little lower than exact: a logit is cheaper to compare than a weight */
        cut = max + s->p.temperature * log(least) - 1e-4 * (1 + fabs((double)max));
    for (int32_t i = 0; i < s->n_vocab; i++)
        if (isfinite(logits[i]) && logits[i] >= cut)
            out[n++] = (struct hd_candidate){logits[i], i};
    return n;
}

static int32_t pick_filtered(struct hd_sampler *s, const float *logits, float max,
                             struct hd_candidate *heap)
{
    double total = 0, sum = 0, kept = 0;
    int n = collect(s, logits, max, &total, heap);
    int limit = s->p.top_k && s->p.top_k < n ? s->p.top_k : n;
    for (int i = n / 2; i-- > 0;)
        sift(heap, n, i);
    /* heap[n - 1], heap[n - 2], … become the candidates in order */
    int taken = 0;
    if (s->p.top_k) { /* top-p counts over what top-k leaves */
        total = 0;
        while (taken < limit)
            total += weight(s, pop(heap, n - taken++)->logit, max);
    }
    int chosen = 0;
    while (chosen < limit) {
        if (chosen == taken)
            pop(heap, n - taken++);
        double w = weight(s, heap[n - 1 - chosen].logit, max);
        if (chosen && w < s->p.min_p)
            break;
        chosen++;
        kept += w;
        if (s->p.top_p < 1 && kept >= s->p.top_p * total)
            break;
    }
    double target = hd_rng_uniform(&s->rng) * kept;
    for (int i = 0; i < chosen; i++) {
        sum += weight(s, heap[n - 1 - i].logit, max);
        if (sum > target)
            return heap[n - 1 - i].id;
    }
    return heap[n - chosen].id;
}

int32_t hd_sampler_pick(struct hd_sampler *s, float *logits, struct hd_candidate *scratch)
{
    if (s->penalties)
        penalise(s, logits);
    for (size_t i = 0; i < s->n_bias; i++)
        logits[s->bias[i].id] += s->bias[i].bias;
    int32_t best = hd_row_argmax(logits, s->n_vocab);
    if (best < 0 || s->p.temperature <= 0)
        return best;
    if (!s->p.top_k && s->p.top_p >= 1 && s->p.min_p <= 0)
        return pick_any(s, logits, logits[best]);
    return pick_filtered(s, logits, logits[best], scratch);
}
