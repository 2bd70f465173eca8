/* Filters over single values; those over lists are in sequences.c. */
#include <math.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "token/jinja/jinja_impl.h"

static jv string_value(struct hd_jinja_run *run, jv input)
{
    return (jv){.kind = JV_STR, .u.str = hd_jinja__to_str(run, input)};
}

static jv filter_string(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return string_value(run, input);
}

static jv filter_trim(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return hd_jinja__strip(run, hd_jinja__to_str(run, input), hd_jinja__arg(args, 0, "chars"),
                           STRIP_BOTH);
}

static jv filter_lower(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return hd_jinja__case(run, hd_jinja__to_str(run, input), CASE_LOWER);
}

static jv filter_upper(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return hd_jinja__case(run, hd_jinja__to_str(run, input), CASE_UPPER);
}

static jv filter_capitalize(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return hd_jinja__case(run, hd_jinja__to_str(run, input), CASE_CAPITALIZE);
}

static jv filter_title(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return hd_jinja__case(run, hd_jinja__to_str(run, input), CASE_WORDS);
}

static jv filter_length(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    return hd_jinja__int(hd_jinja__length(run, input));
}

static jv filter_default(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    bool falsy = hd_jinja__truth(hd_jinja__arg(args, 1, "boolean"));
    if (input.kind != JV_UNDEFINED && (!falsy || hd_jinja__truth(input)))
        return input;
    jv other = hd_jinja__arg(args, 0, "default_value");
    return args->n ? other : hd_jinja__own(run, "");
}

static jv filter_replace(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    jv count = hd_jinja__arg(args, 2, "count");
    return hd_jinja__replace(run, hd_jinja__to_str(run, input),
                             hd_jinja__to_str(run, hd_jinja__arg(args, 0, "old")),
                             hd_jinja__to_str(run, hd_jinja__arg(args, 1, "new")),
                             count.kind == JV_INT ? count.u.i : -1);
}

static jv other_or(jv other, jv standard)
{
    return other.kind == JV_UNDEFINED ? standard : other;
}

static jv filter_int(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    jv standard = other_or(hd_jinja__arg(args, 0, "default"), hd_jinja__int(0));
    if (hd_jinja__fail_undefined(run, input))
        return input;
    if (input.kind == JV_INT || input.kind == JV_BOOL)
        return hd_jinja__int(input.kind == JV_INT ? input.u.i : input.u.b);
    if (input.kind == JV_REAL)
        return fabs(input.u.f) < 9e18 ? hd_jinja__int((int64_t)input.u.f) : standard;
    if (input.kind != JV_STR || input.u.str->len > 63)
        return standard;
    jv bare = hd_jinja__strip(run, input.u.str, hd_jinja__undefined(NULL), STRIP_BOTH);
    char text[64], *end;
    if (run->err || !bare.u.str->len)
        return standard;
    memcpy(text, bare.u.str->data, bare.u.str->len);
    text[bare.u.str->len] = 0;
    long long whole = strtoll(text, &end, 10);
    if (!*end)
        return hd_jinja__int(whole);
    double real = strtod(text, &end);
    return *end || !(fabs(real) < 9e18) ? standard : hd_jinja__int((int64_t)real);
}

static jv filter_float(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    jv standard = other_or(hd_jinja__arg(args, 0, "default"), hd_jinja__real(0));
    if (hd_jinja__fail_undefined(run, input))
        return input;
    if (hd_jinja__is_number(input))
        return hd_jinja__real(hd_jinja__number(input));
    if (input.kind != JV_STR || !input.u.str->len || input.u.str->len > 63)
        return standard;
    char text[64], *end;
    memcpy(text, input.u.str->data, input.u.str->len);
    text[input.u.str->len] = 0;
    double real = strtod(text, &end);
    return *end ? standard : hd_jinja__real(real);
}

static jv filter_abs(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    if (!hd_jinja__is_number(input)) {
        hd_jinja__fail(run, HD_ERR_INVALID, "abs of %s", hd_jinja__type_name(input));
        return input;
    }
    if (input.kind == JV_REAL)
        return hd_jinja__real(fabs(input.u.f));
    return hd_jinja__number(input) < 0 ? hd_jinja__binary(run, OP_SUB, hd_jinja__int(0), input)
                                       : input;
}

static jv filter_round(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    jv precision = hd_jinja__arg(args, 0, "precision"), method = hd_jinja__arg(args, 1, "method");
    double digits = precision.kind == JV_INT ? (double)precision.u.i : 0, scale = pow(10, digits);
    if (!hd_jinja__is_number(input)) {
        hd_jinja__fail(run, HD_ERR_INVALID, "round of %s", hd_jinja__type_name(input));
        return input;
    }
    double x = hd_jinja__number(input) * scale;
    bool up = method.kind == JV_STR && hd_jinja__is(method.u.str, "ceil");
    bool down = method.kind == JV_STR && hd_jinja__is(method.u.str, "floor");
    x = (up ? ceil(x) : down ? floor(x) : nearbyint(x)) / scale;
    return input.kind == JV_REAL || up || down ? hd_jinja__real(x) : hd_jinja__int((int64_t)x);
}

static jv filter_indent(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    static const char spaces[] = "                                ";
    jv width = hd_jinja__arg(args, 0, "width");
    const struct hd_jinja__str *s = hd_jinja__to_str(run, input);
    struct hd_jinja__str by = {.data = spaces, .len = 4};
    bool first = hd_jinja__truth(hd_jinja__arg(args, 1, "first"));
    bool blank = hd_jinja__truth(hd_jinja__arg(args, 2, "blank"));
    struct hd_jinja__text out;
    if (width.kind == JV_STR)
        by = *width.u.str;
    else if (width.kind == JV_INT && width.u.i >= 0 && width.u.i < (int64_t)sizeof spaces)
        by.len = (size_t)width.u.i;
    else if (width.kind != JV_UNDEFINED)
        hd_jinja__fail(run, HD_ERR_INVALID, "indent: a text or a number up to 32 is due");
    hd_jinja__text_init(run, &out);
    for (size_t at = 0; at < s->len && hd_jinja__step(run, 1);) {
        const char *line = memchr(s->data + at, '\n', s->len - at);
        size_t end = line ? (size_t)(line - s->data) : s->len;
        if (at ? end > at || blank : first)
            hd_jinja__text_add(run, &out, &by);
        jv text = hd_jinja__cut(run, s, at, end + (line != NULL));
        if (!run->err)
            hd_jinja__text_add(run, &out, text.u.str);
        at = end + (line != NULL);
    }
    return hd_jinja__text_take(run, &out);
}

static jv filter_escape(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    static const char *const pairs[][2] = {
        {"&", "&amp;"}, {">", "&gt;"}, {"<", "&lt;"}, {"'", "&#39;"}, {"\"", "&#34;"}};
    jv out = string_value(run, input);
    for (size_t i = 0; i < 5 && !run->err; i++) {
        const struct hd_jinja__str old = {.data = pairs[i][0], .len = 1};
        const struct hd_jinja__str by = {.data = pairs[i][1], .len = strlen(pairs[i][1])};
        out = hd_jinja__replace(run, out.u.str, &old, &by, -1);
    }
    return out;
}

static jv filter_attr(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args)
{
    const struct hd_jinja__str *name = hd_jinja__to_str(run, hd_jinja__arg(args, 0, "name"));
    if (input.kind == JV_DICT) /* items are no attributes */
        return hd_jinja__undefined("an attribute");
    char *copy = hd_jinja__make(run, name->len + 1);
    if (!copy)
        return input;
    memcpy(copy, name->data, name->len);
    copy[name->len] = 0;
    return hd_jinja__attr(run, input, copy, name->len);
}

static const struct {
    const char *name;
    hd_jinja__filter_fn fn;
} filters[] = {
    {"abs", filter_abs},          {"attr", filter_attr},       {"capitalize", filter_capitalize},
    {"count", filter_length},     {"d", filter_default},       {"default", filter_default},
    {"e", filter_escape},         {"escape", filter_escape},   {"float", filter_float},
    {"indent", filter_indent},    {"int", filter_int},         {"length", filter_length},
    {"lower", filter_lower},      {"replace", filter_replace}, {"round", filter_round},
    {"safe", filter_string},      {"string", filter_string},   {"title", filter_title},
    {"tojson", hd_jinja__tojson}, {"trim", filter_trim},       {"upper", filter_upper},
};

static hd_jinja__filter_fn find(const char *name)
{
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (!strcmp(filters[i].name, name))
            return filters[i].fn;
    return hd_jinja__sequence_filter(name);
}

jv hd_jinja__filter(struct hd_jinja_run *run, const char *name, jv input,
                    const struct hd_jinja__args *args)
{
    hd_jinja__filter_fn fn = find(name);
    if (!fn)
        hd_jinja__fail(run, HD_ERR_UNSUPPORTED, "the filter \"%.60s\" is not supported", name);
    return fn && !run->err ? fn(run, input, args) : hd_jinja__undefined(NULL);
}
