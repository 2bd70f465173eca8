/* Filters over lists and dicts. */
#include <stdlib.h>

#include "token/jinja/jinja_impl.h"

static jv as_list(struct hd_jinja__list *list)
{
    return (jv){.kind = JV_LIST, .u.list = list};
}

static jv filter_list(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    struct hd_jinja__list *from = hd_jinja__iterate(run, input);
    struct hd_jinja__list *list = run->err ? NULL : hd_jinja__new_list(run, from->n);
    if (run->err)
        return hd_jinja__undefined(NULL);
    list->n = from->n;
    if (from->n)
        memcpy(list->item, from->item, from->n * sizeof *list->item);
    return as_list(list);
}

static jv filter_first(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    struct hd_jinja__list *list = hd_jinja__iterate(run, input);
    return run->err || !list->n ? hd_jinja__undefined("the first element") : list->item[0];
}

static jv filter_last(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    struct hd_jinja__list *list = hd_jinja__iterate(run, input);
    return run->err || !list->n ? hd_jinja__undefined("the last element") : list->item[list->n - 1];
}

static jv filter_reverse(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    jv none = hd_jinja__undefined(NULL);
    if (input.kind == JV_STR || input.kind == JV_LIST)
        return hd_jinja__slice(run, input, none, none, hd_jinja__int(-1));
    struct hd_jinja__list *list = hd_jinja__iterate(run, input);
    return run->err ? none : hd_jinja__slice(run, as_list(list), none, none, hd_jinja__int(-1));
}

/* "a.b.0" of an element: items first, as Jinja's attribute getters look. */
static jv dotted(struct hd_jinja_run *run, jv item, jv path)
{
    if (path.kind == JV_INT)
        return hd_jinja__item(run, item, path);
    const struct hd_jinja__str *s = hd_jinja__to_str(run, path);
    for (size_t at = 0; at <= s->len && !run->err;) {
        const char *dot = at < s->len ? memchr(s->data + at, '.', s->len - at) : NULL;
        size_t end = dot ? (size_t)(dot - s->data) : s->len, digits = 0;
        int64_t index = 0;
        while (at + digits < end && digits < 9 && s->data[at + digits] >= '0' &&
               s->data[at + digits] <= '9')
            index = index * 10 + (s->data[at + digits++] - '0');
        jv key =
            digits && at + digits == end ? hd_jinja__int(index) : hd_jinja__cut(run, s, at, end);
        if (!run->err)
            item = hd_jinja__item(run, item, key);
        at = end + 1;
    }
    return item;
}

static jv filter_join(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    struct hd_jinja__list *list = hd_jinja__iterate(run, input);
    const struct hd_jinja__str *by = hd_jinja__to_str(run, hd_jinja__arg(args, 0, "d"));
    jv path = hd_jinja__arg(args, 1, "attribute");
    struct hd_jinja__text out;
    hd_jinja__text_init(run, &out);
    for (size_t i = 0; !run->err && i < list->n; i++) {
        jv item = list->item[i];
        if (path.kind != JV_UNDEFINED && path.kind != JV_NONE)
            item = dotted(run, item, path);
        if (i)
            hd_jinja__text_add(run, &out, by);
        hd_jinja__put_value(run, &out, item);
    }
    return hd_jinja__text_take(run, &out);
}

static jv pair(struct hd_jinja_run *run, jv key, jv value)
{
    struct hd_jinja__list *list = hd_jinja__new_list(run, 2);
    if (run->err)
        return hd_jinja__undefined(NULL);
    list->tuple = true;
    list->n = 2;
    list->item[0] = key;
    list->item[1] = value;
    return as_list(list);
}

static jv filter_items(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    jv out = hd_jinja_list(run);
    if (input.kind != JV_DICT && input.kind != JV_UNDEFINED)
        hd_jinja__fail(run, HD_ERR_INVALID, "items of %s", hd_jinja__type_name(input));
    for (size_t i = 0; input.kind == JV_DICT && i < input.u.dict->n && !run->err; i++)
        hd_jinja_push(run, out,
                      pair(run, input.u.dict->entry[i].key, input.u.dict->entry[i].value));
    return out;
}

/* --- map, select, reject ---------------------------------------------------------------------- */

/* What these filters go over: nothing where the input is false, even where it is none. */
static struct hd_jinja__list *elements(struct hd_jinja_run *run, jv input)
{
    return hd_jinja__truth(input) ? hd_jinja__iterate(run, input) : hd_jinja__new_list(run, 0);
}

/* The arguments behind the first `skip` positional ones. */
static struct hd_jinja__args behind(const struct hd_jinja__args *args, size_t skip)
{
    if (skip >= args->n)
        return (struct hd_jinja__args){0};
    return (struct hd_jinja__args){args->value + skip, args->name + skip, args->n - skip};
}

static const char *name_of(struct hd_jinja_run *run, jv value)
{
    const struct hd_jinja__str *s = hd_jinja__to_str(run, value);
    char *copy = hd_jinja__make(run, s->len + 1);
    if (!copy)
        return "";
    memcpy(copy, s->data, s->len);
    copy[s->len] = 0;
    return copy;
}

static jv filter_map(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    struct hd_jinja__list *list = elements(run, input);
    jv path = hd_jinja__arg(args, SIZE_MAX, "attribute");
    jv standard = hd_jinja__arg(args, SIZE_MAX, "default"), out = hd_jinja_list(run);
    bool by_attribute = path.kind != JV_UNDEFINED;
    if (!by_attribute && !args->n)
        hd_jinja__fail(run, HD_ERR_INVALID, "map needs a filter or an attribute");
    const struct hd_jinja__args rest = behind(args, 1);
    const char *name = by_attribute || run->err ? "" : name_of(run, args->value[0]);
    for (size_t i = 0; !run->err && i < list->n && hd_jinja__step(run, 1); i++) {
        jv item = by_attribute ? dotted(run, list->item[i], path)
                               : hd_jinja__filter(run, name, list->item[i], &rest);
        if (by_attribute && item.kind == JV_UNDEFINED && standard.kind != JV_UNDEFINED)
            item = standard;
        hd_jinja_push(run, out, item);
    }
    return out;
}

/* select, reject, selectattr, rejectattr. */
static jv pick(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args,
               bool attribute, bool wanted)
{
    struct hd_jinja__list *list = elements(run, input);
    jv out = hd_jinja_list(run), path = hd_jinja__arg(args, 0, NULL);
    size_t skip = attribute;
    if (attribute && path.kind == JV_UNDEFINED)
        hd_jinja__fail(run, HD_ERR_INVALID, "an attribute's name is missing");
    const struct hd_jinja__args rest = behind(args, skip + 1);
    const char *test = !run->err && args->n > skip ? name_of(run, args->value[skip]) : NULL;
    for (size_t i = 0; !run->err && i < list->n && hd_jinja__step(run, 1); i++) {
        jv value = attribute ? dotted(run, list->item[i], path) : list->item[i];
        bool holds = run->err ? false
                     : test   ? hd_jinja__test(run, test, value, &rest)
                              : hd_jinja__truth(value);
        if (holds == wanted)
            hd_jinja_push(run, out, list->item[i]);
    }
    return out;
}

static jv filter_select(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return pick(run, input, args, false, true);
}

static jv filter_reject(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return pick(run, input, args, false, false);
}

static jv filter_selectattr(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return pick(run, input, args, true, true);
}

static jv filter_rejectattr(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return pick(run, input, args, true, false);
}

/* --- sorting ---------------------------------------------------------------------------------- */

struct keyed {
    jv key, item;
};

/* Merge sort: stable, and an error in a comparison does no harm. */
static void sort(struct hd_jinja_run *run, struct keyed *items, struct keyed *scratch, size_t n,
                 bool reverse)
{
    size_t half = n / 2;
    if (n < 2 || !hd_jinja__step(run, n))
        return;
    sort(run, items, scratch, half, reverse);
    sort(run, items + half, scratch, n - half, reverse);
    for (size_t i = 0, j = half, k = 0; k < n; k++) {
        int order = i < half && j < n ? hd_jinja__order(run, items[i].key, items[j].key) : 0;
        bool left = j >= n || (i < half && (reverse ? order >= 0 : order <= 0));
        scratch[k] = items[left ? i++ : j++];
    }
    memcpy(items, scratch, n * sizeof *items);
}

static jv sort_key(struct hd_jinja_run *run, jv key, bool sensitive)
{
    return key.kind == JV_STR && !sensitive ? hd_jinja__case(run, key.u.str, CASE_LOWER) : key;
}

static jv sorted(struct hd_jinja_run *run, struct hd_jinja__list *list, jv path, bool sensitive,
                 bool reverse)
{
    struct keyed *items = hd_jinja__make(run, (list->n + 1) * 2 * sizeof *items);
    struct hd_jinja__list *out = hd_jinja__new_list(run, list->n);
    for (size_t i = 0; i < list->n && !run->err; i++) {
        jv key = path.kind == JV_UNDEFINED || path.kind == JV_NONE
                     ? list->item[i]
                     : dotted(run, list->item[i], path);
        items[i] = (struct keyed){run->err ? key : sort_key(run, key, sensitive), list->item[i]};
    }
    if (run->err)
        return hd_jinja__undefined(NULL);
    sort(run, items, items + list->n, list->n, reverse);
    for (size_t i = 0; i < list->n; i++)
        out->item[i] = items[i].item;
    out->n = list->n;
    return as_list(out);
}

static jv filter_sort(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    struct hd_jinja__list *list = hd_jinja__iterate(run, input);
    if (run->err)
        return input;
    return sorted(run, list, hd_jinja__arg(args, 2, "attribute"),
                  hd_jinja__truth(hd_jinja__arg(args, 1, "case_sensitive")),
                  hd_jinja__truth(hd_jinja__arg(args, 0, "reverse")));
}

static jv filter_dictsort(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    jv by = hd_jinja__arg(args, 1, "by"), items = filter_items(run, input, args);
    bool value = by.kind == JV_STR && hd_jinja__is(by.u.str, "value");
    if (run->err)
        return input;
    return sorted(run, items.u.list, hd_jinja__int(value),
                  hd_jinja__truth(hd_jinja__arg(args, 0, "case_sensitive")),
                  hd_jinja__truth(hd_jinja__arg(args, 2, "reverse")));
}

static jv filter_unique(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    struct hd_jinja__list *list = hd_jinja__iterate(run, input);
    bool sensitive = hd_jinja__truth(hd_jinja__arg(args, 0, "case_sensitive"));
    jv path = hd_jinja__arg(args, 1, "attribute");
    jv out = hd_jinja_list(run), seen = hd_jinja_list(run);
    for (size_t i = 0; !run->err && i < list->n; i++) {
        jv key = path.kind == JV_UNDEFINED || path.kind == JV_NONE
                     ? list->item[i]
                     : dotted(run, list->item[i], path);
        key = run->err ? key : sort_key(run, key, sensitive);
        if (run->err || hd_jinja__contains(run, key, seen))
            continue;
        hd_jinja_push(run, seen, key);
        hd_jinja_push(run, out, list->item[i]);
    }
    return out;
}

static jv extreme(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args, int sign)
{
    struct hd_jinja__list *list = hd_jinja__iterate(run, input);
    if (run->err || !list->n)
        return hd_jinja__undefined("the greatest or least element");
    jv all = sorted(run, list, hd_jinja__arg(args, 1, "attribute"),
                    hd_jinja__truth(hd_jinja__arg(args, 0, "case_sensitive")), sign > 0);
    return run->err ? all : all.u.list->item[0];
}

static jv filter_max(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return extreme(run, input, args, 1);
}

static jv filter_min(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return extreme(run, input, args, -1);
}

static jv filter_sum(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    struct hd_jinja__list *list = hd_jinja__iterate(run, input);
    jv path = hd_jinja__arg(args, 0, "attribute"), out = hd_jinja__arg(args, 1, "start");
    out = out.kind == JV_UNDEFINED ? hd_jinja__int(0) : out;
    for (size_t i = 0; !run->err && i < list->n; i++) {
        jv item = path.kind == JV_UNDEFINED || path.kind == JV_NONE
                      ? list->item[i]
                      : dotted(run, list->item[i], path);
        if (!run->err)
            out = hd_jinja__binary(run, OP_ADD, out, item);
    }
    return out;
}

static const struct {
    const char *name;
    hd_jinja__filter_fn fn;
} filters[] = {
    {"dictsort", filter_dictsort},
    {"first", filter_first},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"list", filter_list},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"reject", filter_reject},
    {"rejectattr", filter_rejectattr},
    {"reverse", filter_reverse},
    {"select", filter_select},
    {"selectattr", filter_selectattr},
    {"sort", filter_sort},
    {"sum", filter_sum},
    {"unique", filter_unique},
};

hd_jinja__filter_fn hd_jinja__sequence_filter(const char *name)
{
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (!strcmp(filters[i].name, name))
            return filters[i].fn;
    return NULL;
}
