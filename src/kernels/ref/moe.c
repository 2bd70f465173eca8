/* Expert routing and the mixture itself.
 *
 * Routing follows the DeepSeek-V3 report (eq. 12-16) and the Gate of its model.py (MIT): scores are
 * sigmoid or softmax of the logits; the bias takes part in the selection only; the best groups are
 * chosen first, then the best experts within them; the weights are the unbiased scores. */
#include <math.h>
#include <string.h>

#include "kernels/ref/ref.h"

/* --- routing ------------------------------------------------------------------------------- */

enum { MAX_EXPERT = 4096 };

/* Index of the largest of n values, the first of equals. */
static int largest(const float *value, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (value[i] > value[best])
            best = i;
    return best;
}

static void scores_of(float *score, const float *logit, const struct hd_router *r)
{
    if (r->sigmoid) {
        for (int i = 0; i < r->n_expert; i++)
            score[i] = 1.0f / (1.0f + expf(-logit[i]));
        return;
    }
    float max = logit[largest(logit, r->n_expert)], sum = 0;
    for (int i = 0; i < r->n_expert; i++)
        sum += score[i] = expf(logit[i] - max);
    for (int i = 0; i < r->n_expert; i++)
        score[i] /= sum;
}

/* Sum of the two largest where there is a bias, else the largest. */
static float group_score(const float *choice, int n, bool two)
{
    int first = largest(choice, n);
    if (!two || n < 2)
        return choice[first];
    float second = -INFINITY;
    for (int i = 0; i < n; i++)
        if (i != first && choice[i] > second)
            second = choice[i];
    return choice[first] + second;
}

/* Takes the experts of all but the best groups out of the choice. */
static void keep_best_groups(float *choice, const struct hd_router *r)
{
    int n = r->n_expert / r->n_group;
    float score[MAX_EXPERT];
    bool kept[MAX_EXPERT] = {false};
    for (int g = 0; g < r->n_group; g++)
        score[g] = group_score(choice + g * n, n, r->bias);
    for (int i = 0; i < r->n_group_used; i++) {
        int g = largest(score, r->n_group);
        kept[g] = true;
        score[g] = -INFINITY;
    }
    for (int i = 0; i < r->n_expert; i++)
        if (!kept[i / n])
            choice[i] = -INFINITY;
}

static void route_row(int32_t *ids, float *weights, const float *logit, const struct hd_router *r)
{
    float score[MAX_EXPERT], choice[MAX_EXPERT];
    const float *bias = r->bias ? hd_tensor_row(r->bias, 0, 0) : NULL;
    scores_of(score, logit, r);
    for (int i = 0; i < r->n_expert; i++)
        choice[i] = bias ? score[i] + bias[i] : score[i];
    if (r->n_group > 1)
        keep_best_groups(choice, r);
    float sum = 0;
    for (int j = 0; j < r->n_used; j++) {
        ids[j] = largest(choice, r->n_expert);
        choice[ids[j]] = -INFINITY;
        weights[j] = score[ids[j]];
        sum += weights[j];
    }
    for (int j = 0; j < r->n_used; j++)
        weights[j] = (r->normalise ? weights[j] / (sum + 1e-20f) : weights[j]) * r->scale;
}

struct route_job {
    const struct hd_tensor *ids, *weights, *logits;
    const struct hd_router *router;
};

static void route_task(void *ud, size_t begin, size_t end, int thread)
{
    struct route_job *job = ud;
    for (size_t i = begin; i < end; i++)
        route_row(hd_tensor_row(job->ids, (int64_t)i, 0),
                  hd_tensor_row(job->weights, (int64_t)i, 0),
                  hd_tensor_row(job->logits, (int64_t)i, 0), job->router);
}

void hd_ref_route(struct hd_stream *s, struct hd_tensor ids, struct hd_tensor weights,
                  struct hd_tensor logits, const struct hd_router *router)
{
    if (router->n_expert > MAX_EXPERT) {
        s->failure = s->failure ? s->failure : HD_ERR_LIMIT;
        return;
    }
    struct route_job job = {&ids, &weights, &logits, router};
    hd_pool_run(s->pool, (size_t)logits.ne[1], 8, route_task, &job);
}

/* --- the mixture: expert by expert, its tokens together ------------------------------------ */

struct moe_job {
    const struct hd_weight *gate, *up, *down;
    const float *in, *up_in; /* the tokens of one expert [m, n_embd], as gate and up want them */
    const float *down_in;    /* [m, n_ff] */
    float *hidden, *second;  /* [m, n_ff] */
    const int32_t *token;    /* [m] */
    const float *weight;     /* [m] */
    const struct hd_tensor *out;
    int64_t expert, m;
    float *y; /* [m, n_embd] */
    uint8_t *scratch;
    size_t scratch_bytes;
};

static void hidden_task(void *ud, size_t begin, size_t end, int thread)
{
    struct moe_job *job = ud;
    size_t row = (size_t)job->gate->n_out * sizeof(float);
    float *scratch = (float *)(job->scratch + (size_t)thread * job->scratch_bytes);
    struct hd_ref_product p = {
        .matrix = job->expert,
        .in = (const uint8_t *)job->in,
        .in_stride = (size_t)job->gate->n_in * sizeof(float),
        .out_stride = row,
        .n = job->m,
    };
    p.w = job->gate;
    p.out = (uint8_t *)job->hidden;
    hd_ref_product(&p, (int64_t)begin, (int64_t)end, scratch);
    p.w = job->up;
    p.in = (const uint8_t *)job->up_in;
    p.out = (uint8_t *)job->second;
    hd_ref_product(&p, (int64_t)begin, (int64_t)end, scratch);
    for (int64_t i = 0; i < job->m; i++)
        for (size_t o = begin; o < end; o++) {
            float *h = &job->hidden[(size_t)i * (size_t)job->gate->n_out + o];
            float u = job->second[(size_t)i * (size_t)job->gate->n_out + o];
            *h = *h / (1.0f + expf(-*h)) * u;
        }
}

static void down_task(void *ud, size_t begin, size_t end, int thread)
{
    struct moe_job *job = ud;
    struct hd_ref_product p = {
        .w = job->down,
        .matrix = job->expert,
        .in = (const uint8_t *)job->down_in,
        .in_stride = (size_t)job->down->n_in * sizeof(float),
        .out = (uint8_t *)job->y,
        .out_stride = (size_t)job->down->n_out * sizeof(float),
        .n = job->m,
    };
    hd_ref_product(&p, (int64_t)begin, (int64_t)end,
                   (float *)(job->scratch + (size_t)thread * job->scratch_bytes));
    for (int64_t i = 0; i < job->m; i++) {
        float *out = hd_tensor_row(job->out, job->token[i], 0);
        const float *y = job->y + (size_t)i * (size_t)job->down->n_out;
        for (size_t o = begin; o < end; o++)
            out[o] += job->weight[i] * y[o];
    }
}

/* The tokens that chose an expert, gathered; experts in ascending order, so that the sum of a
 * token's experts has an order of its own. */
static int64_t collect(struct moe_job *job, const struct hd_tensor *in, const struct hd_tensor *ids,
                       const struct hd_tensor *weights, float *x, int32_t *token, float *weight)
{
    int64_t m = 0;
    for (int64_t i = 0; i < in->ne[1]; i++) {
        const int32_t *id = hd_tensor_row(ids, i, 0);
        const float *w = hd_tensor_row(weights, i, 0);
        for (int64_t j = 0; j < ids->ne[0]; j++)
            if (id[j] == job->expert) {
                memcpy(x + (size_t)m * (size_t)in->ne[0], hd_tensor_row(in, i, 0),
                       (size_t)in->ne[0] * sizeof *x);
                token[m] = (int32_t)i;
                weight[m++] = w[j];
            }
    }
    return m;
}

/* m rows as the weight wants them: in the order of its expert in `out`, or as they are. */
static const float *ordered(const struct moe_job *job, struct hd_stream *s,
                            const struct hd_weight *w, const float *rows, float *out)
{
    if (!w->order)
        return rows;
    hd_weight_order_rows(out, s->pool, w, job->expert, (const uint8_t *)rows,
                         (size_t)w->n_in * sizeof *rows, NULL, job->m);
    return out;
}

void hd_ref_moe(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                const struct hd_weight *gate, const struct hd_weight *up,
                const struct hd_weight *down, struct hd_tensor ids, struct hd_tensor weights,
                enum hd_form form)
{
    size_t n = (size_t)in.ne[1], n_embd = (size_t)in.ne[0], n_ff = (size_t)gate->n_out;
    int64_t longest = gate->n_in > down->n_in ? gate->n_in : down->n_in;
    size_t threads = (size_t)hd_pool_threads(s->pool);
    struct moe_job job = {.gate = gate, .up = up, .down = down, .out = &out};
    job.scratch_bytes = hd_round_up(hd_ref_product_scratch(longest), 64);
    job.scratch = hd_stream_scratch(s, HD_SCRATCH_THREADS, job.scratch_bytes * threads);
    float *x = hd_stream_scratch(s, HD_SCRATCH_INPUT, n * n_embd * 2 * sizeof(float));
    float *h = hd_stream_scratch(s, HD_SCRATCH_HIDDEN, n * n_ff * 2 * sizeof(float));
    int32_t *token = hd_stream_scratch(s, HD_SCRATCH_GROUPS, n * 2 * sizeof(float));
    bool any = gate->order || up->order || down->order;
    float *moved =
        hd_stream_scratch(s, HD_SCRATCH_ORDERED, any ? n * (2 * n_embd + n_ff) * sizeof(float) : 1);
    if (!job.scratch || !x || !h || !token || !moved)
        return;
    memset(job.scratch, 0, job.scratch_bytes * threads);
    float *weight = (float *)(token + n);
    job.y = x + n * n_embd;
    job.hidden = h;
    job.second = h + n * n_ff;
    job.token = token;
    job.weight = weight;
    for (job.expert = 0; job.expert < gate->n_matrix; job.expert++) {
        job.m = collect(&job, &in, &ids, &weights, x, token, weight);
        if (!job.m)
            continue;
        job.in = ordered(&job, s, gate, x, moved);
        job.up_in = ordered(&job, s, up, x, moved + n * n_embd);
        hd_pool_run(s->pool, n_ff, 32, hidden_task, &job);
        job.down_in = ordered(&job, s, down, h, moved + 2 * n * n_embd);
        hd_pool_run(s->pool, n_embd, 32, down_task, &job);
    }
}
