/* Memory, values, and strings that know which of their bytes come from the request. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/checked.h"
#include "token/jinja/jinja_impl.h"

enum { CHUNK = 16384, ALIGN = 16, MAX_JSON_DEPTH = 128 };

struct hd_jinja__chunk {
    struct hd_jinja__chunk *next;
    size_t used, size;
    _Alignas(ALIGN) char data[];
};

void *hd_jinja__alloc(struct hd_jinja__arena *arena, size_t size)
{
    struct hd_jinja__chunk *chunk = arena->chunk;
    if (size > arena->max - arena->used)
        return NULL;
    size = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (!chunk || size > chunk->size - chunk->used) {
        size_t room = size > CHUNK / 4 ? size : CHUNK;
        chunk = malloc(sizeof *chunk + room);
        if (!chunk)
            return NULL;
        chunk->used = 0;
        chunk->size = room;
        /* A large block of its own goes behind the chunk that still has room. */
        if (room != CHUNK && arena->chunk) {
            chunk->next = arena->chunk->next;
            arena->chunk->next = chunk;
        } else {
            chunk->next = arena->chunk;
            arena->chunk = chunk;
        }
    }
    void *out = chunk->data + chunk->used;
    chunk->used += size;
    arena->used = size > arena->max - arena->used ? arena->max : arena->used + size;
    return out;
}

void hd_jinja__arena_dispose(struct hd_jinja__arena *arena)
{
    for (struct hd_jinja__chunk *chunk = arena->chunk, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    arena->chunk = NULL;
}

/* --- the run's errors ------------------------------------------------------------------------- */

void hd_jinja__fail(struct hd_jinja_run *run, enum hd_err err, const char *fmt, ...)
{
    char why[384];
    va_list ap;
    if (run->err)
        return;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    run->err = hd_fail(&run->msg, err, "line %d: %s", run->line, why);
}

bool hd_jinja__step(struct hd_jinja_run *run, size_t n)
{
    run->steps += n;
    if (run->steps > run->limits.max_steps && !run->err)
        hd_jinja__fail(run, HD_ERR_INVALID, "the template takes more than %zu steps",
                       run->limits.max_steps);
    return !run->err;
}

void *hd_jinja__make(struct hd_jinja_run *run, size_t size)
{
    void *out = run->err ? NULL : hd_jinja__alloc(&run->arena, size);
    if (!out && !run->err)
        hd_jinja__fail(run, HD_ERR_LIMIT, "the template needs more than %zu bytes of memory",
                       run->limits.max_memory);
    return out;
}

/* --- plain values ----------------------------------------------------------------------------- */

jv hd_jinja__undefined(const char *name)
{
    return (jv){.kind = JV_UNDEFINED, .u.name = name};
}

jv hd_jinja_none(void)
{
    return (jv){.kind = JV_NONE};
}

jv hd_jinja_bool(bool b)
{
    return (jv){.kind = JV_BOOL, .u.b = b};
}

jv hd_jinja__int(int64_t i)
{
    return (jv){.kind = JV_INT, .u.i = i};
}

jv hd_jinja__real(double f)
{
    return (jv){.kind = JV_REAL, .u.f = f};
}

jv hd_jinja__str(struct hd_jinja_run *run, const char *data, const unsigned char *mask, size_t len,
                 bool request)
{
    struct hd_jinja__str *s = hd_jinja__make(run, sizeof *s);
    if (!s)
        return hd_jinja__undefined(NULL);
    *s = (struct hd_jinja__str){data, mask, len, request};
    return (jv){.kind = JV_STR, .u.str = s};
}

jv hd_jinja_string(struct hd_jinja_run *run, const char *text, size_t len, bool request)
{
    return hd_jinja__str(run, text, NULL, len, request);
}

jv hd_jinja__own(struct hd_jinja_run *run, const char *text)
{
    return hd_jinja__str(run, text, NULL, strlen(text), false);
}

jv hd_jinja_text(struct hd_jinja_run *run, const struct hd_jinja_output *text)
{
    return hd_jinja__str(run, text->text, text->mask, text->len, text->request);
}

jv hd_jinja__cut(struct hd_jinja_run *run, const struct hd_jinja__str *s, size_t from, size_t to)
{
    return hd_jinja__str(run, s->data + from, s->mask ? s->mask + from : NULL, to - from,
                         s->request);
}

jv hd_jinja__concat(struct hd_jinja_run *run, const struct hd_jinja__str *a,
                    const struct hd_jinja__str *b)
{
    struct hd_jinja__text text;
    if (!a->len || !b->len)
        return (jv){.kind = JV_STR, .u.str = a->len ? a : b};
    hd_jinja__text_init(run, &text);
    hd_jinja__text_add(run, &text, a);
    hd_jinja__text_add(run, &text, b);
    return hd_jinja__text_take(run, &text);
}

/* --- lists and dicts -------------------------------------------------------------------------- */

static bool grow(struct hd_jinja_run *run, void **items, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 8, bytes;
    if (!hd_mul(&bytes, more, size)) {
        hd_jinja__fail(run, HD_ERR_LIMIT, "a list is too long");
        return false;
    }
    void *grown = hd_jinja__make(run, bytes);
    if (!grown)
        return false;
    if (n)
        memcpy(grown, *items, n * size);
    *items = grown;
    *cap = more;
    return true;
}

struct hd_jinja__list *hd_jinja__new_list(struct hd_jinja_run *run, size_t cap)
{
    struct hd_jinja__list *list = hd_jinja__make(run, sizeof *list);
    size_t bytes;
    if (!list)
        return NULL;
    *list = (struct hd_jinja__list){0};
    if (cap && hd_mul(&bytes, cap, sizeof *list->item)) {
        list->item = hd_jinja__make(run, bytes);
        list->cap = list->item ? cap : 0;
    }
    return list;
}

jv hd_jinja_list(struct hd_jinja_run *run)
{
    struct hd_jinja__list *list = hd_jinja__new_list(run, 0);
    return list ? (jv){.kind = JV_LIST, .u.list = list} : hd_jinja__undefined(NULL);
}

void hd_jinja_push(struct hd_jinja_run *run, jv list, jv item)
{
    if (run->err || list.kind != JV_LIST)
        return;
    struct hd_jinja__list *l = list.u.list;
    void *items = l->item;
    if (grow(run, &items, l->n, &l->cap, sizeof *l->item)) {
        l->item = items;
        l->item[l->n++] = item;
    }
}

jv hd_jinja_dict(struct hd_jinja_run *run)
{
    struct hd_jinja__dict *dict = hd_jinja__make(run, sizeof *dict);
    if (!dict)
        return hd_jinja__undefined(NULL);
    *dict = (struct hd_jinja__dict){0};
    return (jv){.kind = JV_DICT, .u.dict = dict};
}

struct hd_jinja__entry *hd_jinja__dict_find(struct hd_jinja_run *run,
                                            const struct hd_jinja__dict *dict, jv key)
{
    if (!hd_jinja__step(run, dict->n / 8))
        return NULL;
    for (size_t i = 0; i < dict->n; i++)
        if (hd_jinja__equal(run, dict->entry[i].key, key))
            return &dict->entry[i];
    return NULL;
}

static void dict_append(struct hd_jinja_run *run, struct hd_jinja__dict *dict, jv key, jv value)
{
    void *entries = dict->entry;
    if (!run->err && grow(run, &entries, dict->n, &dict->cap, sizeof *dict->entry)) {
        dict->entry = entries;
        dict->entry[dict->n++] = (struct hd_jinja__entry){key, value};
    }
}

void hd_jinja__dict_put(struct hd_jinja_run *run, struct hd_jinja__dict *dict, jv key, jv value)
{
    struct hd_jinja__entry *entry = hd_jinja__dict_find(run, dict, key);
    if (entry)
        entry->value = value;
    else
        dict_append(run, dict, key, value);
}

void hd_jinja_put(struct hd_jinja_run *run, jv dict, const char *key, jv value)
{
    if (!run->err && dict.kind == JV_DICT)
        hd_jinja__dict_put(run, dict.u.dict, hd_jinja__own(run, key), value);
}

void hd_jinja_dict_text(struct hd_jinja_run *run, jv dict, const char *text, size_t len)
{
    jv string = hd_jinja_string(run, text, len, true);
    if (!run->err && dict.kind == JV_DICT)
        dict.u.dict->text = string.u.str;
}

static jv from_json(struct hd_jinja_run *run, const json_t *json, bool request, int depth);

static jv from_object(struct hd_jinja_run *run, const json_t *json, bool request, int depth)
{
    jv out = hd_jinja_dict(run);
    /* jansson's iteration does not change the object, it only lacks the const. */
    json_t *object = (json_t *)(uintptr_t)json, *value;
    const char *key;
    json_object_foreach(object, key, value)
    {
        if (run->err)
            break;
        jv name = hd_jinja_string(run, key, strlen(key), request);
        dict_append(run, out.u.dict, name, from_json(run, value, request, depth + 1));
    }
    return out;
}

static jv from_json(struct hd_jinja_run *run, const json_t *json, bool request, int depth)
{
    jv out;
    if (depth > MAX_JSON_DEPTH) {
        hd_jinja__fail(run, HD_ERR_LIMIT, "a value is nested more than %d levels deep",
                       MAX_JSON_DEPTH);
        return hd_jinja__undefined(NULL);
    }
    switch (json ? json_typeof(json) : JSON_NULL) {
    case JSON_OBJECT:
        return from_object(run, json, request, depth);
    case JSON_ARRAY:
        out = hd_jinja_list(run);
        for (size_t i = 0; i < json_array_size(json) && !run->err; i++)
            hd_jinja_push(run, out, from_json(run, json_array_get(json, i), request, depth + 1));
        return out;
    case JSON_STRING:
        return hd_jinja_string(run, json_string_value(json), json_string_length(json), request);
    case JSON_INTEGER:
        return hd_jinja__int(json_integer_value(json));
    case JSON_REAL:
        return hd_jinja__real(json_real_value(json));
    case JSON_TRUE:
    case JSON_FALSE:
        return hd_jinja_bool(json_is_true(json));
    default:
        return hd_jinja_none();
    }
}

jv hd_jinja_json(struct hd_jinja_run *run, const json_t *json, bool request)
{
    return from_json(run, json, request, 0);
}

/* --- strings in the making -------------------------------------------------------------------- */

void hd_jinja__text_init(struct hd_jinja_run *run, struct hd_jinja__text *text)
{
    size_t left = run->arena.max - run->arena.used;
    *text = (struct hd_jinja__text){0};
    hd_buf_init(&text->text, left ? left : 1);
    hd_buf_init(&text->mask, left ? left : 1);
}

void hd_jinja__text_dispose(struct hd_jinja__text *text)
{
    hd_buf_dispose(&text->text);
    hd_buf_dispose(&text->mask);
}

static void put_mask(struct hd_buf *mask, bool request, size_t len)
{
    char *at = hd_buf_reserve(mask, len);
    if (at) {
        memset(at, request, len);
        mask->len += len;
    }
}

/* From here on the bytes differ: those so far get their marks. */
static void mix(struct hd_jinja__text *text)
{
    put_mask(&text->mask, text->request, text->text.len);
    text->mixed = true;
}

static void check_text(struct hd_jinja_run *run, const struct hd_jinja__text *text)
{
    enum hd_err err = text->text.err ? text->text.err : text->mask.err;
    if (err && !run->err)
        hd_jinja__fail(run, err,
                       err == HD_ERR_LIMIT ? "the text becomes too long" : "out of memory");
}

void hd_jinja__text_put(struct hd_jinja_run *run, struct hd_jinja__text *text, const char *data,
                        size_t len, bool request)
{
    if (!len || !hd_jinja__step(run, len / 64))
        return;
    if (!text->text.len)
        text->request = request;
    if (!text->mixed && text->request != request)
        mix(text);
    if (text->mixed)
        put_mask(&text->mask, request, len);
    hd_buf_append(&text->text, data, len);
    check_text(run, text);
}

void hd_jinja__text_add(struct hd_jinja_run *run, struct hd_jinja__text *text,
                        const struct hd_jinja__str *s)
{
    if (!s->mask) {
        hd_jinja__text_put(run, text, s->data, s->len, s->request);
        return;
    }
    if (!s->len || !hd_jinja__step(run, s->len / 64))
        return;
    if (!text->mixed)
        mix(text);
    hd_buf_append(&text->mask, s->mask, s->len);
    hd_buf_append(&text->text, s->data, s->len);
    check_text(run, text);
}

jv hd_jinja__text_take(struct hd_jinja_run *run, struct hd_jinja__text *text)
{
    size_t len = text->text.len;
    char *data = hd_jinja__make(run, len + 1);
    unsigned char *mask = text->mixed ? hd_jinja__make(run, len + 1) : NULL;
    jv out = hd_jinja__undefined(NULL);
    if (data && (mask || !text->mixed)) {
        memcpy(data, hd_buf_str(&text->text), len + 1);
        if (mask)
            memcpy(mask, hd_buf_str(&text->mask), len);
        out = hd_jinja__str(run, data, mask, len, text->request);
    }
    hd_jinja__text_dispose(text);
    return out;
}
