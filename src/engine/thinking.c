#include "engine/thinking.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "engine/loop_guard.h"

enum {
    RESERVE_LEAST = 16,
    RESERVE_MOST = 1024,
    NUDGE_LEAD_MOST = 1024, /* ids before the budget's end where the nudge comes at the earliest */
    WINDOW_MOST = 64, /* ids before the budget's end where a sentence's end ends the thought */
    CHARACTER = 3,    /* ids that a character may still take */
    BLANK_FEW = 4,    /* ids of an answer that may be white space */
    BLANK_MANY = 16,  /* … or markup */
    MAX_PIECE = 1 << 16,
    TAIL = 10,
};

/* --- the lexicon ------------------------------------------------------------------------------ */

/* The markers, and the name that models resort to where those are ruled out. */
static const char *const tags[] = {"<think", "</think", "<thought", "</thought"};
enum { N_TAG = 4, TAG_MAX = 10, MARK = 2 };

struct hd_think_lexicon {
    const struct hd_tokenizer *tok;
    /* [t][0]: ids whose text has tag t in it; [t][k]: ids that complete it after its first k bytes
     */
    struct hd_ids completes[N_TAG][TAG_MAX];
    struct hd_ids space;    /* nothing but white space */
    struct hd_ids stops;    /* nothing but the marks that end and part sentences */
    struct hd_ids markup;   /* begin with '<' behind white space */
    struct hd_ids end;      /* of the turn */
    struct hd_ids close[3]; /* what ends a thought: English, Chinese, the mark alone */
    struct hd_ids nudge[2]; /* English, Chinese */
};

/* The sentence stands in for the model's own decision: without it, a model that was cut in the
 * middle often goes on as if the answer had been given. Where the budget has no room for it: the
 * mark. */
static const char *const close_text[] = {
    "\n\nNow I write the final answer for the user, in full.\n</think>\n\n",
    "\n\n现在我把最终答案完整地写给用户。\n</think>\n\n",
    "\n</think>\n\n",
};
static const char *const nudge_text[] = {
    "\n\nI am running out of room for thinking, so I have to come to an end.\n\n",
    "\n\n思考的篇幅快用完了，我要尽快结束思考。\n\n",
};

/* Length of the white space, or of the mark that ends or parts sentences, that text begins with. */
static size_t space_or_stop(const char *text, size_t len, bool *stop)
{
    static const char *const stops[] = {".",  ",",  ";",  ":",  "!",  "?",  "。",
                                        "，", "、", "；", "：", "！", "？", "…"};
    *stop = false;
    if (len && isspace((unsigned char)*text))
        return 1;
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        size_t n = strlen(stops[i]);
        if (len >= n && !memcmp(text, stops[i], n)) {
            *stop = true;
            return n;
        }
    }
    return 0;
}

/* How much of text's beginning says nothing; *stops: marks are among it. */
static size_t saying_nothing(const char *text, size_t len, bool *stops)
{
    size_t i = 0, n;
    bool stop;
    *stops = false;
    while ((n = space_or_stop(text + i, len - i, &stop))) {
        i += n;
        *stops |= stop;
    }
    return i;
}

static void add_piece(struct hd_think_lexicon *lex, int32_t id, const char *piece, size_t len)
{
    bool stops;
    size_t space = 0; /* "< think" is one too, and so is "<THINK" */
    while (space < len && isspace((unsigned char)piece[space]))
        space++;
    for (int t = 0; t < N_TAG; t++) {
        size_t n = strlen(tags[t]);
        bool within = false;
        for (size_t i = 0; i + n <= len; i++)
            within |= !strncasecmp(piece + i, tags[t], n);
        if (within)
            hd_ids_push(&lex->completes[t][0], id);
        for (size_t k = 1; k < n; k++)
            if (len - space >= n - k && !strncasecmp(piece + space, tags[t] + k, n - k))
                hd_ids_push(&lex->completes[t][k], id);
    }
    size_t blank = saying_nothing(piece, len, &stops);
    if (blank == len)
        hd_ids_push(stops ? &lex->stops : &lex->space, id);
    else if (piece[blank] == '<')
        hd_ids_push(&lex->markup, id);
}

static enum hd_err scan(struct hd_think_lexicon *lex)
{
    struct hd_buf piece;
    hd_buf_init(&piece, MAX_PIECE);
    enum hd_err err = HD_OK;
    int32_t n = (int32_t)hd_tokenizer_n_vocab(lex->tok);
    for (int32_t id = 0; id < n && !err; id++) {
        if (hd_tokenizer_is_end(lex->tok, id)) {
            err = hd_ids_push(&lex->end, id);
            continue;
        }
        hd_buf_clear(&piece);
        err = hd_tokenizer_piece(lex->tok, &piece, id, true);
        if (err == HD_ERR_LIMIT) { /* no piece of ours is that long */
            err = HD_OK;
            hd_buf_dispose(&piece);
            hd_buf_init(&piece, MAX_PIECE);
            continue;
        }
        add_piece(lex, id, hd_buf_str(&piece), piece.len);
    }
    hd_buf_dispose(&piece);
    return err;
}

/* Every list, for what is done to all. */
static struct hd_ids *list(struct hd_think_lexicon *lex, size_t i)
{
    struct hd_ids *others[] = {&lex->space,    &lex->stops,    &lex->markup,
                               &lex->end,      &lex->close[0], &lex->close[1],
                               &lex->close[2], &lex->nudge[0], &lex->nudge[1]};
    if (i < N_TAG * TAG_MAX)
        return &lex->completes[i / TAG_MAX][i % TAG_MAX];
    i -= N_TAG * TAG_MAX;
    return i < sizeof others / sizeof *others ? others[i] : NULL;
}

enum hd_err hd_think_lexicon_new(struct hd_think_lexicon **out, const struct hd_tokenizer *tok)
{
    struct hd_think_lexicon *lex = calloc(1, sizeof *lex);
    struct hd_ids *ids;
    *out = NULL;
    if (!lex)
        return HD_ERR_NOMEM;
    lex->tok = tok;
    for (size_t i = 0; (ids = list(lex, i)); i++)
        hd_ids_init(ids, INT32_MAX);
    enum hd_err err = scan(lex);
    for (int i = 0; i < 3 && !err; i++)
        err = hd_tokenizer_encode(tok, &lex->close[i], close_text[i], strlen(close_text[i]), true);
    for (int i = 0; i < 2 && !err; i++)
        err = hd_tokenizer_encode(tok, &lex->nudge[i], nudge_text[i], strlen(nudge_text[i]), false);
    for (size_t i = 0; (ids = list(lex, i)) && !err; i++)
        err = ids->err;
    if (err)
        hd_think_lexicon_free(lex);
    else
        *out = lex;
    return err;
}

void hd_think_lexicon_free(struct hd_think_lexicon *lex)
{
    struct hd_ids *ids;
    if (!lex)
        return;
    for (size_t i = 0; (ids = list(lex, i)); i++)
        hd_ids_dispose(ids);
    free(lex);
}

/* --- budgets ---------------------------------------------------------------------------------- */

int hd_thinking_reserve(int n_max)
{
    int reserve = n_max / 4;
    if (reserve < RESERVE_LEAST)
        reserve = n_max / 2 < RESERVE_LEAST ? n_max / 2 : RESERVE_LEAST;
    return reserve < RESERVE_MOST ? reserve : RESERVE_MOST;
}

/* Ids that the thought may take, its end included. */
static int allowed(int n_max, int budget, bool *by_length)
{
    int room = n_max - hd_thinking_reserve(n_max);
    *by_length = !budget || room < budget;
    return *by_length ? room : budget;
}

bool hd_thinking_fits(const struct hd_think_lexicon *lex, int n_max, int budget)
{
    bool by_length;
    return allowed(n_max, budget, &by_length) > (int)lex->close[MARK].n + CHARACTER;
}

/* --- a session's thought ---------------------------------------------------------------------- */

struct hd_thinking {
    const struct hd_tokenizer *tok;
    const struct hd_think_lexicon *lex;
    struct hd_loop_guard *guard; /* NULL: loops are left alone */
    int n_left;                  /* ids that may still be generated */
    int budget, n_thought;       /* of the thought; ids that it has taken */
    bool by_length;              /* the budget comes from what may be generated */
    int nudge_at;                /* ids of thought; INT_MAX: no more */
    bool in_thought, may_open, had_thought, asked;
    enum hd_reasoning_stop stop;
    const int32_t *forced;
    size_t n_forced;
    /* of the thought's text */
    size_t n_byte, n_han; /* Han characters, by their first byte */
    bool sentence_end;
    /* of the answer */
    bool blank;
    int n_answer;
    char tail[TAIL]; /* its last bytes, white space left out */
    size_t n_tail;
};

static size_t longest(const struct hd_ids *a, const struct hd_ids *b)
{
    return a->n > b->n ? a->n : b->n;
}

static void plan_nudge(struct hd_thinking *t)
{
    int n_nudge = (int)longest(&t->lex->nudge[0], &t->lex->nudge[1]);
    int n_close = (int)longest(&t->lex->close[0], &t->lex->close[1]);
    int lead = t->budget / 5 < NUDGE_LEAD_MOST ? t->budget / 5 : NUDGE_LEAD_MOST;
    int least = 2 * (n_nudge + n_close);
    lead = lead > least ? lead : least;
    t->nudge_at = t->budget >= 3 * lead ? t->budget - lead : INT_MAX;
}

enum hd_err hd_thinking_new(struct hd_thinking **out, const struct hd_tokenizer *tok,
                            const struct hd_thinking_options *options)
{
    struct hd_thinking *t = calloc(1, sizeof *t);
    bool by_length;
    *out = NULL;
    if (!t)
        return HD_ERR_NOMEM;
    int budget = allowed(options->n_max, options->budget, &by_length);
    *t = (struct hd_thinking){
        .tok = tok,
        .lex = options->lexicon,
        .n_left = options->n_max,
        .budget = budget,
        .by_length = by_length,
        .nudge_at = INT_MAX,
        .in_thought = options->lexicon && options->starts_in_thought,
        .may_open = options->may_open,
        .asked = options->asked,
        .stop = options->stop,
        .blank = true,
        .sentence_end = true,
    };
    t->had_thought = t->in_thought;
    if (t->lex)
        plan_nudge(t);
    enum hd_err err = options->any_loops ? HD_OK : hd_loop_guard_new(&t->guard);
    if (t->guard)
        hd_loop_guard_reset(t->guard, t->in_thought ? HD_LOOP_IN_THOUGHT : HD_LOOP_IN_ANSWER);
    if (err)
        hd_thinking_free(t);
    else
        *out = t;
    return err;
}

void hd_thinking_free(struct hd_thinking *t)
{
    if (!t)
        return;
    hd_loop_guard_free(t->guard);
    free(t);
}

enum hd_reasoning_stop hd_thinking_stop(const struct hd_thinking *t)
{
    if (t->stop || !t->had_thought)
        return t->stop;
    return t->in_thought ? HD_REASONING_OPEN : HD_REASONING_CLOSED;
}

/* --- forcing ---------------------------------------------------------------------------------- */

static void force(struct hd_thinking *t, const struct hd_ids *ids)
{
    t->forced = ids->id;
    t->n_forced = ids->n;
}

/* By what the thought is written in. */
static int language(const struct hd_thinking *t)
{
    return t->n_han * 12 > t->n_byte;
}

/* What would end the thought now. */
static const struct hd_ids *closing(const struct hd_thinking *t)
{
    const struct hd_ids *whole = &t->lex->close[language(t)];
    return t->budget >= 4 * (int)whole->n && t->budget - t->n_thought >= (int)whole->n
               ? whole
               : &t->lex->close[MARK];
}

static void close_thought(struct hd_thinking *t, enum hd_reasoning_stop why)
{
    t->stop = why;
    force(t, closing(t));
}

int32_t hd_thinking_forced(struct hd_thinking *t)
{
    if (!t->n_forced)
        return -1;
    t->n_forced--;
    return *t->forced++;
}

bool hd_thinking_end_of_turn(struct hd_thinking *t)
{
    if (!t->in_thought || t->n_left <= (int)closing(t)->n)
        return false;
    close_thought(t, HD_REASONING_ENDED);
    return true;
}

/* --- ruling out ------------------------------------------------------------------------------- */

static void rule_out(float *logits, int n_vocab, const struct hd_ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        if (ids->id[i] < n_vocab)
            logits[ids->id[i]] = -INFINITY;
}

/* The ids that would complete a tag after what the answer ends with. */
static void rule_out_tags(const struct hd_thinking *t, float *logits, int n_vocab)
{
    for (int tag = 0; tag < N_TAG; tag++) {
        rule_out(logits, n_vocab, &t->lex->completes[tag][0]);
        for (size_t k = 1; k < strlen(tags[tag]) && k <= t->n_tail; k++)
            if (!strncasecmp(t->tail + t->n_tail - k, tags[tag], k))
                rule_out(logits, n_vocab, &t->lex->completes[tag][k]);
    }
}

void hd_thinking_mask(const struct hd_thinking *t, float *logits, int n_vocab, bool holds_text)
{
    if (!t->lex || t->in_thought)
        return;
    if (!t->may_open)
        rule_out_tags(t, logits, n_vocab);
    if (!t->blank || holds_text)
        return;
    rule_out(logits, n_vocab, &t->lex->end);
    rule_out(logits, n_vocab, &t->lex->stops);
    if (t->n_answer >= BLANK_FEW || t->n_left <= 2)
        rule_out(logits, n_vocab, &t->lex->space);
    if (t->n_answer >= (t->asked ? 0 : BLANK_MANY) || t->n_left <= 2)
        rule_out(logits, n_vocab, &t->lex->markup);
}

/* --- watching --------------------------------------------------------------------------------- */

/* Whether a sentence, or a line, ends with the text. */
static bool ends_sentence(const char *text, size_t len)
{
    static const char *const ends[] = {"\n", ". ", "。", "！", "？", "；"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(ends[i]);
        if (len >= n && !memcmp(text + len - n, ends[i], n))
            return true;
    }
    return len && (text[len - 1] == '.' || text[len - 1] == '!' || text[len - 1] == '?');
}

void hd_thinking_text(struct hd_thinking *t, enum hd_text_kind kind, const char *text, size_t len)
{
    if (kind == HD_TEXT_REASONING) {
        t->n_byte += len;
        for (size_t i = 0; i < len; i++)
            t->n_han += (unsigned char)text[i] >= 0xe4 && (unsigned char)text[i] <= 0xe9;
        t->sentence_end = ends_sentence(text, len);
        return;
    }
    bool stops;
    t->blank = t->blank && saying_nothing(text, len, &stops) == len;
    t->may_open = t->may_open && t->blank;
}

static void remember_tail(struct hd_thinking *t, int32_t id)
{
    struct hd_buf piece;
    hd_buf_init(&piece, MAX_PIECE);
    hd_tokenizer_piece(t->tok, &piece, id, true);
    for (size_t i = 0; i < piece.len; i++) {
        if (isspace((unsigned char)piece.data[i]))
            continue;
        if (t->n_tail == TAIL)
            memmove(t->tail, t->tail + 1, --t->n_tail);
        t->tail[t->n_tail++] = piece.data[i];
    }
    hd_buf_dispose(&piece);
}

/* In a thought, nothing is being forced: is it time for the nudge, or for the end? */
static void watch_budget(struct hd_thinking *t, bool in_character)
{
    int n_close = (int)closing(t)->n, left = t->budget - t->n_thought;
    int window = t->budget / 8 < WINDOW_MOST ? t->budget / 8 : WINDOW_MOST;
    bool due = left <= n_close || (left <= n_close + CHARACTER && !in_character) ||
               (left <= n_close + window && t->sentence_end && !in_character);
    if (due) {
        close_thought(t, t->by_length ? HD_REASONING_LENGTH : HD_REASONING_BUDGET);
        return;
    }
    /* Better behind a sentence than in it, but not much later. */
    bool nudge = t->n_thought >= t->nudge_at && !in_character &&
                 (t->sentence_end || t->n_thought >= t->nudge_at + window);
    if (nudge) {
        t->nudge_at = INT_MAX;
        force(t, &t->lex->nudge[language(t)]);
    }
}

bool hd_thinking_token(struct hd_thinking *t, int32_t id, bool was_thought, bool in_thought,
                       bool in_character)
{
    bool was_forced = t->n_forced > 0, turned = t->in_thought != in_thought;
    t->n_left--;
    t->n_thought += was_thought;
    t->in_thought = in_thought;
    t->had_thought |= in_thought;
    if (turned && !in_thought)
        t->may_open = false;
    if (turned && t->guard)
        hd_loop_guard_reset(t->guard, in_thought ? HD_LOOP_IN_THOUGHT : HD_LOOP_IN_ANSWER);
    if (!in_thought && t->lex) {
        t->n_answer += !turned;
        remember_tail(t, id);
    }
    if (was_forced)
        return false;
    bool loops = t->guard && !turned && hd_loop_guard_push(t->guard, id);
    if (in_thought && loops)
        close_thought(t, HD_REASONING_LOOP);
    else if (in_thought)
        watch_budget(t, in_character);
    return loops && !in_thought && !(t->lex && t->blank);
}

/* --- names ------------------------------------------------------------------------------------ */

const char *hd_reasoning_stop_name(enum hd_reasoning_stop stop)
{
    static const char *const names[HD_REASONING_N] = {
        [HD_REASONING_NONE] = "none",     [HD_REASONING_CLOSED] = "closed",
        [HD_REASONING_BUDGET] = "budget", [HD_REASONING_LENGTH] = "length",
        [HD_REASONING_LOOP] = "loop",     [HD_REASONING_ENDED] = "ended",
        [HD_REASONING_OPEN] = "open",
    };
    return names[stop];
}

bool hd_reasoning_effort(const char *name, bool *no_think, int *max_thinking)
{
    static const struct {
        const char *name;
        bool no_think;
        int max_thinking;
    } efforts[] = {
        {"none", true, 0},       {"minimal", false, 128}, {"low", false, 512},
        {"medium", false, 2048}, {"high", false, 8192},   {"xhigh", false, 32768},
    };
    for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++)
        if (!strcmp(name, efforts[i].name)) {
            *no_think = efforts[i].no_think;
            *max_thinking = efforts[i].max_thinking;
            return true;
        }
    return false;
}
