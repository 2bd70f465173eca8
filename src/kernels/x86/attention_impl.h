/* Attention over the paged cache, written once for both vector widths: include a vec_*.h first and
 * define ISA(name) to the exported name.
 *
 * A task is one key/value head and some query rows that use it: the heads of its group at some
 * neighbouring positions. The cache is walked in its blocks of 64 positions; a block of keys is
 * turned to F32 columns [dim][64] and one of values to F32 rows [64][dim], once for all rows of the
 * task, and the softmax is kept up to date as in Flash Attention (Dao et al. 2022): per row a
 * running maximum m, a sum l and an accumulator, all rescaled when m grows.
 *
 * A row's arithmetic does not depend on its companions: blocks start at multiples of 64 positions,
 * every visible block is computed over all its 64 places (what the row may not see has weight zero,
 * what is not written yet reads as zero), and blocks that a row cannot see at all are skipped. So
 * tasks may be cut by load and thread count. */

#include <math.h>
#include <string.h>

#include "kernels/x86/rows.h"

enum {
    TASK_ROWS = 128, /* query rows per task at most */
    QUERIES = 6,     /* rows that share loads of keys and values; their sums fill the registers */
    TOKEN_VECS = VW == 16 ? 4 : 2,
};

struct attention_job {
    const struct hd_tensor *out, *q, *k, *v;
    float scale;
    bool all; /* no cache: k and v are the sequences' own rows, and each row sees all of them */
    const struct hd_seq_rows *seqs;
    int n_seq;
    const int64_t *first_task; /* [n_seq + 1] */
    int64_t group;             /* query heads per cache head */
    int64_t heads;             /* of them in one task */
    int64_t tokens;            /* query positions in one task */
    uint8_t *scratch;
    size_t scratch_bytes; /* per thread */
};

/* A task's rows, ordered by position; row r is token r / heads, head r % heads. */
struct rows {
    const struct hd_seq_rows *seq;
    int64_t kv_head, first_head, heads;
    int64_t first_token, n_row; /* token: relative to the sequence's rows */
    float *k_columns;           /* [dim_k][64] */
    float *v_rows;              /* [64][dim_v] */
    const uint8_t *v_half;      /* or the cache's F16 rows themselves, the first n_half of 64 */
    int64_t n_half;
    float *acc;       /* [n_row][dim_v] */
    float *max, *sum; /* [n_row] */
};

/* --- a block of the cache to F32
 * ------------------------------------------------------------------ */

/* Eight elements of one block of Q8_0: f16 scale, 32 signed bytes. */
INLINE __m256 load8_q8(const uint8_t *row, int64_t d)
{
    const uint8_t *block = row + d / 32 * 34;
    uint16_t scale;
    memcpy(&scale, block, sizeof scale);
    __m128i bytes = _mm_loadl_epi64((const __m128i *)(block + 2 + d % 32));
    __m256 f = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    return _mm256_mul_ps(f, _mm256_cvtph_ps(_mm_set1_epi16((short)scale)));
}

INLINE __m256 load8(const struct hd_tensor *cache, const uint8_t *row, int64_t d)
{
    if (cache->dtype == HD_F32)
        return _mm256_loadu_ps((const float *)row + d);
    if (cache->dtype == HD_Q8_0)
        return load8_q8(row, d);
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(row + 2 * d)));
}

static float load1(const struct hd_tensor *cache, const uint8_t *row, int64_t d)
{
    if (cache->dtype == HD_F32)
        return ((const float *)row)[d];
    return hd_f16_to_f32(((const uint16_t *)row)[d]);
}

/* Transposes eight rows of eight floats to columns that are HD_KV_BLOCK apart. */
INLINE void transpose8(float *out, const __m256 in[8])
{
    __m256 a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_ps(in[2 * i], in[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_ps(in[2 * i], in[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm256_shuffle_ps(a[4 * i + j], a[4 * i + 2 + j], 0x44);
            b[4 * i + 2 * j + 1] = _mm256_shuffle_ps(a[4 * i + j], a[4 * i + 2 + j], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i * HD_KV_BLOCK, _mm256_permute2f128_ps(b[i], b[4 + i], 0x20));
        _mm256_storeu_ps(out + (4 + i) * HD_KV_BLOCK, _mm256_permute2f128_ps(b[i], b[4 + i], 0x31));
    }
}

/* Positions from `count` on read as zero: nobody wrote them yet. */
static void load_keys(float *out, const struct hd_tensor *k, const uint8_t *block, int64_t count)
{
    int64_t dim = k->ne[0], whole = dim / 8 * 8;
    for (int64_t t = 0; t < HD_KV_BLOCK; t += 8) {
        for (int64_t d = 0; d < whole; d += 8) {
            __m256 in[8];
            for (int i = 0; i < 8; i++)
                in[i] = t + i < count ? load8(k, block + (size_t)(t + i) * k->nb[1], d)
                                      : _mm256_setzero_ps();
            transpose8(out + d * HD_KV_BLOCK + t, in);
        }
        for (int64_t d = whole; d < dim; d++)
            for (int64_t i = t; i < t + 8; i++)
                out[d * HD_KV_BLOCK + i] =
                    i < count ? load1(k, block + (size_t)i * k->nb[1], d) : 0.0f;
    }
}

static void load_values(float *out, const struct hd_tensor *v, const uint8_t *block, int64_t count)
{
    int64_t dim = v->ne[0], stride = (int64_t)hd_round_up((size_t)dim, VW);
    for (int64_t t = 0; t < HD_KV_BLOCK; t++, out += stride) {
        const uint8_t *row = block + (size_t)t * v->nb[1];
        if (t >= count) {
            memset(out, 0, (size_t)stride * sizeof *out);
            continue;
        }
        for (int64_t d = 0; v->dtype == HD_Q8_0 && d < dim; d += 8) /* dim is a multiple of 32 */
            _mm256_storeu_ps(out + d, load8_q8(row, d));
        for (int64_t d = 0; v->dtype != HD_Q8_0 && d < dim; d += VW)
            vec_store(out + d, v->dtype == HD_F32
                                   ? vec_load_n((const float *)row + d, dim - d)
                                   : vec_load_f16_n((const uint16_t *)row + d, dim - d));
    }
}

/* What the next block will read, asked for while this one is multiplied: step bytes of it per step
 * of a loop of n. */
struct ahead {
    const char *block;
    int64_t step, n;
};

INLINE void fetch(const struct ahead *a, int64_t i)
{
    for (int64_t at = i * a->step; i < a->n && at < (i + 1) * a->step; at += 64)
        _mm_prefetch(a->block + at, _MM_HINT_T1);
}

/* --- N rows against one block
 * ---------------------------------------------------------------------- */

/* score[N][64] = q · k, unscaled. */
INLINE void scores(float (*score)[HD_KV_BLOCK], const float *const *q, const float *k, int64_t dim,
                   const struct ahead *ahead, int N)
{
    for (int64_t t = 0; t < HD_KV_BLOCK; t += TOKEN_VECS * VW) {
        vec acc[QUERIES][TOKEN_VECS];
        for (int r = 0; r < N; r++)
            for (int j = 0; j < TOKEN_VECS; j++)
                acc[r][j] = vec_zero();
        for (int64_t d = 0; d < dim; d++) {
            vec column[TOKEN_VECS];
            fetch(ahead, t == 0 ? d : dim);
            for (int j = 0; j < TOKEN_VECS; j++)
                column[j] = vec_load(k + d * HD_KV_BLOCK + t + j * VW);
            for (int r = 0; r < N; r++) {
                vec x = vec_set1(q[r][d]);
                for (int j = 0; j < TOKEN_VECS; j++)
                    acc[r][j] = vec_fma(x, column[j], acc[r][j]);
            }
        }
        for (int r = 0; r < N; r++)
            for (int j = 0; j < TOKEN_VECS; j++)
                vec_store(score[r] + t + j * VW, acc[r][j]);
    }
}

/* Turns scores into weights exp(scale · score - max), keeps max and sum; returns by how much the
 * accumulator must shrink. The row sees the first n places. */
INLINE float soften(float *score, int64_t n, float scale, float *max, float *sum)
{
    vec largest = vec_set1(-INFINITY), total = vec_zero();
    vec s[HD_KV_BLOCK / VW];
    for (int j = 0; j < HD_KV_BLOCK / VW; j++) {
        s[j] = vec_mul(vec_load(score + j * VW), vec_set1(scale));
        if (n < (j + 1) * VW) { /* hide what lies behind the row's own position */
            float hidden[VW];
            vec_store(hidden, s[j]);
            for (int64_t i = n - j * VW > 0 ? n - j * VW : 0; i < VW; i++)
                hidden[i] = -INFINITY;
            s[j] = vec_load(hidden);
        }
        largest = vec_max(largest, s[j]);
    }
    float m = fmaxf(*max, vec_largest(largest));
    for (int j = 0; j < HD_KV_BLOCK / VW; j++) {
        vec p = vec_exp(vec_sub(s[j], vec_set1(m)));
        total = vec_add(total, p);
        vec_store(score + j * VW, p);
    }
    float shrink = expf(*max - m);
    *max = m;
    *sum = *sum * shrink + vec_sum(total);
    return shrink;
}

/* Values from d on of position t: F32 rows, or (half) the cache's own. */
INLINE vec value_at(const uint8_t *v, int64_t row_bytes, int64_t t, int64_t d, bool half)
{
    const uint8_t *row = v + t * row_bytes;
    return half ? vec_load_f16((const uint16_t *)row + d) : vec_load((const float *)row + d);
}

/* acc[r] = acc[r] · shrink[r] + weight[r] · V over n positions, for V vectors of the columns from d
 * on. */
INLINE void add_values(float *const *acc, const float *shrink, float (*weight)[HD_KV_BLOCK],
                       const uint8_t *v, int64_t row_bytes, int64_t n, int64_t d,
                       const struct ahead *ahead, bool half, int N, int V)
{
    vec sum[QUERIES][4];
    for (int r = 0; r < N; r++)
        for (int j = 0; j < V; j++)
            sum[r][j] = vec_mul(vec_load(acc[r] + d + j * VW), vec_set1(shrink[r]));
    for (int64_t t = 0; t < n; t++) {
        vec value[4];
        fetch(ahead, d == 0 ? t : HD_KV_BLOCK);
        for (int j = 0; j < V; j++)
            value[j] = value_at(v, row_bytes, t, d + j * VW, half);
        for (int r = 0; r < N; r++) {
            vec p = vec_set1(weight[r][t]);
            for (int j = 0; j < V; j++)
                sum[r][j] = vec_fma(p, value[j], sum[r][j]);
        }
    }
    for (int r = 0; r < N; r++)
        for (int j = 0; j < V; j++)
            vec_store(acc[r] + d + j * VW, sum[r][j]);
}

/* Rows [r, r + N) of the task against the block that starts at position `base`. */
INLINE void rows_block(const struct attention_job *job, const struct rows *x, int64_t r,
                       int64_t base, const struct ahead ahead[2], int N)
{
    float weight[QUERIES][HD_KV_BLOCK], shrink[QUERIES];
    const float *q[QUERIES];
    float *acc[QUERIES];
    int64_t stride = (int64_t)hd_round_up((size_t)job->v->ne[0], VW), d = 0;
    for (int i = 0; i < N; i++) {
        int64_t token = x->first_token + (r + i) / x->heads;
        q[i] = hd_tensor_row(job->q, x->first_head + (r + i) % x->heads, x->seq->begin + token);
        acc[i] = x->acc + (r + i) * stride;
    }
    scores(weight, q, x->k_columns, job->k->ne[0], &ahead[0], N);
    for (int i = 0; i < N; i++) {
        int64_t sees =
            (job->all ? x->seq->n : x->seq->pos + x->first_token + (r + i) / x->heads + 1) - base;
        shrink[i] = soften(weight[i], sees, job->scale, &x->max[r + i], &x->sum[r + i]);
    }
    if (x->v_half) {
        for (; d + TOKEN_VECS * VW <= stride; d += TOKEN_VECS * VW)
            add_values(acc, shrink, weight, x->v_half, (int64_t)job->v->nb[1], x->n_half, d,
                       &ahead[1], true, N, TOKEN_VECS);
        for (; d < stride; d += VW)
            add_values(acc, shrink, weight, x->v_half, (int64_t)job->v->nb[1], x->n_half, d,
                       &ahead[1], true, N, 1);
        return;
    }
    const uint8_t *v = (const uint8_t *)x->v_rows;
    const int64_t row_bytes = stride * (int64_t)sizeof(float);
    for (; d + TOKEN_VECS * VW <= stride; d += TOKEN_VECS * VW)
        add_values(acc, shrink, weight, v, row_bytes, HD_KV_BLOCK, d, &ahead[1], false, N,
                   TOKEN_VECS);
    for (; d < stride; d += VW)
        add_values(acc, shrink, weight, v, row_bytes, HD_KV_BLOCK, d, &ahead[1], false, N, 1);
}

/* --- a task
 * ------------------------------------------------------------------------------------------ */

/* Where the block of positions from `base` on begins. Without a cache, rows in the batch's order
 * have the strides of one. */
static const uint8_t *block_at(const struct attention_job *job, const struct hd_tensor *cache,
                               const struct rows *x, int64_t base)
{
    if (!job->all)
        return hd_kv_row(cache, x->seq->table, base, x->kv_head);
    return cache->buffer->data + cache->offset + (size_t)x->kv_head * cache->nb[2] +
           (size_t)(x->seq->begin + base) * cache->nb[1];
}

/* The block of positions from `base` on, in n pieces. */
static struct ahead ahead_of(const struct attention_job *job, const struct hd_tensor *cache,
                             const struct rows *x, int64_t base, int64_t n)
{
    return (struct ahead){(const char *)block_at(job, cache, x, base),
                          (int64_t)cache->nb[1] * HD_KV_BLOCK / n, n};
}

static void attend(const struct attention_job *job, struct rows *x)
{
    int64_t stride = (int64_t)hd_round_up((size_t)job->v->ne[0], VW);
    int64_t first_pos = x->seq->pos + x->first_token;
    /* one past the last row's */
    int64_t end_pos = job->all ? x->seq->n : first_pos + (x->n_row - 1) / x->heads + 1;
    /* Few rows do not pay for a copy of the values. */
    bool in_place = x->n_row <= QUERIES && job->v->dtype == HD_F16 && job->v->ne[0] % VW == 0;
    memset(x->acc, 0, (size_t)(x->n_row * stride) * sizeof(float));
    for (int64_t r = 0; r < x->n_row; r++) {
        x->max[r] = -INFINITY;
        x->sum[r] = 0;
    }
    for (int64_t base = 0; base < end_pos; base += HD_KV_BLOCK) {
        int64_t count = end_pos - base;
        load_keys(x->k_columns, job->k, block_at(job, job->k, x, base), count);
        const uint8_t *values = block_at(job, job->v, x, base);
        x->v_half = in_place ? values : NULL;
        x->n_half = count < HD_KV_BLOCK ? count : HD_KV_BLOCK;
        if (!in_place)
            load_values(x->v_rows, job->v, values, count);
        struct ahead ahead[2] = {{0}};
        if (!job->all && count > HD_KV_BLOCK) {
            ahead[0] = ahead_of(job, job->k, x, base + HD_KV_BLOCK, job->k->ne[0]);
            ahead[1] = ahead_of(job, job->v, x, base + HD_KV_BLOCK, HD_KV_BLOCK);
        }
        /* Rows of positions before this block are through. */
        int64_t r = !job->all && base > first_pos ? (base - first_pos) * x->heads : 0;
        for (; r + QUERIES <= x->n_row; r += QUERIES) {
            rows_block(job, x, r, base, ahead, QUERIES);
            ahead[0].n = ahead[1].n = 0;
        }
        for (; r + 4 <= x->n_row; r += 4)
            rows_block(job, x, r, base, ahead, 4);
        for (; r + 2 <= x->n_row; r += 2)
            rows_block(job, x, r, base, ahead, 2);
        if (r < x->n_row)
            rows_block(job, x, r, base, ahead, 1);
    }
    for (int64_t r = 0; r < x->n_row; r++) {
        float *out = hd_tensor_row(job->out, x->first_head + r % x->heads,
                                   x->seq->begin + x->first_token + r / x->heads);
        vec inverse = vec_set1(1.0f / x->sum[r]);
        for (int64_t d = 0; d < job->v->ne[0]; d += VW)
            vec_store_n(out + d, vec_mul(vec_load(x->acc + r * stride + d), inverse),
                        job->v->ne[0] - d);
    }
}

static void attention_task(void *ud, size_t begin, size_t end, int thread)
{
    struct attention_job *job = ud;
    float *p = (float *)(job->scratch + (size_t)thread * job->scratch_bytes);
    struct rows x = {.max = p, .sum = p + TASK_ROWS, .k_columns = p + 2 * TASK_ROWS};
    x.v_rows = x.k_columns + job->k->ne[0] * HD_KV_BLOCK;
    x.acc = x.v_rows + hd_round_up((size_t)job->v->ne[0], VW) * HD_KV_BLOCK;
    int64_t splits = (job->group + job->heads - 1) / job->heads, n_kv = job->k->ne[2];
    for (int64_t t = (int64_t)begin; t < (int64_t)end; t++) {
        int seq = 0;
        while (t >= job->first_task[seq + 1])
            seq++;
        x.seq = &job->seqs[seq];
        /* The longest walks first, so that no thread ends with one. */
        int64_t i = job->first_task[seq + 1] - 1 - t;
        int64_t split = i % splits;
        x.kv_head = i / splits % n_kv;
        x.first_token = i / splits / n_kv * job->tokens;
        x.first_head = x.kv_head * job->group + split * job->heads;
        x.heads = job->group - split * job->heads;
        x.heads = x.heads < job->heads ? x.heads : job->heads;
        int64_t tokens = x.seq->n - x.first_token;
        x.n_row = (tokens < job->tokens ? tokens : job->tokens) * x.heads;
        attend(job, &x);
    }
}

/* Heads and positions per task: all heads of a group if they fit, fewer if there would be fewer
 * tasks than threads. */
static void cut_tasks(struct attention_job *job, int threads, int64_t n_row)
{
    job->heads = job->group < TASK_ROWS ? job->group : TASK_ROWS;
    while (job->heads > QUERIES &&
           n_row * job->k->ne[2] * ((job->group + job->heads - 1) / job->heads) < threads)
        job->heads = (job->heads + 1) / 2;
    job->tokens = TASK_ROWS / job->heads;
}

static void run(struct hd_stream *s, struct attention_job job)
{
    int threads = hd_pool_threads(s->pool), n_seq = job.n_seq;
    int64_t n_row = 0;
    int64_t *first = hd_stream_scratch(s, HD_SCRATCH_GROUPS, (size_t)(n_seq + 1) * sizeof *first);
    size_t stride = hd_round_up((size_t)job.v->ne[0], VW);
    job.scratch_bytes = (2 * TASK_ROWS + (size_t)job.k->ne[0] * HD_KV_BLOCK + stride * HD_KV_BLOCK +
                         stride * TASK_ROWS) *
                        sizeof(float);
    job.scratch_bytes = hd_round_up(job.scratch_bytes, 64);
    job.scratch = hd_stream_scratch(s, HD_SCRATCH_THREADS, job.scratch_bytes * (size_t)threads);
    if (!first || !job.scratch)
        return;
    for (int i = 0; i < n_seq; i++)
        n_row += job.seqs[i].n;
    int64_t n_kv = job.k->ne[2];
    job.group = job.q->ne[1] / n_kv;
    cut_tasks(&job, threads, n_row);
    int64_t splits = (job.group + job.heads - 1) / job.heads;
    first[0] = 0;
    for (int i = 0; i < n_seq; i++)
        first[i + 1] = first[i] + (job.seqs[i].n + job.tokens - 1) / job.tokens * n_kv * splits;
    job.first_task = first;
    hd_pool_run(s->pool, (size_t)first[n_seq], 1, attention_task, &job);
}

void ISA(attention)(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                    struct hd_tensor k, struct hd_tensor v, float scale,
                    const struct hd_seq_rows *seqs, int n_seq, enum hd_form form)
{
    struct attention_job job = {
        .out = &out, .q = &q, .k = &k, .v = &v, .scale = scale, .seqs = seqs, .n_seq = n_seq};
    run(s, job);
}

/* Rows [n, n_head, dim] with the dimensions in a cache's order. */
static struct hd_tensor as_cache(struct hd_tensor rows)
{
    struct hd_tensor t = rows;
    t.ne[1] = HD_KV_BLOCK;
    t.nb[1] = rows.nb[2];
    t.ne[2] = rows.ne[1];
    t.nb[2] = rows.nb[1];
    return t;
}

void ISA(attention_all)(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                        struct hd_tensor k, struct hd_tensor v, float scale,
                        const struct hd_seq_rows *seqs, int n_seq)
{
    struct hd_tensor keys = as_cache(k), values = as_cache(v);
    struct attention_job job = {.out = &out,
                                .q = &q,
                                .k = &keys,
                                .v = &values,
                                .scale = scale,
                                .all = true,
                                .seqs = seqs,
                                .n_seq = n_seq};
    run(s, job);
}
