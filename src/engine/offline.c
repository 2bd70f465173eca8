/* Log-probabilities and the benchmark: runs of the scheduler thread beside its sessions.
 *
 * Both take KV blocks of their own and work in pieces (hd_engine__call), so that generations go on
 * between the pieces; hd_engine_bench measures and therefore runs in one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine_impl.h"

/* --- log-probabilities -------------------------------------------------------------------------
 */

struct logits_run {
    struct hd_loaded *model;
    const int32_t *ids;
    size_t n_id, n_prefill; /* rows, of these fed as prompt */
    bool draft;             /* ids has one more than n_id: the rows' next ids */
    uint8_t *wanted;        /* [n_id] */
    int32_t *table;
    int n_block, n_need;
    size_t done; /* rows computed */
    /* of the last piece */
    float *logits; /* [n_out_max, n_vocab] */
    int32_t rows[HD_OUT_ROWS];
    int n_row;
    enum hd_err err;
    struct hd_errmsg *msg;
};

static void take_blocks(struct hd_engine *e, void *ud)
{
    struct logits_run *run = ud;
    struct hd_blocks *blocks = run->model->blocks;
    if (hd_blocks_available(blocks) < run->n_need) {
        run->err = hd_fail(run->msg, HD_ERR_BUSY,
                           "logits: %d KV blocks needed, %d are free (try again later)",
                           run->n_need, hd_blocks_available(blocks));
        return;
    }
    while (run->n_block < run->n_need)
        run->table[run->n_block++] = hd_blocks_take(blocks);
}

static void give_blocks(struct hd_engine *e, void *ud)
{
    struct logits_run *run = ud;
    while (run->n_block)
        hd_blocks_release(run->model->blocks, run->table[--run->n_block]);
}

/* Rows of the next piece: prompt rows up to a block's end that has no more wanted rows before it
 * than the buffer holds; generated rows one by one. */
static int next_piece(const struct logits_run *run)
{
    if (run->done >= run->n_prefill)
        return 1;
    size_t most = run->n_prefill - run->done, n = 0;
    int n_wanted = 0;
    most = most < (size_t)run->model->n_row_max ? most : (size_t)run->model->n_row_max;
    while (n < most) {
        size_t end = n + HD_KV_BLOCK < most ? n + HD_KV_BLOCK : most;
        int more = 0;
        for (size_t i = n; i < end; i++)
            more += run->wanted[run->done + i];
        if (n && n_wanted + more > run->model->n_out_max)
            break;
        n_wanted += more;
        n = end;
    }
    return (int)n;
}

/* The MTP layer on the rows of the pass that has just run. */
static enum hd_err draft_piece(struct logits_run *run, struct hd_batch batch, int64_t n_out)
{
    struct hd_loaded *m = run->model;
    for (int32_t i = 0; i < batch.n; i++)
        m->ids[i] = i;
    batch.ids = run->ids + run->done + 1;
    batch.n_out = n_out;
    return hd_runner_draft(m->runner, &batch, m->ids, run->msg);
}

static void run_piece(struct hd_engine *e, void *ud)
{
    struct logits_run *run = ud;
    struct hd_loaded *m = run->model;
    int n = next_piece(run);
    struct hd_seq_rows seq = {0, n, (int32_t)run->done, run->table};
    struct hd_batch batch = {.ids = run->ids + run->done,
                             .positions = m->positions,
                             .n = n,
                             .seqs = &seq,
                             .n_seq = 1,
                             .form = run->done < run->n_prefill ? HD_FORM_PROMPT : HD_FORM_DECODE,
                             .out_rows = m->out_rows};
    run->n_row = 0;
    for (int i = 0; i < n; i++) {
        m->positions[i] = (int32_t)run->done + i;
        if (run->wanted[run->done + (size_t)i]) {
            m->out_rows[batch.n_out++] = i;
            run->rows[run->n_row++] = (int32_t)run->done + i;
        }
    }
    int64_t n_out = batch.n_out;
    if (run->draft)
        batch.n_out = 0;
    run->err = hd_runner_forward(m->runner, &batch, run->msg);
    if (!run->err && run->draft)
        run->err = draft_piece(run, batch, n_out);
    for (int64_t i = 0; !run->err && i < n_out; i += m->n_out_max) {
        int64_t rows = n_out - i < m->n_out_max ? n_out - i : m->n_out_max;
        run->err = hd_runner_logits(m->runner, run->logits + i * m->hp->n_vocab, i, rows, run->msg);
    }
    run->done += (size_t)n;
}

/* In place: natural logarithms of the softmax. */
static void log_softmax(float *logits, int n)
{
    float max = -INFINITY;
    double sum = 0;
    for (int i = 0; i < n; i++)
        max = fmaxf(max, logits[i]);
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    double lse = max + log(sum);
    for (int i = 0; i < n; i++)
        logits[i] = (float)((double)logits[i] - lse);
}

static enum hd_err check_logits(const struct hd_loaded *m, const int32_t *ids, size_t n_id,
                                const int32_t *at, size_t n_at, size_t n_prefill,
                                struct hd_errmsg *msg)
{
    if (!n_id)
        return hd_fail(msg, HD_ERR_INVALID, "logits: no token ids given");
    if (n_id > (size_t)m->n_ctx)
        return hd_fail(msg, HD_ERR_LIMIT, "logits: %zu ids, the context holds %d", n_id, m->n_ctx);
    if (n_prefill > n_id)
        return hd_fail(msg, HD_ERR_INVALID, "logits: %zu prompt rows, but only %zu ids", n_prefill,
                       n_id);
    for (size_t i = 0; i < n_id; i++)
        if (ids[i] < 0 || ids[i] >= m->hp->n_vocab)
            return hd_fail(msg, HD_ERR_INVALID, "logits: token id %d at %zu is not in 0 … %d",
                           ids[i], i, m->hp->n_vocab - 1);
    for (size_t i = 0; i < n_at; i++)
        if (at[i] < 0 || (size_t)at[i] >= n_id)
            return hd_fail(msg, HD_ERR_INVALID, "logits: row %d is not in 0 … %zu", at[i],
                           n_id - 1);
    return HD_OK;
}

static enum hd_err run_logits(struct hd_engine *e, struct logits_run *run,
                              void (*fn)(void *, int32_t, const float *, int), void *ud)
{
    struct hd_loaded *m = run->model;
    enum hd_err err = hd_engine__call(e, take_blocks, run);
    while (!err && !run->err && run->done < run->n_id) {
        err = hd_engine__call(e, run_piece, run);
        for (int i = 0; !err && !run->err && i < run->n_row; i++) {
            float *row = run->logits + (size_t)i * (size_t)m->hp->n_vocab;
            log_softmax(row, m->hp->n_vocab);
            fn(ud, run->rows[i], row, m->hp->n_vocab);
        }
    }
    hd_engine__call(e, give_blocks, run);
    if (err)
        return hd_fail(run->msg, err, "logits: the engine is shutting down");
    return run->err;
}

/* n_row rows of ids; with draft, ids holds one more. */
static enum hd_err logits_of(struct hd_loaded *m, struct hd_engine *e, bool draft,
                             const int32_t *ids, size_t n_row, const int32_t *at, size_t n_at,
                             size_t n_prefill,
                             void (*fn)(void *ud, int32_t row, const float *logprob, int n_vocab),
                             void *ud, struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    struct logits_run run = {.model = m,
                             .draft = draft,
                             .ids = ids,
                             .n_id = n_row,
                             .n_prefill = n_prefill && n_prefill < n_row ? n_prefill : n_row,
                             .n_need = hd_work_blocks_for((int)n_row),
                             .msg = msg};
    /* a piece of one block may hold more wanted rows than one call of the output product */
    size_t n_out = m->n_out_max > HD_KV_BLOCK ? (size_t)m->n_out_max : HD_KV_BLOCK;
    run.wanted = calloc(n_row, 1);
    run.table = calloc((size_t)run.n_need, sizeof *run.table);
    run.logits = malloc(n_out * (size_t)m->hp->n_vocab * sizeof *run.logits);
    if (!run.wanted || !run.table || !run.logits) {
        err = hd_fail(msg, HD_ERR_NOMEM, "logits: out of memory");
    } else {
        for (size_t i = 0; i < n_at; i++)
            run.wanted[at[i]] = 1;
        err = run_logits(e, &run, fn, ud);
    }
    free(run.wanted);
    free(run.table);
    free(run.logits);
    return err;
}

enum hd_err hd_engine_logits(struct hd_engine *e, const char *model, const int32_t *ids,
                             size_t n_id, const int32_t *at, size_t n_at, size_t n_prefill,
                             void (*fn)(void *ud, int32_t row, const float *logprob, int n_vocab),
                             void *ud, struct hd_errmsg *msg)
{
    struct hd_loaded *m;
    enum hd_err err = hd_engine__language(&m, e, model, msg);
    if (!err)
        err = check_logits(m, ids, n_id, at, n_at, n_prefill, msg);
    return err ? err : logits_of(m, e, false, ids, n_id, at, n_at, n_prefill, fn, ud, msg);
}

enum hd_err hd_engine_draft_logits(struct hd_engine *e, const char *model, const int32_t *ids,
                                   size_t n_id, const int32_t *at, size_t n_at, size_t n_prefill,
                                   void (*fn)(void *ud, int32_t row, const float *logprob,
                                              int n_vocab),
                                   void *ud, struct hd_errmsg *msg)
{
    struct hd_loaded *m;
    enum hd_err err = hd_engine__language(&m, e, model, msg);
    if (!err && !hd_model_has_mtp(m->model))
        err = hd_fail(msg, HD_ERR_UNSUPPORTED,
                      "%s: no multi-token-prediction layer (the architecture has none, or the "
                      "checkpoint was converted without it)",
                      m->path);
    if (!err)
        err = check_logits(m, ids, n_id, at, n_at, n_prefill, msg);
    for (size_t i = 0; !err && i < n_at; i++)
        if ((size_t)at[i] + 1 >= n_id)
            err = hd_fail(msg, HD_ERR_INVALID, "draft: row %d has no id after it", at[i]);
    if (!err && n_id < 2)
        err = hd_fail(msg, HD_ERR_INVALID, "draft: at least two ids are needed");
    return err ? err : logits_of(m, e, true, ids, n_id - 1, at, n_at, n_prefill, fn, ud, msg);
}

/* --- benchmark ---------------------------------------------------------------------------------
 */

struct bench {
    struct hd_loaded *model;
    int n_prompt, n_gen, batch;
    int32_t *ids;   /* [n_prompt] */
    int32_t *table; /* [batch, per_seq] */
    int32_t *next;  /* [batch] the ids that decode feeds */
    int per_seq;    /* blocks per sequence */
    int n_held;
    uint64_t read_bytes; /* by the probe of the weights' pages, in read_s */
    double read_s;
    struct hd_bench_result *out;
    enum hd_err err;
    struct hd_errmsg *msg;
};

/* Feeds the first `end` prompt rows of sequence `seq`; the last row's logits if `logits`. */
static enum hd_err bench_prompt(struct bench *b, int seq, int end, bool logits)
{
    struct hd_loaded *m = b->model;
    enum hd_err err = HD_OK;
    float *row;
    for (int at = 0; !err && at < end;) {
        int n = end - at < m->n_row_max ? end - at : m->n_row_max;
        if (at + n < end)
            n = n / HD_KV_BLOCK * HD_KV_BLOCK;
        struct hd_seq_rows rows = {0, n, at, b->table + (size_t)seq * (size_t)b->per_seq};
        struct hd_batch batch = {.ids = b->ids + at,
                                 .positions = m->positions,
                                 .n = n,
                                 .seqs = &rows,
                                 .n_seq = 1,
                                 .form = HD_FORM_PROMPT,
                                 .out_rows = m->out_rows};
        for (int i = 0; i < n; i++)
            m->positions[i] = at + i;
        if (logits && at + n == end) {
            batch.n_out = 1;
            m->out_rows[0] = n - 1;
        }
        err = hd_runner_forward(m->runner, &batch, b->msg);
        if (!err && batch.n_out)
            err = hd_runner_logits_view(m->runner, &row, 0, 1, b->msg);
        at += n;
    }
    return err;
}

static int32_t largest(const float *logits, int n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* One step: every sequence by one token at position n_prompt + step. */
static enum hd_err bench_step(struct bench *b, int step)
{
    struct hd_loaded *m = b->model;
    for (int i = 0; i < b->batch; i++) {
        m->ids[i] = b->next[i];
        m->positions[i] = b->n_prompt + step;
        m->out_rows[i] = i;
        m->seqs[i] = (struct hd_seq_rows){i, 1, b->n_prompt + step,
                                          b->table + (size_t)i * (size_t)b->per_seq};
    }
    struct hd_batch batch = {.ids = m->ids,
                             .positions = m->positions,
                             .n = b->batch,
                             .seqs = m->seqs,
                             .n_seq = b->batch,
                             .form = HD_FORM_DECODE,
                             .out_rows = m->out_rows,
                             .n_out = b->batch};
    enum hd_err err = hd_runner_forward(m->runner, &batch, b->msg);
    for (int i = 0; !err && i < b->batch; i += m->n_out_max) {
        int n = b->batch - i < m->n_out_max ? b->batch - i : m->n_out_max;
        float *rows = NULL;
        err = hd_runner_logits_view(m->runner, &rows, i, n, b->msg);
        for (int j = 0; !err && j < n; j++)
            b->next[i + j] = largest(rows + (size_t)j * (size_t)m->hp->n_vocab, m->hp->n_vocab);
    }
    return err;
}

/* Generates; between the steps the weights are read by the probe, so that both rates are of the
 * same pages and the same time. Seconds of the steps alone. */
static double bench_decode(struct bench *b, struct hd_pool *pool)
{
    enum { PROBE_EVERY = 4 };
    static const uint64_t probe_most = UINT64_C(1) << 30;
    double seconds = 0;
    for (int i = 0; !b->err && i < b->n_gen; i++) {
        double start = hd_clock_seconds();
        b->err = bench_step(b, i);
        seconds += hd_clock_seconds() - start;
        if (i % PROBE_EVERY)
            continue;
        start = hd_clock_seconds();
        b->read_bytes += hd_model_read_copies(b->model->model, pool, probe_most);
        b->read_s += hd_clock_seconds() - start;
    }
    return seconds;
}

static void run_bench(struct hd_engine *e, void *ud)
{
    struct bench *b = ud;
    struct hd_loaded *m = b->model;
    int n_need = b->per_seq * b->batch;
    if (hd_blocks_available(m->blocks) < n_need) {
        b->err = hd_fail(b->msg, HD_ERR_LIMIT,
                         "bench: %d sequences need %d KV blocks, %d are free (lower -p, -n or "
                         "--batch, or raise --kv-bytes)",
                         b->batch, n_need, hd_blocks_available(m->blocks));
        return;
    }
    for (; b->n_held < n_need; b->n_held++)
        b->table[b->n_held] = hd_blocks_take(m->blocks);
    /* warm-up: all weights' pages touched, all scratch grown; of a long prompt its beginning does
     */
    b->err = bench_prompt(b, 0, b->n_prompt > 2048 ? 1024 : b->n_prompt, true);
    for (int i = 0; !b->err && i < 2 && i < b->n_gen; i++)
        b->err = bench_step(b, i);
    double start = hd_clock_seconds();
    if (!b->err)
        b->err = bench_prompt(b, 0, b->n_prompt, true);
    double prefill_s = hd_clock_seconds() - start;
    for (int i = 1; !b->err && i < b->batch; i++)
        b->err = bench_prompt(b, i, b->n_prompt, false);
    double decode_s = bench_decode(b, e->pool);
    while (b->n_held)
        hd_blocks_release(m->blocks, b->table[--b->n_held]);
    if (b->err)
        return;
    *b->out = (struct hd_bench_result){
        .prefill_tps = b->n_prompt / prefill_s,
        .decode_tps = b->n_gen ? (double)b->n_gen * b->batch / decode_s : 0,
        .probe_read_gbps = b->read_bytes ? (double)b->read_bytes / b->read_s / 1e9
                                         : hd_backend_probe_read_gbps(e->backend, e->pool),
        .probe_int8_tops = hd_backend_probe_int8_tops(e->backend, e->pool),
        .n_thread = hd_pool_threads(e->pool),
    };
}

enum hd_err hd_engine_bench(struct hd_engine *e, const char *model, int n_prompt, int n_gen,
                            int batch, struct hd_bench_result *out, struct hd_errmsg *msg)
{
    struct hd_loaded *m;
    enum hd_err err = hd_engine__language(&m, e, model, msg);
    if (err)
        return err;
    if (n_prompt < 1 || n_gen < 0 || batch < 1 || batch > e->options.max_sessions)
        return hd_fail(msg, HD_ERR_INVALID,
                       "bench: needs a prompt of at least 1 token and a batch of 1 to %d",
                       e->options.max_sessions);
    if (n_prompt > m->n_ctx || n_gen > m->n_ctx - n_prompt)
        return hd_fail(msg, HD_ERR_LIMIT, "bench: %d + %d tokens, the context holds %d", n_prompt,
                       n_gen, m->n_ctx);
    struct bench b = {.model = m,
                      .n_prompt = n_prompt,
                      .n_gen = n_gen,
                      .batch = batch,
                      .per_seq = hd_work_blocks_for(n_prompt + n_gen),
                      .out = out,
                      .msg = msg};
    hd_engine_wait_loaded(e, m->name);
    b.ids = malloc((size_t)n_prompt * sizeof *b.ids);
    b.next = malloc((size_t)batch * sizeof *b.next);
    b.table = malloc((size_t)batch * (size_t)b.per_seq * sizeof *b.table);
    if (!b.ids || !b.next || !b.table) {
        err = hd_fail(msg, HD_ERR_NOMEM, "bench: out of memory");
    } else {
        /* ids all over the vocabulary, the same in every run */
        for (int i = 0; i < n_prompt; i++)
            b.ids[i] = (int32_t)((uint64_t)(i + 1) * 2654435761u % (uint64_t)m->hp->n_vocab);
        for (int i = 0; i < batch; i++)
            b.next[i] = b.ids[i % n_prompt];
        err = hd_engine__call(e, run_bench, &b);
        err = err ? hd_fail(msg, err, "bench: the engine is shutting down") : b.err;
    }
    free(b.ids);
    free(b.next);
    free(b.table);
    return err;
}
