/* holdfast kb: knowledge bases from the command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "app.h"
#include "base/buf.h"
#include "base/file.h"
#include "kb/kb.h"
#include "model_run.h"

struct kb_args {
    struct hd_app *app;
    struct hd_principal who;
    char *dir; /* owned: where bases live */
    const char *name;
    size_t n_arg; /* words after the verb */
};

static const char *arg(const struct kb_args *args, size_t i)
{
    return hd_options_positional(args->app->options, i + 1);
}

static int print_json(json_t *json)
{
    if (!json)
        return hd_app_fail(HD_ERR_NOMEM, NULL);
    json_dumpf(json, stdout, JSON_ENSURE_ASCII * 0 | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
    return fflush(stdout) ? hd_app_fail(HD_ERR_IO, NULL) : HD_EXIT_OK;
}

static int usage(const char *what)
{
    struct hd_errmsg msg = {0};
    hd_fail(&msg, HD_ERR_USAGE, "kb %s", what);
    return hd_app_fail(HD_ERR_USAGE, &msg);
}

/* The query: all words after the verb, joined by spaces. Owned; NULL without words. */
static char *joined_args(const struct kb_args *args)
{
    struct hd_buf text;
    hd_buf_init(&text, 1 << 20);
    for (size_t i = 0; i < args->n_arg; i++)
        hd_buf_printf(&text, "%s%s", i ? " " : "", arg(args, i));
    char *out = text.len ? hd_buf_take(&text) : NULL;
    hd_buf_dispose(&text);
    return out;
}

static enum hd_err open_base(struct hd_kb **kb, const struct kb_args *args, bool create,
                             struct hd_errmsg *msg)
{
    return hd_kb_open(kb, args->dir, &args->who, args->name, create, msg);
}

/* --- create, add, list, remove ------------------------------------------------------------ */

static int run_create(const struct kb_args *args)
{
    struct hd_errmsg msg = {0};
    enum hd_err err = hd_kb_create(args->dir, &args->who, args->name, &msg);
    if (err)
        return hd_app_fail(err, &msg);
    if (args->app->json)
        return print_json(json_pack("{s:s, s:i}", "name", args->name, "version", 0));
    printf("knowledge base %s is ready; holdfast kb add PATH fills it\n", args->name);
    return HD_EXIT_OK;
}

struct add_view {
    bool json, terminal;
    json_t *files; /* array, with --json */
};

static const char *outcome_name(enum hd_kb_outcome outcome)
{
    switch (outcome) {
    case HD_KB_ADDED:
        return "added";
    case HD_KB_UPDATED:
        return "updated";
    case HD_KB_UNCHANGED:
        return "unchanged";
    case HD_KB_FAILED:
        return "failed";
    case HD_KB_SKIPPED:
        break;
    }
    return "skipped";
}

static bool show_progress(void *ud, const struct hd_kb_progress *p)
{
    struct add_view *view = ud;
    if (view->terminal)
        fprintf(stderr, "\r\033[K");
    if (p->outcome == HD_KB_FAILED)
        fprintf(stderr, "holdfast: %s: %s\n", p->name, p->msg);
    else if (p->outcome == HD_KB_SKIPPED && !view->json)
        fprintf(stderr, "holdfast: %s: skipped (not txt, md, html, pdf, docx or epub)\n", p->name);
    if (view->json) {
        json_t *item = json_pack("{s:s, s:s, s:I}", "name", p->name, "outcome",
                                 outcome_name(p->outcome), "passages", (json_int_t)p->n_chunk);
        if (item && p->msg)
            json_object_set_new(item, "error", json_string(p->msg));
        if (item)
            json_array_append_new(view->files, item);
    } else if (view->terminal) {
        fprintf(stderr, "%zu/%zu  %s", p->i, p->n, p->name);
        fflush(stderr);
    }
    return true;
}

static int run_add(const struct kb_args *args)
{
    if (!args->n_arg)
        return usage("add: name at least one file or folder");
    struct hd_errmsg msg = {0};
    struct hd_kb *kb = NULL;
    struct hd_kb_add_result result = {0};
    struct add_view view = {.json = args->app->json,
                            .terminal = isatty(2) && !args->app->json,
                            .files = args->app->json ? json_array() : NULL};
    struct hd_kb_add_options options = {.on_progress = show_progress, .ud = &view};
    const char **paths = calloc(args->n_arg, sizeof *paths);
    enum hd_err err = paths ? open_base(&kb, args, true, &msg) : HD_ERR_NOMEM;
    for (size_t i = 0; i < args->n_arg && paths; i++)
        paths[i] = arg(args, i);
    if (!err)
        err = hd_kb_add(kb, &args->who, paths, args->n_arg, &options, &result, &msg);
    if (view.terminal)
        fprintf(stderr, "\r\033[K");
    hd_kb_close(kb);
    free(paths);
    if (err) {
        json_decref(view.files);
        return hd_app_fail(err, &msg);
    }
    int status = result.n_failed ? HD_EXIT_FAILED : HD_EXIT_OK;
    if (args->app->json) {
        int printed = print_json(json_pack(
            "{s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "version", (json_int_t)result.version, "added",
            (json_int_t)result.n_added, "updated", (json_int_t)result.n_updated, "unchanged",
            (json_int_t)result.n_unchanged, "failed", (json_int_t)result.n_failed, "skipped",
            (json_int_t)result.n_skipped, "files", view.files));
        return printed ? printed : status;
    }
    printf("%s: %zu added, %zu updated, %zu unchanged, %zu failed, %zu skipped (version %lld)\n",
           args->name, result.n_added, result.n_updated, result.n_unchanged, result.n_failed,
           result.n_skipped, (long long)result.version);
    return status;
}

static int list_bases(const struct kb_args *args)
{
    struct hd_errmsg msg = {0};
    struct hd_kb_names names;
    enum hd_err err = hd_kb_list_bases(&names, args->dir, &args->who, &msg);
    if (err)
        return hd_app_fail(err, &msg);
    for (size_t i = 0; i < names.n; i++)
        fprintf(stderr, "%s%s%s", i ? ", " : "knowledge bases: ", names.names[i],
                i + 1 == names.n ? "\n" : "");
    hd_kb_names_dispose(&names);
    return HD_EXIT_OK;
}

static int run_list(const struct kb_args *args)
{
    struct hd_errmsg msg = {0};
    struct hd_kb *kb = NULL;
    struct hd_kb_documents documents = {0};
    enum hd_err err = open_base(&kb, args, false, &msg);
    if (!err)
        err = hd_kb_list(kb, &args->who, &documents, &msg);
    hd_kb_close(kb);
    if (err)
        return hd_app_fail(err, &msg);
    int status = HD_EXIT_OK;
    if (args->app->json) {
        status = print_json(hd_kb_documents_json(&documents));
    } else {
        for (size_t i = 0; i < documents.n; i++) {
            const struct hd_kb_document *doc = &documents.items[i];
            printf("%6lld  %-8s %5lld passages  %.12s  %s\n", (long long)doc->id, doc->format,
                   (long long)doc->n_chunk, doc->revision, doc->name);
        }
        printf("%s: %zu documents, version %lld\n", args->name, documents.n,
               (long long)documents.version);
        if (isatty(2))
            list_bases(args);
    }
    hd_kb_documents_dispose(&documents);
    return status;
}

static int run_remove(const struct kb_args *args)
{
    if (!args->n_arg)
        return usage("remove: name at least one document (holdfast kb list shows them)");
    struct hd_errmsg msg = {0};
    struct hd_kb *kb = NULL;
    enum hd_err err = open_base(&kb, args, false, &msg);
    size_t n = 0;
    for (; n < args->n_arg && !err; n++) {
        err = hd_kb_remove(kb, &args->who, arg(args, n), &msg);
        if (!err && !args->app->json)
            printf("%s: removed %s\n", args->name, arg(args, n));
    }
    struct hd_kb_info info = {0};
    if (!err)
        err = hd_kb_info(kb, &args->who, &info, &msg);
    hd_kb_close(kb);
    if (err)
        return hd_app_fail(err, &msg);
    return args->app->json ? print_json(json_pack("{s:I, s:I}", "removed", (json_int_t)n, "version",
                                                  (json_int_t)info.version))
                           : HD_EXIT_OK;
}

/* --- search ------------------------------------------------------------------------------- */

static void print_hit(const struct hd_kb_hit *hit, size_t rank)
{
    printf("%zu. %s", rank, hit->document.name);
    if (hit->page)
        printf(", page %lld", (long long)hit->page);
    if (hit->heading[0])
        printf(" — %s", hit->heading);
    printf("  (%.2f)\n   ", hit->score);
    for (const char *p = hit->text; *p; p++) {
        putchar(*p);
        if (*p == '\n')
            printf("   ");
    }
    printf("\n\n");
}

static int search_one(const struct kb_args *args, struct hd_kb *kb, const char *query)
{
    struct hd_errmsg msg = {0};
    struct hd_kb_hits hits;
    struct hd_kb_search_options options = {.top = (size_t)hd_options_int(args->app->options, "top"),
                                           .passages =
                                               hd_options_flag(args->app->options, "passages")};
    enum hd_err err = hd_kb_search(kb, &args->who, query, &options, &hits, &msg);
    if (err)
        return hd_app_fail(err, &msg);
    int status = HD_EXIT_OK;
    if (args->app->json)
        status = print_json(hd_kb_hits_json(&hits));
    for (size_t i = 0; i < hits.n && !args->app->json; i++)
        print_hit(&hits.items[i], i + 1);
    if (!hits.n && !args->app->json)
        printf("nothing found\n");
    hd_kb_hits_dispose(&hits);
    return status;
}

static int run_search(const struct kb_args *args)
{
    struct hd_errmsg msg = {0};
    struct hd_kb *kb = NULL;
    char *query = joined_args(args), *line = NULL;
    size_t cap = 0;
    enum hd_err err = open_base(&kb, args, false, &msg);
    int status = err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
    if (!err && query) {
        status = search_one(args, kb, query);
    } else if (!err) { /* one query per line on stdin */
        ssize_t n;
        while (!status && (n = getline(&line, &cap, stdin)) > 0) {
            if (line[n - 1] == '\n')
                line[n - 1] = '\0';
            status = search_one(args, kb, line);
        }
    }
    hd_kb_close(kb);
    free(query);
    free(line);
    return status;
}

/* --- ask ---------------------------------------------------------------------------------- */

/* The engine with the model, or NULL for quoting: asked for by -m none, or said on stderr where no
 * model is installed. */
static enum hd_err start_engine(struct hd_engine **engine, struct hd_model_info *info,
                                const struct kb_args *args, struct hd_errmsg *msg)
{
    const char *const *models;
    size_t n = hd_options_list(args->app->options, "model", &models);
    *engine = NULL;
    if (n && !strcmp(models[0], "none"))
        return HD_OK;
    if (!n) {
        char *path = NULL;
        enum hd_err err = hd_app_model_path(&path, args->app, NULL, msg);
        free(path);
        if (err == HD_ERR_NOTFOUND) {
            fprintf(stderr, "holdfast: no language model is installed: answering by quoting "
                            "(holdfast pull qwen2.5-coder:1.5b installs one)\n");
            return HD_OK;
        }
        if (err)
            return err;
    }
    return hd_app_engine(engine, info, args->app, 1, 0, msg);
}

static void print_citations(const struct hd_kb_answer *answer)
{
    if (answer->n_citation)
        printf("\n");
    for (size_t i = 0; i < answer->n_citation; i++) {
        const struct hd_kb_citation *c = &answer->citations[i];
        printf("[%d] %s", c->n, c->document.name);
        if (c->page)
            printf(", page %lld", (long long)c->page);
        if (c->verdict == HD_KB_UNSUPPORTED)
            printf(" (not supported; the nearest text is)");
        printf("\n    \"%s\"\n", c->quote);
    }
    for (size_t i = 0; i < answer->n_nearest; i++)
        printf("%s%s%s%s\n", i ? "  " : "Nearest:\n  ", answer->nearest[i].document.name,
               answer->nearest[i].heading[0] ? " — " : "", answer->nearest[i].heading);
}

/* Marks are for programs; people read [1]. */
static void print_answer(const char *text)
{
    while (*text) {
        if (!strncmp(text, "[citation:", 10)) {
            fputs(" [", stdout);
            text += 10;
        } else {
            putchar(*text++);
        }
    }
    putchar('\n');
}

static int ask_one(const struct kb_args *args, struct hd_kb *kb, struct hd_engine *engine,
                   const char *question)
{
    const struct hd_options *o = args->app->options;
    struct hd_errmsg msg = {0};
    struct hd_kb_answer answer;
    struct hd_kb_ask_options options = HD_KB_ASK_DEFAULT;
    options.engine = engine;
    options.question = question;
    options.no_think = hd_options_flag(o, "no-think");
    options.sampling = hd_app_sampling(args->app);
    if (hd_options_is_set(o, "n"))
        options.n_max = (int)hd_options_int(o, "n");
    if (hd_options_is_set(o, "top"))
        options.n_passage = (size_t)hd_options_int(o, "top");
    enum hd_err err = hd_kb_ask(kb, &args->who, &options, NULL, NULL, &answer, &msg);
    if (err)
        return hd_app_fail(err, &msg);
    int status = HD_EXIT_OK;
    if (args->app->json) {
        status = print_json(hd_kb_answer_json(&answer));
    } else {
        print_answer(answer.answer);
        print_citations(&answer);
    }
    hd_kb_answer_dispose(&answer);
    return status;
}

static int run_ask(const struct kb_args *args)
{
    struct hd_errmsg msg = {0};
    struct hd_kb *kb = NULL;
    struct hd_engine *engine = NULL;
    struct hd_model_info info;
    char *question = joined_args(args), *line = NULL;
    size_t cap = 0;
    enum hd_err err = open_base(&kb, args, false, &msg);
    if (!err)
        err = start_engine(&engine, &info, args, &msg);
    int status = err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
    if (!err && question) {
        status = ask_one(args, kb, engine, question);
    } else if (!err) { /* one question per line on stdin */
        ssize_t n;
        while (!status && (n = getline(&line, &cap, stdin)) > 0) {
            if (line[n - 1] == '\n')
                line[n - 1] = '\0';
            status = ask_one(args, kb, engine, line);
        }
    }
    hd_engine_free(engine);
    hd_kb_close(kb);
    free(question);
    free(line);
    return status;
}

static const struct {
    const char *name;
    int (*run)(const struct kb_args *args);
} verbs[] = {
    {"create", run_create}, {"add", run_add},       {"list", run_list},
    {"remove", run_remove}, {"search", run_search}, {"ask", run_ask},
};

int hd_cmd_kb(struct hd_app *app)
{
    const char *verb = hd_options_positional(app->options, 0);
    if (!verb)
        return usage("what? create, add, list, remove, search or ask");
    const char *dir = hd_options_str(app->options, "kb");
    struct kb_args args = {.app = app,
                           .who = HD_PRINCIPAL_LOCAL,
                           .dir = dir ? strdup(dir) : hd_path_join(app->home, "kb"),
                           .name = hd_options_str(app->options, "name"),
                           .n_arg = hd_options_n_positional(app->options) - 1};
    if (!args.dir)
        return hd_app_fail(HD_ERR_NOMEM, NULL);
    int status = -1;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs && status < 0; i++)
        if (!strcmp(verbs[i].name, verb))
            status = verbs[i].run(&args);
    if (status < 0)
        status = usage("knows create, add, list, remove, search and ask");
    free(args.dir);
    return status;
}
