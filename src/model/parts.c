/* Matrices that a checkpoint keeps in several tensors (store.h, struct hd_store_quant), laid out as
 * rows of blocks (tensor/rows.c). Every value keeps its bits: q, zero and scale only move.
 *
 * AWQ and GPTQ store inputs as rows, so this is a transposition: a strip of outputs at a time, so
 * that a strip's words and rows stay in the cache. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/model_impl.h"

enum { STRIP = 64 }; /* outputs per task: whole words of any scheme */

struct job {
    uint8_t *out;
    const struct hd_store_tensor *t;
    const int32_t *order;
    size_t row_bytes;
    int block, block_bytes;
    atomic_bool bad; /* a value is no number */
};

static uint32_t u32_at(const uint8_t *p, int64_t i)
{
    uint32_t v;
    memcpy(&v, p + 4 * i, 4);
    return v;
}

static uint16_t u16_at(const uint8_t *p, int64_t i)
{
    uint16_t v;
    memcpy(&v, p + 2 * i, 2);
    return v;
}

static float f32_at(const uint8_t *p, int64_t i)
{
    float v;
    memcpy(&v, p + 4 * i, 4);
    return v;
}

/* --- AWQ and GPTQ -----------------------------------------------------------------------------
 */

/* A row of AWQ's words: output 8c + j is nibble awq_nibble[j] of word c. */
static const uint8_t awq_nibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

/* q[j] = the stored value of input i and output begin + j, for n outputs. */
static void take_inputs(uint8_t *q, const struct hd_store_tensor *t, int64_t i, int64_t begin,
                        int64_t n)
{
    const struct hd_store_quant *p = t->quant;
    int64_t n_out = t->ne[1];
    if (p->scheme == HD_SCHEME_AWQ) {
        for (int64_t j = 0; j < n; j++)
            q[j] = (uint8_t)(u32_at(p->q, i * (n_out / 8) + (begin + j) / 8) >>
                                 (4 * awq_nibble[j % 8]) &
                             15);
        return;
    }
    int per_word = 32 / p->bits, shift = (int)(i % per_word) * p->bits;
    const uint8_t *row = p->q + (size_t)(i / per_word * n_out + begin) * 4;
    for (int64_t j = 0; j < n; j++)
        q[j] = (uint8_t)(u32_at(row, j) >> shift & (uint32_t)((1 << p->bits) - 1));
}

/* GPTQ v1 takes 1 from every zero, in whole words: a zero of 0 borrows from its neighbour, and the
 * addition gives it back (GPTQModel, convert_gptq_v1_to_v2_format_module). */
static uint8_t zero_of(const struct hd_store_tensor *t, int64_t group, int64_t o)
{
    const struct hd_store_quant *p = t->quant;
    int64_t per_word = 32 / p->bits;
    uint32_t word = u32_at(p->zero, group * (t->ne[1] / per_word) + o / per_word);
    int at = p->scheme == HD_SCHEME_AWQ ? awq_nibble[o % 8] : (int)(o % per_word);
    if (p->zero_minus_1)
        word += p->bits == 4 ? 0x11111111u : 0x01010101u;
    return (uint8_t)(word >> (at * p->bits) & (uint32_t)((1 << p->bits) - 1));
}

/* The scale and zero of block b of the strip's rows; false where a scale is no number. */
static bool put_scales(struct job *job, int64_t b, int64_t begin, int64_t n)
{
    const struct hd_store_quant *p = job->t->quant;
    int64_t group = b * job->block / p->group;
    bool finite = true;
    for (int64_t j = 0; j < n; j++) {
        uint8_t *out =
            job->out + (size_t)(begin + j) * job->row_bytes + (size_t)b * (size_t)job->block_bytes;
        uint16_t scale = u16_at(p->scale, group * job->t->ne[1] + begin + j);
        finite = finite && (scale & 0x7c00) != 0x7c00;
        memcpy(out, &scale, 2);
        out[2] = zero_of(job->t, group, begin + j);
    }
    return finite;
}

static void int_strip(struct job *job, int64_t begin, int64_t n)
{
    const struct hd_store_quant *p = job->t->quant;
    int64_t n_in = job->t->ne[0];
    for (int64_t b = 0; b * job->block < n_in; b++) {
        if (!put_scales(job, b, begin, n))
            atomic_store(&job->bad, true);
        for (int k = 0; k < job->block && b * job->block + k < n_in; k++) {
            int64_t i = b * job->block + k;
            uint8_t q[STRIP];
            take_inputs(q, job->t, job->order ? job->order[i] : i, begin, n);
            uint8_t *out = job->out + (size_t)begin * job->row_bytes +
                           (size_t)b * (size_t)job->block_bytes + 3;
            for (int64_t j = 0; j < n; j++, out += job->row_bytes) {
                if (p->bits == 8)
                    out[k] = q[j];
                else
                    out[k / 2] |= (uint8_t)(q[j] << (k % 2 * 4));
            }
        }
    }
}

/* --- FP8 and bitsandbytes ---------------------------------------------------------------------
 */

static float fp8_scale(const struct hd_store_quant *p, int64_t i)
{
    if (p->scale_dtype == HD_F32)
        return f32_at(p->scale, i);
    uint16_t h = u16_at(p->scale, i);
    return p->scale_dtype == HD_BF16 ? hd_bf16_to_f32(h) : hd_f16_to_f32(h);
}

static void fp8_row(struct job *job, int64_t o)
{
    const struct hd_store_quant *p = job->t->quant;
    int64_t n_in = job->t->ne[0], n_scale = n_in / p->group + (n_in % p->group != 0);
    uint8_t *out = job->out + (size_t)o * job->row_bytes;
    bool nan = false;
    for (int64_t i = 0; i < n_in; i += 128, out += 132) {
        float scale = fp8_scale(p, o / p->group_rows * n_scale + i / p->group);
        size_t n = n_in - i < 128 ? (size_t)(n_in - i) : 128;
        nan = nan || !isfinite(scale);
        memcpy(out, &scale, 4);
        memcpy(out + 4, p->q + o * n_in + i, n);
        for (size_t k = 0; k < n; k++)
            nan |= (out[4 + k] & 0x7f) == 0x7f;
    }
    if (nan)
        atomic_store(&job->bad, true);
}

static float bnb_scale(const struct hd_store_quant *p, int64_t i)
{
    if (!p->nested_scale)
        return f32_at(p->scale, i);
    float scale = f32_at(p->nested_map, p->scale[i]) * f32_at(p->nested_scale, i / p->nested_group);
    return scale + p->nested_offset;
}

/* The file has a byte's first element in its high nibble. */
static void bnb_row(struct job *job, int64_t o)
{
    const struct hd_store_quant *p = job->t->quant;
    int64_t n_in = job->t->ne[0];
    uint8_t *out = job->out + (size_t)o * job->row_bytes;
    for (int64_t i = 0; i < n_in; i += 64, out += 36) {
        float scale = bnb_scale(p, (o * n_in + i) / p->group);
        const uint8_t *q = p->q + (o * n_in + i) / 2;
        if (!isfinite(scale))
            atomic_store(&job->bad, true);
        memcpy(out, &scale, 4);
        for (int k = 0; k < 32; k++)
            out[4 + k] = (uint8_t)(q[k] >> 4 | q[k] << 4);
    }
}

/* --- the whole matrix -------------------------------------------------------------------------
 */

static void strips_task(void *ud, size_t begin, size_t end, int thread)
{
    struct job *job = ud;
    for (int64_t s = (int64_t)begin; s < (int64_t)end; s++) {
        int64_t first = s * STRIP, left = job->t->ne[1] - first, n = left < STRIP ? left : STRIP;
        enum hd_store_scheme scheme = job->t->quant->scheme;
        memset(job->out + (size_t)first * job->row_bytes, 0, (size_t)n * job->row_bytes);
        if (scheme == HD_SCHEME_AWQ || scheme == HD_SCHEME_GPTQ)
            int_strip(job, first, n);
        for (int64_t o = first; o < first + n; o++) {
            if (scheme == HD_SCHEME_FP8)
                fp8_row(job, o);
            else if (scheme == HD_SCHEME_BNB)
                bnb_row(job, o);
        }
    }
}

enum hd_err hd_parts__rows(void *out, const struct hd_store_tensor *t, const int32_t *order,
                           struct hd_pool *pool)
{
    const struct hd_dtype_info *info = hd_dtype_info(t->dtype);
    struct job job = {.out = out,
                      .t = t,
                      .order = order,
                      .row_bytes = hd_dtype_row_bytes(t->dtype, t->ne[0]),
                      .block = info->block,
                      .block_bytes = info->block_bytes};
    atomic_init(&job.bad, false);
    hd_pool_run(pool, (size_t)(t->ne[1] + STRIP - 1) / STRIP, 1, strips_task, &job);
    return atomic_load(&job.bad) ? HD_ERR_FORMAT : HD_OK;
}

enum hd_err hd_parts__order(int32_t **out, const struct hd_store_tensor *t)
{
    const struct hd_store_quant *p = t->quant;
    int64_t n_in = t->ne[0], n_group = n_in / p->group + (n_in % p->group != 0);
    *out = NULL;
    if (!p->g_idx)
        return HD_OK;
    int32_t *order = malloc((size_t)n_in * sizeof *order);
    int64_t *next = malloc((size_t)n_group * sizeof *next);
    for (int64_t g = 0; order && next && g < n_group; g++)
        next[g] = g * p->group; /* the store checked that every group is full */
    for (int64_t i = 0; order && next && i < n_in; i++)
        order[next[u32_at(p->g_idx, i)]++] = (int32_t)i;
    if (!next || !order) {
        free(next);
        free(order);
        return HD_ERR_NOMEM;
    }
    free(next);
    *out = order;
    return HD_OK;
}

void hd_parts__drop(const struct hd_store_tensor *t)
{
    for (int i = 0; i < t->quant->n_part; i++)
        hd_map_drop(t->quant->part[i].data, t->quant->part[i].bytes);
}
