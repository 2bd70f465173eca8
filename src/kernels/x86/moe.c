/* The mixture of experts on the vector back ends: tokens are grouped by expert, so that each
 * expert's weights are read once. Three passes, each over all active experts at once:
 *   1. (expert, panel of n_ff):  gate and up sums, silu, into the hidden rows
 *   2. (expert, tile):           hidden rows to 8 bits
 *   3. (panel of n_embd):        down sums, expert after expert in ascending order, added to out
 * A token's sum over its experts therefore has an order of its own, and no two threads meet. */
#include <string.h>

#include "kernels/x86/driver.h"

enum { FOR_GATE, FOR_UP, FOR_DOWN };

/* An expert that somebody chose. */
struct group {
    int64_t expert;
    int64_t start, n;            /* its columns among all (token, expert) pairs */
    int64_t first_tile;          /* tiles of the groups before it */
    struct hd_activations in[3]; /* its tokens as gate and up want them, and their hidden rows */
};

struct moe_job {
    const struct hd_x86_kernels *k;
    const struct hd_weight *gate, *up, *down;
    const struct hd_tensor *out;
    struct group *group;
    int64_t n_group, n_tile, n_pair;
    int32_t *token; /* [n_pair], by expert */
    float *weight;  /* [n_pair] */
    float *hidden;  /* [n_pair, n_ff] */
    float *moved; /* inputs in orders of the weights' own: [n_pair, n_embd] twice, [n_pair, n_ff] */
    int which;    /* inputs are quantised: FOR_… */
    int64_t column_chunk;
    enum hd_form form;
    uint8_t *scratch;
    size_t work_bytes;
};

/* --- grouping ------------------------------------------------------------------------------------
 */

static int64_t count_pairs(int64_t *count, const struct hd_tensor *ids, int64_t n_expert)
{
    memset(count, 0, (size_t)(n_expert + 1) * sizeof *count);
    for (int64_t i = 0; i < ids->ne[1]; i++) {
        const int32_t *id = hd_tensor_row(ids, i, 0);
        for (int64_t j = 0; j < ids->ne[0]; j++)
            count[id[j]]++;
    }
    return ids->ne[0] * ids->ne[1];
}

/* A counting sort of the pairs by expert; count: [n_expert + 1]. */
static void group_pairs(struct moe_job *job, int64_t *count, const struct hd_tensor *ids,
                        const struct hd_tensor *weights)
{
    int64_t n_expert = job->gate->n_matrix, start = 0;
    for (int64_t e = 0; e < n_expert; e++) {
        int64_t n = count[e];
        count[e] = start;
        if (n) {
            job->group[job->n_group++] =
                (struct group){.expert = e, .start = start, .n = n, .first_tile = job->n_tile};
            job->n_tile += (n + HD_TILE_COLUMNS - 1) / HD_TILE_COLUMNS;
            start += n;
        }
    }
    for (int64_t i = 0; i < ids->ne[1]; i++) {
        const int32_t *id = hd_tensor_row(ids, i, 0);
        const float *weight = hd_tensor_row(weights, i, 0);
        for (int64_t j = 0; j < ids->ne[0]; j++) {
            int64_t at = count[id[j]]++;
            job->token[at] = (int32_t)i;
            job->weight[at] = weight[j];
        }
    }
}

/* The weight whose inputs they are, and its floats among job->moved. */
static const struct hd_weight *weight_of(const struct moe_job *job, int which, float **moved)
{
    const struct hd_weight *w[] = {job->gate, job->up, job->down};
    *moved = job->moved + which * job->n_pair * job->gate->n_in;
    return w[which];
}

/* Describes the inputs of all groups for one weight and places what they become, one after another
 * in `memory`: rows[index[i]] of pair i (NULL: rows[i]), or those in the order of the weight. */
static void place_activations(struct moe_job *job, int which, const uint8_t *rows, size_t stride,
                              const int32_t *index, uint8_t *memory)
{
    float *moved;
    const struct hd_weight *w = weight_of(job, which, &moved);
    if (w->order) {
        rows = (const uint8_t *)moved;
        stride = (size_t)w->n_in * sizeof(float);
        index = NULL;
    }
    for (struct group *g = job->group; g < job->group + job->n_group; g++) {
        struct hd_activations *a = &g->in[which];
        const uint8_t *first = index ? rows : rows + (size_t)g->start * stride;
        hd_x86_activations_init(a, first, stride, w->n_in, g->n, job->form);
        a->index = index ? index + g->start : NULL;
        hd_x86_activations_place(a, memory);
        memory += hd_x86_activations_bytes(g->n, w->n_in);
    }
}

/* Gate's and up's inputs: the same, unless either has an order (then up's have memory). */
static void place_inputs(struct moe_job *job, const struct hd_tensor *in, uint8_t *gate_memory,
                         uint8_t *up_memory)
{
    const uint8_t *rows = hd_tensor_row(in, 0, 0);
    place_activations(job, FOR_GATE, rows, in->nb[1], job->token, gate_memory);
    if (up_memory)
        place_activations(job, FOR_UP, rows, in->nb[1], job->token, up_memory);
    for (int64_t i = 0; i < job->n_group && !up_memory; i++)
        job->group[i].in[FOR_UP] = job->group[i].in[FOR_GATE];
}

/* Puts the inputs into the order of the weight, where it has one. */
static void order_inputs(struct moe_job *job, struct hd_pool *pool, int which, const uint8_t *rows,
                         size_t stride, const int32_t *index)
{
    float *moved;
    const struct hd_weight *w = weight_of(job, which, &moved);
    for (struct group *g = job->group; w->order && g < job->group + job->n_group; g++)
        hd_weight_order_rows(moved + g->start * w->n_in, pool, w, g->expert,
                             index ? rows : rows + (size_t)g->start * stride, stride,
                             index ? index + g->start : NULL, g->n);
}

/* --- the passes
 * ------------------------------------------------------------------------------------ */

static void quantise_task(void *ud, size_t begin, size_t end, int thread)
{
    struct moe_job *job = ud;
    int64_t i = 0;
    for (int64_t t = (int64_t)begin; t < (int64_t)end; t++) {
        while (i + 1 < job->n_group && job->group[i + 1].first_tile <= t)
            i++;
        const struct group *g = &job->group[i];
        job->k->quantise(&g->in[job->which], t - g->first_tile);
    }
}

static void quantise(struct moe_job *job, struct hd_pool *pool, int which)
{
    job->which = which;
    hd_pool_run(pool, (size_t)job->n_tile, 2, quantise_task, job);
}

static void hidden_task(void *ud, size_t begin, size_t end, int thread)
{
    struct moe_job *job = ud;
    struct hd_x86_work work =
        hd_x86_work_of(job->scratch, job->work_bytes, thread, job->column_chunk);
    struct hd_panel_job gate, up;
    int64_t n_panel = hd_pack_panels(job->gate), n_ff = job->gate->n_out;
    const struct group *last = NULL;
    for (size_t t = begin; t < end; t++) {
        const struct group *g = &job->group[(int64_t)t / n_panel];
        int64_t panel = (int64_t)t % n_panel, left = n_ff - panel * HD_PANEL;
        for (int64_t c = 0; c < g->n; c += job->column_chunk) {
            int64_t n = g->n - c < job->column_chunk ? g->n - c : job->column_chunk;
            if (g != last || n < g->n) {
                hd_x86_panel_job(&gate, job->gate, &g->in[FOR_GATE], c, n, job->form, &work);
                hd_x86_panel_job(&up, job->up, &g->in[FOR_UP], c, n, job->form, &work);
                up.sums = work.more;
                last = g;
            }
            hd_x86_panel(job->k, &gate, job->gate, g->expert, panel, work.panel);
            hd_x86_panel(job->k, &up, job->up, g->expert, panel, work.panel);
            for (int64_t i = 0; i < n; i++)
                job->k->silu_mul(job->hidden + (g->start + c + i) * n_ff + panel * HD_PANEL,
                                 work.sums[i], work.more[i], left < HD_PANEL ? left : HD_PANEL);
        }
    }
}

/* Adds a panel's sums of pairs [pair, pair + n) to their tokens' rows. */
static void add_sums(const struct moe_job *job, int64_t pair, int64_t n, int64_t panel,
                     const float (*sums)[HD_PANEL])
{
    int64_t left = job->down->n_out - panel * HD_PANEL, width = left < HD_PANEL ? left : HD_PANEL;
    for (int64_t i = 0; i < n; i++, pair++) {
        float *out = (float *)hd_tensor_row(job->out, job->token[pair], 0) + panel * HD_PANEL;
        for (int64_t r = 0; r < width; r++)
            out[r] += job->weight[pair] * sums[i][r];
    }
}

/* Expert after expert, so that each one's panels are read in one stretch. */
static void down_task(void *ud, size_t begin, size_t end, int thread)
{
    struct moe_job *job = ud;
    struct hd_x86_work work =
        hd_x86_work_of(job->scratch, job->work_bytes, thread, job->column_chunk);
    struct hd_panel_job down;
    for (const struct group *g = job->group; g < job->group + job->n_group; g++)
        for (int64_t c = 0; c < g->n; c += job->column_chunk) {
            int64_t n = g->n - c < job->column_chunk ? g->n - c : job->column_chunk;
            hd_x86_panel_job(&down, job->down, &g->in[FOR_DOWN], c, n, job->form, &work);
            for (int64_t panel = (int64_t)begin; panel < (int64_t)end; panel++) {
                hd_x86_panel(job->k, &down, job->down, g->expert, panel, work.panel);
                add_sums(job, g->start + c, n, panel, (const float(*)[HD_PANEL])work.sums);
            }
        }
}

/* --- the op
 * ------------------------------------------------------------------------------------------ */

/* Scratch for the grouping: counts, groups, tokens and weights. */
static int64_t *place_groups(struct moe_job *job, struct hd_stream *s, int64_t n_pair)
{
    size_t n_expert = (size_t)job->gate->n_matrix, pairs = (size_t)n_pair;
    size_t count_bytes = hd_round_up((n_expert + 1) * sizeof(int64_t), 64);
    size_t group_bytes = hd_round_up(n_expert * sizeof(struct group), 64);
    uint8_t *p = hd_stream_scratch(s, HD_SCRATCH_GROUPS, count_bytes + group_bytes + 8 * pairs);
    if (!p)
        return NULL;
    job->group = (struct group *)(p + count_bytes);
    job->token = (int32_t *)(p + count_bytes + group_bytes);
    job->weight = (float *)(job->token + pairs);
    return (int64_t *)p;
}

void hd_x86_moe(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                const struct hd_weight *gate, const struct hd_weight *up,
                const struct hd_weight *down, struct hd_tensor ids, struct hd_tensor weights,
                enum hd_form form)
{
    struct moe_job job = {
        .k = s->backend->x86, .gate = gate, .up = up, .down = down, .out = &out, .form = form};
    int threads = hd_pool_threads(s->pool);
    int64_t n_pair = ids.ne[0] * ids.ne[1], n_ff = gate->n_out;
    int64_t longest = in.ne[0] > n_ff ? in.ne[0] : n_ff;
    int64_t *count = place_groups(&job, s, n_pair);
    if (!count || !n_pair)
        return;
    job.n_pair = count_pairs(count, &ids, gate->n_matrix);
    group_pairs(&job, count, &ids, &weights);

    /* The sum of the groups' needs is at most that of all pairs, plus rounding per group. */
    size_t slack = 128 * (size_t)job.n_group;
    size_t in_bytes = hd_x86_activations_bytes(n_pair, in.ne[0]) + slack;
    size_t mid_bytes = hd_x86_activations_bytes(n_pair, n_ff) + slack;
    bool apart = gate->order || up->order; /* then up's inputs are not gate's */
    size_t up_bytes = apart ? in_bytes : 0;
    size_t n_moved = apart || down->order ? (size_t)(n_pair * (2 * in.ne[0] + n_ff)) : 1;
    job.column_chunk = hd_x86_column_chunk(ids.ne[1], longest);
    const struct hd_weight *weights_of[] = {gate, up, down};
    size_t through = 0;
    for (int i = 0; i < 3; i++) {
        size_t bytes = hd_x86_through_bytes(s, weights_of[i], ids.ne[1] <= job.column_chunk);
        through = bytes > through ? bytes : through;
    }
    job.work_bytes = hd_x86_work_bytes(job.column_chunk, through);
    job.scratch = hd_stream_scratch(s, HD_SCRATCH_THREADS, job.work_bytes * (size_t)threads);
    uint8_t *memory = hd_stream_scratch(s, HD_SCRATCH_INPUT, in_bytes + up_bytes + mid_bytes);
    job.hidden = hd_stream_scratch(s, HD_SCRATCH_HIDDEN, (size_t)(n_pair * n_ff) * sizeof(float));
    job.moved = hd_stream_scratch(s, HD_SCRATCH_ORDERED, n_moved * sizeof(float));
    if (!job.scratch || !memory || !job.hidden || !job.moved)
        return;
    place_inputs(&job, &in, memory, apart ? memory + in_bytes : NULL);
    place_activations(&job, FOR_DOWN, (uint8_t *)job.hidden, (size_t)n_ff * sizeof(float), NULL,
                      memory + in_bytes + up_bytes);

    order_inputs(&job, s->pool, FOR_GATE, hd_tensor_row(&in, 0, 0), in.nb[1], job.token);
    order_inputs(&job, s->pool, FOR_UP, hd_tensor_row(&in, 0, 0), in.nb[1], job.token);
    if (!gate->pack->is_float || (!apart && !up->pack->is_float))
        quantise(&job, s->pool, FOR_GATE);
    if (apart && !up->pack->is_float)
        quantise(&job, s->pool, FOR_UP);
    int64_t tasks = job.n_group * hd_pack_panels(gate);
    hd_x86_run_panels(s->pool, tasks, 2 * hd_pack_panel_bytes(gate), ids.ne[1], hidden_task, &job);
    order_inputs(&job, s->pool, FOR_DOWN, (uint8_t *)job.hidden, (size_t)n_ff * sizeof(float),
                 NULL);
    if (!down->pack->is_float)
        quantise(&job, s->pool, FOR_DOWN);
    tasks = hd_pack_panels(down);
    hd_x86_run_panels(s->pool, tasks, (size_t)job.n_group * hd_pack_panel_bytes(down), ids.ne[1],
                      down_task, &job);
}
