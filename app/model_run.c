#include "model_run.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"

enum { MAX_ANSWER = 64 << 20 };

/* --- engine ---------------------------------------------------------------------------------- */

void hd_app_progress_text(char out[160], const struct hd_load_progress *p)
{
    double percent = p->bytes_total ? 100.0 * (double)p->bytes_done / (double)p->bytes_total : 100;
    int n = snprintf(out, 160, "%.60s  %.0f %% of %.0f MB", p->name, percent,
                     (double)p->bytes_total / 1e6);
    if (p->eta_s >= 0 && n > 0 && n < 160)
        snprintf(out + n, 160 - (size_t)n, ", %.0f s left", p->eta_s);
}

void hd_app_wait_ready(struct hd_engine *engine, size_t model)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    struct hd_load_progress p;
    char text[160];
    bool shown = false;
    while (!hd_engine_load_progress(engine, model, &p) && !p.ready) {
        if (p.seconds > 1 && isatty(STDERR_FILENO)) {
            hd_app_progress_text(text, &p);
            fprintf(stderr, "\r\033[Kloading    %s", text);
            shown = true;
        }
        nanosleep(&pause, NULL);
    }
    if (shown)
        fputs("\r\033[K", stderr);
}

enum hd_err hd_app_engine(struct hd_engine **out, struct hd_model_info *info,
                          const struct hd_app *app, int max_sessions, int n_ctx,
                          struct hd_errmsg *msg)
{
    return hd_app_engine_kernels(out, info, app, hd_options_str(app->options, "kernels"),
                                 max_sessions, n_ctx, msg);
}

enum hd_err hd_app_engine_kernels(struct hd_engine **out, struct hd_model_info *info,
                                  const struct hd_app *app, const char *kernels, int max_sessions,
                                  int n_ctx, struct hd_errmsg *msg)
{
    const char *const *models;
    size_t n = hd_options_list(app->options, "model", &models);
    char *path = NULL;
    struct hd_engine *engine = NULL;
    struct hd_engine_options options = HD_ENGINE_OPTIONS_DEFAULT;
    *out = NULL;
    if (n > 1)
        return hd_fail(msg, HD_ERR_USAGE, "%s: one model at a time (-m was given %zu times)",
                       app->command, n);
    const char *name = n ? models[0] : !strcmp(app->command, "embed") ? HD_DEFAULT_ENCODER : NULL;
    enum hd_err err = hd_app_model_path(&path, app, name, msg);
    if (err)
        return err;
    options.kernels = kernels;
    options.n_thread = (int)hd_options_int(app->options, "threads");
    options.max_batch_tokens = (int)hd_options_int(app->options, "max-batch-tokens");
    options.max_sessions = max_sessions;
    options.kv_bytes_max = (size_t)hd_options_number(app->options, "kv-bytes");
    options.kv_type = hd_options_str(app->options, "kv-type");
    options.mtp = hd_options_flag(app->options, "mtp");
    options.preload = hd_options_str(app->options, "preload");
    options.repack = hd_options_str(app->options, "repack");
    char *cache_dir = hd_path_join(app->home, "cache");
    /* Without memory for its name there is none. A benchmark is not disturbed by writing one unless
     * it is asked for. */
    if (strcmp(app->command, "bench") != 0 || hd_options_is_set(app->options, "repack"))
        options.cache_dir = cache_dir;
    if (!n_ctx)
        n_ctx = (int)hd_options_int(app->options, "ctx");
    err = hd_engine_new(&engine, &options, msg);
    if (!err)
        err = hd_engine_load(engine, name ? name : path, path, n_ctx, msg);
    if (!err)
        hd_app_wait_ready(engine, 0);
    if (!err)
        err = hd_engine_model_info(engine, 0, info);
    free(path);
    free(cache_dir);
    if (err)
        hd_engine_free(engine);
    else
        *out = engine;
    return err;
}

struct hd_sampling hd_app_sampling(const struct hd_app *app)
{
    return (struct hd_sampling){
        .temperature = (float)hd_options_number(app->options, "temp"),
        .top_p = (float)hd_options_number(app->options, "top-p"),
        .top_k = (int)hd_options_int(app->options, "top-k"),
        .min_p = (float)hd_options_number(app->options, "min-p"),
        .repetition_penalty = (float)hd_options_number(app->options, "repeat-penalty"),
        .seed = (uint64_t)hd_options_int(app->options, "seed"),
    };
}

enum hd_err hd_app_thinking(struct hd_request *r, const struct hd_app *app, struct hd_errmsg *msg)
{
    const char *effort = hd_options_str(app->options, "reasoning-effort");
    bool most = hd_options_str(app->options, "max-thinking-tokens") != NULL;
    if (effort && !hd_reasoning_effort(effort, &r->no_think, &r->max_thinking))
        return hd_fail(msg, HD_ERR_USAGE,
                       "--reasoning-effort %s: unknown (none, minimal, low, medium, high or xhigh)",
                       effort);
    if (most) {
        r->max_thinking = (int)hd_options_int(app->options, "max-thinking-tokens");
        r->no_think |= !r->max_thinking;
    }
    r->no_think |= hd_options_flag(app->options, "no-think");
    r->ask_think = (effort || most) && !r->no_think;
    r->any_loops = hd_options_flag(app->options, "allow-loops");
    return HD_OK;
}

/* --- Ctrl-C ---------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signal)
{
    interrupts = 1;
}

void hd_app_catch_interrupt(void)
{
    struct sigaction action = {.sa_handler = on_interrupt}; /* no SA_RESTART: reads return */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

bool hd_app_interrupted(void)
{
    bool was = interrupts;
    interrupts = 0;
    return was;
}

/* --- one answer ------------------------------------------------------------------------------ */

struct stream {
    pthread_mutex_t mu;
    pthread_cond_t ended;
    bool done; /* guarded by mu */
    struct hd_app_answer *answer;
    enum hd_app_show show;
    bool dimmed;
};

static void set_dimmed(struct stream *s, bool dim)
{
    if (s->show != HD_SHOW_TERMINAL || s->dimmed == dim)
        return;
    fputs(dim ? "\033[2m" : "\033[0m\n", stdout);
    s->dimmed = dim;
}

static void on_text(void *ud, enum hd_text_kind kind, const char *text, size_t len)
{
    struct stream *s = ud;
    bool reasoning = kind == HD_TEXT_REASONING;
    FILE *to = reasoning && s->show == HD_SHOW_PIPE ? stderr : stdout;
    hd_buf_append(reasoning ? &s->answer->reasoning : &s->answer->answer, text, len);
    if (s->show == HD_SHOW_NOTHING)
        return;
    set_dimmed(s, reasoning);
    fwrite(text, 1, len, to);
    fflush(to);
}

static void on_done(void *ud, const struct hd_result *result)
{
    struct stream *s = ud;
    set_dimmed(s, false);
    pthread_mutex_lock(&s->mu);
    s->answer->result = *result;
    s->done = true;
    pthread_cond_signal(&s->ended);
    pthread_mutex_unlock(&s->mu);
}

/* A signal does not end a wait on a condition, so the wait looks up now and then. */
static void wait_for_end(struct stream *s, struct hd_engine *engine, uint64_t id)
{
    pthread_mutex_lock(&s->mu);
    while (!s->done) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 50 * 1000 * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&s->ended, &s->mu, &until);
        if (hd_app_interrupted()) {
            pthread_mutex_unlock(&s->mu);
            hd_engine_cancel(engine, id);
            pthread_mutex_lock(&s->mu);
        }
    }
    pthread_mutex_unlock(&s->mu);
}

void hd_app_answer_init(struct hd_app_answer *a)
{
    *a = (struct hd_app_answer){0};
    hd_buf_init(&a->answer, MAX_ANSWER);
    hd_buf_init(&a->reasoning, MAX_ANSWER);
}

void hd_app_answer_dispose(struct hd_app_answer *a)
{
    hd_buf_dispose(&a->answer);
    hd_buf_dispose(&a->reasoning);
}

enum hd_err hd_app_answer_run(struct hd_app_answer *a, struct hd_engine *engine,
                              const struct hd_request *request, enum hd_app_show show,
                              struct hd_errmsg *msg)
{
    struct stream s = {.answer = a, .show = show};
    const struct hd_callbacks callbacks = {.on_text = on_text, .on_done = on_done, .ud = &s};
    uint64_t id;
    pthread_mutex_init(&s.mu, NULL);
    pthread_cond_init(&s.ended, NULL);
    hd_app_interrupted();
    enum hd_err err = hd_engine_submit(engine, &id, request, &callbacks, msg);
    if (!err) {
        wait_for_end(&s, engine, id);
        if (a->result.finish == HD_FINISH_ERROR)
            err = hd_fail(msg, a->result.err, "%s", a->result.message.text);
        else if (a->answer.err || a->reasoning.err)
            err = hd_fail(msg, a->answer.err ? a->answer.err : a->reasoning.err,
                          "answer: too long, or out of memory");
    }
    pthread_cond_destroy(&s.ended);
    pthread_mutex_destroy(&s.mu);
    return err;
}

const char *hd_app_finish_name(enum hd_finish finish)
{
    static const char *const names[] = {"stop", "length", "cancelled", "error"};
    return names[finish];
}
