/* Streams that can be taken up again: what was sent, and what it takes to go on.
 *
 *   live   a generation sends and notes its events here
 *   cut    its client left: the generation was cancelled, its place is free. Going on means asking
 *          again with the same body and seed, which gives the same text, and leaving out what is
 *          here already
 *   done   everything is here
 *
 * A record lives for a minute after it stopped being live, or until the room is needed: oldest
 * first. All fields are guarded by one mutex, which is never held while another is taken. */
#include "api/api_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum {
    KEEP_S = 60,
    MAX_RECORDS = 1024,
    MAX_BODY = 4 << 20,
    MAX_EVENTS = 192 << 10, /* of one stream; of longer ones the latest */
    MAX_ALL = 64 << 20,
    MAX_COUNT = 4 << 20, /* of events of one stream */
};

struct hd_api__stream {
    struct hd_api__stream *next; /* newest first */
    int refs;                    /* the table's, and each generation's */
    bool listed, live, done;
    char id[48];
    char *tenant, *key_id;
    const void *owner;  /* the generation whose events count */
    uint64_t engine_id; /* of the first of n_engine answers */
    int n_engine;
    struct hd_api__stream_request request;
    struct hd_buf events;      /* [n_first, n_event) */
    unsigned n_first, n_event; /* events before n_first are forgotten: they are computed again */
    struct hd_buf choices;     /* [n_event] bytes: whose each event is */
    double since;              /* it stopped being live */
};

struct hd_api__streams {
    pthread_mutex_t mu;
    struct hd_api__stream *list;
    size_t n, bytes;
};

enum hd_err hd_api__streams_new(struct hd_api__streams **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return HD_ERR_NOMEM;
    pthread_mutex_init(&(*out)->mu, NULL);
    return HD_OK;
}

static void unref_locked(struct hd_api__stream *s)
{
    if (--s->refs)
        return;
    hd_buf_dispose(&s->events);
    hd_buf_dispose(&s->choices);
    free(s->request.body);
    free(s->tenant);
    free(s->key_id);
    free(s);
}

static size_t bytes_of(const struct hd_api__stream *s)
{
    return s->request.len + s->events.len + s->choices.len + sizeof *s;
}

static void drop_locked(struct hd_api__streams *all, struct hd_api__stream **at)
{
    struct hd_api__stream *s = *at;
    *at = s->next;
    s->listed = false;
    all->n--;
    all->bytes -= bytes_of(s);
    unref_locked(s);
}

/* Ends what is too old, then the oldest until the rest fits. */
static void purge_locked(struct hd_api__streams *all)
{
    double now = hd_clock_seconds();
    for (struct hd_api__stream **at = &all->list; *at;)
        if (!(*at)->live && now - (*at)->since > KEEP_S)
            drop_locked(all, at);
        else
            at = &(*at)->next;
    while (all->list && (all->n > MAX_RECORDS || all->bytes > MAX_ALL)) {
        struct hd_api__stream **last = &all->list;
        while ((*last)->next)
            last = &(*last)->next;
        drop_locked(all, last);
    }
}

void hd_api__streams_free(struct hd_api__streams *all)
{
    if (!all)
        return;
    while (all->list)
        drop_locked(all, &all->list);
    pthread_mutex_destroy(&all->mu);
    free(all);
}

struct hd_api__stream *hd_api__stream_open(struct hd_api__streams *all, const void *owner,
                                           const char *id, const struct hd_principal *who,
                                           const struct hd_api__stream_request *request)
{
    struct hd_api__stream *s = request->len > MAX_BODY ? NULL : calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->refs = 2;
    s->listed = s->live = true;
    s->owner = owner;
    s->request = *request;
    s->request.body = malloc(request->len + 1);
    s->tenant = strdup(who->tenant);
    s->key_id = strdup(who->key_id);
    hd_buf_init(&s->events, 2 * MAX_EVENTS);
    hd_buf_init(&s->choices, MAX_COUNT);
    snprintf(s->id, sizeof s->id, "%s", id);
    if (!s->request.body || !s->tenant || !s->key_id) {
        s->refs = 1;
        unref_locked(s);
        return NULL;
    }
    memcpy(s->request.body, request->body, request->len);
    s->request.body[request->len] = 0;
    pthread_mutex_lock(&all->mu);
    s->next = all->list;
    all->list = s;
    all->n++;
    all->bytes += bytes_of(s);
    purge_locked(all);
    pthread_mutex_unlock(&all->mu);
    return s;
}

/* Forgets the older half, at the end of an event. */
static void shorten(struct hd_api__stream *s)
{
    struct hd_buf *b = &s->events;
    const char *half = hd_buf_str(b) + b->len / 2, *cut = strstr(half, "\n\n");
    const char *id = cut ? strstr(cut, "id: ") : NULL;
    if (!id) {
        hd_buf_clear(b);
        s->n_first = s->n_event;
        return;
    }
    s->n_first = (unsigned)strtoul(id + 4, NULL, 10);
    size_t gone = (size_t)(cut + 2 - b->data);
    memmove(b->data, b->data + gone, b->len - gone + 1); /* with the NUL */
    b->len -= gone;
}

void hd_api__stream_note(struct hd_api__streams *all, struct hd_api__stream *s, const void *owner,
                         unsigned n_event, int choice, const char *data, size_t len)
{
    pthread_mutex_lock(&all->mu);
    if (s->listed && s->owner == owner && n_event > s->n_event) {
        size_t before = bytes_of(s);
        while (s->choices.len < n_event && !s->choices.err)
            hd_buf_putc(&s->choices, (char)choice);
        if (len <= MAX_EVENTS) {
            hd_buf_append(&s->events, data, len);
            s->n_event = n_event;
        } else {
            hd_buf_clear(&s->events);
            s->n_first = s->n_event = n_event;
        }
        if (s->events.len > MAX_EVENTS)
            shorten(s);
        all->bytes = all->bytes - before + bytes_of(s);
        purge_locked(all);
    }
    pthread_mutex_unlock(&all->mu);
}

void hd_api__stream_submitted(struct hd_api__streams *all, struct hd_api__stream *s,
                              const void *owner, uint64_t engine_id, int n)
{
    pthread_mutex_lock(&all->mu);
    if (s->owner == owner) {
        s->engine_id = engine_id;
        s->n_engine = n;
    }
    pthread_mutex_unlock(&all->mu);
}

void hd_api__stream_close(struct hd_api__streams *all, struct hd_api__stream *s, const void *owner,
                          bool done)
{
    pthread_mutex_lock(&all->mu);
    if (s->owner == owner && s->live) {
        s->live = false;
        s->done = done;
        s->since = hd_clock_seconds();
    }
    pthread_mutex_unlock(&all->mu);
}

void hd_api__stream_unref(struct hd_api__streams *all, struct hd_api__stream *s)
{
    pthread_mutex_lock(&all->mu);
    unref_locked(s);
    pthread_mutex_unlock(&all->mu);
}

const char *hd_api__stream_after(const char *events, size_t len, long last)
{
    const char *at = events, *end = at + len;
    while (at < end) {
        const char *id = strstr(at, "id: "), *next = strstr(at, "\n\n");
        if (!next || !id || id > next || strtol(id + 4, NULL, 10) > last)
            break;
        at = next + 2;
    }
    return at;
}

enum hd_api__stream_state hd_api__stream_take(struct hd_api__streams *all,
                                              struct hd_api__stream **out, const void *owner,
                                              const char *id, const struct hd_principal *who,
                                              long last, struct hd_buf *replay,
                                              unsigned known[HD_ANSWERS_MAX], unsigned *n_replayed,
                                              uint64_t *cancel, int *n_cancel)
{
    enum hd_api__stream_state state = STREAM_NONE;
    *out = NULL;
    *cancel = 0;
    *n_cancel = 0;
    pthread_mutex_lock(&all->mu);
    purge_locked(all);
    struct hd_api__stream *s = all->list;
    while (s && strcmp(s->id, id))
        s = s->next;
    if (s && !strcmp(s->tenant, who->tenant) && !strcmp(s->key_id, who->key_id)) {
        bool forgotten = last + 1 < (long)s->n_first || s->events.err;
        const char *from = hd_api__stream_after(hd_buf_str(&s->events), s->events.len, last);
        *n_replayed = forgotten ? (unsigned)(last + 1) : s->n_event;
        if (!forgotten)
            hd_buf_append(replay, from, s->events.len - (size_t)(from - hd_buf_str(&s->events)));
        state = s->done && !forgotten ? STREAM_DONE : !s->choices.err ? STREAM_OPEN : STREAM_NONE;
        for (unsigned i = 0; i < *n_replayed && i < s->choices.len; i++)
            known[(unsigned char)s->choices.data[i] % HD_ANSWERS_MAX]++;
    }
    if (state == STREAM_OPEN) {
        *cancel = s->engine_id;
        *n_cancel = s->live && s->engine_id ? s->n_engine : 0;
        s->owner = owner;
        s->live = true;
        s->engine_id = 0;
        s->refs++;
        *out = s;
    }
    pthread_mutex_unlock(&all->mu);
    return state;
}

const struct hd_api__stream_request *hd_api__stream_request(const struct hd_api__stream *s)
{
    return &s->request; /* never changes */
}
