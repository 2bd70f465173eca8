/* holdfast pull NAME: fetches a model by the catalogue; --list shows the catalogue. */
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "app.h"
#include "base/clock.h"
#include "base/file.h"
#include "pull/catalogue.h"
#include "pull/installed.h"
#include "pull/pull.h"
#include "pull/target.h"

enum { MAX_CATALOGUES = 8 };

static atomic_bool cancel;

/* The first signal ends the pull in order; the second one the program. */
static void on_signal(int signum)
{
    atomic_store(&cancel, true);
    signal(signum, SIG_DFL);
}

/* ------------------------------------------------------------------------- what a user sees */

struct view {
    bool json, bar;     /* bar: stderr is a terminal */
    bool bar_shown;     /* the cursor stands behind a bar */
    double last_line_s; /* without a terminal: a line now and then */
    const char *name;
};

static void json_line(json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    if (text)
        puts(text);
    fflush(stdout);
    free(text);
    json_decref(object);
}

static void duration_text(char out[32], double seconds)
{
    long s = seconds < 0 || seconds > 1e7 ? -1 : lround(seconds);
    if (s < 0)
        snprintf(out, 32, "--:--");
    else if (s < 3600)
        snprintf(out, 32, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(out, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

static int terminal_width(void)
{
    struct winsize w;
    return !ioctl(STDERR_FILENO, TIOCGWINSZ, &w) && w.ws_col >= 20 ? w.ws_col : 80;
}

static void clear_bar(struct view *v)
{
    if (v->bar_shown)
        fprintf(stderr, "\r\033[K");
    v->bar_shown = false;
}

static void progress_text(char *out, size_t cap, const struct hd_pull_event *e, bool with_bar)
{
    char done[32], total[32], rate[32], eta[32], bar[96] = "";
    double share = e->total ? (double)e->done / (double)e->total : 0;
    if (with_bar) {
        int width = terminal_width() - 62;
        width = width < 0 ? 0 : width > 40 ? 40 : width;
        int full = (int)(share * width);
        if (width)
            snprintf(bar, sizeof bar, "[%.*s%.*s] ", full,
                     "########################################", width - full,
                     "........................................");
    }
    duration_text(eta, e->eta_s);
    if (e->type == HD_PULL_CHECKING)
        snprintf(out, cap, "%schecking the hash %3.0f%%", bar, 100 * share);
    else
        snprintf(out, cap, "%s%3.0f%%  %s of %s  %s/s  %s left", bar, floor(100 * share),
                 hd_size_text(done, e->done), hd_size_text(total, e->total),
                 hd_size_text(rate, (uint64_t)e->bytes_per_s), eta);
}

static void show_progress(struct view *v, const struct hd_pull_event *e)
{
    static const double line_every_s = 3;
    char text[256];
    double now = hd_clock_seconds();
    progress_text(text, sizeof text, e, v->bar);
    if (v->bar) {
        fprintf(stderr, "\r\033[K%s", text);
        fflush(stderr);
        v->bar_shown = true;
    } else if (now - v->last_line_s >= line_every_s) {
        v->last_line_s = now;
        fprintf(stderr, "%s: %s\n", v->name, text);
    }
}

static void show_json(const struct hd_pull_event *e)
{
    static const char *const names[] = {"trying",   "resumed", "progress",
                                        "checking", "notice",  "skipped"};
    json_t *o = json_pack("{s:s, s:s}", "event", names[e->type], "source", e->source);
    if (e->detail[0])
        json_object_set_new(o, e->type == HD_PULL_SKIPPED ? "reason" : "detail",
                            json_string(e->detail));
    if (e->type == HD_PULL_RESUMED || e->type == HD_PULL_PROGRESS || e->type == HD_PULL_CHECKING) {
        json_object_set_new(o, "done", json_integer((json_int_t)e->done));
        json_object_set_new(o, "total", json_integer((json_int_t)e->total));
    }
    if (e->type == HD_PULL_PROGRESS) {
        json_object_set_new(o, "bytes_per_s", json_integer((json_int_t)e->bytes_per_s));
        json_object_set_new(o, "eta_s", e->eta_s < 0 ? json_null() : json_real(e->eta_s));
    }
    json_line(o);
}

static void on_event(const struct hd_pull_event *e, void *ud)
{
    struct view *v = ud;
    char done[32];
    if (v->json) {
        show_json(e);
        return;
    }
    if (e->type == HD_PULL_PROGRESS || e->type == HD_PULL_CHECKING) {
        show_progress(v, e);
        return;
    }
    clear_bar(v);
    if (e->type == HD_PULL_TRYING)
        fprintf(stderr, "%s: asking %s\n", v->name, e->source);
    else if (e->type == HD_PULL_RESUMED)
        fprintf(stderr, "%s: going on, %s are there from before\n", v->name,
                hd_size_text(done, e->done));
    else if (e->type == HD_PULL_NOTICE)
        fprintf(stderr, "%s: %s: %s\n", v->name, e->source, e->detail);
    else
        fprintf(stderr, "%s: %s skipped: %s\n", v->name, e->source, e->detail);
}

/* ------------------------------------------------------------------------- pull NAME */

static void print_done(const struct view *v, const struct hd_catalogue_model *m,
                       const struct hd_pull_result *r)
{
    char size[32];
    if (v->json) {
        json_line(json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:b, s:f}", "event", "done",
                            "name", m->name, "path", r->path, "size", (json_int_t)r->size, "sha256",
                            r->sha256, "source", r->source, "licence", m->licence, "licence_url",
                            m->licence_url, "already", r->already, "seconds", r->seconds));
        return;
    }
    if (r->already)
        printf("%s: already there and checked (%s)\n", m->name, r->path);
    else
        printf("%s: %s from %s in %.0f s, hash checked: %s\n", m->name, hd_size_text(size, r->size),
               r->source, r->seconds, r->path);
    printf("licence: %s, %s (%s.licence.txt)\n", m->licence, m->licence_url, r->path);
}

static int print_failed(const struct view *v, const struct hd_catalogue_model *m,
                        const struct hd_pull_result *r, enum hd_err err,
                        const struct hd_errmsg *msg)
{
    if (v->json) {
        json_t *tried = json_array();
        for (int i = 0; i < r->n_tried; i++)
            json_array_append_new(tried, json_pack("{s:s, s:s}", "source", r->tried[i].source,
                                                   "reason", r->tried[i].reason));
        json_line(json_pack("{s:s, s:s, s:s, s:s, s:o}", "event", "failed", "name", m->name, "code",
                            hd_err_name(err), "error", msg->text[0] ? msg->text : hd_err_text(err),
                            "tried", tried));
    } else if (err == HD_ERR_UNAVAILABLE) {
        fprintf(stderr, "%s: tried, in this order:\n", m->name);
        for (int i = 0; i < r->n_tried; i++)
            fprintf(stderr, "  %-12s %s\n", r->tried[i].source, r->tried[i].reason);
    }
    if (err == HD_ERR_CANCELLED) {
        fprintf(stderr, "holdfast: %s: stopped (the same command goes on where it was)\n", m->name);
        return HD_EXIT_FAILED;
    }
    return hd_app_fail(err, msg);
}

static int pull_one(struct hd_app *app, const struct hd_catalogue_model *m, const char *models)
{
    struct view view = {.json = app->json,
                        .bar = isatty(STDERR_FILENO),
                        .name = m->name,
                        .last_line_s = hd_clock_seconds()};
    struct hd_pull_options options = {
        .models = models,
        .only_source = hd_options_str(app->options, "source"),
        .hf_endpoint = getenv("HF_ENDPOINT"),
        .modelscope_endpoint = getenv("MODELSCOPE_ENDPOINT"),
        .hf_token = getenv("HF_TOKEN"),
        .pip = hd_options_str(app->options, "pip"),
        .timeout_s = hd_options_number(app->options, "timeout"),
        .connections = (int)hd_options_int(app->options, "connections"),
        .cancel = &cancel,
        .on_event = on_event,
        .ud = &view,
    };
    struct hd_errmsg msg = {0};
    struct hd_pull_result *result = calloc(1, sizeof *result);
    if (!result)
        return hd_app_fail(HD_ERR_NOMEM, NULL);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGHUP, on_signal);
    if (!view.json)
        fprintf(stderr, "%s: %s; licence %s (%s)\n", m->name, m->title, m->licence, m->licence_url);
    enum hd_err err = hd_pull(result, m, &options, &msg);
    clear_bar(&view);
    int status = HD_EXIT_OK;
    if (err)
        status = print_failed(&view, m, result, err, &msg);
    else
        print_done(&view, m, result);
    free(result);
    return status;
}

/* ------------------------------------------------------------------------- pull --list */

/* Size of an entry for people: exact, of its first source, or about. */
static uint64_t shown_size(const struct hd_catalogue_model *m, bool *about)
{
    *about = false;
    if (m->size)
        return m->size;
    if (m->source[0].size)
        return m->source[0].size;
    *about = true;
    return m->size_about;
}

static const struct hd_installed *installed_as(const struct hd_installed *list, size_t n,
                                               const struct hd_catalogue_model *m)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i].file, m->file))
            return &list[i];
    return NULL;
}

static json_t *entry_json(const struct hd_catalogue_model *m, const struct hd_installed *installed)
{
    bool about;
    uint64_t size = shown_size(m, &about);
    json_t *sources = json_array();
    for (size_t i = 0; i < m->n_source; i++)
        json_array_append_new(sources, json_string(hd_source_label(m->source[i].type)));
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:o}", "name", m->name, "title", m->title,
                  "file", m->file, "licence", m->licence, "licence_url", m->licence_url,
                  "installed", installed != NULL, "origin", m->origin, "sources", sources);
    if (size)
        json_object_set_new(o, about ? "size_about" : "size", json_integer((json_int_t)size));
    if (m->sha256)
        json_object_set_new(o, "sha256", json_string(m->sha256));
    if (installed)
        json_object_set_new(o, "path", json_string(installed->path));
    return o;
}

static void list_text(const struct hd_catalogue *c, const struct hd_installed *list, size_t n)
{
    printf("%-20s %9s  %-9s  %-42s  %s\n", "NAME", "SIZE", "INSTALLED", "WHAT", "LICENCE");
    for (size_t i = 0; i < hd_catalogue_count(c); i++) {
        const struct hd_catalogue_model *m = hd_catalogue_at(c, i);
        char size[32] = "?", shown[40];
        bool about;
        uint64_t bytes = shown_size(m, &about);
        if (bytes)
            hd_size_text(size, bytes);
        snprintf(shown, sizeof shown, "%s%s", about && bytes ? "~" : "", size);
        printf("%-20s %9s  %-9s  %-42s  %s\n", m->name, shown,
               installed_as(list, n, m) ? "yes" : "-", m->title, m->licence);
    }
}

static int list_catalogue(struct hd_app *app, const struct hd_catalogue *c, const char *models)
{
    struct hd_installed *list;
    struct hd_errmsg msg = {0};
    size_t n;
    enum hd_err err = hd_installed_list(&list, &n, models, &msg);
    if (err)
        return hd_app_fail(err, &msg);
    if (app->json) {
        json_t *all = json_array();
        for (size_t i = 0; i < hd_catalogue_count(c); i++) {
            const struct hd_catalogue_model *m = hd_catalogue_at(c, i);
            json_array_append_new(all, entry_json(m, installed_as(list, n, m)));
        }
        json_line(json_pack("{s:o}", "models", all));
    } else {
        list_text(c, list, n);
    }
    hd_installed_free(list, n);
    return HD_EXIT_OK;
}

/* ------------------------------------------------------------------------- the command */

/* The built-in catalogue, the home's own if there is one, those of --catalogue. */
static enum hd_err load_catalogue(struct hd_catalogue **out, const struct hd_app *app,
                                  struct hd_errmsg *msg)
{
    const char *paths[MAX_CATALOGUES + 1];
    const char *const *given;
    size_t n = 0, n_given = hd_options_list(app->options, "catalogue", &given);
    char *own = hd_path_join(app->home, "catalogue.json");
    *out = NULL;
    if (!own)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    if (hd_path_exists(own))
        paths[n++] = own;
    enum hd_err err = HD_OK;
    if (n_given > MAX_CATALOGUES)
        err = hd_fail(msg, HD_ERR_USAGE, "--catalogue: given more than %d times", MAX_CATALOGUES);
    for (size_t i = 0; !err && i < n_given; i++)
        paths[n++] = given[i];
    if (!err)
        err = hd_catalogue_load(out, paths, n, msg);
    free(own);
    return err;
}

static int pull_name(struct hd_app *app, const struct hd_catalogue *c, const char *models)
{
    struct hd_errmsg msg = {0};
    const char *name = hd_options_positional(app->options, 0);
    if (!name || hd_options_n_positional(app->options) > 1) {
        hd_fail(&msg, HD_ERR_USAGE,
                "pull: needs one NAME (holdfast pull --list shows the names; a good first one is "
                "qwen2.5-coder:1.5b)");
        return hd_app_fail(HD_ERR_USAGE, &msg);
    }
    const struct hd_catalogue_model *m = hd_catalogue_find(c, name);
    if (!m) {
        hd_fail(&msg, HD_ERR_NOTFOUND,
                "%.100s: not in the catalogue (holdfast pull --list shows the names)", name);
        return hd_app_fail(HD_ERR_NOTFOUND, &msg);
    }
    return pull_one(app, m, models);
}

int hd_cmd_pull(struct hd_app *app)
{
    struct hd_catalogue *catalogue;
    struct hd_errmsg msg = {0};
    enum hd_err err = load_catalogue(&catalogue, app, &msg);
    if (err)
        return hd_app_fail(err, &msg);
    char *models = hd_path_join(app->home, "models");
    int status = !models                                 ? hd_app_fail(HD_ERR_NOMEM, NULL)
                 : hd_options_flag(app->options, "list") ? list_catalogue(app, catalogue, models)
                                                         : pull_name(app, catalogue, models);
    free(models);
    hd_catalogue_free(catalogue);
    return status;
}
