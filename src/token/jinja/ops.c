/* Truth, equality, order, membership, arithmetic: as Python has them. */
#include <math.h>

#include "base/utf8.h"
#include "token/jinja/jinja_impl.h"

const char *hd_jinja__type_name(jv value)
{
    static const char *const names[] = {
        "undefined", "none",        "a boolean", "a number", "a number",   "a string", "a list",
        "a dict",    "a namespace", "a loop",    "a macro",  "a function", "a method"};
    return names[value.kind];
}

bool hd_jinja__fail_undefined(struct hd_jinja_run *run, jv value)
{
    if (value.kind != JV_UNDEFINED)
        return false;
    hd_jinja__fail(run, HD_ERR_INVALID, "%.100s is undefined",
                   value.u.name ? value.u.name : "the value");
    return true;
}

bool hd_jinja__is_number(jv value)
{
    return value.kind == JV_BOOL || value.kind == JV_INT || value.kind == JV_REAL;
}

double hd_jinja__number(jv value)
{
    return value.kind == JV_REAL ? value.u.f : value.kind == JV_INT ? (double)value.u.i : value.u.b;
}

static int64_t whole(jv value)
{
    return value.kind == JV_INT ? value.u.i : value.u.b;
}

bool hd_jinja__truth(jv value)
{
    switch (value.kind) {
    case JV_UNDEFINED:
    case JV_NONE:
        return false;
    case JV_BOOL:
        return value.u.b;
    case JV_INT:
        return value.u.i != 0;
    case JV_REAL:
        return value.u.f != 0;
    case JV_STR:
        return value.u.str->len != 0;
    case JV_LIST:
        return value.u.list->n != 0;
    case JV_DICT:
        return value.u.dict->n != 0;
    default:
        return true;
    }
}

/* --- equality and order ----------------------------------------------------------------------- */

static bool equal_lists(struct hd_jinja_run *run, const struct hd_jinja__list *a,
                        const struct hd_jinja__list *b)
{
    if (a->n != b->n || a->tuple != b->tuple)
        return false;
    for (size_t i = 0; i < a->n && !run->err; i++)
        if (!hd_jinja__equal(run, a->item[i], b->item[i]))
            return false;
    return true;
}

static bool equal_dicts(struct hd_jinja_run *run, const struct hd_jinja__dict *a,
                        const struct hd_jinja__dict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n && !run->err; i++) {
        struct hd_jinja__entry *entry = hd_jinja__dict_find(run, b, a->entry[i].key);
        if (!entry || !hd_jinja__equal(run, a->entry[i].value, entry->value))
            return false;
    }
    return true;
}

static bool equal(struct hd_jinja_run *run, jv a, jv b)
{
    if (hd_jinja__is_number(a) && hd_jinja__is_number(b)) {
        if (a.kind != JV_REAL && b.kind != JV_REAL)
            return whole(a) == whole(b);
        return hd_jinja__number(a) == hd_jinja__number(b);
    }
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case JV_STR:
        return a.u.str->len == b.u.str->len && hd_jinja__step(run, a.u.str->len / 64) &&
               !memcmp(a.u.str->data, b.u.str->data, a.u.str->len);
    case JV_LIST:
        return equal_lists(run, a.u.list, b.u.list);
    case JV_DICT:
        return equal_dicts(run, a.u.dict, b.u.dict);
    case JV_UNDEFINED:
    case JV_NONE:
        return true;
    default:
        return a.u.dict == b.u.dict;
    }
}

bool hd_jinja__equal(struct hd_jinja_run *run, jv a, jv b)
{
    bool same = false;
    if (++run->depth > 4 * HD_JINJA_MAX_DEPTH)
        hd_jinja__fail(run, HD_ERR_INVALID, "a value is nested too deeply");
    if (hd_jinja__step(run, 1))
        same = equal(run, a, b);
    run->depth--;
    return same;
}

int hd_jinja__order(struct hd_jinja_run *run, jv a, jv b)
{
    if (hd_jinja__is_number(a) && hd_jinja__is_number(b)) {
        if (a.kind != JV_REAL && b.kind != JV_REAL)
            return (whole(a) > whole(b)) - (whole(a) < whole(b));
        double x = hd_jinja__number(a), y = hd_jinja__number(b);
        return (x > y) - (x < y);
    }
    if (a.kind == JV_STR && b.kind == JV_STR) { /* UTF-8 keeps the order of code points */
        size_t n = a.u.str->len < b.u.str->len ? a.u.str->len : b.u.str->len;
        hd_jinja__step(run, n / 64);
        int order = memcmp(a.u.str->data, b.u.str->data, n);
        return order ? (order > 0) - (order < 0)
                     : (a.u.str->len > b.u.str->len) - (a.u.str->len < b.u.str->len);
    }
    if (a.kind == JV_LIST && b.kind == JV_LIST) {
        const struct hd_jinja__list *x = a.u.list, *y = b.u.list;
        for (size_t i = 0; i < x->n && i < y->n && !run->err; i++)
            if (!hd_jinja__equal(run, x->item[i], y->item[i])) {
                int order = 0;
                if (++run->depth > 4 * HD_JINJA_MAX_DEPTH)
                    hd_jinja__fail(run, HD_ERR_INVALID, "a value is nested too deeply");
                else
                    order = hd_jinja__order(run, x->item[i], y->item[i]);
                run->depth--;
                return order;
            }
        return (x->n > y->n) - (x->n < y->n);
    }
    if (!hd_jinja__fail_undefined(run, a) && !hd_jinja__fail_undefined(run, b))
        hd_jinja__fail(run, HD_ERR_INVALID, "%s and %s have no order", hd_jinja__type_name(a),
                       hd_jinja__type_name(b));
    return 0;
}

bool hd_jinja__contains(struct hd_jinja_run *run, jv item, jv container)
{
    switch (container.kind) {
    case JV_UNDEFINED:
        return false;
    case JV_STR:
        if (item.kind == JV_STR)
            return hd_jinja__find(run, container.u.str, item.u.str, 0) != SIZE_MAX;
        hd_jinja__fail(run, HD_ERR_INVALID, "%s cannot be in a string", hd_jinja__type_name(item));
        return false;
    case JV_DICT:
        return hd_jinja__dict_find(run, container.u.dict, item) != NULL;
    case JV_LIST:
        for (size_t i = 0; i < container.u.list->n && !run->err; i++)
            if (hd_jinja__equal(run, item, container.u.list->item[i]))
                return true;
        return false;
    default:
        hd_jinja__fail(run, HD_ERR_INVALID, "nothing can be in %s", hd_jinja__type_name(container));
        return false;
    }
}

bool hd_jinja__compare(struct hd_jinja_run *run, enum hd_jinja__op op, jv a, jv b)
{
    switch (op) {
    case OP_EQ:
        return hd_jinja__equal(run, a, b);
    case OP_NE:
        return !hd_jinja__equal(run, a, b);
    case OP_IN:
        return hd_jinja__contains(run, a, b);
    case OP_NOT_IN:
        return !hd_jinja__contains(run, a, b);
    default:
        break;
    }
    bool unordered = (a.kind == JV_REAL && isnan(a.u.f)) || (b.kind == JV_REAL && isnan(b.u.f));
    int order = hd_jinja__order(run, a, b);
    return !unordered && (op == OP_LT   ? order < 0
                          : op == OP_LE ? order <= 0
                          : op == OP_GT ? order > 0
                                        : order >= 0);
}

/* --- sequences -------------------------------------------------------------------------------- */

int64_t hd_jinja__length(struct hd_jinja_run *run, jv value)
{
    switch (value.kind) {
    case JV_UNDEFINED:
        return 0;
    case JV_STR:
        hd_jinja__step(run, value.u.str->len / 64);
        return (int64_t)hd_utf8_count(value.u.str->data, value.u.str->len);
    case JV_LIST:
        return (int64_t)value.u.list->n;
    case JV_DICT:
        return (int64_t)value.u.dict->n;
    default:
        hd_jinja__fail(run, HD_ERR_INVALID, "%s has no length", hd_jinja__type_name(value));
        return 0;
    }
}

static struct hd_jinja__list *characters(struct hd_jinja_run *run, const struct hd_jinja__str *s)
{
    struct hd_jinja__list *list = hd_jinja__new_list(run, 0);
    for (size_t at = 0; at < s->len && hd_jinja__step(run, 1);) {
        unsigned c;
        size_t step = hd_utf8_decode(&c, s->data + at, s->len - at, NULL);
        step = step ? step : 1;
        hd_jinja_push(run, (jv){.kind = JV_LIST, .u.list = list},
                      hd_jinja__cut(run, s, at, at + step));
        at += step;
    }
    return list;
}

struct hd_jinja__list *hd_jinja__iterate(struct hd_jinja_run *run, jv value)
{
    struct hd_jinja__list *list;
    switch (value.kind) {
    case JV_LIST:
        return value.u.list;
    case JV_STR:
        return characters(run, value.u.str);
    case JV_DICT:
        list = hd_jinja__new_list(run, value.u.dict->n);
        for (size_t i = 0; i < value.u.dict->n && !run->err; i++)
            hd_jinja_push(run, (jv){.kind = JV_LIST, .u.list = list}, value.u.dict->entry[i].key);
        return list;
    case JV_UNDEFINED:
        return hd_jinja__new_list(run, 0);
    default:
        hd_jinja__fail(run, HD_ERR_INVALID, "%s cannot be iterated over",
                       hd_jinja__type_name(value));
        return hd_jinja__new_list(run, 0);
    }
}

/* --- arithmetic ------------------------------------------------------------------------------- */

static jv concat_lists(struct hd_jinja_run *run, const struct hd_jinja__list *a,
                       const struct hd_jinja__list *b)
{
    struct hd_jinja__list *list = hd_jinja__new_list(run, a->n + b->n);
    if (run->err || !hd_jinja__step(run, (a->n + b->n) / 8))
        return hd_jinja__undefined(NULL);
    list->tuple = a->tuple;
    list->n = a->n + b->n;
    if (a->n)
        memcpy(list->item, a->item, a->n * sizeof *a->item);
    if (b->n)
        memcpy(list->item + a->n, b->item, b->n * sizeof *b->item);
    return (jv){.kind = JV_LIST, .u.list = list};
}

static jv repeat(struct hd_jinja_run *run, const struct hd_jinja__str *s, int64_t times)
{
    struct hd_jinja__text text;
    hd_jinja__text_init(run, &text);
    for (int64_t i = 0; i < times && s->len && hd_jinja__step(run, 1); i++)
        hd_jinja__text_add(run, &text, s);
    return hd_jinja__text_take(run, &text);
}

static jv refuse(struct hd_jinja_run *run, jv a, jv b)
{
    if (!hd_jinja__fail_undefined(run, a) && !hd_jinja__fail_undefined(run, b))
        hd_jinja__fail(run, HD_ERR_INVALID, "%s and %s cannot be combined so",
                       hd_jinja__type_name(a), hd_jinja__type_name(b));
    return hd_jinja__undefined(NULL);
}

static jv whole_numbers(struct hd_jinja_run *run, enum hd_jinja__op op, int64_t a, int64_t b)
{
    int64_t out = 0;
    bool over = false;
    switch (op) {
    case OP_ADD:
        over = __builtin_add_overflow(a, b, &out);
        break;
    case OP_SUB:
        over = __builtin_sub_overflow(a, b, &out);
        break;
    case OP_MUL:
        over = __builtin_mul_overflow(a, b, &out);
        break;
    case OP_POW:
        out = 1;
        for (int64_t i = 0; i < b && !over && hd_jinja__step(run, 1); i++)
            over = __builtin_mul_overflow(out, a, &out);
        break;
    default: /* floor division and its rest */
        over = a == INT64_MIN && b == -1;
        if (over)
            break;
        out = a / b - (a % b != 0 && (a < 0) != (b < 0));
        if (op == OP_MOD)
            out = a - out * b;
    }
    if (over)
        hd_jinja__fail(run, HD_ERR_INVALID, "a number becomes too large");
    return hd_jinja__int(out);
}

static jv numbers(struct hd_jinja_run *run, enum hd_jinja__op op, jv a, jv b)
{
    double x = hd_jinja__number(a), y = hd_jinja__number(b);
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && y == 0) {
        hd_jinja__fail(run, HD_ERR_INVALID, "division by zero");
        return a;
    }
    if (a.kind != JV_REAL && b.kind != JV_REAL && op != OP_DIV && !(op == OP_POW && y < 0))
        return whole_numbers(run, op, whole(a), whole(b));
    switch (op) {
    case OP_ADD:
        return hd_jinja__real(x + y);
    case OP_SUB:
        return hd_jinja__real(x - y);
    case OP_MUL:
        return hd_jinja__real(x * y);
    case OP_DIV:
        return hd_jinja__real(x / y);
    case OP_FLOORDIV:
        return hd_jinja__real(floor(x / y));
    case OP_MOD:
        return hd_jinja__real(x - floor(x / y) * y);
    default:
        return hd_jinja__real(pow(x, y));
    }
}

/* A tool call's arguments stand for their text where text is due. */
static jv as_text(jv value)
{
    if (value.kind == JV_DICT && value.u.dict->text)
        return (jv){.kind = JV_STR, .u.str = value.u.dict->text};
    return value;
}

jv hd_jinja__binary(struct hd_jinja_run *run, enum hd_jinja__op op, jv a, jv b)
{
    if (op == OP_CONCAT) {
        const struct hd_jinja__str *x = hd_jinja__to_str(run, a), *y = hd_jinja__to_str(run, b);
        return run->err ? hd_jinja__undefined(NULL) : hd_jinja__concat(run, x, y);
    }
    if (hd_jinja__is_number(a) && hd_jinja__is_number(b))
        return numbers(run, op, a, b);
    if (op == OP_ADD) {
        a = as_text(a);
        b = as_text(b);
        if (a.kind == JV_STR && b.kind == JV_STR)
            return hd_jinja__concat(run, a.u.str, b.u.str);
        if (a.kind == JV_LIST && b.kind == JV_LIST && a.u.list->tuple == b.u.list->tuple)
            return concat_lists(run, a.u.list, b.u.list);
    }
    if (op == OP_MUL && a.kind == JV_STR && b.kind == JV_INT)
        return repeat(run, a.u.str, b.u.i);
    return refuse(run, a, b);
}
