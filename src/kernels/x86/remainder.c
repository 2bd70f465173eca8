/* Remainders: a second column for activation rows that one set of 8-bit values serves badly.
 *
 * x is rounded to q·s; the remainder x - q·s, rounded to 8 bits in turn, is one more column of the
 * same product, and the two sums are added: 16 bits of precision where they are needed, with the
 * same kernels and one pass over the weights. It is needed
 *   - in the output matrix, whose sums are the logits themselves, for prompt rows: few of them want
 *     logits. (Generated rows would pay for it: with two columns this product is no longer bound by
 *     memory, which took 15% off the speed of generating with the 1.5B.)
 *   - in rows where single elements tower over the others: the first token of a text and some
 *     delimiters carry such "massive activations" (Sun et al. 2024), and a block of 32 that shares
 *     a scale with one of them keeps nothing of its other elements.
 * Whether a row gets one depends on that row and on the weight's use alone, so invariance holds. */
#include <math.h>
#include <string.h>

#include "kernels/x86/driver.h"

/* The share of a row's energy (sum of squares) in its largest element from which on it is massive.
 * Qwen2.5-Coder 1.5B, mean KL to the reference over a text and its first position's: never 6.1e-4
 * and 0.25; 0.5: 2.9e-4 and below 1e-3, for 4% of the speed of a prompt; 0.25: 2.5e-4, for 6%. */
static const float MASSIVE = 0.5f;

/* x minus what the back end's rounding keeps of it, by groups that share a scale. */
static void take_remainder(float *out, const float *x, int64_t n, int64_t group)
{
    for (int64_t begin = 0; begin < n; begin += group) {
        int64_t end = begin + group < n ? begin + group : n;
        float amax = 0;
        for (int64_t i = begin; i < end; i++)
            amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
        float inverse = amax > 1e-30f ? 127.0f / amax : 0.0f, scale = amax / 127.0f;
        for (int64_t i = begin; i < end; i++)
            out[i] = x[i] - rintf(x[i] * inverse) * scale;
    }
}

/* Lanes side by side, so that the compiler may keep them in vectors; their order is fixed. */
bool hd_x86_remainder_wanted(const float *x, int64_t n)
{
    enum { LANES = 16 };
    float most[LANES] = {0}, square[LANES] = {0}, amax = 0, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float magnitude = fabsf(x[i + l]);
            most[l] = magnitude > most[l] ? magnitude : most[l];
            square[l] += magnitude * magnitude;
        }
    for (int l = 0; l < LANES; l++) {
        amax = most[l] > amax ? most[l] : amax;
        sum += square[l];
    }
    for (; i < n; i++) {
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
        sum += x[i] * x[i];
    }
    return amax * amax > MASSIVE * sum;
}

size_t hd_x86_remainder_bytes(int64_t n, int64_t n_picked, int64_t n_in)
{
    return hd_round_up((size_t)(n + n_picked) * sizeof(int32_t), 64) +
           (size_t)(n_picked * n_in) * sizeof(float);
}

void hd_x86_remainder_add(struct hd_activations *a, const int32_t *picked, int64_t n_picked,
                          int64_t group, void *memory)
{
    int32_t *index = memory;
    float *remainder =
        (float *)((char *)memory + hd_round_up((size_t)(a->n + n_picked) * sizeof *index, 64));
    int64_t at = 0, next = 0;
    for (int64_t p = 0; p < n_picked; p++) {
        take_remainder(remainder + p * a->n_in, hd_column_row(a, picked[p]), a->n_in, group);
        index[at++] = picked[p];
        index[at++] = (int32_t)~p;
    }
    for (int64_t i = 0; i < a->n; i++) {
        if (next < n_picked && picked[next] == i)
            next++;
        else
            index[at++] = (int32_t)i;
    }
    a->index = index;
    a->remainder = remainder;
    a->n = at;
}
