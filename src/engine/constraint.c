#include "engine/constraint.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { MAX_KEPT = 8, MAX_TEXT = 8 << 20 };

struct kept {
    char key[65]; /* SHA-256 of the text, and whether a thought precedes */
    struct hd_grammar *grammar;
    uint64_t used;
};

struct hd_grammar_cache {
    pthread_mutex_t mu; /* guards what follows */
    struct hd_grammar_vocab *vocab;
    struct kept kept[MAX_KEPT];
    uint64_t clock;
};

struct hd_constraint {
    struct hd_grammar *grammar;
    const struct hd_grammar_vocab *vocab;
    struct hd_grammar_run *run; /* made when it is first needed, on the scheduler's thread */
};

/* --- what a model's requests share ---------------------------------------------------------------
 */

static struct hd_grammar_cache *cache_of(_Atomic(struct hd_grammar_cache *) *at)
{
    struct hd_grammar_cache *cache = atomic_load(at), *none = NULL;
    if (cache)
        return cache;
    cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    pthread_mutex_init(&cache->mu, NULL);
    if (!atomic_compare_exchange_strong(at, &none, cache)) {
        hd_grammar_cache_free(cache); /* another request was faster */
        cache = none;
    }
    return cache;
}

void hd_grammar_cache_free(struct hd_grammar_cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; i < MAX_KEPT; i++)
        hd_grammar_unref(cache->kept[i].grammar);
    hd_grammar_vocab_free(cache->vocab);
    pthread_mutex_destroy(&cache->mu);
    free(cache);
}

static enum hd_err key_of(char key[65], const char *gbnf, bool after_thought)
{
    struct hd_sha256 *sha;
    enum hd_err err = hd_sha256_new(&sha);
    if (err)
        return err;
    hd_sha256_update(sha, after_thought ? "t" : "a", 1);
    hd_sha256_update(sha, gbnf, strlen(gbnf));
    hd_sha256_finish(sha, key);
    return HD_OK;
}

/* The grammar with this key, with a reference for the caller; or the place for a new one. */
static struct hd_grammar *find_locked(struct hd_grammar_cache *cache, const char *key,
                                      struct kept **place)
{
    *place = &cache->kept[0];
    for (size_t i = 0; i < MAX_KEPT; i++) {
        struct kept *kept = &cache->kept[i];
        if (kept->grammar && !strcmp(kept->key, key)) {
            kept->used = ++cache->clock;
            return hd_grammar_ref(kept->grammar);
        }
        if (kept->used < (*place)->used)
            *place = kept;
    }
    return NULL;
}

static enum hd_err get_grammar(struct hd_constraint *c, struct hd_grammar_cache *cache,
                               const struct hd_tokenizer *tok, int n_vocab, const char *gbnf,
                               bool after_thought, struct hd_errmsg *msg)
{
    char key[65];
    struct kept *place;
    enum hd_err err = key_of(key, gbnf, after_thought);
    if (err)
        return hd_fail(msg, err, "grammar: %s", hd_err_text(err));
    pthread_mutex_lock(&cache->mu);
    if (!cache->vocab)
        err = hd_grammar_vocab_new(&cache->vocab, tok, (size_t)n_vocab);
    c->vocab = cache->vocab;
    if (!err)
        c->grammar = find_locked(cache, key, &place);
    pthread_mutex_unlock(&cache->mu);
    if (err)
        return hd_fail(msg, err, "grammar: vocabulary: %s", hd_err_text(err));
    if (c->grammar)
        return HD_OK;
    /* Without the lock: others need not wait for a large one. */
    err = hd_grammar_new(&c->grammar, gbnf, strlen(gbnf), tok, after_thought, msg);
    if (err)
        return err;
    pthread_mutex_lock(&cache->mu);
    struct hd_grammar *same = find_locked(cache, key, &place);
    if (same) {
        hd_grammar_unref(c->grammar);
        c->grammar = same;
    } else {
        hd_grammar_unref(place->grammar);
        memcpy(place->key, key, sizeof key);
        place->grammar = hd_grammar_ref(c->grammar);
        place->used = ++cache->clock;
    }
    pthread_mutex_unlock(&cache->mu);
    return HD_OK;
}

/* --- a request's ---------------------------------------------------------------------------------
 */

enum hd_err hd_constraint_new(struct hd_constraint **out, _Atomic(struct hd_grammar_cache *) *cache,
                              const struct hd_tokenizer *tok, int n_vocab,
                              const struct hd_request *r, bool after_thought, struct hd_errmsg *msg)
{
    *out = NULL;
    if (!r->grammar && !r->tool_choice)
        return HD_OK;
    if (!tok)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "grammar: the model carries no tokenizer");
    if (r->grammar && r->tool_choice)
        return hd_fail(msg, HD_ERR_INVALID,
                       "grammar: not together with a function that must be called");
    if (r->tool_choice && !r->tools)
        return hd_fail(msg, HD_ERR_INVALID, "tool_choice: there are no tools to choose from");
    struct hd_buf text;
    hd_buf_init(&text, MAX_TEXT);
    struct hd_grammar_cache *shared = cache_of(cache);
    struct hd_constraint *c = calloc(1, sizeof *c);
    enum hd_err err = shared && c ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "grammar: out of memory");
    if (!err && r->tool_choice)
        err = hd_grammar_from_tools(&text, tok, r->tools, *r->tool_choice ? r->tool_choice : NULL,
                                    !*r->tool_choice && !r->one_call, msg);
    if (!err)
        err = get_grammar(c, shared, tok, n_vocab, r->grammar ? r->grammar : hd_buf_str(&text),
                          after_thought, msg);
    hd_buf_dispose(&text);
    if (err)
        hd_constraint_free(c);
    else
        *out = c;
    return err;
}

void hd_constraint_free(struct hd_constraint *c)
{
    if (!c)
        return;
    hd_grammar_run_free(c->run);
    hd_grammar_unref(c->grammar);
    free(c);
}

static enum hd_err need_run(struct hd_constraint *c)
{
    return c->run ? HD_OK : hd_grammar_run_new(&c->run, c->grammar, c->vocab);
}

enum hd_err hd_constraint_mask(struct hd_constraint *c, float *logits, int n_vocab)
{
    const uint64_t *mask;
    bool any;
    enum hd_err err = need_run(c);
    if (!err)
        err = hd_grammar_run_mask(c->run, &mask, &any);
    if (!err && !any)
        err = HD_ERR_INVALID;
    for (int i = 0; !err && i < n_vocab; i += 64) {
        uint64_t word = mask[i / 64];
        int n = n_vocab - i < 64 ? n_vocab - i : 64;
        if (word == UINT64_MAX)
            continue;
        for (int k = 0; k < n; k++)
            if (!(word >> k & 1))
                logits[i + k] = -INFINITY;
    }
    return err;
}

enum hd_err hd_constraint_accept(struct hd_constraint *c, int32_t id)
{
    enum hd_err err = need_run(c);
    return err ? err : hd_grammar_run_accept(c->run, id);
}

bool hd_constraint_done(struct hd_constraint *c)
{
    return c->run && hd_grammar_run_must_end(c->run);
}
