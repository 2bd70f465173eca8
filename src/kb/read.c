/* See read.h. */
#include "kb/read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "kb/names.h"
#include "kb/read_wording.h"
#include "kb/verify.h"

enum { MAX_PASSAGE = 16, MAX_TEXT = 1 << 20, ANSWER_TOKENS = 96, N_WATCH = 4 };
enum { N_DEMO = HD_KB__N_DEMO, MAX_MESSAGES = 4 * N_DEMO + 3 };

/* Two logistic regressions, on readings of questions of five reading sets and of the sample
 * handbook, each question also without its passage, each set left out in turn to check them
 * (docs/knowledge-base.md): the log-odds that a passage holds the answer, before one is asked for,
 * and that the answer is right, once it is there. How much of the question's wording a passage
 * shares is left out on purpose, it refuses paraphrases; not so its names (names.h). */
struct weights {
    double bias, han;  /* han: added where the question is Chinese */
    double relative;   /* of the passage's score to the best one's */
    double yes;        /* log-odds of yes against no */
    double asked;      /* log-odds from which on an answer is asked for */
    double told;       /* the answer's: constant, */
    double told_odds;  /* by its passage's, */
    double told_least; /* by the log-probability of its least likely token */
    double unnamed;    /* where the passage's document lacks a name of the question */
    double given;      /* log-odds from which on it is given */
};
static const struct weights small_weights = {-3.2, -0.85, 5.4, 1.95, 0.6, 1.8, 0, 1.3, -1.2, -0.3},
                            weights_1b = {-3.7, -1.85, 3.0, 2.2, -2.5, 1.2, 0.39, 1.41, -1.2, -0.4};
enum { SMALL_EMBD = 1200 };        /* models narrower than this are small */
static const double yes_max = 5;   /* beyond which yes, or no, says no more */
static const double least_max = 3; /* beyond which an unlikely token says no more */
static const double sure = 3.5;    /* log-odds at which reading stops early */

enum state { CHECKING, ANSWERING, DONE };

struct passage {
    char *shown;     /* owned: passage and question as the model sees them */
    double relative; /* its score by the best one's */
    double odds;     /* log-odds that it holds the answer; NAN = not read */
    bool tried;
    bool named; /* it holds the question's names */
};

struct hd_kb__reader {
    enum state state;
    const struct hd_kb__wording *wording;
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
    char *demos[N_DEMO]; /* owned: what the user says in each */
    struct hd_message messages[MAX_MESSAGES];
    size_t n_demo_message; /* the first ones of them */
    struct hd_buf answer;
    double told; /* log-odds that the last answer is right; NAN = none was asked for */
    struct hd_request request;
    struct hd_result total;
};

/* --- making a reader
 * -------------------------------------------------------------------------------- */

/* What the user says: passage, question, and whether the answer is there. Owned; NULL when out of
 * memory or longer than MAX_TEXT. */
static char *show(const struct hd_kb__wording *w, const char *heading, const char *text,
                  const char *before, const char *question)
{
    struct hd_buf out;
    hd_buf_init(&out, MAX_TEXT);
    hd_buf_puts(&out, w->passage);
    if (heading && *heading)
        hd_buf_printf(&out, "%s\n", heading);
    hd_buf_printf(&out, "%s\n\n", text);
    if (before && *before)
        hd_buf_printf(&out, "%s%s\n", w->before, before);
    hd_buf_printf(&out, "%s%s\n\n%s", w->question, question, w->check);
    char *shown = hd_buf_take(&out);
    hd_buf_dispose(&out);
    return shown;
}

static void say(struct hd_kb__reader *reader, size_t *n, const char *role, const char *content)
{
    reader->messages[(*n)++] = (struct hd_message){.role = role, .content = content};
}

/* The conversation before the real question. */
static enum hd_err demonstrate(struct hd_kb__reader *reader)
{
    const struct hd_kb__wording *w = reader->wording;
    size_t *n = &reader->n_demo_message;
    for (size_t i = 0; i < N_DEMO; i++) {
        const struct hd_kb__demo *demo = &w->demos[i];
        reader->demos[i] = show(w, NULL, demo->passage, NULL, demo->question);
        if (!reader->demos[i])
            return HD_ERR_NOMEM;
        say(reader, n, "user", reader->demos[i]);
        say(reader, n, "assistant", demo->answer ? w->yes[0] : w->no[0]);
        if (demo->answer) {
            say(reader, n, "user", w->answer);
            say(reader, n, "assistant", demo->answer);
        }
    }
    return HD_OK;
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

static double odds(const struct hd_kb__reader *reader, const struct passage *passage, double yes)
{
    const struct weights *w = reader->weights;
    yes = yes * reader->wording->yes_scale + reader->wording->yes_shift;
    yes = fmin(fmax(yes, -yes_max), yes_max);
    return w->bias + (reader->wording->is_chinese ? w->han : 0) + w->relative * passage->relative +
           w->yes * yes;
}

static void make_request(struct hd_kb__reader *reader)
{
    bool check = reader->state == CHECKING;
    size_t n = reader->n_demo_message;
    say(reader, &n, "user", reader->passages[reader->at].shown);
    if (!check) {
        say(reader, &n, "assistant", reader->wording->yes[0]);
        say(reader, &n, "user", reader->wording->answer);
    }
    reader->request = (struct hd_request){
        .model = reader->model,
        .principal = reader->principal,
        .messages = reader->messages,
        .n_message = n,
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
    hd_buf_init(&reader->answer, MAX_TEXT);
    reader->told = NAN;
    struct hd_model_info info;
    bool known = !hd_engine_model_find(o->engine, o->model, &info);
    reader->weights = known && info.n_embd < SMALL_EMBD ? &small_weights : &weights_1b;
    reader->wording = hd_kb__reading_wording(o->question);
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
        passage->relative = o->hits->items[0].score > 0 ? hit->score / o->hits->items[0].score : 0;
        passage->named = hd_kb__names_stand(o->question, o->hits->items, o->hits->n, i);
        passage->shown = show(reader->wording, hit->heading, hit->text, o->before, o->question);
        err = passage->shown ? HD_OK : HD_ERR_NOMEM;
    }
    if (!err)
        err = demonstrate(reader);
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
    for (size_t i = 0; i < N_DEMO; i++)
        free(reader->demos[i]);
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

void hd_kb__add_up(struct hd_result *total, const struct hd_result *r)
{
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
    if (best == reader->n || reader->passages[best].odds < reader->weights->asked) {
        reader->state = DONE;
        return;
    }
    hd_buf_clear(&reader->answer);
    reader->state = ANSWERING;
    reader->at = best;
    reader->passages[best].tried = true;
    make_request(reader);
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

/* A refusal sends to the next passage, an answer that the model was not sure of is kept back. */
static void weigh_answer(struct hd_kb__reader *reader, const struct hd_result *result)
{
    const struct weights *w = reader->weights;
    const double least = fmax(result->min_logprob, -least_max);
    trim(&reader->answer);
    if (!reader->answer.len || hd_kb__is_refusal(hd_buf_str(&reader->answer), reader->answer.len)) {
        hd_buf_clear(&reader->answer);
        begin_answer(reader);
        return;
    }
    reader->told = w->told + w->told_odds * reader->passages[reader->at].odds +
                   w->told_least * least + (reader->passages[reader->at].named ? 0 : w->unnamed);
    if (reader->told < w->given)
        hd_buf_clear(&reader->answer);
    reader->state = DONE;
}

const struct hd_request *hd_kb__reader_next(struct hd_kb__reader *reader,
                                            const struct hd_result *result)
{
    hd_kb__add_up(&reader->total, result);
    if (result->finish == HD_FINISH_ERROR || result->finish == HD_FINISH_CANCELLED) {
        hd_buf_clear(&reader->answer);
        reader->state = DONE;
    } else if (reader->state == CHECKING) {
        struct passage *passage = &reader->passages[reader->at];
        passage->odds = odds(reader, passage, yes_against_no(reader, result));
        if (passage->odds < sure && ++reader->at < reader->n)
            make_request(reader);
        else
            begin_answer(reader);
    } else if (reader->state == ANSWERING) {
        weigh_answer(reader, result);
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
    if (!isnan(reader->told)) {
        out->passage = reader->at;
        best = reader->told;
    }
    out->probability = 1 / (1 + exp(-best));
}
