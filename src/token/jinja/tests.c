/* Tests: what may stand behind `is`. */
#include <unicode/uchar.h>

#include "base/utf8.h"
#include "token/jinja/jinja_impl.h"

typedef bool (*test_fn)(struct hd_jinja_run *run, jv input, const struct hd_jinja__args *args);

static jv other(const struct hd_jinja__args *args)
{
    return hd_jinja__arg(args, 0, NULL);
}

/* Whole numbers: of the input, and of the argument for divisibleby. */
static int64_t whole(struct hd_jinja_run *run, jv value)
{
    if (value.kind != JV_INT && value.kind != JV_BOOL)
        hd_jinja__fail(run, HD_ERR_INVALID, "%s is not a whole number", hd_jinja__type_name(value));
    return value.kind == JV_INT ? value.u.i : value.kind == JV_BOOL ? value.u.b : 1;
}

#define TEST(name, expression)                                                                     \
    static bool test_##name(struct hd_jinja_run *run, jv v, const struct hd_jinja__args *args)     \
    {                                                                                              \
        return expression;                                                                         \
    }
TEST(defined, v.kind != JV_UNDEFINED)
TEST(undefined, v.kind == JV_UNDEFINED)
TEST(none, v.kind == JV_NONE)
TEST(string, v.kind == JV_STR)
TEST(mapping, v.kind == JV_DICT)
TEST(iterable, v.kind == JV_STR || v.kind == JV_LIST || v.kind == JV_DICT || v.kind == JV_UNDEFINED)
TEST(number, hd_jinja__is_number(v))
TEST(integer, v.kind == JV_INT)
TEST(float, v.kind == JV_REAL)
TEST(boolean, v.kind == JV_BOOL)
TEST(true, v.kind == JV_BOOL && v.u.b)
TEST(false, v.kind == JV_BOOL && !v.u.b)
TEST(callable, v.kind >= JV_MACRO)
TEST(odd, whole(run, v) % 2 != 0)
TEST(even, whole(run, v) % 2 == 0)
TEST(eq, hd_jinja__equal(run, v, other(args)))
TEST(ne, !hd_jinja__equal(run, v, other(args)))
TEST(lt, hd_jinja__compare(run, OP_LT, v, other(args)))
TEST(le, hd_jinja__compare(run, OP_LE, v, other(args)))
TEST(gt, hd_jinja__compare(run, OP_GT, v, other(args)))
TEST(ge, hd_jinja__compare(run, OP_GE, v, other(args)))
TEST(in, hd_jinja__contains(run, v, other(args)))

static bool test_divisibleby(struct hd_jinja_run *run, jv v, const struct hd_jinja__args *args)
{
    int64_t by = whole(run, other(args));
    if (!by)
        hd_jinja__fail(run, HD_ERR_INVALID, "division by zero");
    return by == -1 || (by && whole(run, v) % by == 0);
}

static bool test_sameas(struct hd_jinja_run *run, jv v, const struct hd_jinja__args *args)
{
    return v.kind == other(args).kind && hd_jinja__equal(run, v, other(args));
}

/* Some cased character, and none of the other case. */
static bool is_case(struct hd_jinja_run *run, jv v, bool upper)
{
    const struct hd_jinja__str *s = hd_jinja__to_str(run, v);
    bool some = false;
    for (size_t at = 0; at < s->len && hd_jinja__step(run, 1);) {
        unsigned c = 0;
        size_t step = hd_utf8_decode(&c, s->data + at, s->len - at, NULL);
        if (upper ? u_isULowercase((UChar32)c) : u_isUUppercase((UChar32)c))
            return false;
        some |= upper ? u_isUUppercase((UChar32)c) : u_isULowercase((UChar32)c);
        at += step ? step : 1;
    }
    return some;
}

TEST(lower, is_case(run, v, false))
TEST(upper, is_case(run, v, true))

static const struct {
    const char *name;
    test_fn fn;
} tests[] = {
    {"boolean", test_boolean},
    {"callable", test_callable},
    {"defined", test_defined},
    {"divisibleby", test_divisibleby},
    {"eq", test_eq},
    {"equalto", test_eq},
    {"even", test_even},
    {"false", test_false},
    {"float", test_float},
    {"ge", test_ge},
    {"greaterthan", test_gt},
    {"gt", test_gt},
    {"in", test_in},
    {"integer", test_integer},
    {"iterable", test_iterable},
    {"le", test_le},
    {"lessthan", test_lt},
    {"lower", test_lower},
    {"lt", test_lt},
    {"mapping", test_mapping},
    {"ne", test_ne},
    {"none", test_none},
    {"number", test_number},
    {"odd", test_odd},
    {"sameas", test_sameas},
    {"sequence", test_iterable},
    {"string", test_string},
    {"true", test_true},
    {"undefined", test_undefined},
    {"upper", test_upper},
};

static test_fn find(const char *name)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!strcmp(tests[i].name, name))
            return tests[i].fn;
    return NULL;
}

bool hd_jinja__test(struct hd_jinja_run *run, const char *name, jv input,
                    const struct hd_jinja__args *args)
{
    test_fn fn = find(name);
    if (!fn)
        hd_jinja__fail(run, HD_ERR_UNSUPPORTED, "the test \"%.60s\" is not supported", name);
    return fn && !run->err && fn(run, input, args);
}
