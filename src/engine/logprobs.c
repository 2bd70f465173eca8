/* Log-probabilities of sampled tokens and of the likeliest beside them, as the model gave them:
 * before penalties, bias, grammar and temperature. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

struct hd_logprobs {
    int n_top;
    float *logits; /* [n_vocab] */
    double norm;
    struct hd_buf bytes; /* of the tokens of one report */
};

enum hd_err hd_logprobs__new(struct hd_logprobs **out, int n_top, int n_vocab)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return HD_ERR_NOMEM;
    (*out)->n_top = n_top;
    hd_buf_init(&(*out)->bytes, 1 << 20);
    (*out)->logits = malloc((size_t)n_vocab * sizeof *(*out)->logits);
    if ((*out)->logits)
        return HD_OK;
    hd_logprobs__free(*out);
    *out = NULL;
    return HD_ERR_NOMEM;
}

void hd_logprobs__free(struct hd_logprobs *lp)
{
    if (!lp)
        return;
    free(lp->logits);
    hd_buf_dispose(&lp->bytes);
    free(lp);
}

void hd_logprobs__keep(struct hd_logprobs *lp, const float *logits, int n_vocab, double norm)
{
    memcpy(lp->logits, logits, (size_t)n_vocab * sizeof *logits);
    lp->norm = norm;
}

/* The n likeliest, best first, ties to the lowest id. */
static int find_top(const struct hd_logprobs *lp, int n_vocab, struct hd_token_chance *top)
{
    int n = 0;
    for (int32_t id = 0; lp->n_top && id < n_vocab; id++) {
        float l = lp->logits[id];
        if (!isfinite(l) || (n == lp->n_top && l <= top[n - 1].logprob))
            continue;
        int at = n < lp->n_top ? n++ : n - 1;
        for (; at && top[at - 1].logprob < l; at--)
            top[at] = top[at - 1];
        top[at] = (struct hd_token_chance){.id = id, .logprob = l};
    }
    return n;
}

static void put_bytes(struct hd_logprobs *lp, const struct hd_tokenizer *tok,
                      struct hd_token_chance *chance)
{
    size_t from = lp->bytes.len;
    if (tok)
        hd_tokenizer_piece(tok, &lp->bytes, chance->id, true);
    chance->n_bytes = lp->bytes.len - from;
}

void hd_logprobs__report(struct hd_logprobs *lp, const struct hd_session *s, int32_t id)
{
    struct hd_token_report report = {.token = {.id = id},
                                     .reasoning = s->splitter && hd_splitter_kind(s->splitter) ==
                                                                     HD_SPLIT_REASONING};
    const struct hd_loaded *m = s->model;
    if (!s->callbacks.on_logprobs)
        return;
    hd_buf_clear(&lp->bytes);
    report.token.logprob = (float)(lp->logits[id] - lp->norm);
    put_bytes(lp, m->tokenizer, &report.token);
    report.n_top = find_top(lp, m->hp->n_vocab, report.top);
    for (int i = 0; i < report.n_top; i++) {
        report.top[i].logprob = (float)(report.top[i].logprob - lp->norm);
        put_bytes(lp, m->tokenizer, &report.top[i]);
    }
    const char *at = hd_buf_str(&lp->bytes); /* which no longer moves */
    report.token.bytes = at;
    at += report.token.n_bytes;
    for (int i = 0; i < report.n_top; i++) {
        report.top[i].bytes = at;
        at += report.top[i].n_bytes;
    }
    s->callbacks.on_logprobs(s->callbacks.ud, &report);
}
