/* Tokens that a state allows: one walk over the vocabulary's bytes, kept with the state.
 *
 * The vocabulary is a tree in the order of a walk: a node's children follow it, and `end` is the
 * node behind them all, where the walk goes on when the grammar refuses a byte. */
#include <stdlib.h>
#include <string.h>

#include "token/grammar/grammar_impl.h"
#include "token/token_impl.h"

enum { MAX_BYTES = 255, MAX_TREE = 1 << 24, MAX_HISTORY = 1 << 26 };

struct node {
    uint32_t end;
    int32_t id; /* the token that ends here, or -1; more of the same bytes: next_same */
    uint8_t byte, depth;
};

struct hd_grammar_vocab {
    const struct hd_tokenizer *tok;
    size_t n_word, n_token;
    struct node *node;
    size_t n_node, cap_node;
    int32_t *next_same; /* [n_token] */
    uint32_t *at;       /* [n_token] begin in bytes, [n_token + 1] */
    struct hd_buf bytes;
};

struct hd_grammar_run {
    struct hd_grammar *grammar;
    const struct hd_grammar_vocab *vocab;
    uint32_t state;
    unsigned epoch;
    /* What was accepted, for when the state was forgotten: ids, or bytes as -1 - byte. */
    struct hd_ids history;
};

static void set_bit(uint64_t *mask, size_t i)
{
    mask[i / 64] |= (uint64_t)1 << (i % 64);
}

/* --- the vocabulary ------------------------------------------------------------------------------
 */

static bool is_text(const struct hd_tokenizer *tok, size_t id)
{
    unsigned flags = tok->vocab.entry[id].flags;
    return flags & HD_TOKEN_NORMAL && !(flags & (HD_TOKEN_ADDED | HD_TOKEN_CONTROL)) &&
           !hd_tokenizer_is_end(tok, (int32_t)id);
}

struct piece {
    const char *bytes;
    uint32_t len;
    int32_t id;
};

static int by_bytes(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    uint32_t n = x->len < y->len ? x->len : y->len;
    int d = memcmp(x->bytes, y->bytes, n);
    if (!d)
        d = (x->len > y->len) - (x->len < y->len);
    return d ? d : (x->id > y->id) - (x->id < y->id);
}

static enum hd_err add_piece(struct hd_grammar_vocab *v, const struct piece *piece,
                             const struct piece *last, uint32_t *path)
{
    uint32_t same = 0;
    while (last && same < last->len && same < piece->len && last->bytes[same] == piece->bytes[same])
        same++;
    for (uint32_t i = last ? last->len : 0; i-- > same;)
        v->node[path[i]].end = (uint32_t)v->n_node;
    for (uint32_t i = same; i < piece->len; i++) {
        enum hd_err err =
            hd_grammar__grow(&v->node, &v->cap_node, v->n_node, sizeof *v->node, MAX_TREE);
        if (err)
            return err;
        path[i] = (uint32_t)v->n_node;
        v->node[v->n_node++] =
            (struct node){.id = -1, .byte = (uint8_t)piece->bytes[i], .depth = (uint8_t)i};
    }
    int32_t *end = &v->node[path[piece->len - 1]].id;
    v->next_same[piece->id] = *end;
    *end = piece->id;
    return HD_OK;
}

/* The bytes of each token, one behind the other. */
static enum hd_err collect(struct hd_grammar_vocab *v)
{
    enum hd_err err = HD_OK;
    for (size_t id = 0; !err && id < v->n_token; id++) {
        v->at[id] = (uint32_t)v->bytes.len;
        v->next_same[id] = -1;
        if (is_text(v->tok, id))
            err = hd_tokenizer_piece(v->tok, &v->bytes, (int32_t)id, false);
        v->at[id + 1] = (uint32_t)v->bytes.len;
    }
    return err;
}

static enum hd_err build(struct hd_grammar_vocab *v, struct piece *piece)
{
    uint32_t path[MAX_BYTES];
    size_t n = 0;
    enum hd_err err = collect(v);
    for (size_t id = 0; !err && id < v->n_token; id++) {
        uint32_t len = v->at[id + 1] - v->at[id];
        if (len && len <= MAX_BYTES)
            piece[n++] = (struct piece){v->bytes.data + v->at[id], len, (int32_t)id};
    }
    qsort(piece, n, sizeof *piece, by_bytes);
    for (size_t i = 0; !err && i < n; i++)
        err = add_piece(v, &piece[i], i ? &piece[i - 1] : NULL, path);
    for (uint32_t i = n && !err ? piece[n - 1].len : 0; i-- > 0;)
        v->node[path[i]].end = (uint32_t)v->n_node;
    return err;
}

enum hd_err hd_grammar_vocab_new(struct hd_grammar_vocab **out, const struct hd_tokenizer *tok,
                                 size_t n_vocab)
{
    *out = NULL;
    struct hd_grammar_vocab *v = calloc(1, sizeof *v);
    if (!v)
        return HD_ERR_NOMEM;
    size_t n = hd_tokenizer_n_vocab(tok);
    v->tok = tok;
    v->n_word = (n_vocab + 63) / 64;
    v->n_token = n < n_vocab ? n : n_vocab;
    hd_buf_init(&v->bytes, HD_TOKEN_MAX_TEXT);
    v->at = malloc((v->n_token + 1) * sizeof *v->at);
    v->next_same = malloc((v->n_token + 1) * sizeof *v->next_same);
    struct piece *piece = malloc((v->n_token + 1) * sizeof *piece);
    enum hd_err err = v->at && v->next_same && piece ? build(v, piece) : HD_ERR_NOMEM;
    free(piece);
    if (err)
        hd_grammar_vocab_free(v);
    else
        *out = v;
    return err;
}

void hd_grammar_vocab_free(struct hd_grammar_vocab *v)
{
    if (!v)
        return;
    free(v->node);
    free(v->next_same);
    free(v->at);
    hd_buf_dispose(&v->bytes);
    free(v);
}

/* --- the grammar's handle ------------------------------------------------------------------------
 */

/* root' ::= [\n]{0,2} root, as elements. */
static enum hd_err allow_breaks(struct hd_grammar__program *p)
{
    const struct hd_grammar__elem elem[] = {
        {ELEM_RULE, p->root}, {ELEM_END, 0},        {ELEM_BYTE, '\n'},
        {ELEM_RULE, p->root}, {ELEM_END, 0},        {ELEM_BYTE, '\n'},
        {ELEM_BYTE, '\n'},    {ELEM_RULE, p->root}, {ELEM_END, 0}};
    const uint32_t at[] = {0, 2, 5};
    uint32_t first = (uint32_t)p->n_elem, alt = (uint32_t)p->n_alt;
    enum hd_err err = hd_grammar__grow(&p->rule, &p->cap_rule, p->n_rule, sizeof *p->rule,
                                       HD_GRAMMAR_MAX_RULES + 1);
    for (size_t i = 0; !err && i < sizeof elem / sizeof *elem; i++) {
        err = hd_grammar__grow(&p->elem, &p->cap_elem, p->n_elem, sizeof *elem,
                               HD_GRAMMAR_MAX_ELEMS + 16);
        if (!err)
            p->elem[p->n_elem++] = elem[i];
    }
    for (size_t i = 0; !err && i < 3; i++) {
        err = hd_grammar__grow(&p->alt, &p->cap_alt, p->n_alt, sizeof *p->alt,
                               HD_GRAMMAR_MAX_ELEMS + 16);
        if (!err)
            p->alt[p->n_alt++] = first + at[i];
    }
    if (err)
        return err;
    p->root = (uint32_t)p->n_rule;
    p->rule[p->n_rule++] = (struct hd_grammar__rule){alt, 3, true};
    return HD_OK;
}

enum hd_err hd_grammar_new(struct hd_grammar **out, const char *gbnf, size_t len,
                           const struct hd_tokenizer *tok, bool after_thought,
                           struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_grammar *g = calloc(1, sizeof *g);
    if (!g)
        return hd_fail(msg, HD_ERR_NOMEM, "grammar: out of memory");
    atomic_store(&g->n_ref, 1);
    enum hd_err err = hd_grammar__parse(&g->program, gbnf, len, tok, msg);
    if (!err) {
        if (after_thought)
            err = allow_breaks(&g->program);
        if (!err)
            err = hd_grammar__states_init(g);
        if (err)
            hd_fail(msg, err, "grammar: %s",
                    err == HD_ERR_LIMIT     ? "there are too many ways to begin"
                    : err == HD_ERR_INVALID ? "it allows no text"
                                            : hd_err_text(err));
    }
    if (err)
        hd_grammar_unref(g);
    else
        *out = g;
    return err;
}

struct hd_grammar *hd_grammar_ref(struct hd_grammar *g)
{
    atomic_fetch_add(&g->n_ref, 1);
    return g;
}

void hd_grammar_unref(struct hd_grammar *g)
{
    if (!g || atomic_fetch_sub(&g->n_ref, 1) > 1)
        return;
    hd_grammar__program_dispose(&g->program);
    hd_grammar__states_dispose(g);
    free(g);
}

/* --- runs ----------------------------------------------------------------------------------------
 */

enum hd_err hd_grammar_run_new(struct hd_grammar_run **out, struct hd_grammar *grammar,
                               const struct hd_grammar_vocab *vocab)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return HD_ERR_NOMEM;
    **out = (struct hd_grammar_run){.grammar = hd_grammar_ref(grammar),
                                    .vocab = vocab,
                                    .epoch = grammar->epoch,
                                    .state = grammar->start};
    hd_ids_init(&(*out)->history, MAX_HISTORY);
    return HD_OK;
}

void hd_grammar_run_free(struct hd_grammar_run *run)
{
    if (!run)
        return;
    hd_grammar_unref(run->grammar);
    hd_ids_dispose(&run->history);
    free(run);
}

/* The state behind one entry of a history. */
static uint32_t advance(struct hd_grammar_run *run, uint32_t state, int32_t what)
{
    struct hd_grammar *g = run->grammar;
    const struct hd_grammar_vocab *v = run->vocab;
    if (what < 0)
        return hd_grammar__step(g, state, (uint8_t)(-1 - what));
    if (g->state[state].has_token) {
        uint32_t next = hd_grammar__step_token(g, state, what);
        if (next != STATE_DEAD)
            return next;
    }
    if ((size_t)what >= v->n_token || v->at[what] == v->at[what + 1])
        return STATE_DEAD;
    for (uint32_t i = v->at[what]; i < v->at[what + 1] && state >= STATE_FIRST; i++)
        state = hd_grammar__step(g, state, (uint8_t)v->bytes.data[i]);
    return state;
}

/* Brings a run up to date whose state was forgotten on account of another. */
static enum hd_err refresh(struct hd_grammar_run *run)
{
    struct hd_grammar *g = run->grammar;
    if (run->epoch == g->epoch)
        return HD_OK;
    uint32_t state = g->start;
    for (size_t i = 0; i < run->history.n && state >= STATE_FIRST; i++) {
        state = hd_grammar__tidy(g, state);
        if (state >= STATE_FIRST)
            state = advance(run, state, run->history.id[i]);
    }
    if (state < STATE_FIRST)
        return HD_ERR_LIMIT;
    run->state = state;
    run->epoch = g->epoch;
    return HD_OK;
}

/* Up to date, and with room for new states. */
static enum hd_err prepare(struct hd_grammar_run *run)
{
    enum hd_err err = refresh(run);
    if (err)
        return err;
    uint32_t state = hd_grammar__tidy(run->grammar, run->state);
    if (state < STATE_FIRST)
        return HD_ERR_LIMIT;
    run->state = state;
    run->epoch = run->grammar->epoch;
    return HD_OK;
}

static enum hd_err walk(struct hd_grammar *g, const struct hd_grammar_vocab *v, uint32_t start,
                        uint64_t *mask)
{
    uint32_t state[MAX_BYTES + 1] = {start};
    for (uint32_t i = 0; i < v->n_node;) {
        const struct node *node = &v->node[i];
        uint32_t next = hd_grammar__step(g, state[node->depth], node->byte);
        if (next < STATE_FIRST) {
            if (next == STATE_UNKNOWN)
                return HD_ERR_LIMIT;
            i = node->end;
            continue;
        }
        state[node->depth + 1] = next;
        for (int32_t id = node->id; id >= 0; id = v->next_same[id])
            set_bit(mask, (size_t)id);
        i++;
    }
    return HD_OK;
}

static enum hd_err fill(struct hd_grammar *g, const struct hd_grammar_vocab *v, uint32_t state,
                        uint64_t *mask)
{
    const struct hd_grammar__state s = g->state[state];
    memset(mask, 0, v->n_word * sizeof *mask);
    for (uint32_t i = 0; s.has_token && i < s.n_head; i++) {
        const struct hd_grammar__elem *e = &g->program.elem[g->head[s.head + i].pos];
        if (e->kind == ELEM_TOKEN && e->value < v->n_token)
            set_bit(mask, e->value);
    }
    for (size_t i = 0; s.may_end && i < v->tok->n_end; i++)
        if (v->tok->end[i] >= 0 && (size_t)v->tok->end[i] < v->n_token)
            set_bit(mask, (size_t)v->tok->end[i]);
    return walk(g, v, state, mask);
}

/* The mask's place in the ring, made where it lacks. */
static enum hd_err find_mask(struct hd_grammar *g, const struct hd_grammar_vocab *v, uint32_t state,
                             int32_t *out)
{
    *out = g->state[state].mask;
    if (*out >= 0 && g->mask_state[*out] == state)
        return HD_OK;
    *out = (int32_t)g->next_mask;
    if (!g->mask[*out] && !(g->mask[*out] = malloc(v->n_word * sizeof **g->mask)))
        return HD_ERR_NOMEM;
    g->mask_state[*out] = STATE_UNKNOWN;
    g->next_mask = (g->next_mask + 1) % HD_GRAMMAR_MASKS;
    enum hd_err err = fill(g, v, state, g->mask[*out]);
    if (err)
        return err;
    g->mask_state[*out] = state;
    g->state[state].mask = *out;
    return HD_OK;
}

enum hd_err hd_grammar_run_mask(struct hd_grammar_run *run, const uint64_t **mask, bool *any)
{
    int32_t at;
    enum hd_err err = prepare(run);
    if (!err)
        err = find_mask(run->grammar, run->vocab, run->state, &at);
    if (err)
        return err;
    *mask = run->grammar->mask[at];
    if (any) {
        *any = false;
        for (size_t i = 0; i < run->vocab->n_word && !*any; i++)
            *any = (*mask)[i] != 0;
    }
    return HD_OK;
}

enum hd_err hd_grammar_run_accept(struct hd_grammar_run *run, int32_t id)
{
    enum hd_err err = prepare(run);
    if (err)
        return err;
    if (hd_tokenizer_is_end(run->vocab->tok, id))
        return run->grammar->state[run->state].may_end ? HD_OK : HD_ERR_INVALID;
    uint32_t next = id < 0 ? STATE_DEAD : advance(run, run->state, id);
    if (next < STATE_FIRST)
        return next == STATE_DEAD ? HD_ERR_INVALID : HD_ERR_LIMIT;
    run->state = next;
    return hd_ids_push(&run->history, id);
}

enum hd_err hd_grammar_run_accept_bytes(struct hd_grammar_run *run, const char *bytes, size_t len)
{
    enum hd_err err = prepare(run);
    uint32_t state = run->state;
    for (size_t i = 0; !err && i < len; i++) {
        state = hd_grammar__step(run->grammar, state, (uint8_t)bytes[i]);
        if (state < STATE_FIRST)
            return state == STATE_DEAD ? HD_ERR_INVALID : HD_ERR_LIMIT;
        uint32_t kept = hd_grammar__tidy(run->grammar, state);
        if (kept < STATE_FIRST)
            return HD_ERR_LIMIT;
        /* what was before is forgotten with the rest: there is no way back */
        if (kept != state || run->epoch != run->grammar->epoch) {
            state = run->state = kept;
            run->epoch = run->grammar->epoch;
        }
    }
    for (size_t i = 0; !err && i < len; i++)
        err = hd_ids_push(&run->history, -1 - (int32_t)(uint8_t)bytes[i]);
    if (!err)
        run->state = state;
    return err;
}

bool hd_grammar_run_may_end(struct hd_grammar_run *run)
{
    return !prepare(run) && run->grammar->state[run->state].may_end;
}

bool hd_grammar_run_must_end(struct hd_grammar_run *run)
{
    if (prepare(run))
        return false;
    const struct hd_grammar__state *s = &run->grammar->state[run->state];
    return s->may_end && !s->n_head;
}
