/* One grounded question: retrieve → read or generate → verify → answer.
 *
 * Three ways, by what there is:
 *   quoting     no model: the documents' own sentences (quote.h)
 *   reading     a model that does not think: passage by passage (read.h)
 *   generating  a model that thinks: all passages at once in its search form (prompt.h)
 * A reading that finds nothing goes on in the documents' other language (other_language.h).
 * Whatever the way, each sentence of the answer is checked against the passages (verify.h), and an
 * answer of which nothing is supported is not shown as found. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kb/cite.h"
#include "kb/kb_impl.h"
#include "kb/other_language.h"
#include "kb/passages.h"
#include "kb/prompt.h"
#include "kb/quote.h"
#include "kb/read.h"
#include "kb/verify.h"

enum {
    PASSAGES_DEFAULT = 5,
    PASSAGES_MAX = 32,
    ANSWER_TOKENS = 1024, /* of a thinking model, with its thought */
    TEXT_MAX = 4 << 20,
    NEAREST_MAX = 3
};

enum way { QUOTING, READING, GENERATING };

/* A sentence of the answer with what carries it. */
struct told {
    char *text; /* owned; without marks, with the white space before it */
    struct hd_kb__support support;
};

struct hd_kb_turn {
    enum way way;
    char *question; /* owned */
    hd_kb_text_fn on_text;
    void *ud;
    struct hd_kb__judge judge;
    struct hd_kb__query query;
    struct hd_kb__evidence asked; /* the question's */
    struct hd_kb__passages passages;
    struct hd_kb__reader *reader; /* NULL also where nothing was near the question */
    struct hd_kb__other *other;   /* where the way is reading */
    bool elsewhere;               /* it is the other's turn */
    struct hd_buf prompt;
    struct hd_message message;
    struct hd_request request;
    bool has_request;
    struct hd_buf raw;       /* generated answer not yet cut into sentences */
    struct hd_buf reasoning; /* the thought */
    struct told *told;
    size_t n_told, n_emitted;
    bool released; /* something supported has been said: text flows */
    enum hd_err err;
    struct hd_errmsg failure; /* of a request */
    int64_t version;
    double began, retrieve_s;
    char model[128];
};

/* --- preparing ---------------------------------------------------------------------------- */

struct counter {
    struct hd_engine *engine;
    const char *model;
};

static size_t count_tokens(void *ud, const struct hd_kb_hit *hit)
{
    const struct counter *counter = ud;
    int32_t *ids = NULL;
    size_t n = 0;
    if (counter->engine && !hd_engine_tokenize(counter->engine, counter->model, hit->text,
                                               strlen(hit->text), &ids, &n, NULL)) {
        free(ids);
        return n + 24; /* the frame around it */
    }
    return hd_kb__estimate_tokens(hit->text, strlen(hit->text)) + 24;
}

/* The last thing the user asked before; it helps to find what "and how much is that?" is about. */
static const char *question_before(const struct hd_kb_ask_options *options)
{
    for (size_t i = options->n_history; i-- > 0;)
        if (!strcmp(options->history[i].role, "user"))
            return options->history[i].content;
    return NULL;
}

static enum hd_err choose_way(struct hd_kb_turn *turn, const struct hd_kb_ask_options *options,
                              size_t *budget, struct hd_errmsg *msg)
{
    *budget = HD_KB__PROMPT_TOKENS;
    turn->way = QUOTING;
    if (!options->engine)
        return HD_OK;
    struct hd_model_info info;
    enum hd_err err = hd_engine_model_find(options->engine, options->model, &info);
    if (err)
        return hd_fail(msg, err, "model %s: it is not loaded",
                       options->model ? options->model : "(default)");
    snprintf(turn->model, sizeof turn->model, "%s", info.name);
    turn->way = info.thinks ? GENERATING : READING;
    size_t kept = (size_t)(options->n_max > 0 ? options->n_max : ANSWER_TOKENS) + 400;
    size_t n_ctx = info.n_ctx > 0 ? (size_t)info.n_ctx : 0;
    if (n_ctx && n_ctx < kept + *budget)
        *budget = n_ctx > kept + 200 ? n_ctx - kept : 200;
    return HD_OK;
}

static enum hd_err start_reading(struct hd_kb_turn *turn, const struct hd_kb_ask_options *options,
                                 const struct hd_principal *who, const struct hd_kb_hits *hits,
                                 size_t n, struct hd_errmsg *msg)
{
    struct hd_kb__reader_options o = {.engine = options->engine,
                                      .model = options->model,
                                      .principal = who,
                                      .question = turn->question,
                                      .before = question_before(options),
                                      .hits = hits,
                                      .n_passage = n,
                                      .sampling = options->sampling,
                                      .n_max = options->n_max,
                                      .timeout_s = options->timeout_s};
    return hd_kb__reader_new(&turn->reader, &o, msg);
}

static const struct hd_request *look_elsewhere(struct hd_kb_turn *turn)
{
    turn->elsewhere = true;
    return hd_kb__other_begin(turn->other);
}

static enum hd_err make_prompt(struct hd_kb_turn *turn, const struct hd_kb_ask_options *options,
                               const struct hd_principal *who)
{
    enum hd_err err = hd_kb__prompt_search_form(&turn->prompt, &turn->passages, turn->question);
    turn->message = (struct hd_message){.role = "user", .content = hd_buf_str(&turn->prompt)};
    turn->request =
        (struct hd_request){.model = turn->model,
                            .principal = who,
                            .messages = &turn->message,
                            .n_message = 1,
                            .no_think = options->no_think,
                            .max_thinking = options->max_thinking,
                            .sampling = options->sampling,
                            .n_max = options->n_max > 0 ? options->n_max : ANSWER_TOKENS,
                            .timeout_s = options->timeout_s};
    turn->has_request = true;
    return err;
}

static enum hd_err prepare(struct hd_kb_turn *turn, struct hd_kb *kb,
                           const struct hd_principal *who, const struct hd_kb_ask_options *options,
                           struct hd_errmsg *msg)
{
    size_t budget = 0, n_text = 1;
    struct hd_kb_hits hits = {0};
    struct hd_kb_search_options search = {.top = HD_KB__CANDIDATES, .passages = true};
    struct hd_kb__query_text texts[2] = {{turn->question, 1}, {question_before(options), 0.35}};
    enum hd_err err = choose_way(turn, options, &budget, msg);
    if (texts[1].text)
        n_text = 2;
    if (!err)
        err = hd_kb__search(kb, who, texts, n_text, &search, &hits, &turn->query, msg);
    if (!err)
        err = hd_kb__evidence_of_query(&turn->asked, &turn->judge, turn->question, &turn->query);
    turn->version = hits.version;
    struct counter counter = {options->engine, options->model};
    size_t most = options->n_passage ? options->n_passage : PASSAGES_DEFAULT;
    size_t n = err ? 0
                   : hd_kb__window(&hits, most < PASSAGES_MAX ? most : PASSAGES_MAX, budget,
                                   count_tokens, &counter);
    if (!err && turn->way == READING)
        err = hd_kb__other_new(&turn->other, kb, who, options, turn->question, turn->model,
                               most < PASSAGES_MAX ? most : PASSAGES_MAX);
    if (!err && n && turn->way == READING)
        err = start_reading(turn, options, who, &hits, n, msg);
    if (!err && !n && turn->way == READING && turn->query.n_chunk)
        look_elsewhere(turn);
    if (!err)
        err = hd_kb__passages_take(&turn->passages, &hits, n, &turn->judge, &turn->asked);
    if (!err && n && turn->way == GENERATING)
        err = make_prompt(turn, options, who);
    hd_kb_hits_dispose(&hits);
    turn->retrieve_s = hd_clock_seconds() - turn->began;
    return err;
}

enum hd_err hd_kb_turn_new(struct hd_kb_turn **out, struct hd_kb *kb,
                           const struct hd_principal *who, const struct hd_kb_ask_options *options,
                           hd_kb_text_fn on_text, void *ud, struct hd_errmsg *msg)
{
    *out = NULL;
    if (!options->question || !options->question[strspn(options->question, " \t\r\n")])
        return hd_fail(msg, HD_ERR_INVALID, "the question is empty");
    struct hd_kb_turn *turn = calloc(1, sizeof *turn);
    if (!turn)
        return HD_ERR_NOMEM;
    turn->began = hd_clock_seconds();
    turn->on_text = on_text;
    turn->ud = ud;
    hd_kb__terms_init(&turn->query.terms);
    hd_buf_init(&turn->prompt, TEXT_MAX);
    hd_buf_init(&turn->raw, TEXT_MAX);
    hd_buf_init(&turn->reasoning, TEXT_MAX);
    enum hd_err err = hd_kb__judge_init(&turn->judge);
    if (!err && !(turn->question = strdup(options->question)))
        err = HD_ERR_NOMEM;
    if (!err)
        err = prepare(turn, kb, who, options, msg);
    if (err)
        hd_kb_turn_free(turn);
    else
        *out = turn;
    return err;
}

void hd_kb_turn_free(struct hd_kb_turn *turn)
{
    if (!turn)
        return;
    for (size_t i = 0; i < turn->n_told; i++)
        free(turn->told[i].text);
    free(turn->told);
    hd_kb__reader_free(turn->reader);
    hd_kb__other_free(turn->other);
    hd_kb__passages_dispose(&turn->passages);
    hd_kb__evidence_dispose(&turn->asked);
    hd_kb__query_dispose(&turn->query);
    hd_kb__judge_dispose(&turn->judge);
    hd_buf_dispose(&turn->prompt);
    hd_buf_dispose(&turn->raw);
    hd_buf_dispose(&turn->reasoning);
    free(turn->question);
    free(turn);
}

const struct hd_request *hd_kb_turn_request(const struct hd_kb_turn *turn)
{
    if (turn->elsewhere)
        return hd_kb__other_request(turn->other);
    if (turn->reader)
        return hd_kb__reader_request(turn->reader);
    return turn->has_request ? &turn->request : NULL;
}

/* --- sentences ---------------------------------------------------------------------------- */

static void emit(struct hd_kb_turn *turn, enum hd_text_kind kind, const char *text, size_t len)
{
    if (turn->on_text && len)
        turn->on_text(turn->ud, kind, text, len);
}

/* The citation number of a told sentence: equal quotes share one. 0 = it rests on nothing. */
static int number_of(const struct hd_kb_turn *turn, size_t i)
{
    int n = 0;
    if (turn->told[i].support.passage == SIZE_MAX)
        return 0;
    for (size_t j = 0; j <= i; j++) {
        const struct hd_kb__support *s = &turn->told[j].support;
        bool first = s->passage != SIZE_MAX;
        for (size_t k = 0; k < j && first; k++)
            first = turn->told[k].support.passage != s->passage ||
                    turn->told[k].support.line != s->line;
        n += first;
        if (s->passage == turn->told[i].support.passage && s->line == turn->told[i].support.line)
            return n;
    }
    return n;
}

/* Appends a sentence with its mark, before the white space that ends it. */
static void render(const struct hd_kb_turn *turn, size_t i, struct hd_buf *out)
{
    hd_buf_puts(out, turn->told[i].text);
    int n = number_of(turn, i);
    if (n)
        hd_buf_printf(out, "[citation:%d]", n);
}

static void emit_told(struct hd_kb_turn *turn)
{
    for (; turn->released && turn->n_emitted < turn->n_told; turn->n_emitted++) {
        struct hd_buf text;
        hd_buf_init(&text, TEXT_MAX);
        render(turn, turn->n_emitted, &text);
        emit(turn, HD_TEXT_ANSWER, hd_buf_str(&text), text.len);
        hd_buf_dispose(&text);
    }
}

static struct told *add_told(struct hd_kb_turn *turn, const char *text, size_t len)
{
    struct told *told = realloc(turn->told, (turn->n_told + 1) * sizeof *told);
    if (!told)
        return NULL;
    turn->told = told;
    told[turn->n_told] = (struct told){.text = strndup(text, len)};
    return told[turn->n_told].text ? &told[turn->n_told++] : NULL;
}

/* One sentence as generated, marks and all. */
static enum hd_err tell(struct hd_kb_turn *turn, const char *text, size_t len)
{
    int marks[HD_KB__MARKS_MAX];
    size_t n_mark = 0;
    struct hd_buf clean;
    hd_buf_init(&clean, TEXT_MAX);
    enum hd_err err = hd_kb__strip_marks(&clean, text, len, (int)turn->passages.n, marks, &n_mark);
    const char *words = hd_buf_str(&clean);
    if (!err && !words[strspn(words, " \t\r\n*-#.。")]) {
        /* A mark alone, after the full stop of the sentence before: it counts for that one. */
        if (n_mark && turn->n_told && turn->n_emitted < turn->n_told) {
            struct told *last = &turn->told[turn->n_told - 1];
            err = hd_kb__verify(&last->support, &turn->judge, last->text, strlen(last->text), marks,
                                n_mark, &turn->passages, &turn->asked, false);
        }
    } else if (!err) {
        struct told *told = add_told(turn, words, clean.len);
        err = told ? hd_kb__verify(&told->support, &turn->judge, words, clean.len, marks, n_mark,
                                   &turn->passages, &turn->asked, false)
                   : HD_ERR_NOMEM;
    }
    hd_buf_dispose(&clean);
    return err;
}

/* Cuts whole sentences off the front of what was generated. While more may come, the last sentence
 * waits: a mark may follow its full stop. */
static enum hd_err cut(struct hd_kb_turn *turn, bool at_end)
{
    size_t at = 0;
    enum hd_err err = HD_OK;
    while (at < turn->raw.len && !err) {
        const char *text = turn->raw.data + at;
        size_t left = turn->raw.len - at, n = hd_kb__sentence_end(text, left);
        while (n < left) { /* marks that follow the full stop */
            size_t space = strspn(text + n, " ");
            if (text[n + space] != '[' && strncmp(text + n + space, "【", 3) != 0)
                break;
            const char *close = strchr(text + n + space, text[n + space] == '[' ? ']' : '\x91');
            if (!close)
                break;
            n = (size_t)(close - text) + 1;
        }
        if (!at_end && (n >= left || hd_kb__open_mark(text, left)))
            break;
        err = tell(turn, text, n);
        at += n;
    }
    memmove(turn->raw.data ? turn->raw.data : "", turn->raw.data ? turn->raw.data + at : "",
            turn->raw.len - at);
    turn->raw.len -= at;
    if (turn->raw.data)
        turn->raw.data[turn->raw.len] = '\0';
    return err;
}

static bool any_supported(const struct hd_kb_turn *turn)
{
    for (size_t i = 0; i < turn->n_told; i++)
        if (turn->told[i].support.verdict != HD_KB_UNSUPPORTED)
            return true;
    return false;
}

void hd_kb_turn_feed(struct hd_kb_turn *turn, enum hd_text_kind kind, const char *text, size_t len)
{
    if (turn->err)
        return;
    if (kind == HD_TEXT_REASONING) {
        hd_buf_append(&turn->reasoning, text, len);
        emit(turn, kind, text, len);
    } else if (turn->elsewhere) {
        hd_kb__other_feed(turn->other, text, len);
    } else if (turn->reader) {
        hd_kb__reader_feed(turn->reader, text, len);
    } else {
        turn->err = hd_buf_append(&turn->raw, text, len);
        if (!turn->err)
            turn->err = cut(turn, false);
    }
}

static bool has_read(const struct hd_kb_turn *turn)
{
    struct hd_kb__reading reading;
    hd_kb__reader_result(turn->reader, &reading);
    return reading.found;
}

const struct hd_request *hd_kb_turn_next(struct hd_kb_turn *turn, const struct hd_result *result)
{
    if (result && result->err) {
        turn->err = result->err;
        turn->failure = result->message;
        return NULL;
    }
    if (turn->elsewhere)
        return hd_kb__other_next(turn->other, result, &turn->judge);
    if (!turn->reader)
        return NULL;
    const struct hd_request *next = hd_kb__reader_next(turn->reader, result);
    return next || result->finish == HD_FINISH_CANCELLED || has_read(turn) ? next
                                                                           : look_elsewhere(turn);
}

/* --- finishing ---------------------------------------------------------------------------- */

static char *take_range(const struct hd_kb__passage *p, const struct hd_kb__line *line)
{
    return strndup(p->hit.text + line->begin, line->end - line->begin);
}

static enum hd_err add_citation(struct hd_kb_turn *turn, struct hd_kb_answer *out, size_t i)
{
    const struct hd_kb__support *s = &turn->told[i].support;
    const struct hd_kb__passage *p = &turn->passages.items[s->passage];
    const struct hd_kb__line *line = &p->lines[s->line];
    struct hd_kb_citation *c = &out->citations[out->n_citation++];
    *c = (struct hd_kb_citation){
        .n = (int)out->n_citation,
        .document = {p->hit.document.id, strdup(p->hit.document.name),
                     strdup(p->hit.document.revision)},
        .page = p->hit.page,
        .span = {p->hit.span[0] + line->cp_begin, p->hit.span[0] + line->cp_end},
        .quote = take_range(p, line),
        .confidence = s->verdict == HD_KB_UNSUPPORTED
                          ? 0.2 * s->cover
                          : 1 / (1 + exp(-(3.0 * s->cover + 2.0 * p->asked - 2.0))),
        .verdict = s->verdict};
    return c->document.name && c->document.revision && c->quote ? HD_OK : HD_ERR_NOMEM;
}

static enum hd_err fill_found(struct hd_kb_turn *turn, struct hd_kb_answer *out)
{
    struct hd_buf text;
    hd_buf_init(&text, TEXT_MAX);
    out->citations = calloc(turn->n_told + 1, sizeof *out->citations);
    enum hd_err err = out->citations ? HD_OK : HD_ERR_NOMEM;
    for (size_t i = 0; i < turn->n_told && !err; i++) {
        render(turn, i, &text);
        if (number_of(turn, i) > (int)out->n_citation)
            err = add_citation(turn, out, i);
    }
    if (!err)
        err = text.err;
    if (!err && !(out->answer = strdup(hd_buf_str(&text))))
        err = HD_ERR_NOMEM;
    hd_buf_dispose(&text);
    turn->released = true;
    emit_told(turn);
    return err;
}

static enum hd_err fill_not_found(struct hd_kb_turn *turn, struct hd_kb_answer *out)
{
    const char *text = hd_kb__say_not_found(turn->question);
    out->answer = strdup(text);
    if (!out->answer)
        return HD_ERR_NOMEM;
    emit(turn, HD_TEXT_ANSWER, text, strlen(text));
    size_t n = turn->passages.n < NEAREST_MAX ? turn->passages.n : NEAREST_MAX;
    out->nearest = calloc(n + 1, sizeof *out->nearest);
    if (!out->nearest)
        return HD_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) { /* the turn is over: its passages' strings move */
        out->nearest[out->n_nearest++] = turn->passages.items[i].hit;
        memset(&turn->passages.items[i].hit, 0, sizeof turn->passages.items[i].hit);
    }
    return HD_OK;
}

/* How sure an answer of a thinking model is: a logistic of what the passages hold of the question,
 * what they hold of the answer, and how much of the answer they support. */
static double confidence_of(const struct hd_kb_turn *turn)
{
    double cover = 0, asked = 0, supported = 0;
    for (size_t i = 0; i < turn->n_told; i++) {
        const struct hd_kb__support *s = &turn->told[i].support;
        if (s->verdict == HD_KB_UNSUPPORTED)
            continue;
        supported += 1;
        cover += s->cover;
        double share = turn->passages.items[s->passage].asked;
        asked = share > asked ? share : asked;
    }
    if (supported == 0)
        return 0;
    cover /= supported;
    supported /= (double)turn->n_told;
    return 1 / (1 + exp(-(4.0 * asked + 1.5 * cover + 2.0 * supported - 4.2)));
}

/* Tells a sentence of a passage word for word. */
static enum hd_err tell_quote(struct hd_kb_turn *turn, const char *before, size_t passage,
                              size_t at)
{
    const struct hd_kb__passage *p = &turn->passages.items[passage];
    const struct hd_kb__line *line = &p->lines[at];
    struct hd_buf text;
    hd_buf_init(&text, TEXT_MAX);
    hd_buf_puts(&text, before);
    hd_buf_append(&text, p->hit.text + line->begin, line->end - line->begin);
    struct told *told = text.err ? NULL : add_told(turn, text.data, text.len);
    hd_buf_dispose(&text);
    if (!told)
        return HD_ERR_NOMEM;
    told->support = (struct hd_kb__support){.passage = passage,
                                            .line = at,
                                            .n_line = 1,
                                            .cover = 1,
                                            .asked = line->asked,
                                            .numbers = true,
                                            .names = true,
                                            .verdict = HD_KB_SUPPORTED};
    return HD_OK;
}

static enum hd_err finish_quoting(struct hd_kb_turn *turn, struct hd_kb_answer *out)
{
    struct hd_kb__quotes quotes;
    hd_kb__quote(&quotes, turn->question, &turn->passages, &turn->asked);
    out->quoted = true;
    out->confidence = quotes.n ? quotes.confidence : 0;
    out->found = quotes.n > 0 && out->confidence >= 0.5;
    if (!out->found)
        return fill_not_found(turn, out);
    const char *say = hd_kb__say_quoted(turn->question);
    struct told *intro = add_told(turn, say, strlen(say));
    enum hd_err err = intro ? HD_OK : HD_ERR_NOMEM;
    if (intro)
        intro->support = (struct hd_kb__support){.passage = SIZE_MAX, .line = SIZE_MAX};
    for (size_t i = 0; i < quotes.n && !err; i++)
        err = tell_quote(turn, "\n", quotes.items[i].passage, quotes.items[i].line);
    return err ? err : fill_found(turn, out);
}

/* Where the model only repeated the question, the sentence of its passage that answers it. */
static enum hd_err quote_reading(struct hd_kb_turn *turn, size_t passage)
{
    struct hd_kb__passages one = {&turn->passages.items[passage], 1};
    struct hd_kb__quotes quotes;
    hd_kb__quote(&quotes, turn->question, &one, &turn->asked);
    return quotes.n ? tell_quote(turn, "", passage, quotes.items[0].line) : HD_OK;
}

/* Checks the reader's answer, first against the passage it was read from. */
static enum hd_err check_reading(struct hd_kb_turn *turn, const struct hd_kb__reading *reading)
{
    struct hd_kb__passages one = {&turn->passages.items[reading->passage], 1};
    const char *text = reading->answer;
    size_t len = strlen(text);
    int mark = 1;
    bool repeats = false;
    enum hd_err err = hd_kb__repeats(&repeats, &turn->judge, text, turn->question);
    if (err || repeats)
        return err ? err : quote_reading(turn, reading->passage);
    struct told *told = add_told(turn, text, len);
    if (!told)
        return HD_ERR_NOMEM;
    err =
        hd_kb__verify(&told->support, &turn->judge, text, len, &mark, 1, &one, &turn->asked, true);
    if (told->support.passage != SIZE_MAX)
        told->support.passage = reading->passage;
    if (!err && told->support.verdict == HD_KB_UNSUPPORTED)
        err = hd_kb__verify(&told->support, &turn->judge, text, len, NULL, 0, &turn->passages,
                            &turn->asked, false);
    return err;
}

/* Counts what the other language took, and takes its answer and its passages if it has one. */
static void take_elsewhere(struct hd_kb_turn *turn, struct hd_kb__reading *reading,
                           struct hd_result *total)
{
    struct hd_kb__reading other;
    struct hd_kb__passages *passages;
    hd_kb__other_result(turn->other, &other, &passages);
    hd_kb__add_up(total, &other.total);
    if (!other.found)
        return;
    struct hd_kb__passages mine = turn->passages;
    turn->passages = *passages;
    *passages = mine;
    *reading = other;
}

static enum hd_err finish_reading(struct hd_kb_turn *turn, struct hd_result *total,
                                  struct hd_kb_answer *out)
{
    struct hd_kb__reading reading = {.answer = ""};
    if (turn->reader)
        hd_kb__reader_result(turn->reader, &reading);
    *total = reading.total;
    if (turn->elsewhere)
        take_elsewhere(turn, &reading, total);
    out->confidence = reading.probability;
    bool found = reading.found && reading.passage < turn->passages.n;
    enum hd_err err = found ? check_reading(turn, &reading) : HD_OK;
    out->found = found && any_supported(turn);
    if (err)
        return err;
    return out->found ? fill_found(turn, out) : fill_not_found(turn, out);
}

static enum hd_err finish_generating(struct hd_kb_turn *turn, struct hd_kb_answer *out)
{
    enum hd_err err = cut(turn, true);
    struct hd_buf all;
    hd_buf_init(&all, TEXT_MAX);
    for (size_t i = 0; i < turn->n_told; i++)
        hd_buf_puts(&all, turn->told[i].text);
    out->confidence = confidence_of(turn);
    out->found = any_supported(turn) && out->confidence >= 0.5 &&
                 !hd_kb__is_refusal(hd_buf_str(&all), all.len);
    hd_buf_dispose(&all);
    if (err)
        return err;
    return out->found ? fill_found(turn, out) : fill_not_found(turn, out);
}

static void fill_usage(const struct hd_kb_turn *turn, const struct hd_result *r,
                       struct hd_kb_answer *out)
{
    out->version = turn->version;
    out->retrieve_s = turn->retrieve_s;
    out->total_s = hd_clock_seconds() - turn->began;
    if (!r)
        return;
    out->n_prompt = r->n_prompt;
    out->n_cached = r->n_cached;
    out->n_generated = r->n_generated;
    out->n_reasoning = r->n_reasoning;
    out->queue_s = r->queue_s;
    out->prefill_s = r->prefill_s;
    out->decode_s = r->decode_s;
    out->ttft_s = r->ttft_s > 0 ? r->ttft_s + turn->retrieve_s : 0;
}

enum hd_err hd_kb_turn_finish(struct hd_kb_turn *turn, const struct hd_result *result,
                              struct hd_kb_answer *out, struct hd_errmsg *msg)
{
    memset(out, 0, sizeof *out);
    if (!turn->err && result && result->err) {
        turn->err = result->err;
        turn->failure = result->message;
    }
    if (turn->err)
        return hd_fail(msg, turn->err, "%s",
                       turn->failure.text[0] ? turn->failure.text : hd_err_text(turn->err));
    struct hd_result total = {0};
    const struct hd_result *used = result;
    enum hd_err err;
    if (turn->way == QUOTING) {
        err = finish_quoting(turn, out);
    } else if (turn->reader || turn->elsewhere) {
        err = finish_reading(turn, &total, out);
        used = &total;
    } else if (turn->has_request) {
        err = finish_generating(turn, out);
    } else {
        err = fill_not_found(turn, out);
    }
    memcpy(out->model, turn->model, sizeof out->model);
    fill_usage(turn, used, out);
    if (!err && !(out->reasoning = strdup(hd_buf_str(&turn->reasoning))))
        err = HD_ERR_NOMEM;
    if (err) {
        hd_kb_answer_dispose(out);
        return hd_fail(msg, err, "%s", hd_err_text(err));
    }
    return HD_OK;
}

void hd_kb_answer_dispose(struct hd_kb_answer *answer)
{
    free(answer->answer);
    free(answer->reasoning);
    for (size_t i = 0; i < answer->n_citation; i++) {
        free(answer->citations[i].document.name);
        free(answer->citations[i].document.revision);
        free(answer->citations[i].quote);
    }
    free(answer->citations);
    struct hd_kb_hits nearest = {.items = answer->nearest, .n = answer->n_nearest};
    hd_kb_hits_dispose(&nearest);
    memset(answer, 0, sizeof *answer);
}

/* --- all in one --------------------------------------------------------------------------- */

struct waiter {
    struct hd_kb_turn *turn;
    pthread_mutex_t mu;
    pthread_cond_t done;
    bool over;
    struct hd_result result;
};

static void on_text(void *ud, enum hd_text_kind kind, const char *text, size_t len)
{
    hd_kb_turn_feed(((struct waiter *)ud)->turn, kind, text, len);
}

static void on_done(void *ud, const struct hd_result *result)
{
    struct waiter *waiter = ud;
    pthread_mutex_lock(&waiter->mu);
    waiter->result = *result;
    waiter->over = true;
    pthread_cond_signal(&waiter->done);
    pthread_mutex_unlock(&waiter->mu);
}

static enum hd_err run_request(struct waiter *waiter, struct hd_engine *engine,
                               const struct hd_request *request, struct hd_errmsg *msg)
{
    struct hd_callbacks callbacks = {.on_text = on_text, .on_done = on_done, .ud = waiter};
    uint64_t id;
    waiter->over = false;
    enum hd_err err = hd_engine_submit(engine, &id, request, &callbacks, msg);
    if (err)
        return err;
    pthread_mutex_lock(&waiter->mu);
    while (!waiter->over)
        pthread_cond_wait(&waiter->done, &waiter->mu);
    pthread_mutex_unlock(&waiter->mu);
    return HD_OK;
}

enum hd_err hd_kb_ask(struct hd_kb *kb, const struct hd_principal *who,
                      const struct hd_kb_ask_options *options, hd_kb_text_fn text_fn, void *ud,
                      struct hd_kb_answer *out, struct hd_errmsg *msg)
{
    memset(out, 0, sizeof *out);
    struct waiter waiter = {.turn = NULL};
    enum hd_err err = hd_kb_turn_new(&waiter.turn, kb, who, options, text_fn, ud, msg);
    if (err)
        return err;
    pthread_mutex_init(&waiter.mu, NULL);
    pthread_cond_init(&waiter.done, NULL);
    const struct hd_request *request = hd_kb_turn_request(waiter.turn);
    bool asked = false;
    while (request && !err) {
        err = run_request(&waiter, options->engine, request, msg);
        asked = true;
        if (!err)
            request = hd_kb_turn_next(waiter.turn, &waiter.result);
    }
    if (!err)
        err = hd_kb_turn_finish(waiter.turn, asked ? &waiter.result : NULL, out, msg);
    pthread_cond_destroy(&waiter.done);
    pthread_mutex_destroy(&waiter.mu);
    hd_kb_turn_free(waiter.turn);
    return err;
}
