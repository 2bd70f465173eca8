/* Matrices that a checkpoint keeps in several tensors (store.h, struct hd_store_quant), laid out as
 * rows of blocks (tensor/rows.c). Every value keeps its bits: q, zero and scale only move.
 *
 * AWQ and GPTQ store inputs as rows, so this is a transposition: a strip of outputs at a time, so
 * that a strip's words and rows stay in the cache. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/model_impl.h"

enum { STRIP = 64 }; /* outputs at a time: whole words of any scheme */

/* What is wanted of a tensor: blocks [block, block + n_block) of the rows [row, row + n). */
struct piece {
    uint8_t *out; /* rows one after another */
    size_t stride;
    const struct hd_store_tensor *t;
    const int32_t *order;
    int64_t row, n, block, n_block;
    int size, bytes; /* of a block */
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
        uint32_t word = 0;
        for (int64_t j = 0, o = begin; j < n; j++, o++) {
            if (!j || o % 8 == 0)
                word = u32_at(p->q, i * (n_out / 8) + o / 8);
            q[j] = word >> (4 * awq_nibble[o % 8]) & 15;
        }
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

/* At most STRIP rows of the piece from row `first` of it on. */
static void int_strip(const struct piece *p, int64_t first, int64_t n)
{
    const struct hd_store_tensor *t = p->t;
    int64_t n_in = t->ne[0], o = p->row + first;
    uint8_t *rows = p->out + (size_t)first * p->stride;
    for (int64_t j = 0; j < n; j++)
        memset(rows + (size_t)j * p->stride, 0, p->stride);
    for (int64_t b = 0; b < p->n_block; b++, rows += p->bytes) {
        int64_t begin = (p->block + b) * p->size, group = begin / t->quant->group;
        for (int64_t j = 0; j < n; j++) {
            uint8_t *out = rows + (size_t)j * p->stride;
            memcpy(out, t->quant->scale + 2 * (group * t->ne[1] + o + j), 2);
            out[2] = zero_of(t, group, o + j);
        }
        for (int k = 0; k < p->size && begin + k < n_in; k++) {
            uint8_t q[STRIP], *out = rows + 3;
            take_inputs(q, t, p->order ? p->order[begin + k] : begin + k, o, n);
            for (int64_t j = 0; j < n; j++, out += p->stride) {
                if (t->quant->bits == 8)
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

/* A block with a NaN among its values gets NaN for a scale: nobody may miss it. */
static void fp8_row(const struct piece *p, uint8_t *out, int64_t o)
{
    const struct hd_store_quant *quant = p->t->quant;
    int64_t n_in = p->t->ne[0], n_scale = n_in / quant->group + (n_in % quant->group != 0);
    for (int64_t i = p->block * 128; i < (p->block + p->n_block) * 128; i += 128, out += 132) {
        float scale = fp8_scale(quant, o / quant->group_rows * n_scale + i / quant->group);
        size_t n = n_in - i < 128 ? (size_t)(n_in - i) : 128;
        memcpy(out + 4, quant->q + o * n_in + i, n);
        memset(out + 4 + n, 0, 128 - n);
        for (size_t k = 0; k < n; k++)
            if ((out[4 + k] & 0x7f) == 0x7f)
                scale = NAN;
        memcpy(out, &scale, 4);
    }
}

static float bnb_scale(const struct hd_store_quant *p, int64_t i)
{
    if (!p->nested_scale)
        return f32_at(p->scale, i);
    float scale = f32_at(p->nested_map, p->scale[i]) * f32_at(p->nested_scale, i / p->nested_group);
    return scale + p->nested_offset;
}

/* The file has a byte's first element in its high nibble. */
static void bnb_row(const struct piece *p, uint8_t *out, int64_t o)
{
    const struct hd_store_quant *quant = p->t->quant;
    int64_t n_in = p->t->ne[0];
    for (int64_t i = p->block * 64; i < (p->block + p->n_block) * 64; i += 64, out += 36) {
        float scale = bnb_scale(quant, (o * n_in + i) / quant->group);
        const uint8_t *q = quant->q + (o * n_in + i) / 2;
        memcpy(out, &scale, 4);
        for (int k = 0; k < 32; k++)
            out[4 + k] = (uint8_t)(q[k] >> 4 | q[k] << 4);
    }
}

/* --- pieces -----------------------------------------------------------------------------------
 */

/* Rows that lie in the file as they are wanted. */
static void plain_row(const struct piece *p, uint8_t *out, int64_t o)
{
    size_t row_bytes = hd_dtype_row_bytes(p->t->dtype, p->t->ne[0]);
    memcpy(out,
           (const uint8_t *)p->t->data + (size_t)o * row_bytes +
               (size_t)p->block * (size_t)p->bytes,
           p->stride);
}

static void read_piece(void *out, const struct hd_store_tensor *t, const int32_t *order,
                       int64_t row, int64_t n, int64_t block, int64_t n_block)
{
    const struct hd_dtype_info *info = hd_dtype_info(t->dtype);
    const struct piece p = {.out = out,
                            .stride = (size_t)n_block * (size_t)info->block_bytes,
                            .t = t,
                            .order = order,
                            .row = row,
                            .n = n,
                            .block = block,
                            .n_block = n_block,
                            .size = info->block,
                            .bytes = info->block_bytes};
    if (t->quant && (t->quant->scheme == HD_SCHEME_AWQ || t->quant->scheme == HD_SCHEME_GPTQ)) {
        for (int64_t first = 0; first < n; first += STRIP)
            int_strip(&p, first, n - first < STRIP ? n - first : STRIP);
        return;
    }
    void (*read_row)(const struct piece *, uint8_t *, int64_t) = !t->quant ? plain_row
                                                                 : t->quant->scheme == HD_SCHEME_FP8
                                                                     ? fp8_row
                                                                     : bnb_row;
    for (int64_t j = 0; j < n; j++)
        read_row(&p, p.out + (size_t)j * p.stride, row + j);
}

/* --- sources ----------------------------------------------------------------------------------
 */

static void source_read(const struct hd_weight_source *source, void *out, int64_t matrix,
                        int64_t row, int64_t n_row, int64_t block, int64_t n_block)
{
    const struct hd_parts *parts = (const struct hd_parts *)source;
    const int32_t *order = parts->order;
    if (parts->n_tensor > 1)
        read_piece(out, parts->t[matrix], order ? order + matrix * parts->t[0]->ne[0] : NULL, row,
                   n_row, block, n_block);
    else
        read_piece(out, parts->t[0], order, matrix * parts->matrix_rows + parts->first_row + row,
                   n_row, block, n_block);
}

static void source_advise(const struct hd_weight_source *source, bool wanted)
{
    const struct hd_parts *parts = (const struct hd_parts *)source;
    for (int64_t i = 0; i < parts->n_tensor; i++) {
        const struct hd_store_tensor *t = parts->t[i];
        if (!t->quant)
            hd_map_advise(t->data, t->bytes, wanted);
        for (int j = 0; t->quant && j < t->quant->n_part; j++)
            hd_map_advise(t->quant->part[j].data, t->quant->part[j].bytes, wanted);
    }
}

struct hd_parts *hd_parts__new(int64_t n_tensor)
{
    struct hd_parts *parts = calloc(1, sizeof *parts + (size_t)n_tensor * sizeof *parts->t);
    if (!parts)
        return NULL;
    parts->source = (struct hd_weight_source){source_read, source_advise};
    parts->n_tensor = n_tensor;
    return parts;
}

/* --- all rows at once -------------------------------------------------------------------------
 */

struct rows_job {
    uint8_t *out;
    const struct hd_store_tensor *t;
    const int32_t *order;
    size_t row_bytes;
    int64_t n_block;
};

static void rows_task(void *ud, size_t begin, size_t end, int thread)
{
    const struct rows_job *job = ud;
    int64_t row = (int64_t)begin * STRIP, stop = (int64_t)end * STRIP;
    stop = stop < job->t->ne[1] ? stop : job->t->ne[1];
    read_piece(job->out + (size_t)row * job->row_bytes, job->t, job->order, row, stop - row, 0,
               job->n_block);
}

void hd_parts__rows(void *out, const struct hd_store_tensor *t, const int32_t *order,
                    struct hd_pool *pool)
{
    size_t row_bytes = hd_dtype_row_bytes(t->dtype, t->ne[0]);
    struct rows_job job = {out, t, order, row_bytes,
                           (int64_t)row_bytes / hd_dtype_info(t->dtype)->block_bytes};
    hd_pool_run(pool, (size_t)(t->ne[1] + STRIP - 1) / STRIP, 1, rows_task, &job);
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
