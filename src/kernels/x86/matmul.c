/* Products on the vector back ends: activations are quantised once, then every (panel, column
 * chunk) is a task. A chunk of columns is sized to stay in the second-level cache while panels
 * stream past it; a panel is unpacked once per chunk. */
#include <string.h>

#include "kernels/x86/driver.h"

enum { MAX_PRODUCTS = 16 };

/* --- pieces shared with moe.c -------------------------------------------------------------------
 */

int64_t hd_x86_column_chunk(int64_t n, int64_t n_in)
{
    enum { STEP = 12, SMALLEST = 48, LARGEST = 384, CACHE = 448 << 10 };
    int64_t fit = CACHE / (n_in + 1) / STEP * STEP;
    fit = fit < SMALLEST ? SMALLEST : fit > LARGEST ? LARGEST : fit;
    if (n <= fit)
        return n > 0 ? n : 1;
    int64_t chunks = (n + fit - 1) / fit; /* equal ones */
    return ((n + chunks - 1) / chunks + STEP - 1) / STEP * STEP;
}

size_t hd_x86_work_bytes(int64_t column_chunk, size_t panel_bytes)
{
    return hd_round_up(
        HD_TILE_BYTES + 2 * (size_t)column_chunk * HD_PANEL * sizeof(float) + panel_bytes, 64);
}

size_t hd_x86_through_bytes(struct hd_stream *s, const struct hd_weight *w, bool once)
{
    if (hd_weight_ready(w))
        return 0;
    if (w->packed && (!once || w->fill->on_demand)) {
        hd_weight_finish(w, s->pool);
        return 0;
    }
    return hd_pack_panel_bytes(w);
}

static const uint8_t *panel_of(const struct hd_weight *w, int64_t matrix, int64_t panel,
                               uint8_t *through)
{
    if (hd_weight_ready(w))
        return hd_pack_panel(w, matrix, panel);
    hd_pack_panel_to(through, w, matrix, panel);
    return through;
}

void hd_x86_activations_init(struct hd_activations *a, const uint8_t *rows, size_t stride,
                             int64_t n_in, int64_t n, enum hd_form form)
{
    *a = (struct hd_activations){.n = n,
                                 .n_in = n_in,
                                 .n_block = (int64_t)hd_round_up((size_t)n_in, 128) / 32,
                                 .rows = rows,
                                 .stride = stride,
                                 .form = form};
}

size_t hd_x86_activations_bytes(int64_t n, int64_t n_in)
{
    size_t blocks = hd_round_up((size_t)n_in, 128) / 32 * (size_t)n;
    return hd_round_up(blocks * 32, 64) + hd_round_up(blocks * HD_AUX * sizeof(float), 64);
}

void hd_x86_activations_place(struct hd_activations *a, void *memory)
{
    a->q = memory;
    a->aux = (float *)((uint8_t *)memory + hd_round_up((size_t)(a->n * a->n_block) * 32, 64));
}

void hd_x86_panel_job(struct hd_panel_job *job, const struct hd_weight *w,
                      const struct hd_activations *a, int64_t column, int64_t n, enum hd_form form,
                      const struct hd_x86_work *work)
{
    *job = (struct hd_panel_job){
        .sums = work->sums,
        .pack = w->pack,
        .n_unit = hd_pack_units(w->pack, w->n_in),
        .a = a,
        .column = column,
        .n = n,
        .tile = work->tile,
        .form = form,
    };
}

void hd_x86_panel(const struct hd_x86_kernels *k, struct hd_panel_job *job,
                  const struct hd_weight *w, int64_t matrix, int64_t panel, uint8_t *through)
{
    job->panel = panel_of(w, matrix, panel, through);
    if (w->pack->is_float)
        k->panel_float(job);
    else
        k->panel(job);
}

struct hd_x86_work hd_x86_work_of(uint8_t *scratch, size_t bytes, int thread, int64_t column_chunk)
{
    uint8_t *p = scratch + (size_t)thread * bytes;
    struct hd_x86_work work = {.tile = p, .sums = (float(*)[HD_PANEL])(p + HD_TILE_BYTES)};
    work.more = work.sums + column_chunk;
    work.panel = (uint8_t *)(work.more + column_chunk);
    return work;
}

struct quantise_job {
    const struct hd_x86_kernels *k;
    const struct hd_activations *a;
};

static void quantise_task(void *ud, size_t begin, size_t end, int thread)
{
    struct quantise_job *job = ud;
    for (size_t t = begin; t < end; t++)
        job->k->quantise(job->a, (int64_t)t);
}

/* --- products that share their input ------------------------------------------------------------
 */

struct matmul_job {
    const struct hd_x86_kernels *k;
    const struct hd_matmul *products;
    int n_product;
    int64_t first[MAX_PRODUCTS + 1]; /* panels before each product */
    struct hd_activations a;
    int64_t column_chunk;
    enum hd_form form;
    uint8_t *scratch;
    size_t work_bytes;
};

/* Writes a panel's sums to the rows of out, with bias and residual. A column that is followed by
 * its remainder takes that in; index: of the columns, NULL where they are the rows. */
static void store(const struct hd_matmul *m, int64_t panel, int64_t column, int64_t n,
                  const int32_t *index, const float (*sums)[HD_PANEL])
{
    int64_t begin = panel * HD_PANEL, left = m->w->n_out - begin;
    int64_t width = left < HD_PANEL ? left : HD_PANEL;
    const float *bias = m->bias ? (const float *)hd_tensor_row(m->bias, 0, 0) + begin : NULL;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = index ? index[column + i] : column + i;
        float *out = (float *)hd_tensor_row(&m->out, row, 0) + begin;
        float value[HD_PANEL];
        memcpy(value, sums[i], sizeof value);
        if (index && i + 1 < n && index[column + i + 1] < 0) {
            i++;
            for (int64_t r = 0; r < width && !m->w->pack->is_float; r++)
                value[r] += sums[i][r];
        }
        if (bias)
            for (int64_t r = 0; r < width; r++)
                value[r] += bias[r];
        if (m->accumulate)
            for (int64_t r = 0; r < width; r++)
                value[r] += out[r];
        memcpy(out, value, (size_t)width * sizeof *out);
    }
}

/* Panels [begin, end) of one product against one chunk of columns. */
static void matmul_panels(const struct matmul_job *job, int product, int64_t begin, int64_t end,
                          int64_t column, const struct hd_x86_work *work)
{
    const struct hd_matmul *m = &job->products[product];
    int64_t left = job->a.n - column, n = left < job->column_chunk ? left : job->column_chunk;
    struct hd_panel_job one;
    hd_x86_panel_job(&one, m->w, &job->a, column, n, job->form, work);
    for (int64_t panel = begin; panel < end; panel++) {
        hd_x86_panel(job->k, &one, m->w, 0, panel, work->panel);
        store(m, panel, column, n, job->a.index, (const float(*)[HD_PANEL])work->sums);
    }
}

static void matmul_task(void *ud, size_t begin, size_t end, int thread)
{
    struct matmul_job *job = ud;
    int64_t n_panel = job->first[job->n_product];
    struct hd_x86_work work =
        hd_x86_work_of(job->scratch, job->work_bytes, thread, job->column_chunk);
    for (int64_t i = (int64_t)begin, next; i < (int64_t)end; i = next) {
        int64_t chunk = i / n_panel, panel = i % n_panel;
        int p = 0;
        while (panel >= job->first[p + 1])
            p++;
        next = chunk * n_panel + job->first[p + 1];
        next = next < (int64_t)end ? next : (int64_t)end;
        matmul_panels(job, p, panel - job->first[p], panel - job->first[p] + next - i,
                      chunk * job->column_chunk, &work);
    }
}

/* With few columns memory sets the speed, and it gives more to long stretches: 1.2 times as much as
 * to 96 KB at a time. With many the arithmetic does, and threads must end together. */
void hd_x86_run_panels(struct hd_pool *pool, int64_t n_task, size_t panel_bytes, int64_t n_column,
                       hd_pool_fn fn, void *ud)
{
    enum { FEW_COLUMNS = 48, LEAST = 160 << 10, STREAM = 96 << 10 };
    int64_t share = n_task / (8 * hd_pool_threads(pool)) + 1;
    int64_t chunk = (n_column <= FEW_COLUMNS ? LEAST : STREAM) / (int64_t)(panel_bytes + 1) + 1;
    chunk = chunk < share ? chunk : share;
    if (n_column <= FEW_COLUMNS)
        hd_pool_run_guided(pool, (size_t)n_task, (size_t)chunk, fn, ud);
    else
        hd_pool_run(pool, (size_t)n_task, (size_t)chunk, fn, ud);
}

struct pick_job {
    const struct hd_activations *a;
    int32_t *picked; /* [n]: whether, then which */
};

static void pick_task(void *ud, size_t begin, size_t end, int thread)
{
    struct pick_job *job = ud;
    for (size_t i = begin; i < end; i++)
        job->picked[i] = hd_x86_remainder_wanted(hd_column_row(job->a, (int64_t)i), job->a->n_in);
}

/* Columns for the remainders of rows that need them; false when out of memory. */
static bool add_remainders(struct hd_stream *s, struct hd_activations *a, bool all,
                           enum hd_form form)
{
    struct pick_job job = {
        a, hd_stream_scratch(s, HD_SCRATCH_PICKED, (size_t)a->n * sizeof *job.picked)};
    int64_t n_picked = 0;
    if (!job.picked)
        return false;
    if (!all)
        hd_pool_run(s->pool, (size_t)a->n, 16, pick_task, &job);
    for (int64_t i = 0; i < a->n; i++)
        if (all || job.picked[i])
            job.picked[n_picked++] = (int32_t)i;
    if (!n_picked)
        return true;
    void *memory =
        hd_stream_scratch(s, HD_SCRATCH_REMAINDER, hd_x86_remainder_bytes(a->n, n_picked, a->n_in));
    if (memory)
        hd_x86_remainder_add(a, job.picked, n_picked,
                             form == HD_FORM_PROMPT ? s->backend->x86->prompt_group : 32, memory);
    return memory != NULL;
}

static void matmul_some(struct hd_stream *s, const struct hd_matmul *products, int n_product,
                        struct hd_tensor in, enum hd_form form)
{
    struct matmul_job job = {
        .k = s->backend->x86, .products = products, .n_product = n_product, .form = form};
    bool quantise = false, precise = false;
    size_t panel_bytes = 0, through = 0;
    for (int i = 0; i < n_product; i++) {
        const struct hd_weight *w = products[i].w;
        job.first[i + 1] = job.first[i] + hd_pack_panels(w);
        quantise |= !w->pack->is_float;
        precise |= (w->usage & HD_WEIGHT_LOGITS) != 0;
        panel_bytes = hd_pack_panel_bytes(w) > panel_bytes ? hd_pack_panel_bytes(w) : panel_bytes;
    }
    int threads = hd_pool_threads(s->pool);
    int64_t n_in = in.ne[0];
    hd_x86_activations_init(&job.a, hd_tensor_row(&in, 0, 0), in.nb[1], n_in, in.ne[1], form);
    if (quantise && !add_remainders(s, &job.a, precise && form == HD_FORM_PROMPT, form))
        return;
    int64_t n = job.a.n;
    job.column_chunk = hd_x86_column_chunk(n, n_in);
    for (int i = 0; i < n_product; i++) {
        size_t bytes = hd_x86_through_bytes(s, products[i].w, n <= job.column_chunk);
        through = bytes > through ? bytes : through;
    }
    job.work_bytes = hd_x86_work_bytes(job.column_chunk, through);
    job.scratch = hd_stream_scratch(s, HD_SCRATCH_THREADS, job.work_bytes * (size_t)threads);
    void *memory = hd_stream_scratch(s, HD_SCRATCH_INPUT, hd_x86_activations_bytes(n, n_in));
    if (!job.scratch || !memory || !n)
        return;
    hd_x86_activations_place(&job.a, memory);
    if (quantise) {
        struct quantise_job q = {job.k, &job.a};
        hd_pool_run(s->pool, (size_t)(n + HD_TILE_COLUMNS - 1) / HD_TILE_COLUMNS, 2, quantise_task,
                    &q);
    }
    int64_t chunks = (n + job.column_chunk - 1) / job.column_chunk;
    int64_t tasks = job.first[n_product] * chunks;
    hd_x86_run_panels(s->pool, tasks, panel_bytes, n, matmul_task, &job);
}

void hd_x86_matmul(struct hd_stream *s, const struct hd_matmul *products, int n_product,
                   struct hd_tensor in, enum hd_form form)
{
    for (int i = 0; i < n_product; i += MAX_PRODUCTS) {
        int left = n_product - i;
        matmul_some(s, products + i, left < MAX_PRODUCTS ? left : MAX_PRODUCTS, in, form);
    }
}

/* --- a matrix per head: a head is a task, its input quantised by the thread that needs it
 * --------- */

struct heads_job {
    const struct hd_x86_kernels *k;
    const struct hd_weight *w;
    const struct hd_tensor *in, *out;
    int64_t column_chunk;
    enum hd_form form;
    uint8_t *scratch;
    size_t work_bytes, thread_bytes;
};

static void head_rows(const struct heads_job *job, int64_t head, const struct hd_activations *a,
                      struct hd_x86_work work)
{
    struct hd_panel_job one;
    for (int64_t column = 0; column < a->n; column += job->column_chunk) {
        int64_t n = a->n - column < job->column_chunk ? a->n - column : job->column_chunk;
        hd_x86_panel_job(&one, job->w, a, column, n, job->form, &work);
        for (int64_t panel = 0; panel < hd_pack_panels(job->w); panel++) {
            int64_t begin = panel * HD_PANEL, left = job->w->n_out - begin;
            size_t width = (size_t)(left < HD_PANEL ? left : HD_PANEL);
            hd_x86_panel(job->k, &one, job->w, head, panel, work.panel);
            for (int64_t i = 0; i < n; i++)
                memcpy((float *)hd_tensor_row(job->out, head, column + i) + begin, work.sums[i],
                       width * sizeof(float));
        }
    }
}

static void heads_task(void *ud, size_t begin, size_t end, int thread)
{
    struct heads_job *job = ud;
    uint8_t *mine = job->scratch + (size_t)thread * job->thread_bytes;
    struct hd_x86_work work = hd_x86_work_of(mine, 0, 0, job->column_chunk);
    for (size_t h = begin; h < end; h++) {
        struct hd_activations a;
        hd_x86_activations_init(&a, hd_tensor_row(job->in, (int64_t)h, 0), job->in->nb[2],
                                job->w->n_in, job->in->ne[2], job->form);
        hd_x86_activations_place(&a, mine + job->work_bytes);
        for (int64_t t = 0; !job->w->pack->is_float && t * HD_TILE_COLUMNS < a.n; t++)
            job->k->quantise(&a, t);
        head_rows(job, (int64_t)h, &a, work);
    }
}

void hd_x86_matmul_heads(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                         struct hd_tensor in, enum hd_form form)
{
    struct heads_job job = {.k = s->backend->x86, .w = w, .in = &in, .out = &out, .form = form};
    job.column_chunk = hd_x86_column_chunk(in.ne[2], w->n_in);
    job.work_bytes = hd_x86_work_bytes(job.column_chunk,
                                       hd_x86_through_bytes(s, w, in.ne[2] <= job.column_chunk));
    job.thread_bytes = job.work_bytes + hd_x86_activations_bytes(in.ne[2], w->n_in);
    job.scratch = hd_stream_scratch(s, HD_SCRATCH_THREADS,
                                    job.thread_bytes * (size_t)hd_pool_threads(s->pool));
    if (job.scratch && in.ne[2])
        hd_pool_run(s->pool, (size_t)w->n_matrix, 1, heads_task, &job);
}
