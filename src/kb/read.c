/* See read.h. */
#include "kb/read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "kb/chunk.h"

enum { MAX_PASSAGE = 16, MAX_TEXT = 1 << 20, ANSWER_TOKENS = 96, N_WATCH = 4 };

/* The log-odds that a passage holds the answer: logistic regressions on 360 readings (90 questions,
 * five sets, both languages) each by Qwen2.5-Coder 1.5B and 0.5B at Q4_K_M. */
struct weights {
    double bias, passage, window, yes; /* yes: log-odds of yes against no */
};
static const struct weights small_weights = {-2.0, 3.3, 3.1, 1.4},
                            weights_1b = {-4.2, 2.4, 2.3, 1.7};
enum { SMALL_EMBD = 1200 };      /* models narrower than this are small */
static const double yes_max = 5; /* beyond which yes, or no, says no more */
static const double sure = 3.5;  /* log-odds at which reading stops early */
/* Log-odds from which on an answer is given: chosen on the sets together with half of the sample
 * handbook's questions. Questions in words of their own lie lower than the sets' do. */
static const double given = -0.4;

struct wording {
    const char *passage, *before, *question, *check, *answer;
    const char *yes[2], *no[2];
};
static const struct wording english = {
    "Passage:\n",
    "Question before: ",
    "Question: ",
    "Does the passage contain the answer to the question? Write only \"yes\" or \"no\".",
    "Answer the question briefly from the passage.",
    {"yes", "Yes"},
    {"no", "No"},
};
static const struct wording chinese = {
    "资料：\n",
    "前一个问题：",
    "问题：",
    "资料里有没有这个问题的答案？只写“有”或“没有”。",
    "请根据资料简短地回答问题。",
    {"有", NULL},
    {"没有", NULL},
};

enum state { CHECKING, ANSWERING, DONE };

struct passage {
    char *shown; /* owned: passage and question as the model sees them */
    struct hd_kb__coverage coverage;
    double odds; /* log-odds that it holds the answer; NAN = not read */
    bool tried;
};

struct hd_kb__reader {
    enum state state;
    const struct wording *wording;
    const struct weights *weights;
    struct passage passages[MAX_PASSAGE];
    size_t n, at; /* at: the one that the current request shows */
    int32_t watch[N_WATCH];
    size_t n_yes, n_no; /* watch holds yes first */
    char *model;        /* owned, NULL = the engine's first */
    const struct hd_principal *principal;
    struct hd_sampling sampling;
    int n_max;
    double timeout_s;
    struct hd_buf prompt, answer;
    struct hd_message message;
    struct hd_request request;
    struct hd_result total;
};

/* --- how words meet -----------------------------------------------------------------------------
 */

/* Marks the query's terms that occur in terms with a source in [from, to). */
static void mark(bool *seen, const struct hd_kb__query *query, const struct hd_kb__terms *terms,
                 uint32_t from, uint32_t to)
{
    for (size_t i = 0; i < terms->n; i++) {
        if (terms->items[i].source < from || terms->items[i].source >= to)
            continue;
        for (size_t j = 0; j < query->n; j++)
            if (!seen[j] && query->items[j].term != UINT32_MAX &&
                !strcmp(hd_kb__term_text(terms, i),
                        hd_kb__term_text(&query->terms, query->items[j].term)))
                seen[j] = true;
    }
}

static double share(const bool *seen, const struct hd_kb__query *query)
{
    double all = 0, met = 0;
    for (size_t j = 0; j < query->n; j++) {
        if (query->items[j].term == UINT32_MAX)
            continue;
        double weight = query->items[j].weight * query->items[j].idf;
        all += weight;
        met += seen[j] ? weight : 0;
    }
    return all > 0 ? met / all : 0;
}

static double best_window(bool *seen, const bool *heading, const struct hd_kb__query *query,
                          const struct hd_kb__terms *terms, const char *text,
                          const struct hd_kb__sentence *sentences, size_t n)
{
    double best = 0;
    for (size_t i = 0; i < n; i++) {
        const struct hd_kb__sentence *last = &sentences[i + 1 < n ? i + 1 : i];
        memcpy(seen, heading, query->n * sizeof *seen);
        mark(seen, query, terms, (uint32_t)hd_utf8_count(text, sentences[i].begin),
             (uint32_t)hd_utf8_count(text, last->end));
        best = fmax(best, share(seen, query));
    }
    return best;
}

enum hd_err hd_kb__coverage(struct hd_kb__coverage *out, const struct hd_kb__query *query,
                            struct hd_kb__analyser *analyser, const char *text, const char *heading)
{
    struct hd_kb__terms terms;
    struct hd_kb__sentence *sentences = NULL;
    size_t n_sentence = 0;
    bool *seen = calloc(2 * query->n + 1, sizeof *seen), *above = seen ? seen + query->n : NULL;
    *out = (struct hd_kb__coverage){0};
    hd_kb__terms_init(&terms);
    enum hd_err err = seen ? HD_OK : HD_ERR_NOMEM;
    if (!err && heading)
        err = hd_kb__analyse(analyser, &terms, heading, strlen(heading), 0);
    if (!err && heading)
        mark(above, query, &terms, 0, UINT32_MAX);
    if (!err)
        err = hd_kb__analyse(analyser, &terms, text, strlen(text), 0);
    if (!err)
        err = hd_kb__sentences(&sentences, &n_sentence, text, strlen(text));
    if (!err) {
        memcpy(seen, above, query->n * sizeof *seen);
        mark(seen, query, &terms, 0, UINT32_MAX);
        out->passage = share(seen, query);
        out->window = best_window(seen, above, query, &terms, text, sentences, n_sentence);
    }
    free(sentences);
    free(seen);
    hd_kb__terms_dispose(&terms);
    return err;
}

/* --- making a reader
 * -------------------------------------------------------------------------------- */

static bool has_han(const char *text)
{
    size_t len = strlen(text), n;
    unsigned c;
    for (size_t i = 0; i < len; i += n ? n : 1) {
        n = hd_utf8_decode(&c, text + i, len - i, NULL);
        if (n && hd_kb__is_han(c))
            return true;
    }
    return false;
}

static enum hd_err show(struct passage *passage, const struct wording *w,
                        const struct hd_kb_hit *hit, const char *before, const char *question)
{
    struct hd_buf out;
    hd_buf_init(&out, MAX_TEXT);
    hd_buf_puts(&out, w->passage);
    if (hit->heading && *hit->heading)
        hd_buf_printf(&out, "%s\n", hit->heading);
    hd_buf_printf(&out, "%s\n\n", hit->text);
    if (before && *before)
        hd_buf_printf(&out, "%s%s\n", w->before, before);
    hd_buf_printf(&out, "%s%s\n\n", w->question, question);
    enum hd_err err = out.err;
    passage->shown = err ? NULL : hd_buf_take(&out);
    hd_buf_dispose(&out);
    return err;
}

/* Adds the first token of each word to the watch list. */
static enum hd_err watch_words(struct hd_kb__reader *reader, struct hd_engine *engine,
                               const char *const words[2], size_t *n, struct hd_errmsg *msg)
{
    for (size_t i = 0; i < 2 && words[i]; i++) {
        int32_t *ids = NULL;
        size_t n_id = 0;
        enum hd_err err =
            hd_engine_tokenize(engine, reader->model, words[i], strlen(words[i]), &ids, &n_id, msg);
        if (!err && n_id)
            reader->watch[reader->n_yes + reader->n_no] = ids[0];
        *n += !err && n_id;
        free(ids);
        if (err)
            return err;
    }
    return HD_OK;
}

/* Where a vocabulary begins yes and no alike, the first token says nothing. */
static bool can_weigh(const struct hd_kb__reader *reader)
{
    for (size_t i = 0; i < reader->n_yes; i++)
        for (size_t j = 0; j < reader->n_no; j++)
            if (reader->watch[i] == reader->watch[reader->n_yes + j])
                return false;
    return reader->n_yes && reader->n_no;
}

static double odds(const struct weights *w, const struct passage *passage, double yes)
{
    yes = fmin(fmax(yes, -yes_max), yes_max);
    return w->bias + w->passage * passage->coverage.passage + w->window * passage->coverage.window +
           w->yes * yes;
}

static const char *prompt(struct hd_kb__reader *reader, const char *instruction)
{
    hd_buf_clear(&reader->prompt);
    hd_buf_puts(&reader->prompt, reader->passages[reader->at].shown);
    hd_buf_puts(&reader->prompt, instruction);
    return hd_buf_str(&reader->prompt);
}

static void make_request(struct hd_kb__reader *reader)
{
    bool check = reader->state == CHECKING;
    reader->message = (struct hd_message){
        "user", prompt(reader, check ? reader->wording->check : reader->wording->answer)};
    reader->request = (struct hd_request){
        .model = reader->model,
        .principal = reader->principal,
        .messages = &reader->message,
        .n_message = 1,
        .no_think = true,
        .sampling = check ? HD_SAMPLING_GREEDY : reader->sampling,
        .n_max = check ? 1 : reader->n_max,
        .watch = check ? reader->watch : NULL,
        .n_watch = check ? reader->n_yes + reader->n_no : 0,
        .timeout_s = reader->timeout_s,
    };
}

enum hd_err hd_kb__reader_new(struct hd_kb__reader **out, const struct hd_kb__reader_options *o,
                              struct hd_errmsg *msg)
{
    struct hd_kb__reader *reader = calloc(1, sizeof *reader);
    *out = NULL;
    if (!reader)
        return HD_ERR_NOMEM;
    hd_buf_init(&reader->prompt, MAX_TEXT);
    hd_buf_init(&reader->answer, MAX_TEXT);
    struct hd_model_info info;
    bool known = !hd_engine_model_find(o->engine, o->model, &info);
    reader->weights = known && info.n_embd < SMALL_EMBD ? &small_weights : &weights_1b;
    reader->wording = has_han(o->question) ? &chinese : &english;
    reader->principal = o->principal;
    reader->sampling = o->sampling;
    reader->n_max = o->n_max > 0 ? o->n_max : ANSWER_TOKENS;
    reader->timeout_s = o->timeout_s;
    reader->model = o->model ? strdup(o->model) : NULL;
    enum hd_err err = o->model && !reader->model ? HD_ERR_NOMEM : HD_OK;
    for (size_t i = 0; !err && i < o->hits->n && i < o->n_passage && i < MAX_PASSAGE; i++) {
        struct passage *passage = &reader->passages[reader->n++];
        const struct hd_kb_hit *hit = &o->hits->items[i];
        passage->odds = NAN;
        err = show(passage, reader->wording, hit, o->before, o->question);
        if (!err)
            err =
                hd_kb__coverage(&passage->coverage, o->query, o->analyser, hit->text, hit->heading);
    }
    if (!err)
        err = watch_words(reader, o->engine, reader->wording->yes, &reader->n_yes, msg);
    if (!err)
        err = watch_words(reader, o->engine, reader->wording->no, &reader->n_no, msg);
    if (err) {
        hd_kb__reader_free(reader);
        return err;
    }
    if (!can_weigh(reader))
        reader->n_yes = reader->n_no = 0;
    reader->state = reader->n ? CHECKING : DONE;
    if (reader->n)
        make_request(reader);
    *out = reader;
    return HD_OK;
}

void hd_kb__reader_free(struct hd_kb__reader *reader)
{
    if (!reader)
        return;
    for (size_t i = 0; i < reader->n; i++)
        free(reader->passages[i].shown);
    hd_buf_dispose(&reader->prompt);
    hd_buf_dispose(&reader->answer);
    free(reader->model);
    free(reader);
}

/* --- reading
 * ---------------------------------------------------------------------------------------- */

const struct hd_request *hd_kb__reader_request(const struct hd_kb__reader *reader)
{
    return reader->state == DONE ? NULL : &reader->request;
}

void hd_kb__reader_feed(struct hd_kb__reader *reader, const char *text, size_t len)
{
    if (reader->state == ANSWERING)
        hd_buf_append(&reader->answer, text, len);
}

static void add_up(struct hd_kb__reader *reader, const struct hd_result *r)
{
    struct hd_result *total = &reader->total;
    double before = total->queue_s + total->prefill_s + total->decode_s;
    total->finish = r->finish;
    total->err = r->err;
    total->message = r->message;
    total->n_prompt += r->n_prompt;
    total->n_cached += r->n_cached;
    total->n_generated += r->n_generated;
    total->logprob = r->logprob;
    total->queue_s += r->queue_s;
    total->prefill_s += r->prefill_s;
    total->decode_s += r->decode_s;
    total->ttft_s = before + r->ttft_s;
}

static double yes_against_no(const struct hd_kb__reader *reader, const struct hd_result *result)
{
    double yes = 0, no = 0;
    if (!reader->n_yes)
        return 0;
    for (size_t i = 0; i < reader->n_yes + reader->n_no; i++)
        *(i < reader->n_yes ? &yes : &no) += exp(result->watch_logprob[i]);
    return log(fmax(yes, 1e-12)) - log(fmax(no, 1e-12));
}

/* The most probable passage that has not been answered from. */
static size_t best_passage(const struct hd_kb__reader *reader)
{
    size_t best = reader->n;
    for (size_t i = 0; i < reader->n; i++) {
        const struct passage *p = &reader->passages[i];
        if (!isnan(p->odds) && !p->tried &&
            (best == reader->n || p->odds > reader->passages[best].odds))
            best = i;
    }
    return best;
}

static void begin_answer(struct hd_kb__reader *reader)
{
    size_t best = best_passage(reader);
    if (best == reader->n || reader->passages[best].odds < given) {
        reader->state = DONE;
        return;
    }
    hd_buf_clear(&reader->answer);
    reader->state = ANSWERING;
    reader->at = best;
    reader->passages[best].tried = true;
    make_request(reader);
}

static bool contains_any(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcasestr(text, *words))
            return true;
    return false;
}

/* Whether an answer is a way of saying that there is none. */
static bool declines(const char *answer)
{
    static const char *const ways[] = {"not found",        "does not mention",
                                       "does not contain", "does not provide",
                                       "does not specify", "does not state",
                                       "not mentioned",    "not provided",
                                       "not specified",    "no information",
                                       "未找到",           "没有找到",
                                       "没有提到",         "没有提及",
                                       "未提及",           "未提到",
                                       "没有提供",         "没有说明",
                                       "无法回答",         "没有相关",
                                       "未提供",           NULL};
    return !*answer || contains_any(answer, ways);
}

static void trim(struct hd_buf *text)
{
    size_t begin = 0, end = text->len;
    while (end && strchr(" \t\r\n", text->data[end - 1]))
        end--;
    while (begin < end && strchr(" \t\r\n", text->data[begin]))
        begin++;
    if (!text->data)
        return;
    memmove(text->data, text->data + begin, end - begin);
    text->len = end - begin;
    text->data[text->len] = '\0';
}

const struct hd_request *hd_kb__reader_next(struct hd_kb__reader *reader,
                                            const struct hd_result *result)
{
    add_up(reader, result);
    if (result->finish == HD_FINISH_ERROR || result->finish == HD_FINISH_CANCELLED) {
        hd_buf_clear(&reader->answer);
        reader->state = DONE;
    } else if (reader->state == CHECKING) {
        struct passage *passage = &reader->passages[reader->at];
        passage->odds = odds(reader->weights, passage, yes_against_no(reader, result));
        if (passage->odds < sure && ++reader->at < reader->n)
            make_request(reader);
        else
            begin_answer(reader);
    } else if (reader->state == ANSWERING) {
        trim(&reader->answer);
        if (declines(hd_buf_str(&reader->answer))) {
            hd_buf_clear(&reader->answer);
            begin_answer(reader);
        } else {
            reader->state = DONE;
        }
    }
    return hd_kb__reader_request(reader);
}

void hd_kb__reader_result(const struct hd_kb__reader *reader, struct hd_kb__reading *out)
{
    *out = (struct hd_kb__reading){.answer = hd_buf_str(&reader->answer), .total = reader->total};
    out->found = *out->answer != '\0';
    double best = -INFINITY;
    for (size_t i = 0; i < reader->n; i++)
        if (!isnan(reader->passages[i].odds) && reader->passages[i].odds > best) {
            best = reader->passages[i].odds;
            out->passage = i;
        }
    if (out->found) {
        out->passage = reader->at;
        best = reader->passages[reader->at].odds;
    }
    out->probability = 1 / (1 + exp(-best));
}
