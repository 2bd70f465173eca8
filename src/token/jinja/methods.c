/* Methods of strings, lists, dicts, and the global functions. */
#include <time.h>
#include <unicode/uchar.h>

#include "base/utf8.h"
#include "token/jinja/jinja_impl.h"

typedef jv (*method_fn)(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args);

static const struct hd_jinja__str *str_arg(struct hd_jinja_run *run,
                                           const struct hd_jinja__args *args, size_t i)
{
    jv value = hd_jinja__arg(args, i, NULL);
    if (value.kind != JV_STR && !hd_jinja__fail_undefined(run, value))
        hd_jinja__fail(run, HD_ERR_INVALID, "a string is due, not %s", hd_jinja__type_name(value));
    return hd_jinja__to_str(run, run->err ? hd_jinja__undefined(NULL) : value);
}

static int64_t int_arg(const struct hd_jinja__args *args, size_t i, const char *name,
                       int64_t standard)
{
    jv value = hd_jinja__arg(args, i, name);
    return value.kind == JV_INT ? value.u.i : standard;
}

/* --- splitting -------------------------------------------------------------------------------- */

static jv split_at(struct hd_jinja_run *run, const struct hd_jinja__str *s,
                   const struct hd_jinja__str *by, int64_t most)
{
    jv out = hd_jinja_list(run);
    size_t done = 0;
    if (!by->len)
        hd_jinja__fail(run, HD_ERR_INVALID, "split: the separator is empty");
    while (!run->err && most--) {
        size_t at = hd_jinja__find(run, s, by, done);
        if (at == SIZE_MAX)
            break;
        hd_jinja_push(run, out, hd_jinja__cut(run, s, done, at));
        done = at + by->len;
    }
    hd_jinja_push(run, out, hd_jinja__cut(run, s, done, s->len));
    return out;
}

static size_t skip_spaces(const struct hd_jinja__str *s, size_t at, bool spaces)
{
    unsigned c;
    size_t step;
    while (at < s->len && (step = hd_utf8_decode(&c, s->data + at, s->len - at, NULL)) &&
           hd_jinja__is_space(c) == spaces)
        at += step;
    return at;
}

static jv split_words(struct hd_jinja_run *run, const struct hd_jinja__str *s, int64_t most)
{
    jv out = hd_jinja_list(run);
    hd_jinja__step(run, s->len / 16);
    for (size_t at = skip_spaces(s, 0, true); at < s->len && hd_jinja__step(run, 1);) {
        size_t end = most-- ? skip_spaces(s, at, false) : s->len;
        hd_jinja_push(run, out, hd_jinja__cut(run, s, at, end > at ? end : s->len));
        at = end > at ? skip_spaces(s, end, true) : s->len;
    }
    return out;
}

static jv str_split(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    jv by = hd_jinja__arg(args, 0, "sep");
    int64_t most = int_arg(args, 1, "maxsplit", -1);
    if (by.kind == JV_UNDEFINED || by.kind == JV_NONE)
        return split_words(run, self.u.str, most);
    return split_at(run, self.u.str,
                    str_arg(run, &(struct hd_jinja__args){&by, (const char *[]){NULL}, 1}, 0),
                    most);
}

static jv str_rsplit(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    jv all =
        str_split(run, self, &(struct hd_jinja__args){args->value, args->name, args->n ? 1 : 0});
    int64_t most = int_arg(args, 1, "maxsplit", -1);
    if (run->err || most < 0 || (int64_t)all.u.list->n <= most + 1)
        return all;
    if (hd_jinja__arg(args, 0, "sep").kind != JV_STR) {
        hd_jinja__fail(run, HD_ERR_UNSUPPORTED, "rsplit at white space is not supported");
        return all;
    }
    /* The first elements stay together: up to where the last but `most` one ends. */
    struct hd_jinja__list *list = all.u.list, *out = hd_jinja__new_list(run, (size_t)most + 1);
    if (run->err)
        return all;
    const struct hd_jinja__str *last = list->item[list->n - 1 - (size_t)most].u.str;
    size_t end = (size_t)(last->data + last->len - self.u.str->data);
    out->item[0] = hd_jinja__cut(run, self.u.str, 0, end);
    for (size_t i = 1; i <= (size_t)most; i++)
        out->item[i] = list->item[list->n - 1 - (size_t)most + i];
    out->n = (size_t)most + 1;
    return (jv){.kind = JV_LIST, .u.list = out};
}

static jv str_splitlines(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    const struct hd_jinja__str *s = self.u.str;
    jv out = hd_jinja_list(run);
    bool keeps = hd_jinja__truth(hd_jinja__arg(args, 0, "keepends"));
    for (size_t at = 0; at < s->len && hd_jinja__step(run, 1);) {
        size_t end = at;
        while (end < s->len && s->data[end] != '\n' && s->data[end] != '\r')
            end++;
        size_t next = end + (end < s->len);
        next += next < s->len && s->data[next - 1] == '\r' && s->data[next] == '\n';
        hd_jinja_push(run, out, hd_jinja__cut(run, s, at, keeps ? next : end));
        at = next;
    }
    return out;
}

static jv parts_of(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args, bool last)
{
    const struct hd_jinja__str *s = self.u.str, *by = str_arg(run, args, 0);
    struct hd_jinja__list *out = hd_jinja__new_list(run, 3);
    if (run->err)
        return self;
    size_t at = last ? hd_jinja__find_last(run, s, by) : hd_jinja__find(run, s, by, 0);
    bool found = at != SIZE_MAX;
    size_t cut = found ? at : last ? 0 : s->len, behind = found ? at + by->len : cut;
    out->tuple = true;
    out->n = 3;
    out->item[0] = hd_jinja__cut(run, s, 0, cut);
    out->item[1] = hd_jinja__cut(run, s, cut, behind);
    out->item[2] = hd_jinja__cut(run, s, behind, s->len);
    return (jv){.kind = JV_LIST, .u.list = out};
}

static jv str_partition(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return parts_of(run, self, args, false);
}

static jv str_rpartition(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return parts_of(run, self, args, true);
}

/* --- trimming, case --------------------------------------------------------------------------- */

static jv str_strip(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja__strip(run, self.u.str, hd_jinja__arg(args, 0, NULL), STRIP_BOTH);
}

static jv str_lstrip(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja__strip(run, self.u.str, hd_jinja__arg(args, 0, NULL), STRIP_LEFT);
}

static jv str_rstrip(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja__strip(run, self.u.str, hd_jinja__arg(args, 0, NULL), STRIP_RIGHT);
}

static jv str_lower(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja__case(run, self.u.str, CASE_LOWER);
}

static jv str_upper(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja__case(run, self.u.str, CASE_UPPER);
}

static jv str_capitalize(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja__case(run, self.u.str, CASE_CAPITALIZE);
}

static jv str_title(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja__case(run, self.u.str, CASE_TITLE);
}

/* --- searching -------------------------------------------------------------------------------- */

static bool has_edge(const struct hd_jinja__str *s, const struct hd_jinja__str *edge, bool end)
{
    return edge->len <= s->len &&
           !memcmp(s->data + (end ? s->len - edge->len : 0), edge->data, edge->len);
}

static jv edge_test(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args, bool end)
{
    jv edges = hd_jinja__arg(args, 0, NULL);
    if (edges.kind != JV_LIST)
        return hd_jinja_bool(has_edge(self.u.str, str_arg(run, args, 0), end));
    for (size_t i = 0; i < edges.u.list->n && hd_jinja__step(run, 1); i++)
        if (edges.u.list->item[i].kind == JV_STR &&
            has_edge(self.u.str, edges.u.list->item[i].u.str, end))
            return hd_jinja_bool(true);
    return hd_jinja_bool(false);
}

static jv str_startswith(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return edge_test(run, self, args, false);
}

static jv str_endswith(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return edge_test(run, self, args, true);
}

static jv position(struct hd_jinja_run *run, const struct hd_jinja__str *s, size_t at)
{
    if (at == SIZE_MAX)
        return hd_jinja__int(-1);
    hd_jinja__step(run, at / 64);
    return hd_jinja__int((int64_t)hd_utf8_count(s->data, at));
}

static jv str_find(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return position(run, self.u.str, hd_jinja__find(run, self.u.str, str_arg(run, args, 0), 0));
}

static jv str_rfind(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return position(run, self.u.str, hd_jinja__find_last(run, self.u.str, str_arg(run, args, 0)));
}

static jv str_index(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    jv at = str_find(run, self, args);
    if (at.u.i < 0)
        hd_jinja__fail(run, HD_ERR_INVALID, "index: the text is not there");
    return at;
}

static jv str_count(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    const struct hd_jinja__str *what = str_arg(run, args, 0);
    int64_t n = 0;
    if (!what->len)
        return hd_jinja__int(hd_jinja__length(run, self) + 1);
    for (size_t at = 0; (at = hd_jinja__find(run, self.u.str, what, at)) != SIZE_MAX; n++)
        at += what->len;
    return hd_jinja__int(n);
}

static jv str_replace(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja__replace(run, self.u.str, str_arg(run, args, 0), str_arg(run, args, 1),
                             int_arg(args, 2, "count", -1));
}

static jv str_join(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    struct hd_jinja__list *list = hd_jinja__iterate(run, hd_jinja__arg(args, 0, NULL));
    struct hd_jinja__text out;
    hd_jinja__text_init(run, &out);
    for (size_t i = 0; !run->err && i < list->n; i++) {
        if (list->item[i].kind != JV_STR)
            hd_jinja__fail(run, HD_ERR_INVALID, "join: %s among the strings",
                           hd_jinja__type_name(list->item[i]));
        if (i)
            hd_jinja__text_add(run, &out, self.u.str);
        if (!run->err)
            hd_jinja__text_add(run, &out, list->item[i].u.str);
    }
    return hd_jinja__text_take(run, &out);
}

static jv str_removeprefix(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    const struct hd_jinja__str *s = self.u.str, *edge = str_arg(run, args, 0);
    return has_edge(s, edge, false) ? hd_jinja__cut(run, s, edge->len, s->len) : self;
}

static jv str_removesuffix(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    const struct hd_jinja__str *s = self.u.str, *edge = str_arg(run, args, 0);
    return has_edge(s, edge, true) ? hd_jinja__cut(run, s, 0, s->len - edge->len) : self;
}

static bool all_of(struct hd_jinja_run *run, const struct hd_jinja__str *s, bool (*is)(UChar32))
{
    for (size_t at = 0; at < s->len && hd_jinja__step(run, 1);) {
        unsigned c = 0;
        size_t step = hd_utf8_decode(&c, s->data + at, s->len - at, NULL);
        if (!step || !is((UChar32)c))
            return false;
        at += step;
    }
    return s->len;
}

static bool is_digit(UChar32 c)
{
    return u_isdigit(c);
}

static bool is_alpha(UChar32 c)
{
    return u_isalpha(c);
}

static bool is_space(UChar32 c)
{
    return hd_jinja__is_space((unsigned)c);
}

static jv str_isdigit(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja_bool(all_of(run, self.u.str, is_digit));
}

static jv str_isalpha(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja_bool(all_of(run, self.u.str, is_alpha));
}

static jv str_isspace(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja_bool(all_of(run, self.u.str, is_space));
}

/* --- dicts and lists -------------------------------------------------------------------------- */

static jv dict_get(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    struct hd_jinja__entry *entry =
        hd_jinja__dict_find(run, self.u.dict, hd_jinja__arg(args, 0, NULL));
    if (entry)
        return entry->value;
    return args->n > 1 ? hd_jinja__arg(args, 1, NULL) : hd_jinja_none();
}

static jv dict_items(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return hd_jinja__filter(run, "items", self, args);
}

static jv dict_keys(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return (jv){.kind = JV_LIST, .u.list = hd_jinja__iterate(run, self)};
}

static jv dict_values(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    jv out = hd_jinja_list(run);
    for (size_t i = 0; i < self.u.dict->n && !run->err; i++)
        hd_jinja_push(run, out, self.u.dict->entry[i].value);
    return out;
}

static jv dict_copy(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    return self; /* nothing changes it */
}

static jv list_index(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    for (size_t i = 0; i < self.u.list->n && !run->err; i++)
        if (hd_jinja__equal(run, self.u.list->item[i], hd_jinja__arg(args, 0, NULL)))
            return hd_jinja__int((int64_t)i);
    hd_jinja__fail(run, HD_ERR_INVALID, "index: the value is not in the list");
    return self;
}

static jv list_count(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    int64_t n = 0;
    for (size_t i = 0; i < self.u.list->n && !run->err; i++)
        n += hd_jinja__equal(run, self.u.list->item[i], hd_jinja__arg(args, 0, NULL));
    return hd_jinja__int(n);
}

/* Jinja's sandbox has these too, and refuses them when called. */
static jv refused(struct hd_jinja_run *run, jv self, const struct hd_jinja__args *args)
{
    hd_jinja__fail(run, HD_ERR_INVALID, "a template may not change %s", hd_jinja__type_name(self));
    return self;
}

static const struct {
    int kind;
    const char *name;
    method_fn fn;
} methods[] = {
    {JV_STR, "split", str_split},
    {JV_STR, "rsplit", str_rsplit},
    {JV_STR, "splitlines", str_splitlines},
    {JV_STR, "partition", str_partition},
    {JV_STR, "rpartition", str_rpartition},
    {JV_STR, "strip", str_strip},
    {JV_STR, "lstrip", str_lstrip},
    {JV_STR, "rstrip", str_rstrip},
    {JV_STR, "lower", str_lower},
    {JV_STR, "upper", str_upper},
    {JV_STR, "capitalize", str_capitalize},
    {JV_STR, "title", str_title},
    {JV_STR, "startswith", str_startswith},
    {JV_STR, "endswith", str_endswith},
    {JV_STR, "find", str_find},
    {JV_STR, "rfind", str_rfind},
    {JV_STR, "index", str_index},
    {JV_STR, "count", str_count},
    {JV_STR, "replace", str_replace},
    {JV_STR, "join", str_join},
    {JV_STR, "removeprefix", str_removeprefix},
    {JV_STR, "removesuffix", str_removesuffix},
    {JV_STR, "isdigit", str_isdigit},
    {JV_STR, "isalpha", str_isalpha},
    {JV_STR, "isspace", str_isspace},
    {JV_DICT, "get", dict_get},
    {JV_DICT, "items", dict_items},
    {JV_DICT, "keys", dict_keys},
    {JV_DICT, "values", dict_values},
    {JV_DICT, "copy", dict_copy},
    {JV_DICT, "pop", refused},
    {JV_DICT, "popitem", refused},
    {JV_DICT, "update", refused},
    {JV_DICT, "setdefault", refused},
    {JV_DICT, "clear", refused},
    {JV_LIST, "index", list_index},
    {JV_LIST, "count", list_count},
    {JV_LIST, "append", refused},
    {JV_LIST, "extend", refused},
    {JV_LIST, "insert", refused},
    {JV_LIST, "pop", refused},
    {JV_LIST, "remove", refused},
    {JV_LIST, "reverse", refused},
    {JV_LIST, "sort", refused},
    {JV_LIST, "clear", refused},
};

const char *hd_jinja__method_name(jv self, const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (methods[i].kind == self.kind && strlen(methods[i].name) == len &&
            !memcmp(methods[i].name, name, len))
            return methods[i].name;
    return NULL;
}

jv hd_jinja__call_method(struct hd_jinja_run *run, const struct hd_jinja__method *method,
                         const struct hd_jinja__args *args)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (methods[i].kind == method->self.kind && methods[i].name == method->name)
            return methods[i].fn(run, method->self, args);
    hd_jinja__fail(run, HD_ERR_INTERNAL, "no such method");
    return method->self;
}

/* --- functions -------------------------------------------------------------------------------- */

static jv call_range(struct hd_jinja_run *run, const struct hd_jinja__args *args)
{
    int64_t bound[3] = {0, 0, 1};
    jv out = hd_jinja_list(run);
    for (size_t i = 0; i < args->n && i < 3; i++) {
        if (args->value[i].kind != JV_INT)
            hd_jinja__fail(run, HD_ERR_INVALID, "range: whole numbers are due");
        bound[args->n == 1 ? 1 : i] = args->value[i].u.i;
    }
    if (!args->n || args->n > 3 || !bound[2])
        hd_jinja__fail(run, HD_ERR_INVALID, "range: one to three numbers, the step not 0");
    for (int64_t i = bound[0], n = 0; !run->err && (bound[2] > 0 ? i < bound[1] : i > bound[1]);
         n++) {
        if (n == HD_JINJA_MAX_RANGE)
            hd_jinja__fail(run, HD_ERR_INVALID, "range: more than %d numbers", HD_JINJA_MAX_RANGE);
        hd_jinja_push(run, out, hd_jinja__int(i));
        if (__builtin_add_overflow(i, bound[2], &i))
            break;
    }
    return out;
}

/* dict() and namespace(): named arguments, and maybe a dict. */
static jv call_dict(struct hd_jinja_run *run, const struct hd_jinja__args *args, int kind)
{
    jv out = hd_jinja_dict(run);
    for (size_t i = 0; i < args->n && !run->err; i++) {
        jv value = args->value[i];
        if (args->name[i]) {
            jv name = hd_jinja__own(run, args->name[i]);
            if (!run->err)
                hd_jinja__dict_put(run, out.u.dict, name, value);
        } else if (value.kind != JV_DICT) {
            hd_jinja__fail(run, HD_ERR_INVALID, "a dict is due, not %s",
                           hd_jinja__type_name(value));
        } else {
            for (size_t k = 0; k < value.u.dict->n && !run->err; k++)
                hd_jinja__dict_put(run, out.u.dict, value.u.dict->entry[k].key,
                                   value.u.dict->entry[k].value);
        }
    }
    out.kind = run->err ? JV_UNDEFINED : kind;
    return out;
}

static jv call_raise(struct hd_jinja_run *run, const struct hd_jinja__args *args)
{
    const struct hd_jinja__str *why = hd_jinja__to_str(run, hd_jinja__arg(args, 0, "message"));
    hd_jinja__fail(run, HD_ERR_INVALID, "%.*s", (int)(why->len < 300 ? why->len : 300), why->data);
    return hd_jinja_none();
}

static jv call_strftime(struct hd_jinja_run *run, const struct hd_jinja__args *args)
{
    char format[128], *text = hd_jinja__make(run, 512);
    const struct hd_jinja__str *s = hd_jinja__to_str(run, hd_jinja__arg(args, 0, "format"));
    time_t now = (time_t)run->now;
    struct tm tm;
    if (!text || s->len >= sizeof format || !gmtime_r(&now, &tm)) {
        hd_jinja__fail(run, HD_ERR_INVALID, "strftime_now: the format is too long");
        return hd_jinja_none();
    }
    memcpy(format, s->data, s->len);
    format[s->len] = 0;
    size_t len = strftime(text, 512, format, &tm);
    return hd_jinja__str(run, text, NULL, len, s->mask || s->request);
}

static const char *const functions[] = {"range", "namespace", "dict", "raise_exception",
                                        "strftime_now"};

const char *hd_jinja__function_name(const char *name)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcmp(functions[i], name))
            return functions[i];
    return NULL;
}

jv hd_jinja__call_function(struct hd_jinja_run *run, const char *name,
                           const struct hd_jinja__args *args)
{
    if (name == functions[0])
        return call_range(run, args);
    if (name == functions[1])
        return call_dict(run, args, JV_NAMESPACE);
    if (name == functions[2])
        return call_dict(run, args, JV_DICT);
    if (name == functions[3])
        return call_raise(run, args);
    return call_strftime(run, args);
}
