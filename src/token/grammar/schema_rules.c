/* What the keywords of schemas mean together: which are known, types, numbers, merging. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "token/grammar/schema_impl.h"

enum { NOTE = 1, RULE = 2 };
static const struct {
    const char *name;
    int kind;
    unsigned types; /* which it is about */
} keywords[] = {
    {"$schema", NOTE, 0},
    {"$id", NOTE, 0},
    {"$comment", NOTE, 0},
    {"$defs", NOTE, 0},
    {"definitions", NOTE, 0},
    {"title", NOTE, 0},
    {"description", NOTE, 0},
    {"default", NOTE, 0},
    {"examples", NOTE, 0},
    {"example", NOTE, 0},
    {"deprecated", NOTE, 0},
    {"readOnly", NOTE, 0},
    {"writeOnly", NOTE, 0},
    {"discriminator", NOTE, 0},
    {"$ref", NOTE, 0},
    {"type", RULE, 0},
    {"enum", RULE, 0},
    {"const", RULE, 0},
    {"allOf", RULE, 0},
    {"anyOf", RULE, 0},
    {"oneOf", RULE, 0},
    {"format", RULE, 0}, /* of strings and numbers */
    {"minLength", RULE, TYPE_STRING},
    {"maxLength", RULE, TYPE_STRING},
    {"pattern", RULE, TYPE_STRING},
    {"minimum", RULE, TYPE_NUMBER},
    {"maximum", RULE, TYPE_NUMBER},
    {"exclusiveMinimum", RULE, TYPE_NUMBER},
    {"exclusiveMaximum", RULE, TYPE_NUMBER},
    {"items", RULE, TYPE_ARRAY},
    {"prefixItems", RULE, TYPE_ARRAY},
    {"minItems", RULE, TYPE_ARRAY},
    {"maxItems", RULE, TYPE_ARRAY},
    {"uniqueItems", RULE, TYPE_ARRAY},
    {"properties", RULE, TYPE_OBJECT},
    {"required", RULE, TYPE_OBJECT},
    {"additionalProperties", RULE, TYPE_OBJECT},
    {"minProperties", RULE, TYPE_OBJECT},
    {"maxProperties", RULE, TYPE_OBJECT},
};
enum { N_KEYWORD = sizeof keywords / sizeof *keywords };

static size_t find_keyword(const char *name)
{
    size_t i = 0;
    while (i < N_KEYWORD && strcmp(keywords[i].name, name))
        i++;
    return i;
}

enum hd_err hd_grammar__check_keywords(struct hd_grammar__schema *sc, const json_t *schema)
{
    const char *key;
    json_t *value;
    bool values = json_object_get(schema, "enum") || json_object_get(schema, "const");
    bool choice = json_object_get(schema, "anyOf") || json_object_get(schema, "oneOf");
    json_object_foreach((json_t *)schema, key, value)
    {
        size_t i = find_keyword(key);
        if (i == N_KEYWORD)
            return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, key, "is not supported");
        /* What narrows a list of values would have to be tried on each. */
        if (values && keywords[i].kind == RULE && strcmp(key, "type") && strcmp(key, "enum") &&
            strcmp(key, "const") && strcmp(key, "allOf") && !choice)
            return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, key,
                                      "beside enum or const is not supported");
    }
    if (json_object_get(schema, "enum") && json_object_get(schema, "const"))
        return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "enum", "beside const is not supported");
    if (json_object_get(schema, "anyOf") && json_object_get(schema, "oneOf"))
        return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "anyOf", "beside oneOf is not supported");
    return HD_OK;
}

bool hd_grammar__has_keywords(const json_t *schema)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)schema, key, value)
    {
        size_t i = find_keyword(key);
        if (i == N_KEYWORD || keywords[i].kind == RULE)
            return true;
    }
    return false;
}

/* --- types
 * ----------------------------------------------------------------------------------------- */

static unsigned type_named(const char *name)
{
    static const struct {
        const char *name;
        unsigned types;
    } names[] = {{"null", TYPE_NULL},       {"boolean", TYPE_BOOLEAN},
                 {"integer", TYPE_INTEGER}, {"number", TYPE_INTEGER | TYPE_NUMBER},
                 {"string", TYPE_STRING},   {"array", TYPE_ARRAY},
                 {"object", TYPE_OBJECT}};
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, name))
            return names[i].types;
    return 0;
}

unsigned hd_grammar__type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_NULL:
        return TYPE_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return TYPE_BOOLEAN;
    case JSON_INTEGER:
        return TYPE_INTEGER;
    case JSON_REAL:
        return json_real_value(value) == floor(json_real_value(value)) ? TYPE_INTEGER : TYPE_NUMBER;
    case JSON_STRING:
        return TYPE_STRING;
    case JSON_ARRAY:
        return TYPE_ARRAY;
    default:
        return TYPE_OBJECT;
    }
}

/* What the keyword "type" says; 0 where it says nothing that we know. */
static unsigned types_given(const json_t *type)
{
    unsigned types = 0;
    size_t i;
    json_t *one;
    if (!type)
        return TYPE_ALL;
    if (!json_is_array(type))
        return type_named(json_string_value(type));
    json_array_foreach(type, i, one)
    {
        unsigned bits = type_named(json_string_value(one));
        if (!bits)
            return 0;
        types |= bits;
    }
    return types;
}

/* Types whose keywords stand there without "type": only those are written. */
static unsigned types_meant(const json_t *schema)
{
    unsigned types = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)schema, key, value)
    {
        size_t i = find_keyword(key);
        unsigned bits = i < N_KEYWORD ? keywords[i].types : 0;
        types |= bits == TYPE_NUMBER ? TYPE_NUMBER | TYPE_INTEGER : bits;
    }
    if (json_object_get(schema, "format"))
        types |= TYPE_STRING;
    return types ? types : TYPE_ALL;
}

unsigned hd_grammar__types(const struct hd_grammar__schema *sc, const json_t *schema, int depth,
                           bool own)
{
    const json_t *type = json_object_get(schema, "type"), *list = json_object_get(schema, "enum");
    unsigned types = type || own ? types_given(type) : TYPE_ALL, some = 0;
    size_t i;
    json_t *one;
    if (own)
        return type ? types : types_meant(schema);
    if (!json_is_object(schema) || depth > 16)
        return TYPE_ALL;
    const char *ref = json_string_value(json_object_get(schema, "$ref"));
    if (ref)
        types &= hd_grammar__types(sc, hd_grammar__resolve(sc, ref), depth + 1, false);
    json_array_foreach(list, i, one)
    {
        some |= hd_grammar__type_of(one);
    }
    types &= list ? some : TYPE_ALL;
    if ((one = json_object_get(schema, "const")))
        types &= hd_grammar__type_of(one);
    json_array_foreach(json_object_get(schema, "allOf"), i, one)
    {
        types &= hd_grammar__types(sc, one, depth + 1, false);
    }
    return types;
}

/* --- numbers
 * --------------------------------------------------------------------------------------- */

enum hd_err hd_grammar__size(struct hd_grammar__schema *sc, const json_t *schema, const char *least,
                             const char *most, int64_t *min, int64_t *max)
{
    const char *const names[] = {least, most};
    int64_t *const values[] = {min, max};
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_object_get(schema, names[i]);
        if (!value)
            continue;
        double number = json_number_value(value);
        if (!json_is_number(value) || number < 0 || number != floor(number))
            return hd_grammar__refuse(sc, HD_ERR_INVALID, names[i],
                                      "must be a whole number, not negative");
        if (number > HD_GRAMMAR_MAX_REPEAT && i == 0)
            return hd_grammar__refuse(sc, HD_ERR_LIMIT, names[i], "is above 32768");
        *values[i] = number > HD_GRAMMAR_MAX_REPEAT ? HD_GRAMMAR_MAX_REPEAT : (int64_t)number;
    }
    if (*max >= 0 && *max < *min)
        return hd_grammar__refuse(sc, HD_ERR_INVALID, least, "is above its maximum");
    return HD_OK;
}

struct bounds {
    bool has_lo, has_hi;
    int64_t lo, hi;             /* whole numbers within */
    int64_t above_lo, below_hi; /* between these, numbers that are not whole */
};

/* The stricter of a bound and its exclusive form, as whole numbers. */
static enum hd_err read_bounds(struct hd_grammar__schema *sc, const json_t *schema,
                               struct bounds *out)
{
    static const char *const names[] = {"minimum", "exclusiveMinimum", "maximum",
                                        "exclusiveMaximum"};
    *out = (struct bounds){0};
    for (size_t i = 0; i < 4; i++) {
        const json_t *value = json_object_get(schema, names[i]);
        if (!value)
            continue;
        if (!json_is_number(value))
            return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, names[i], "must be a number");
        double number = json_number_value(value), whole = i < 2 ? ceil(number) : floor(number);
        int64_t edge = fabs(whole) < 1e16 ? (int64_t)whole : 0;
        if (i % 2 && whole == number)
            whole += i == 1 ? 1 : -1;
        if (fabs(whole) > 9e15) {
            bool harmless = i < 2 ? whole < 0 : whole > 0; /* further than any number we write */
            if (harmless && fabs(whole) >= 1e16)
                continue;
            return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, names[i],
                                      "of more than 15 digits is not supported");
        }
        int64_t bound = (int64_t)whole;
        if (i < 2 && (!out->has_lo || bound > out->lo))
            out->lo = bound;
        if (i < 2 && (!out->has_lo || edge > out->above_lo))
            out->above_lo = edge;
        if (i >= 2 && (!out->has_hi || bound < out->hi))
            out->hi = bound;
        if (i >= 2 && (!out->has_hi || edge < out->below_hi))
            out->below_hi = edge;
        out->has_lo |= i < 2;
        out->has_hi |= i >= 2;
    }
    return HD_OK;
}

/* Numbers k.f and -k.f between whole ones within the bounds; false where there are none. */
static bool put_fractions(struct hd_buf *out, const struct bounds *b, bool more)
{
    static const char fraction[] = " \".\" [0-9]{0,14} [1-9]";
    int64_t lo = b->has_lo && b->above_lo > 0 ? b->above_lo : 0, hi = b->below_hi - 1;
    int64_t least = b->has_hi && b->below_hi < 0 ? -b->below_hi : 0, most = -b->above_lo - 1;
    if (!b->has_hi || hi >= lo) {
        hd_buf_puts(out, more ? " | " : "");
        hd_grammar__put_integer(out, &lo, b->has_hi ? &hi : NULL);
        hd_buf_puts(out, fraction);
        more = true;
    }
    if (!b->has_lo || most >= least) {
        hd_buf_puts(out, more ? " | \"-\" " : "\"-\" ");
        hd_grammar__put_integer(out, &least, b->has_lo ? &most : NULL);
        hd_buf_puts(out, fraction);
        more = true;
    }
    return more;
}

enum hd_err hd_grammar__put_number(struct hd_grammar__schema *sc, struct hd_buf *out,
                                   const json_t *schema, bool integer)
{
    struct bounds b;
    enum hd_err err = read_bounds(sc, schema, &b);
    if (err)
        return err;
    if (!b.has_lo && !b.has_hi)
        return hd_buf_puts(out, integer ? "integer" : "number");
    bool whole = !b.has_lo || !b.has_hi || b.lo <= b.hi;
    hd_buf_puts(out, "(");
    if (whole)
        hd_grammar__put_integer(out, b.has_lo ? &b.lo : NULL, b.has_hi ? &b.hi : NULL);
    if (!integer)
        whole = put_fractions(out, &b, whole);
    if (!whole)
        return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "minimum",
                                  "and maximum leave no number that could be written");
    return hd_buf_puts(out, ")");
}

/* --- schemas that exclude each other
 * ---------------------------------------------------------------- */

static const json_t *target(const struct hd_grammar__schema *sc, const json_t *schema)
{
    for (int i = 0; i < 16; i++) {
        const char *ref = json_string_value(json_object_get(schema, "$ref"));
        if (!ref)
            break;
        schema = hd_grammar__resolve(sc, ref);
    }
    return schema;
}

static bool has_value(const json_t *schema, const json_t *value)
{
    const json_t *only = json_object_get(schema, "const"), *list = json_object_get(schema, "enum");
    size_t i;
    json_t *one;
    if (only)
        return json_equal((json_t *)only, (json_t *)value);
    json_array_foreach(list, i, one)
    {
        if (json_equal(one, (json_t *)value))
            return true;
    }
    return !list;
}

/* Both name all their values, of strings, whole numbers, booleans or null, and share none. */
static bool values_differ(const json_t *a, const json_t *b)
{
    const json_t *only = json_object_get(a, "const"), *list = json_object_get(a, "enum");
    if ((!only && !list) || (!json_object_get(b, "const") && !json_object_get(b, "enum")))
        return false;
    for (size_t i = 0; i < (only ? 1 : json_array_size(list)); i++) {
        const json_t *value = only ? only : json_array_get(list, i);
        if (json_is_real(value) || json_is_object(value) || json_is_array(value) ||
            has_value(b, value))
            return false;
    }
    return true;
}

static bool requires(const json_t *schema, const char *key)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(schema, "required"), i, one)
    {
        if (json_is_string(one) && !strcmp(json_string_value(one), key))
            return true;
    }
    return false;
}

static bool exclude(const struct hd_grammar__schema *sc, const json_t *a, const json_t *b)
{
    const char *key;
    json_t *value;
    unsigned x = hd_grammar__types(sc, a, 0, false), y = hd_grammar__types(sc, b, 0, false);
    a = target(sc, a);
    b = target(sc, b);
    if (!(x & y) || values_differ(a, b))
        return true;
    if ((x & y) != TYPE_OBJECT)
        return false;
    json_object_foreach(json_object_get(a, "properties"), key, value)
    {
        const json_t *other = json_object_get(json_object_get(b, "properties"), key);
        if (other && requires(a, key) && requires(b, key) &&
            values_differ(target(sc, value), target(sc, other)))
            return true;
    }
    return false;
}

bool hd_grammar__disjoint(const struct hd_grammar__schema *sc, const json_t *list)
{
    size_t n = json_array_size(list);
    if (n > 64)
        return false;
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++)
            if (!exclude(sc, json_array_get(list, i), json_array_get(list, k)))
                return false;
    return true;
}

/* --- merging
 * ---------------------------------------------------------------------------------------- */

static enum hd_err merge_into(struct hd_grammar__schema *sc, json_t *into, const json_t *from,
                              int depth);

static json_t *type_list(unsigned types)
{
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object"};
    json_t *list = json_array();
    if (types & TYPE_NUMBER)
        types &= ~(unsigned)TYPE_INTEGER;
    for (size_t i = 0; i < 7; i++)
        if (types & 1u << i)
            json_array_append_new(list, json_string(names[i]));
    return list;
}

static enum hd_err merge_properties(json_t *into, const json_t *have, const json_t *more)
{
    json_t *all = json_object_size(have) ? json_copy((json_t *)have) : json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)more, key, value)
    {
        json_t *known = json_object_get(all, key);
        if (!known)
            json_object_set(all, key, value);
        else if (!json_equal(known, value))
            json_object_set_new(all, key, json_pack("{s:[O,O]}", "allOf", known, value));
    }
    return all && !json_object_set_new(into, "properties", all) ? HD_OK : HD_ERR_NOMEM;
}

static enum hd_err merge_lists(json_t *into, const char *key, const json_t *have,
                               const json_t *more, bool both)
{
    json_t *all = both ? json_array() : json_copy((json_t *)have), *one;
    size_t i, k;
    json_array_foreach((json_t *)more, i, one)
    {
        for (k = 0; k < json_array_size(have); k++)
            if (json_equal(json_array_get(have, k), one))
                break;
        if ((k < json_array_size(have)) == both)
            json_array_append(all, one);
    }
    return all && !json_object_set_new(into, key, all) ? HD_OK : HD_ERR_NOMEM;
}

/* Both have the keyword, with different values. */
static enum hd_err merge_keyword(struct hd_grammar__schema *sc, json_t *into, const char *key,
                                 json_t *have, json_t *value)
{
    bool least = !strncmp(key, "min", 3) || !strcmp(key, "exclusiveMinimum");
    if (!strcmp(key, "properties") && json_is_object(have) && json_is_object(value))
        return merge_properties(into, have, value);
    if (!strcmp(key, "required") && json_is_array(have) && json_is_array(value))
        return merge_lists(into, key, have, value, false);
    if (!strcmp(key, "enum") && json_is_array(have) && json_is_array(value))
        return merge_lists(into, key, have, value, true);
    if (!strcmp(key, "type")) {
        unsigned types = types_given(have) & types_given(value);
        if (!types)
            return hd_grammar__refuse(sc, HD_ERR_INVALID, "allOf", "leaves no type");
        return json_object_set_new(into, key, type_list(types)) ? HD_ERR_NOMEM : HD_OK;
    }
    if (json_is_number(have) && json_is_number(value) &&
        (least || !strncmp(key, "max", 3) || !strcmp(key, "exclusiveMaximum"))) {
        bool stricter = (json_number_value(value) > json_number_value(have)) == least;
        return stricter && json_object_set(into, key, value) ? HD_ERR_NOMEM : HD_OK;
    }
    return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, key,
                              "with two different values in allOf, or beside a $ref, is not "
                              "supported");
}

/* additionalProperties speaks of the properties beside it only: without loss it is merged where
 * the other side names no further ones. */
static bool closes_others(const json_t *schema, const json_t *other)
{
    const char *key;
    json_t *value, *own = json_object_get(schema, "properties");
    json_t *extra = json_object_get(schema, "additionalProperties");
    if (!extra || json_is_true(extra))
        return false;
    json_object_foreach(json_object_get(other, "properties"), key, value)
    {
        if (!json_object_get(own, key))
            return true;
    }
    return false;
}

static enum hd_err merge_into(struct hd_grammar__schema *sc, json_t *into, const json_t *from,
                              int depth)
{
    const char *key;
    json_t *value, *one;
    size_t i;
    if (depth > 16)
        return hd_grammar__refuse(sc, HD_ERR_LIMIT, "$ref", "leads to itself, or too far");
    if (json_is_true(from))
        return HD_OK;
    if (!json_is_object(from))
        return hd_grammar__refuse(sc, HD_ERR_INVALID, "allOf", "must be a list of schemas");
    if (closes_others(into, from) || closes_others(from, into))
        return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "additionalProperties",
                                  "in allOf, beside other properties, is not supported");
    enum hd_err err = HD_OK;
    json_object_foreach((json_t *)from, key, value)
    {
        json_t *have = json_object_get(into, key);
        size_t k = find_keyword(key);
        if (!strcmp(key, "$ref") || !strcmp(key, "allOf") ||
            (k < N_KEYWORD && keywords[k].kind == NOTE))
            continue;
        if (!have)
            err = json_object_set(into, key, value) ? HD_ERR_NOMEM : HD_OK;
        else if (!json_equal(have, value))
            err = merge_keyword(sc, into, key, have, value);
        if (err)
            return err;
    }
    value = json_object_get(from, "$ref");
    if (value) {
        json_t *to =
            json_is_string(value) ? hd_grammar__resolve(sc, json_string_value(value)) : NULL;
        if (!to)
            return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "$ref",
                                      "points to nothing inside this schema");
        err = merge_into(sc, into, to, depth + 1);
    }
    value = json_object_get(from, "allOf");
    if (!err && value && !json_array_size(value))
        return hd_grammar__refuse(sc, HD_ERR_INVALID, "allOf", "must be a list of schemas");
    json_array_foreach(value, i, one)
    {
        if (!err)
            err = merge_into(sc, into, one, depth + 1);
    }
    return err;
}

enum hd_err hd_grammar__merge(struct hd_grammar__schema *sc, json_t **out, const json_t *schema)
{
    *out = json_object();
    return *out ? merge_into(sc, *out, schema, 0) : HD_ERR_NOMEM;
}

enum hd_err hd_grammar__merge_base(json_t **out, const json_t *schema, const char *keyword,
                                   json_t *one)
{
    json_t *base = json_copy((json_t *)schema);
    enum hd_err err = base ? HD_OK : HD_ERR_NOMEM;
    *out = NULL;
    if (!err)
        json_object_del(base, keyword);
    if (!err && !hd_grammar__has_keywords(base))
        *out = json_incref(one);
    else if (!err)
        *out = json_pack("{s:[O,O]}", "allOf", base, one);
    json_decref(base);
    return *out || err ? err : HD_ERR_NOMEM;
}
