/* holdfast serve: the OpenAI API, the knowledge bases and the web page.
 *
 * Start: listen (health answers from here on) → load the models → ready. End: SIGTERM or SIGINT →
 * take no new work, finish what runs (--drain seconds at most), exit 0; a second signal cuts it
 * short. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "api/api.h"
#include "app.h"
#include "base/file.h"
#include "embedded.h"
#include "kb/kb.h"
#include "model_run.h"
#include "pull/installed.h"

enum { MAX_FILES = 16, MAX_MODELS = 16 };

struct serve {
    struct hd_app *app;
    const struct hd_options *options;
    struct hd_engine *engine;
    struct hd_api *api;
    char *kb_dir; /* owned */
    struct hd_api_file file[MAX_FILES];
    size_t n_file;
    size_t n_model;
    struct model {
        char *name, *path; /* owned */
    } model[MAX_MODELS];
};

/* --- signals ---------------------------------------------------------------------------------- */

static int wake_fd[2] = {-1, -1};
static volatile sig_atomic_t loading;

static void on_signal(int signal)
{
    int saved = errno;
    if (loading)
        _exit(HD_EXIT_OK); /* nothing runs yet, nothing is lost */
    ssize_t n = write(wake_fd[1], "!", 1);
    (void)n;
    errno = saved;
}

static bool catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    return !pipe2(wake_fd, O_CLOEXEC | O_NONBLOCK) && !sigaction(SIGTERM, &action, NULL) &&
           !sigaction(SIGINT, &action, NULL);
}

/* Whether a signal came within the time; negative: waits for ever. */
static bool wait_signal(int milliseconds)
{
    struct pollfd p = {.fd = wake_fd[0], .events = POLLIN};
    char byte;
    while (poll(&p, 1, milliseconds) < 0)
        if (errno != EINTR)
            return true;
    return p.revents && read(wake_fd[0], &byte, 1) == 1;
}

/* --- models ----------------------------------------------------------------------------------- */

/* The name that clients use: the installed model's, else the name as given, else the file's. */
static char *model_name(const struct serve *s, const char *given, const char *path)
{
    struct hd_installed *list = NULL;
    size_t n = 0;
    char *name = NULL, *models = hd_path_join(s->app->home, "models");
    if (models && !hd_installed_list(&list, &n, models, NULL))
        for (size_t i = 0; i < n && !name; i++)
            if (!strcmp(list[i].path, path))
                name = strdup(given && !hd_path_exists(given) ? given : list[i].name);
    hd_installed_free(list, n);
    free(models);
    if (name)
        return name;
    size_t len = strlen(path);
    while (len && path[len - 1] == '/')
        len--;
    const char *slash = memrchr(path, '/', len), *from = slash ? slash + 1 : path;
    len -= (size_t)(from - path);
    if (len > 5 && !memcmp(from + len - 5, ".gguf", 5))
        len -= 5;
    return strndup(from, len);
}

static enum hd_err add_model(struct serve *s, const char *given, struct hd_errmsg *msg)
{
    struct model *m = &s->model[s->n_model];
    if (s->n_model == MAX_MODELS)
        return hd_fail(msg, HD_ERR_USAGE, "--model: at most %d", MAX_MODELS);
    enum hd_err err = hd_app_model_path(&m->path, s->app, given, msg);
    if (err)
        return err;
    m->name = model_name(s, given, m->path);
    if (!m->name) {
        free(m->path);
        return hd_fail(msg, HD_ERR_NOMEM, "model: out of memory");
    }
    s->n_model++;
    return HD_OK;
}

/* Without -m: the installed default; with nothing installed, none at all. */
static enum hd_err find_models(struct serve *s, struct hd_errmsg *msg)
{
    const char *const *given;
    struct hd_installed *list = NULL;
    size_t n = hd_options_list(s->options, "model", &given), n_installed = 0;
    if (n == 1 && !strcmp(given[0], "none"))
        return HD_OK;
    for (size_t i = 0; i < n; i++) {
        enum hd_err err = add_model(s, given[i], msg);
        if (err)
            return err;
    }
    if (n)
        return HD_OK;
    enum hd_err err = add_model(s, NULL, msg);
    char *models = hd_path_join(s->app->home, "models");
    if (err == HD_ERR_NOTFOUND && models && !hd_installed_list(&list, &n_installed, models, NULL) &&
        !n_installed)
        err = HD_OK;
    hd_installed_free(list, n_installed);
    free(models);
    return err;
}

static enum hd_err load_models(struct serve *s, struct hd_errmsg *msg)
{
    int n_ctx = (int)hd_options_int(s->options, "ctx");
    loading = 1;
    for (size_t i = 0; i < s->n_model; i++) {
        hd_api_set_stage(s->api, s->model[i].name, (int)i, (int)s->n_model);
        if (!s->app->json) {
            printf("loading    %s\n", s->model[i].name);
            fflush(stdout);
        }
        enum hd_err err = hd_engine_load(s->engine, s->model[i].name, s->model[i].path, n_ctx, msg);
        if (err)
            return err;
    }
    for (size_t i = 0; i < s->n_model; i++)
        hd_app_wait_ready(s->engine, i);
    loading = 0;
    return HD_OK;
}

/* --- what is said at the start ------------------------------------------------------------------
 */

static void print_address(const struct serve *s, char *out, size_t size)
{
    const char *host = hd_options_str(s->options, "host");
    bool any = !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
    bool six = strchr(host, ':') && !any;
    snprintf(out, size, "http://%s%s%s:%d", six ? "[" : "", any ? "localhost" : host,
             six ? "]" : "", hd_api_port(s->api));
}

static void print_bases(const struct serve *s)
{
    struct hd_kb_names names = {0};
    printf("knowledge  %s (", s->kb_dir);
    if (hd_kb_list_bases(&names, s->kb_dir, &HD_PRINCIPAL_LOCAL, NULL) || !names.n)
        printf("empty; holdfast kb add PATH fills it");
    for (size_t i = 0; i < names.n; i++)
        printf("%s%s", i ? ", " : "", names.names[i]);
    printf(")\n");
    hd_kb_names_dispose(&names);
}

static void print_start(const struct serve *s, const char *address)
{
    struct hd_model_info info;
    for (size_t i = 0; i < hd_engine_n_model(s->engine); i++)
        if (!hd_engine_model_info(s->engine, i, &info))
            printf("model      %s (%s, %.1f GB, context %d, %s, ready in %.1f s)\n", info.name,
                   info.arch, (double)info.file_bytes / 1e9, info.n_ctx, info.backend, info.load_s);
    if (!s->n_model)
        printf("model      none: questions to a knowledge base are answered by quoting (holdfast "
               "pull qwen2.5-coder:1.5b brings a model)\n");
    print_bases(s);
    printf("ready      %s  (API: %s/v1; Ctrl-C ends)\n", address, address);
    fflush(stdout);
}

/* One line for programs. */
static void print_start_json(const struct serve *s, const char *address)
{
    json_t *models = json_array();
    for (size_t i = 0; i < s->n_model; i++)
        json_array_append_new(models, json_string(s->model[i].name));
    json_t *line = json_pack("{s:s,s:i,s:o,s:s}", "address", address, "port", hd_api_port(s->api),
                             "models", models, "kb", s->kb_dir);
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(line);
}

/* --- the command -------------------------------------------------------------------------------
 */

static enum hd_err prepare(struct serve *s, struct hd_errmsg *msg)
{
    const char *dir = hd_options_str(s->options, "kb");
    s->kb_dir = dir ? strdup(dir) : hd_path_join(s->app->home, "kb");
    if (!s->kb_dir)
        return hd_fail(msg, HD_ERR_NOMEM, "serve: out of memory");
    for (const struct hd_embedded *f = hd_embedded_files; f->name && s->n_file < MAX_FILES; f++)
        s->file[s->n_file++] = (struct hd_api_file){f->name, f->content_type, f->data, f->len};
    if (hd_options_n_positional(s->options))
        return hd_fail(msg, HD_ERR_USAGE, "serve: \"%s\" is not an option (a model is named by -m)",
                       hd_options_positional(s->options, 0));
    return find_models(s, msg);
}

static enum hd_err start(struct serve *s, struct hd_errmsg *msg)
{
    struct hd_engine_options e = HD_ENGINE_OPTIONS_DEFAULT;
    e.kernels = hd_options_str(s->options, "kernels");
    e.n_thread = (int)hd_options_int(s->options, "threads");
    e.max_batch_tokens = (int)hd_options_int(s->options, "max-batch-tokens");
    /* --max-sessions is the older name. */
    bool old = hd_options_is_set(s->options, "max-sessions") &&
               !hd_options_is_set(s->options, "max-sequences");
    e.max_sessions = (int)hd_options_int(s->options, old ? "max-sessions" : "max-sequences");
    e.max_queue = (int)hd_options_int(s->options, "max-queue");
    e.kv_bytes_max = (size_t)hd_options_number(s->options, "kv-bytes");
    e.kv_type = hd_options_str(s->options, "kv-type");
    e.preload = hd_options_str(s->options, "preload");
    e.repack = hd_options_str(s->options, "repack");
    char *cache_dir = hd_path_join(s->app->home, "cache");
    e.cache_dir = cache_dir; /* without memory for its name there is none */
    e.spill_bytes = hd_options_number(s->options, "kv-spill-bytes");
    char *spill_dir = e.spill_bytes > 0 ? hd_path_join(s->app->home, "kv") : NULL;
    if (e.spill_bytes > 0 && !spill_dir) {
        free(cache_dir);
        return hd_fail(msg, HD_ERR_NOMEM, "serve: out of memory");
    }
    e.spill_dir = spill_dir;
    enum hd_err err = hd_engine_new(&s->engine, &e, msg);
    free(spill_dir);
    free(cache_dir);
    if (err)
        return err;
    struct hd_api_options a = {.engine = s->engine,
                               .kb_dir = s->kb_dir,
                               .host = hd_options_str(s->options, "host"),
                               .port = (int)hd_options_int(s->options, "port"),
                               .body_max = (size_t)hd_options_int(s->options, "max-body"),
                               .max_sessions = e.max_sessions,
                               .max_queue = e.max_queue,
                               .api_key = hd_options_str(s->options, "api-key"),
                               .keys_file = hd_options_str(s->options, "keys"),
                               .request_timeout_s =
                                   hd_options_number(s->options, "request-timeout"),
                               .files = s->file,
                               .n_file = s->n_file};
    err = hd_api_new(&s->api, &a, msg);
    if (!err)
        err = load_models(s, msg);
    if (!err)
        hd_api_set_ready(s->api);
    return err;
}

static void run(struct serve *s)
{
    char address[128];
    double left = (double)hd_options_int(s->options, "drain");
    print_address(s, address, sizeof address);
    if (s->app->json)
        print_start_json(s, address);
    else
        print_start(s, address);
    wait_signal(-1);
    if (!s->app->json)
        printf("ending     no new requests; running ones have %.0f s\n", left);
    fflush(stdout);
    int running = hd_api_drain(s->api, 0);
    while (running && left > 0 && !wait_signal(50)) {
        left -= 0.05;
        running = hd_api_drain(s->api, 0);
    }
    if (running)
        fprintf(stderr, "holdfast: serve: %d requests were cut off\n", running);
}

int hd_cmd_serve(struct hd_app *app)
{
    struct serve s = {.app = app, .options = app->options};
    struct hd_errmsg msg = {0};
    if (hd_options_flag(app->options, "print-config")) {
        hd_options_print(app->options, stdout);
        return HD_EXIT_OK;
    }
    enum hd_err err = catch_signals() ? HD_OK : hd_fail(&msg, HD_ERR_IO, "serve: signals");
    if (!err)
        err = prepare(&s, &msg);
    if (!err && hd_options_flag(app->options, "check-config")) {
        printf("the configuration is good\n");
    } else if (!err) {
        err = start(&s, &msg);
        if (!err)
            run(&s);
    }
    hd_api_free(s.api);
    hd_engine_free(s.engine);
    for (size_t i = 0; i < s.n_model; i++) {
        free(s.model[i].name);
        free(s.model[i].path);
    }
    free(s.kb_dir);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
