/* One generation from request to last byte, whatever the form it is asked for in (surface.h).
 *
 *   event thread   call_start ─▶ worker: parse, (retrieve,) submit
 *   engine thread  on_text ─▶ event or buffer;  on_done ─▶ answer, or, for a grounded one,
 *   worker         next request of the turn, or check the citations and answer
 *   event thread   gone ─▶ hd_engine_cancel
 *
 * A stream is noted down as it is sent (streams.c). GET /v1/streams/{id} sends what is known and,
 * if its client left in the middle, runs the same request again with the same seed, leaving out the
 * events that are known: the place was free in between.
 *
 * The generation lives as long as its HTTP request, on which the worker and the engine each hold a
 * reference while they use it. Lock order: generation.mu, then the request's own. */
#include "api/surface.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

enum { MAX_ANSWER = 32 << 20, DEFAULT_MAX_TOKENS = 4096 };

/* --- answers ---------------------------------------------------------------------------------- */

static int n_choice(const struct hd_api__gen *gen)
{
    return gen->others ? gen->params.n : 1;
}

static struct hd_api__choice *choice_at(struct hd_api__gen *gen, int i)
{
    return i ? &gen->others[i - 1] : &gen->first;
}

static void choice_init(struct hd_api__choice *c, struct hd_api__gen *gen, int index)
{
    c->gen = gen;
    c->index = index;
    hd_buf_init(&c->answer, MAX_ANSWER);
    hd_buf_init(&c->reasoning, MAX_ANSWER);
    for (size_t i = 0; i < 4; i++)
        hd_buf_init(&c->logprobs[i], MAX_ANSWER);
}

static void choice_dispose(struct hd_api__choice *c)
{
    hd_buf_dispose(&c->answer);
    hd_buf_dispose(&c->reasoning);
    for (size_t i = 0; i < 4; i++)
        hd_buf_dispose(&c->logprobs[i]);
    json_decref(c->calls);
}

static void generation_dispose(struct hd_api__call *call)
{
    struct hd_api__gen *gen = (struct hd_api__gen *)call;
    hd_api__params_dispose(&gen->params);
    hd_kb_turn_free(gen->turn);
    for (int i = 0; i < n_choice(gen); i++)
        choice_dispose(choice_at(gen, i));
    free(gen->others);
    hd_buf_dispose(&gen->event);
    hd_buf_dispose(&gen->replay);
    if (gen->stream) {
        hd_api__stream_close(call->api->streams, gen->stream, gen, false);
        hd_api__stream_unref(call->api->streams, gen->stream);
    }
    json_decref(gen->block.list);
    json_decref(gen->choices);
    pthread_mutex_destroy(&gen->mu);
}

static void generation_gone(struct hd_api__call *call)
{
    struct hd_api__gen *gen = (struct hd_api__gen *)call;
    pthread_mutex_lock(&gen->mu);
    gen->gone = true;
    bool submitted = gen->submitted;
    uint64_t id = gen->engine_id;
    struct hd_api__stream *stream = gen->stream;
    pthread_mutex_unlock(&gen->mu);
    if (stream)
        hd_api__stream_close(call->api->streams, stream, gen, false);
    for (int i = 0; submitted && i < n_choice(gen); i++)
        hd_engine_cancel(call->api->engine, id + (uint64_t)i);
}

/* --- streaming
 * ------------------------------------------------------------------------------------ */

/* The answer that is written from here on. Its events are numbered behind those that went out; of
 * those that the client knows already, as they were then. */
static void select_locked(struct hd_api__gen *gen, struct hd_api__choice *c)
{
    gen->c = c;
    gen->n_event = gen->n_sent - gen->n_known[c->index];
}

/* Of what the surface has made, what the client does not have already. */
static const char *news_locked(struct hd_api__gen *gen, size_t *len)
{
    const char *data = hd_buf_str(&gen->event);
    unsigned *known = &gen->n_known[gen->c->index], made = gen->n_event - (gen->n_sent - *known);
    *len = gen->event.err ? 0 : gen->event.len;
    if (*known && *known >= made) { /* none of it */
        *known -= made;
        *len = 0;
    } else {
        const char *from = *known ? hd_api__stream_after(data, *len, (long)gen->n_sent - 1) : data;
        *len -= (size_t)(from - data);
        data = from;
        gen->n_sent += made - *known;
        *known = 0;
    }
    return data;
}

/* What the surface has put into the scratch buffer goes out. */
static void send_locked(struct hd_api__gen *gen, bool note)
{
    size_t len;
    const char *data = news_locked(gen, &len);
    /* Noted before it is sent: who takes the stream up has had nothing that is not noted. */
    if (gen->stream && note && len)
        hd_api__stream_note(gen->call.api->streams, gen->stream, gen, gen->n_sent, gen->c->index,
                            data, len);
    if (len) /* a client that is gone or stuck is cancelled by the event thread */
        hd_http_stream_write(gen->call.http, data, len);
    hd_buf_clear(&gen->event);
}

static void close_stream_locked(struct hd_api__gen *gen, bool done)
{
    if (gen->stream)
        hd_api__stream_close(gen->call.api->streams, gen->stream, gen, done);
    hd_http_stream_end(gen->call.http);
}

static void begin_locked(struct hd_api__gen *gen)
{
    if (gen->begun)
        return;
    gen->begun = true;
    hd_http_set_header(gen->call.http, "X-Accel-Buffering", "no");
    hd_http_stream_begin(gen->call.http, 200, gen->surface->stream_type);
    if (gen->replay.len)
        hd_http_stream_write(gen->call.http, gen->replay.data, gen->replay.len);
    struct hd_api__choice *now = gen->c;
    for (int i = 0; i < n_choice(gen); i++) {
        select_locked(gen, choice_at(gen, i));
        gen->surface->begin(gen, &gen->event);
        send_locked(gen, true);
    }
    select_locked(gen, now);
}

/* --- what the server itself adds to the first token ---------------------------------------------
 */

static void note_first_locked(struct hd_api__gen *gen)
{
    if (gen->first_sent_s >= 0 && gen->first_engine_s >= 0)
        hd_metrics_observe(gen->call.api->metrics, M_FIRST_OVERHEAD, NULL,
                           fmax(gen->first_sent_s - gen->first_engine_s, 0));
}

/* On the event thread. */
static void on_first_sent(void *object, double seconds)
{
    struct hd_api__gen *gen = object;
    pthread_mutex_lock(&gen->mu);
    gen->first_sent_s = seconds;
    note_first_locked(gen);
    pthread_mutex_unlock(&gen->mu);
}

/* What is written next is the answer's first text. */
static void mark_first_locked(struct hd_api__gen *gen)
{
    if (gen->marked || gen->others || gen->turn || gen->taken_up)
        return;
    gen->marked = true;
    hd_http_stream_mark(gen->call.http, on_first_sent);
}

static void note_engine(struct hd_api__gen *gen, const struct hd_result *result)
{
    pthread_mutex_lock(&gen->mu);
    if (gen->marked) {
        gen->first_engine_s = result->engine_s;
        note_first_locked(gen);
    }
    pthread_mutex_unlock(&gen->mu);
}

void hd_api__event_open(struct hd_api__gen *gen, struct hd_buf *out, const char *event)
{
    hd_buf_printf(out, "id: %u\n", gen->n_event++);
    if (event)
        hd_buf_printf(out, "event: %s\n", event);
    hd_buf_puts(out, "data: ");
}

void hd_api__event_json(struct hd_api__gen *gen, struct hd_buf *out, const char *event,
                        json_t *data)
{
    hd_api__event_open(gen, out, event);
    hd_api__put_dump(out, data);
    hd_buf_puts(out, "\n\n");
}

static void emit_call_locked(struct hd_api__gen *gen, const char *text, size_t len)
{
    struct hd_api__tool_call call = {.index = gen->c->n_call,
                                     .function = json_loadb(text, len, 0, NULL)};
    if (!call.function)
        return;
    /* The request and its calls share their random digits; the number makes calls differ. */
    snprintf(call.id, sizeof call.id, "%s%s%02zu", gen->surface->call_prefix, gen->digits,
             call.index + 100 * (size_t)gen->c->index);
    gen->c->n_call++;
    if (gen->params.stream) {
        begin_locked(gen);
        mark_first_locked(gen);
        gen->surface->call(gen, &gen->event, &call);
        send_locked(gen, true);
    } else {
        if (!gen->c->calls)
            gen->c->calls = json_array();
        json_array_append_new(gen->c->calls, json_pack("{s:s,s:s,s:O}", "id", call.id, "type",
                                                       "function", "function", call.function));
    }
    json_decref(call.function);
}

static void emit_text_locked(struct hd_api__gen *gen, enum hd_text_kind kind, const char *text,
                             size_t len)
{
    begin_locked(gen);
    mark_first_locked(gen);
    gen->surface->text(gen, &gen->event, kind, text, len);
    send_locked(gen, true);
}

static void emit_of(struct hd_api__choice *c, enum hd_text_kind kind, const char *text, size_t len)
{
    struct hd_api__gen *gen = c->gen;
    if (!len)
        return;
    pthread_mutex_lock(&gen->mu);
    select_locked(gen, c);
    if (gen->failed)
        len = 0; /* another answer has failed, and with it all */
    else if (kind == HD_TEXT_CALL)
        emit_call_locked(gen, text, len);
    else if (gen->params.stream)
        emit_text_locked(gen, kind, text, len);
    else
        hd_buf_append(hd_api__is_chat(gen) && kind == HD_TEXT_REASONING ? &c->reasoning
                                                                        : &c->answer,
                      text, len);
    pthread_mutex_unlock(&gen->mu);
}

/* A piece of the answer, from the turn. */
static void emit(void *ud, enum hd_text_kind kind, const char *text, size_t len)
{
    struct hd_api__gen *gen = ud;
    emit_of(&gen->first, kind, text, len);
}

/* --- the end
 * -------------------------------------------------------------------------------------- */

enum hd_api__finish hd_api__finish_of(const struct hd_api__gen *gen)
{
    bool cut = gen->c->has_result && gen->c->result.finish == HD_FINISH_LENGTH;
    if (cut && !gen->turn) /* a turn cuts its own requests */
        return HD_API_FINISH_LENGTH;
    return gen->c->n_call ? HD_API_FINISH_CALLS : HD_API_FINISH_STOP;
}

/* What a grounded answer carries beside OpenAI's fields. */
static json_t *grounds_json(const struct hd_api__gen *gen, const struct hd_kb_answer *answer)
{
    json_t *out = json_object();
    json_object_set_new(out, "knowledge_base", json_string(gen->params.knowledge_base));
    json_object_set_new(out, "found", json_boolean(answer->found));
    json_object_set_new(out, "quoted", json_boolean(answer->quoted));
    json_object_set_new(out, "confidence", json_real(answer->confidence));
    json_object_set_new(out, "citations", hd_kb_citations_json(answer));
    json_object_set_new(out, "nearest", hd_kb_nearest_json(answer));
    return out;
}

static void end_stream(struct hd_api__gen *gen, json_t *grounds)
{
    pthread_mutex_lock(&gen->mu);
    begin_locked(gen);
    gen->surface->end(gen, &gen->event, grounds);
    send_locked(gen, true);
    close_stream_locked(gen, true);
    pthread_mutex_unlock(&gen->mu);
}

static void end_fault(struct hd_api__gen *gen, const struct hd_api__fault *fault)
{
    pthread_mutex_lock(&gen->mu);
    bool begun = gen->begun;
    if (begun) { /* the status line is gone: the error travels as an event */
        hd_buf_clear(&gen->event);
        /* A cancelled stream has not ended: it may be taken up again. */
        bool ended = !(gen->c->has_result && gen->c->result.finish == HD_FINISH_CANCELLED);
        gen->surface->fail(gen, &gen->event, fault);
        send_locked(gen, ended);
        close_stream_locked(gen, ended);
    }
    pthread_mutex_unlock(&gen->mu);
    if (!begun)
        hd_api__reply_fault(gen->call.api, gen->call.http, fault);
}

static void note_duration(struct hd_api *api, double seconds)
{
    pthread_mutex_lock(&api->mu);
    api->request_s = api->request_s > 0 ? 0.8 * api->request_s + 0.2 * seconds : seconds;
    pthread_mutex_unlock(&api->mu);
}

static bool has_overflow(struct hd_api__gen *gen)
{
    for (int i = 0; i < n_choice(gen); i++) {
        const struct hd_api__choice *c = choice_at(gen, i);
        if (c->answer.err || c->reasoning.err || c->logprobs[0].err)
            return true;
    }
    return false;
}

/* The engine's results are there (or none was needed): answers. */
static void finish(struct hd_api__gen *gen, json_t *grounds)
{
    struct hd_api__fault fault;
    const struct hd_result *r = &gen->c->result;
    if (gen->c->has_result && (r->finish == HD_FINISH_ERROR || r->finish == HD_FINISH_CANCELLED)) {
        enum hd_err err = r->finish == HD_FINISH_CANCELLED ? HD_ERR_CANCELLED : r->err;
        hd_api__fault_err(&fault, err, &r->message);
        end_fault(gen, &fault);
    } else if (has_overflow(gen)) {
        hd_api__fault(&fault, 503, NULL, NULL, "the answer is too long for this machine's memory");
        end_fault(gen, &fault);
    } else if (gen->params.stream) {
        end_stream(gen, grounds);
    } else {
        hd_api__reply_json(gen->call.http, 200, gen->surface->whole(gen, grounds));
    }
    json_decref(grounds);
}

static void note_answer(struct hd_api__gen *gen, const struct hd_kb_answer *answer)
{
    struct hd_metrics *metrics = gen->call.api->metrics;
    const char *outcome = !answer->found ? "not_found" : answer->quoted ? "quoted" : "found";
    hd_metrics_add(metrics, M_KB_ANSWERS, HD_LABELS(outcome), 1);
    hd_metrics_observe(metrics, M_KB_STAGE, HD_LABELS("retrieve"), answer->retrieve_s);
    if (gen->c->has_result) {
        hd_metrics_observe(metrics, M_KB_STAGE, HD_LABELS("prefill"), answer->prefill_s);
        hd_metrics_observe(metrics, M_KB_STAGE, HD_LABELS("decode"), answer->decode_s);
    }
    hd_metrics_observe(metrics, M_KB_STAGE, HD_LABELS("total"), hd_clock_seconds() - gen->started);
}

/* On a worker: checks the citations and answers. */
static void finish_turn(struct hd_api__gen *gen)
{
    struct hd_kb_answer answer;
    struct hd_errmsg msg = {0};
    struct hd_api__fault fault;
    enum hd_err err =
        hd_kb_turn_finish(gen->turn, gen->c->has_result ? &gen->c->result : NULL, &answer, &msg);
    if (err) {
        hd_api__fault_err(&fault, err, &msg);
        end_fault(gen, &fault);
        return;
    }
    note_answer(gen, &answer);
    gen->c->result.n_prompt = answer.n_prompt; /* totals over all requests of the turn */
    gen->c->result.n_cached = answer.n_cached;
    gen->c->result.n_generated = answer.n_generated;
    gen->c->result.n_reasoning = answer.n_reasoning;
    finish(gen, grounds_json(gen, &answer));
    hd_kb_answer_dispose(&answer);
}

static int submit(struct hd_api__gen *gen, const struct hd_request *request,
                  struct hd_api__fault *fault);

/* On a worker (or, while shutting down, on the engine's thread), after a request of a turn. */
static void continue_turn(struct hd_api__job *job)
{
    struct hd_api__gen *gen = (struct hd_api__gen *)job;
    struct hd_http_request *http = gen->call.http;
    struct hd_api__fault fault;
    const struct hd_request *next = NULL;
    if (!hd_http_request_gone(http)) {
        next = hd_kb_turn_next(gen->turn, &gen->c->result);
        if (!next)
            finish_turn(gen);
        else if (submit(gen, next, &fault))
            end_fault(gen, &fault);
    }
    hd_http_request_unref(http);
}

static void on_text(void *ud, enum hd_text_kind kind, const char *text, size_t len)
{
    struct hd_api__choice *c = ud;
    if (c->gen->turn)
        hd_kb_turn_feed(c->gen->turn, kind, text, len);
    else
        emit_of(c, kind, text, len);
}

static void on_logprobs(void *ud, const struct hd_token_report *token)
{
    struct hd_api__choice *c = ud;
    struct hd_api__gen *gen = c->gen;
    if (token->reasoning || !gen->surface->logprobs)
        return;
    pthread_mutex_lock(&gen->mu);
    select_locked(gen, c);
    gen->surface->logprobs(gen, token);
    pthread_mutex_unlock(&gen->mu);
}

/* All answers have their results: the one to end with is chosen, with the sums for usage. */
static void sum_up_locked(struct hd_api__gen *gen, struct hd_api__choice *last)
{
    int n_generated = 0, n_reasoning = 0, n = n_choice(gen);
    gen->c = last;
    for (int i = 0; i < n; i++) {
        struct hd_api__choice *c = choice_at(gen, i);
        n_generated += c->result.n_generated;
        n_reasoning += c->result.n_reasoning;
        bool failed =
            c->result.finish == HD_FINISH_ERROR || c->result.finish == HD_FINISH_CANCELLED;
        if (failed && (gen->c == last || c->result.finish == HD_FINISH_ERROR))
            gen->c = c; /* the others were cancelled for it */
    }
    if (n > 1 && !gen->failed && !gen->params.stream) {
        for (int i = 0; i + 1 < n; i++) {
            gen->c = choice_at(gen, i);
            gen->surface->next(gen, &gen->event);
        }
        gen->c = choice_at(gen, n - 1);
    }
    select_locked(gen, gen->c);
    gen->c->result.n_cached = gen->first.result.n_cached;
    gen->c->result.n_generated = n_generated;
    gen->c->result.n_reasoning = n_reasoning;
}

/* Notes an answer's end; true when it was the last one's. */
static bool end_choice(struct hd_api__choice *c, bool whole)
{
    struct hd_api__gen *gen = c->gen;
    pthread_mutex_lock(&gen->mu);
    bool last = ++gen->n_done == n_choice(gen), first_failure = !whole && !gen->failed;
    uint64_t id = gen->engine_id;
    bool others = gen->submitted;
    gen->failed |= !whole;
    if (last)
        sum_up_locked(gen, c);
    if (!last && !gen->failed && gen->params.stream) {
        begin_locked(gen);
        select_locked(gen, c);
        gen->surface->next(gen, &gen->event);
        send_locked(gen, true);
    }
    pthread_mutex_unlock(&gen->mu);
    for (int i = 0; first_failure && others && i < n_choice(gen); i++)
        hd_engine_cancel(gen->call.api->engine, id + (uint64_t)i);
    return last;
}

static void on_done(void *ud, const struct hd_result *result)
{
    struct hd_api__choice *c = ud;
    struct hd_api__gen *gen = c->gen;
    struct hd_api *api = gen->call.api;
    double seconds = hd_clock_seconds() - gen->started;
    c->result = *result;
    c->has_result = true;
    hd_api__metrics_result(api, result, seconds);
    note_duration(api, seconds);
    note_engine(gen, result);
    if (gen->turn && result->finish != HD_FINISH_CANCELLED) {
        gen->call.job.run = continue_turn;
        hd_api__workers_post(api->quick, &gen->call.job, true); /* takes over the reference */
        return;
    }
    if (end_choice(c, result->finish == HD_FINISH_STOP || result->finish == HD_FINISH_LENGTH))
        finish(gen, NULL);
    hd_http_request_unref(gen->call.http);
}

/* --- the beginning
 * -------------------------------------------------------------------------------- */

int hd_api__find_language(struct hd_api *api, const char *name, struct hd_model_info *info,
                          struct hd_api__fault *fault)
{
    struct hd_engine *engine = api->engine;
    bool found = !hd_api__model_find(engine, name, info);
    if (found && info->kind == HD_MODEL_LANGUAGE)
        return 0;
    if (found && name && *name)
        return hd_api__fault(fault, 400, "unsupported_value", "model",
                             "the model \"%s\" is an encoder, which writes no text; use "
                             "/v1/embeddings or /v1/rerank",
                             info->name);
    if (!hd_api__has_language(engine))
        return hd_api__fault(fault, 404, "model_not_found", "model",
                             "no language model is loaded; only questions to a knowledge base are "
                             "answered, by quoting (holdfast pull qwen2.5-coder:1.5b brings one)");
    return hd_api__fault(fault, 404, "model_not_found", "model",
                         "the model \"%.100s\" is not loaded here (GET /v1/models lists them)",
                         name ? name : "");
}

void hd_api__params_request(const struct hd_api__params *p, const struct hd_model_info *info,
                            const struct hd_principal *who, struct hd_request *out)
{
    int n_max = p->max_completion_tokens ? p->max_completion_tokens : p->max_tokens;
    *out = (struct hd_request){
        .model = info->name,
        .principal = who,
        .messages = p->message,
        .n_message = p->n_message,
        .prepare_next = p->n_message > 0,
        .no_think = p->no_think,
        .ask_think = p->ask_think,
        .max_thinking = p->max_thinking,
        .any_loops = p->any_loops,
        .drop_turns = p->drop_turns,
        .tools = p->tools,
        .prompt = p->prompt,
        .ids = p->ids,
        .n_id = p->n_id,
        .sampling = hd_api__params_sampling(p, info->thinks),
        .n_max = n_max          ? n_max
                 : info->thinks ? 0
                                : DEFAULT_MAX_TOKENS,
        .stop = p->stop,
        .n_stop = p->n_stop,
        .grammar = p->grammar,
        .tool_choice = p->tool_choice,
        .one_call = p->one_call,
        .suffix = p->suffix,
        .bias = p->bias,
        .n_bias = p->n_bias,
        .logprobs = p->logprobs,
        .n_top = p->n_top,
    };
}

/* LIMIT from submit: the prompt is longer than the model's context. */
int hd_api__submit_fault(enum hd_err err, const struct hd_errmsg *msg, const char *param,
                         struct hd_api__fault *fault)
{
    if (err == HD_ERR_LIMIT)
        return hd_api__fault(fault, 400, "context_length_exceeded", param, "%s", msg->text);
    if (err == HD_ERR_NOTFOUND)
        return hd_api__fault(fault, 404, "model_not_found", "model", "%s", msg->text);
    return hd_api__fault_err(fault, err, msg);
}

static int submit(struct hd_api__gen *gen, const struct hd_request *request,
                  struct hd_api__fault *fault)
{
    struct hd_api *api = gen->call.api;
    struct hd_callbacks callbacks[HD_ANSWERS_MAX];
    struct hd_errmsg msg = {0};
    struct hd_request timed = *request;
    int n = n_choice(gen);
    uint64_t id;
    if (gen->call.deadline > 0) {
        double left = gen->call.deadline - hd_clock_seconds();
        timed.timeout_s = left > 0.001 ? left : 0.001;
    }
    pthread_mutex_lock(&gen->mu);
    unsigned n_submit = ++gen->n_submit;
    pthread_mutex_unlock(&gen->mu);
    for (int i = 0; i < n; i++) {
        callbacks[i] = (struct hd_callbacks){.on_text = on_text,
                                             .on_logprobs = on_logprobs,
                                             .on_done = on_done,
                                             .ud = choice_at(gen, i)};
        hd_http_request_ref(gen->call.http); /* the engine's, until on_done */
    }
    enum hd_err err = hd_engine_submit_many(api->engine, &id, &timed, callbacks, (size_t)n, &msg);
    if (err) {
        for (int i = 0; i < n; i++)
            hd_http_request_unref(gen->call.http);
        if (err == HD_ERR_BUSY)
            hd_metrics_add(api->metrics, M_REJECTED, HD_LABELS("queue_full"), 1);
        return hd_api__submit_fault(err, &msg, hd_api__is_chat(gen) ? "messages" : "prompt", fault);
    }
    pthread_mutex_lock(&gen->mu);
    if (gen->n_submit == n_submit) { /* else it is done, and the next one is on its way */
        gen->submitted = true;
        gen->engine_id = id;
        if (gen->stream)
            hd_api__stream_submitted(api->streams, gen->stream, gen, id, n);
    }
    bool gone = gen->gone || gen->failed;
    if (gen->params.stream && gen->n_done < n)
        begin_locked(gen); /* the client sees its 200 while it waits */
    pthread_mutex_unlock(&gen->mu);
    for (int i = 0; gone && i < n; i++)
        hd_engine_cancel(api->engine, id + (uint64_t)i);
    return 0;
}

/* The last user message is the question; what came before it is history. */
static int take_question(struct hd_api__gen *gen, struct hd_message *history, size_t *n_history,
                         const char **question, struct hd_api__fault *fault)
{
    const struct hd_api__params *p = &gen->params;
    size_t last = p->n_message;
    if (!last || strcmp(p->message[last - 1].role, "user"))
        return hd_api__fault(fault, 400, "invalid_value", "messages",
                             "messages: the last one must be the user's question");
    *question = p->message[last - 1].content;
    *n_history = 0;
    for (size_t i = 0; i + 1 < last; i++)
        if (p->message[i].content &&
            (!strcmp(p->message[i].role, "user") || !strcmp(p->message[i].role, "assistant")))
            history[(*n_history)++] = p->message[i];
    return 0;
}

static int open_turn(struct hd_api__gen *gen, const struct hd_model_info *info,
                     struct hd_api__fault *fault)
{
    struct hd_api *api = gen->call.api;
    const struct hd_api__params *p = &gen->params;
    struct hd_kb_ask_options options = HD_KB_ASK_DEFAULT;
    struct hd_errmsg msg = {0};
    struct hd_kb *kb = NULL;
    struct hd_message *history = calloc(p->n_message, sizeof *history);
    if (!history)
        return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
    int rc = take_question(gen, history, &options.n_history, &options.question, fault);
    options.history = history;
    options.engine = info ? api->engine : NULL;
    options.model = info ? info->name : NULL;
    options.n_max = p->max_completion_tokens ? p->max_completion_tokens : p->max_tokens;
    options.sampling = hd_api__params_sampling(p, info && info->thinks);
    options.no_think = p->no_think;
    options.max_thinking = p->max_thinking;
    enum hd_err err = HD_OK;
    if (!rc)
        err = hd_kb_open(&kb, api->options.kb_dir, &gen->call.who, p->knowledge_base, false, &msg);
    if (!rc && err == HD_ERR_NOTFOUND)
        rc =
            hd_api__fault(fault, 404, "knowledge_base_not_found", "knowledge_base", "%s", msg.text);
    if (!rc && !err)
        err = hd_kb_turn_new(&gen->turn, kb, &gen->call.who, &options, emit, gen, &msg);
    if (!rc && err)
        rc = hd_api__fault_err(fault, err, &msg);
    hd_kb_close(kb);
    free(history);
    return rc;
}

static int start_grounded(struct hd_api__gen *gen, struct hd_api__fault *fault)
{
    struct hd_model_info info;
    int may = hd_api__check_scope(&gen->call.who, "kb:read", fault);
    if (may)
        return may;
    if (gen->params.tools)
        return hd_api__fault(fault, 400, "unsupported_value", "tools",
                             "tools: not together with a knowledge base");
    if (gen->params.n > 1)
        return hd_api__fault(fault, 400, "unsupported_value", "n",
                             "n: one answer together with a knowledge base");
    if (gen->params.grammar)
        return hd_api__fault(fault, 400, "unsupported_value", "response_format",
                             "response_format, grammar: not together with a knowledge base");
    if (gen->params.logprobs || gen->params.n_bias)
        return hd_api__fault(fault, 400, "unsupported_value",
                             gen->params.logprobs ? "logprobs" : "logit_bias",
                             "%s: not together with a knowledge base",
                             gen->params.logprobs ? "logprobs" : "logit_bias");
    struct hd_engine *engine = gen->call.api->engine;
    /* Without any model, or asked for none, the answer is made of quotes. */
    bool quote = hd_api__is_none(gen->params.model) ||
                 (!hd_api__has_language(engine) && !(gen->params.model && *gen->params.model));
    int rc = quote ? 0 : hd_api__find_language(gen->call.api, gen->params.model, &info, fault);
    if (rc)
        return rc;
    snprintf(gen->model, sizeof gen->model, "%s", quote ? "none" : info.name);
    rc = open_turn(gen, quote ? NULL : &info, fault);
    if (rc)
        return rc;
    const struct hd_request *request = hd_kb_turn_request(gen->turn);
    if (request)
        return submit(gen, request, fault);
    finish_turn(gen);
    return 0;
}

static int start_plain(struct hd_api__gen *gen, struct hd_api__fault *fault)
{
    struct hd_model_info info;
    struct hd_request request;
    int rc = hd_api__find_language(gen->call.api, gen->params.model, &info, fault);
    if (rc)
        return rc;
    if (hd_api__is_chat(gen) &&
        (!info.chat_form || !*info.chat_form || !strcmp(info.chat_form, "none")))
        return hd_api__fault(fault, 400, "unsupported_value", "model",
                             "the model \"%s\" has no chat form; use /v1/completions", info.name);
    snprintf(gen->model, sizeof gen->model, "%s", info.name);
    hd_api__params_request(&gen->params, &info, &gen->call.who, &request);
    if (gen->params.n > 1) {
        struct hd_api__choice *others = calloc((size_t)gen->params.n - 1, sizeof *others);
        for (int i = 1; others && i < gen->params.n; i++)
            choice_init(&others[i - 1], gen, i);
        pthread_mutex_lock(&gen->mu); /* a client may be leaving */
        gen->others = others;
        pthread_mutex_unlock(&gen->mu);
        if (!others)
            return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
    }
    return submit(gen, &request, fault);
}

/* Everything is known: sends it. Or nothing is. */
static void replay(struct hd_api__gen *gen)
{
    struct hd_api__fault fault;
    if (gen->state == STREAM_NONE) {
        hd_api__fault(&fault, 404, "not_found", NULL,
                      "there is no such stream (any more): streams are kept for a minute");
        hd_api__reply_fault(gen->call.api, gen->call.http, &fault);
        return;
    }
    hd_http_set_header(gen->call.http, "X-Accel-Buffering", "no");
    hd_http_stream_begin(gen->call.http, 200, "text/event-stream; charset=utf-8");
    hd_http_stream_write(gen->call.http, hd_buf_str(&gen->replay), gen->replay.len);
    hd_http_stream_end(gen->call.http);
}

/* From here on the stream's events are kept. */
static void open_stream(struct hd_api__gen *gen, const char *body, size_t len)
{
    if (strncmp(gen->surface->stream_type, "text/event-stream", 17))
        return; /* no numbers in it that a client could name */
    struct hd_api *api = gen->call.api;
    const struct hd_api__stream_request request = {(char *)body, len, gen->surface, gen->created,
                                                   gen->params.seed};
    struct hd_api__stream *stream =
        hd_api__stream_open(api->streams, gen, gen->id, &gen->call.who, &request);
    pthread_mutex_lock(&gen->mu);
    gen->stream = stream;
    bool gone = gen->gone;
    pthread_mutex_unlock(&gen->mu);
    if (stream && gone)
        hd_api__stream_close(api->streams, stream, gen, false);
}

static void run(struct hd_api__call *call)
{
    struct hd_api__gen *gen = (struct hd_api__gen *)call;
    struct hd_api__fault fault;
    size_t len;
    const char *body = hd_http_request_body(call->http, &len);
    if (gen->taken_up && gen->state != STREAM_OPEN) {
        replay(gen);
        return;
    }
    if (gen->taken_up) {
        const struct hd_api__stream_request *first = hd_api__stream_request(gen->stream);
        body = first->body;
        len = first->len;
    }
    int rc = gen->surface->parse(&gen->params, body, len, &fault);
    if (!rc && hd_api__is_chat(gen))
        rc = hd_api__params_split(&gen->params, call->api->engine, &fault);
    if (!rc && !gen->params.has_seed &&
        getrandom(&gen->params.seed, sizeof gen->params.seed, GRND_NONBLOCK) < 0)
        gen->params.seed = (uint64_t)(gen->started * 1e9);
    if (!rc && gen->taken_up)
        gen->params.seed = hd_api__stream_request(gen->stream)->seed;
    else if (!rc && gen->params.stream)
        open_stream(gen, body, len);
    if (!rc)
        rc = gen->params.knowledge_base ? start_grounded(gen, &fault) : start_plain(gen, &fault);
    if (rc)
        end_fault(gen, &fault);
}

/* Takes over the stream that the address names. */
static void take_up(struct hd_api__gen *gen)
{
    struct hd_api *api = gen->call.api;
    const char *id = hd_http_request_var(gen->call.http, "id");
    const char *last = hd_http_request_header(gen->call.http, "Last-Event-ID");
    uint64_t cancel;
    int n_cancel;
    gen->taken_up = true;
    gen->state = hd_api__stream_take(
        api->streams, &gen->stream, gen, id ? id : "", &gen->call.who,
        last && *last >= '0' && *last <= '9' ? strtol(last, NULL, 10) % 100000000 : -1,
        &gen->replay, gen->n_known, &gen->n_sent, &cancel, &n_cancel);
    select_locked(gen, &gen->first);
    if (gen->state == STREAM_OPEN) {
        gen->surface = hd_api__stream_request(gen->stream)->surface;
        gen->created = hd_api__stream_request(gen->stream)->created;
        snprintf(gen->id, sizeof gen->id, "%s", id);
        snprintf(gen->digits, sizeof gen->digits, "%s", gen->id + strlen(gen->surface->id_prefix));
    }
    for (int i = 0; i < n_cancel; i++)
        hd_engine_cancel(api->engine, cancel + (uint64_t)i);
}

/* On the event thread, before a worker or a leaving client can see the generation. */
static void generation_init(struct hd_api__call *call)
{
    struct hd_api__gen *gen = (struct hd_api__gen *)call;
    unsigned char random[12] = {0};
    gen->surface = hd_api__surface_find(hd_http_request_pattern(call->http));
    gen->started = hd_clock_seconds();
    gen->created = hd_clock_unix();
    gen->first_sent_s = gen->first_engine_s = -1;
    pthread_mutex_init(&gen->mu, NULL);
    gen->c = &gen->first;
    choice_init(&gen->first, gen, 0);
    hd_buf_init(&gen->event, MAX_ANSWER);
    hd_buf_init(&gen->replay, MAX_ANSWER);
    if (!strcmp(hd_http_request_pattern(call->http), "/v1/streams/{id}")) {
        take_up(gen);
        return;
    }
    if (getrandom(random, sizeof random, GRND_NONBLOCK) < 0)
        memcpy(random, &gen->started, sizeof gen->started);
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(gen->digits + 2 * i, 3, "%02x", random[i]);
    snprintf(gen->id, sizeof gen->id, "%s%s", gen->surface->id_prefix, gen->digits);
}

void hd_api__generate(struct hd_http_request *request, void *ud)
{
    static const struct hd_api__call like = {.init = generation_init,
                                             .run = run,
                                             .gone = generation_gone,
                                             .dispose = generation_dispose};
    struct hd_api *api = ud;
    hd_api__call_start(api, request, sizeof(struct hd_api__gen), api->quick, &like);
}
