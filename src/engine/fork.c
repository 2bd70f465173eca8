/* Several answers to one request: the prompt is computed once, by the first of them; when its last
 * row is there the others begin behind the same blocks, in the same step. Whole blocks of the
 * prompt are shared by reference, the last, begun one is copied, since each answer goes on in it.
 * The rows are what each of them would have computed, so the texts are those of requests by
 * themselves. */
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

/* False where there is no memory. */
static bool copy_block(struct hd_loaded *m, int32_t to, int32_t from)
{
    size_t bytes = hd_model_kv_block_bytes(m->model);
    void *block = malloc(bytes);
    if (!block)
        return false;
    hd_runner_kv_download(m->runner, block, from);
    hd_runner_kv_upload(m->runner, to, block);
    free(block);
    return true;
}

static bool fork_one(struct hd_engine *e, struct hd_session *s, const struct hd_session *parent,
                     const float *logits)
{
    struct hd_loaded *m = s->model;
    size_t bytes = (size_t)m->hp->n_vocab * sizeof *logits;
    int whole = s->w.n_prompt / HD_KV_BLOCK;
    s->first_logits = malloc(bytes);
    if (!s->first_logits || !hd_policy_fork(m->policy, &s->w, &parent->w,
                                            e->options.max_sessions - hd_scheduler__n_running(e)))
        return false;
    if (s->w.n_block > whole && !copy_block(m, s->w.table[whole], parent->w.table[whole])) {
        hd_policy_remove(m->policy, &s->w);
        return false;
    }
    memcpy(s->first_logits, logits, bytes);
    hd_scheduler__note_admitted(e, s);
    return true;
}

int hd_fork__siblings(struct hd_engine *e, struct hd_session *parent, const float *logits,
                      struct hd_pick *picks)
{
    int n = 0;
    struct hd_session *next = parent->siblings;
    parent->siblings = NULL;
    for (struct hd_session *s = next; s; s = next) {
        next = s->next;
        s->next = NULL;
        if (fork_one(e, s, parent, logits)) {
            picks[n++] = (struct hd_pick){s, s->first_logits, -1};
            continue;
        }
        free(s->first_logits);
        s->first_logits = NULL;
        if (hd_policy_add(s->model->policy, &s->w, s->tenant, s->key_id, s->weight))
            hd_session__finish(e, s, HD_FINISH_ERROR, HD_ERR_NOMEM, NULL);
    }
    return n;
}
