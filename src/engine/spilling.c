/* KV blocks to disk and back, on the scheduler thread: saved while idle and before they are reused
 * for something else, brought back instead of being computed. */
#include <stdlib.h>

#include "engine/engine_impl.h"

enum { BLOCKS_PER_STEP = 8 }; /* some milliseconds: less than a chunk of prompt rows */

static bool save(struct hd_loaded *m, int32_t block, const struct hd_block_key *key)
{
    if (!hd_spill_has(m->spill, key)) {
        hd_runner_kv_download(m->runner, m->spill_block, block);
        enum hd_err err =
            hd_spill_write(m->spill, key, m->spill_block, hd_model_kv_block_bytes(m->model));
        m->disk_written += !err;
    }
    hd_blocks_set_saved(m->blocks, block); /* or it cannot be: it is not tried again */
    return true;
}

static void on_evict(void *ud, int32_t block, const struct hd_block_key *key)
{
    save(ud, block, key);
}

void hd_spilling__attach(struct hd_engine *e, struct hd_loaded *m)
{
    m->spill_block = e->spill ? malloc(hd_model_kv_block_bytes(m->model)) : NULL;
    if (!m->spill_block)
        return;
    m->spill = e->spill;
    hd_blocks_on_evict(m->blocks, on_evict, m);
}

bool hd_spilling__save_one(struct hd_engine *e)
{
    struct hd_block_key key;
    for (size_t i = 0; i < e->n_seen; i++) {
        struct hd_loaded *m = e->model[i];
        int32_t block = m->spill ? hd_blocks_unsaved(m->blocks, &key) : -1;
        if (block >= 0)
            return save(m, block, &key);
    }
    return false;
}

static bool restore_one(struct hd_engine *e, struct hd_loaded *m, struct hd_session *s)
{
    struct hd_work *w = &s->w;
    int i = w->n_done / HD_KV_BLOCK;
    int findable = (w->background ? w->n_prompt : w->n_prompt - 1) / HD_KV_BLOCK;
    if (w->n_done % HD_KV_BLOCK || i >= findable || i >= w->n_block)
        return false;
    if (hd_spill_read(m->spill, &w->keys[i], m->spill_block, hd_model_kv_block_bytes(m->model)))
        return false;
    hd_runner_kv_upload(m->runner, w->table[i], m->spill_block);
    bool counts = !w->background && s->t_first <= 0 && s->result.n_cached == w->n_done;
    hd_policy_restored(m->policy, w, HD_KV_BLOCK);
    hd_blocks_set_saved(m->blocks, w->table[i]);
    m->disk_read++;
    if (counts) {
        s->result.n_cached += HD_KV_BLOCK;
        pthread_mutex_lock(&e->mu);
        e->stats.cached_tokens += HD_KV_BLOCK;
        pthread_mutex_unlock(&e->mu);
    }
    return true;
}

void hd_spilling__restore(struct hd_engine *e, struct hd_loaded *m)
{
    int left = BLOCKS_PER_STEP;
    if (!m->spill)
        return;
    for (int i = 0; i < hd_policy_n_running(m->policy); i++)
        while (left > 0 && restore_one(e, m, (struct hd_session *)hd_policy_running(m->policy, i)))
            left--;
    struct hd_work *b = hd_policy_background(m->policy);
    while (b && b->n_block && left > 0 && restore_one(e, m, (struct hd_session *)b))
        left--;
}
