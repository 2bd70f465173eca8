/* JSON schema to GBNF.
 *
 * A schema becomes a rule; parts that repeat or may be absent become rules of their own, so groups
 * are never nested deeply. What is written is a subset of what the schema allows, so whatever the
 * grammar makes is valid; a keyword that cannot be kept is refused with its place. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "token/grammar/schema_impl.h"

/* An escape is not U+0000, nor half of a surrogate pair. */
#define JSON_RULES                                                                                 \
    "char ::= [^\"\\\\\\x00-\\x1F] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" escape)\n"                   \
    "escape ::= [1-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2} | \"0\" ([1-9a-fA-F] hex{2} | \"0\" "   \
    "([1-9a-fA-F] hex | \"0\" [1-9a-fA-F]))\n"                                                     \
    "hex ::= [0-9a-fA-F]\n"                                                                        \
    "string ::= \"\\\"\" char* \"\\\"\"\n"                                                         \
    "ws ::= \"\" | \" \" | \"\\n\" (\" \"{0,20} | \"\\t\"{1,6})\n"                                 \
    "digits ::= \"0\" | [1-9] [0-9]{0,15}\n"                                                       \
    "integer ::= digits | \"-\" [1-9] [0-9]{0,15}\n"                                               \
    "number ::= \"-\"? digits (\".\" [0-9]{1,16})? ([eE] [+-]? [0-9]{1,2})?\n"                     \
    "array ::= \"[\" ws (value (\",\" ws value)* ws)? \"]\"\n"                                     \
    "member ::= string \":\" \" \"? value\n"                                                       \
    "object ::= \"{\" ws (member (\",\" ws member)* ws)? \"}\"\n"                                  \
    "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"

const char hd_grammar__json[] = JSON_RULES;
const char hd_grammar_json_object[] = "root ::= object\n" JSON_RULES;

enum hd_err hd_grammar__refuse(struct hd_grammar__schema *sc, enum hd_err err, const char *keyword,
                               const char *why)
{
    return hd_fail(sc->msg, err, "%s: \"%.64s\" %s", sc->path, keyword, why);
}

static enum hd_err schema_expression(struct hd_grammar__schema *sc, struct hd_buf *out,
                                     json_t *schema);

/* --- paths and rules
 * ------------------------------------------------------------------------------ */

size_t hd_grammar__enter(struct hd_grammar__schema *sc, const char *part)
{
    size_t len = strlen(sc->path);
    snprintf(sc->path + len, sizeof sc->path - len, "/%s", part);
    return len;
}

void hd_grammar__leave(struct hd_grammar__schema *sc, size_t len)
{
    sc->path[len] = 0;
}

/* A rule of its own for a part of the schema; its number. */
static enum hd_err part_rule(struct hd_grammar__schema *sc, int *number, const char *name,
                             json_t *schema)
{
    struct hd_buf body;
    size_t back = hd_grammar__enter(sc, name);
    *number = sc->number++;
    hd_buf_init(&body, HD_GRAMMAR_MAX_TEXT);
    enum hd_err err = schema_expression(sc, &body, schema);
    if (!err)
        err = body.err;
    if (!err)
        err = hd_buf_printf(sc->out, "%s%d ::= %s\n", sc->prefix, *number, hd_buf_str(&body));
    hd_buf_dispose(&body);
    hd_grammar__leave(sc, back);
    return err;
}

static enum hd_err put_part(struct hd_grammar__schema *sc, struct hd_buf *out, const char *name,
                            json_t *schema)
{
    int number;
    enum hd_err err = part_rule(sc, &number, name, schema);
    return err ? err : hd_buf_printf(out, "%s%d", sc->prefix, number);
}

/* --- references
 * ----------------------------------------------------------------------------------- */

json_t *hd_grammar__resolve(const struct hd_grammar__schema *sc, const char *ref)
{
    json_t *at = sc->root;
    char part[256];
    if (*ref++ != '#')
        return NULL;
    while (at && *ref == '/') {
        size_t n = 0;
        for (ref++; *ref && *ref != '/' && n + 1 < sizeof part; ref++) {
            unsigned byte;
            if (*ref == '~' && (ref[1] == '0' || ref[1] == '1'))
                part[n++] = *++ref == '0' ? '~' : '/';
            else if (*ref == '%' && sscanf(ref + 1, "%2x", &byte) == 1 && ref[1] && ref[2] && byte)
                part[n++] = (char)byte, ref += 2;
            else
                part[n++] = *ref;
        }
        part[n] = 0;
        char *rest;
        at = json_is_array(at) && *part >= '0' && *part <= '9'
                 ? json_array_get(at, (size_t)strtoul(part, &rest, 10))
                 : json_object_get(at, part);
    }
    return *ref ? NULL : at;
}

static enum hd_err put_reference(struct hd_grammar__schema *sc, struct hd_buf *out, const char *ref)
{
    json_t *known = json_object_get(sc->refs, ref);
    int number = (int)json_integer_value(known);
    if (known)
        return hd_buf_printf(out, "%s%d", sc->prefix, number);
    json_t *schema = hd_grammar__resolve(sc, ref);
    if (!schema)
        return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "$ref",
                                  "points to nothing inside this schema");
    char path[sizeof sc->path];
    struct hd_buf body;
    number = sc->number++;
    if (json_object_set_new(sc->refs, ref, json_integer(number)))
        return HD_ERR_NOMEM;
    memcpy(path, sc->path, sizeof path);
    snprintf(sc->path, sizeof sc->path, "%s%.200s", sc->where, ref + 1);
    hd_buf_init(&body, HD_GRAMMAR_MAX_TEXT);
    enum hd_err err = schema_expression(sc, &body, schema);
    if (!err)
        err = body.err;
    if (!err)
        err = hd_buf_printf(sc->out, "%s%d ::= %s\n", sc->prefix, number, hd_buf_str(&body));
    hd_buf_dispose(&body);
    memcpy(sc->path, path, sizeof path);
    return err ? err : hd_buf_printf(out, "%s%d", sc->prefix, number);
}

/* --- strings and numbers
 * --------------------------------------------------------------------------- */

static enum hd_err put_string(struct hd_grammar__schema *sc, struct hd_buf *out, json_t *schema)
{
    json_t *pattern = json_object_get(schema, "pattern"),
           *format = json_object_get(schema, "format");
    int64_t min = 0, max = -1;
    enum hd_err err = hd_grammar__size(sc, schema, "minLength", "maxLength", &min, &max);
    if (err)
        return err;
    if (pattern) {
        struct hd_errmsg why = {0};
        if (!json_is_string(pattern))
            return hd_grammar__refuse(sc, HD_ERR_INVALID, "pattern", "must be a string");
        if (format || min || max >= 0)
            return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "pattern",
                                      "together with a format or length is not supported");
        err = hd_grammar__regex(out, json_string_value(pattern), json_string_length(pattern), &why);
        return err ? hd_fail(sc->msg, err, "%s: %s", sc->path,
                             why.text[0] ? why.text : hd_err_text(err))
                   : HD_OK;
    }
    if (format) {
        size_t least, longest;
        const char *name = json_string_value(format);
        const char *text = name ? hd_grammar__format(name, &least, &longest) : NULL;
        if (!text)
            return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "format",
                                      "of strings may be date, time, date-time, uuid, ipv4, "
                                      "hostname, email or uri");
        if (min > (int64_t)least || (max >= 0 && max < (int64_t)longest))
            return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "format",
                                      "together with such a length is not supported");
        return hd_buf_printf(out, "\"\\\"\" %s \"\\\"\"", text);
    }
    if (max < 0 && !min)
        return hd_buf_puts(out, "string");
    hd_buf_printf(out, "\"\\\"\" char{%" PRId64 ",", min);
    if (max >= 0)
        hd_buf_printf(out, "%" PRId64, max);
    return hd_buf_puts(out, "} \"\\\"\"");
}

/* --- arrays
 * ---------------------------------------------------------------------------------------- */

struct array {
    json_t *prefix, *items; /* items NULL: none behind the prefix */
    int64_t min, max;       /* max -1: any number */
    size_t n_prefix;
    int item; /* number of the rule of items */
};

static enum hd_err read_array(struct hd_grammar__schema *sc, struct array *a, json_t *schema)
{
    enum hd_err err = hd_grammar__size(sc, schema, "minItems", "maxItems", &a->min, &a->max);
    if (err)
        return err;
    if (json_is_true(json_object_get(schema, "uniqueItems")))
        return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "uniqueItems", "is not supported");
    a->prefix = json_object_get(schema, "prefixItems");
    a->items = json_object_get(schema, "items");
    if (a->prefix && !json_is_array(a->prefix))
        return hd_grammar__refuse(sc, HD_ERR_INVALID, "prefixItems", "must be a list");
    if (json_is_array(a->items))
        return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "items",
                                  "as a list is not supported; use prefixItems");
    a->n_prefix = json_array_size(a->prefix);
    if (!a->items && (!a->n_prefix || a->min > (int64_t)a->n_prefix))
        a->items = sc->any;
    if (json_is_false(a->items))
        a->items = NULL;
    if (!a->items && (a->max < 0 || a->max > (int64_t)a->n_prefix))
        a->max = (int64_t)a->n_prefix;
    if (a->max >= 0 && a->max < a->min)
        return hd_grammar__refuse(sc, HD_ERR_INVALID, "minItems", "cannot be reached");
    return HD_OK;
}

/* Items behind the prefix, `first` telling whether nothing stands before them. */
static void put_rest(const struct hd_grammar__schema *sc, struct hd_buf *out, const struct array *a)
{
    int64_t n = (int64_t)a->n_prefix, min = a->min > n ? a->min - n : 0;
    int64_t max = a->max < 0 ? -1 : a->max - n;
    if (!a->items || max == 0)
        return;
    if (!n) {
        hd_buf_printf(out, " (%s%d", sc->prefix, a->item);
        hd_buf_printf(out, " (\",\" ws %s%d){%" PRId64 ",", sc->prefix, a->item, min ? min - 1 : 0);
        if (max >= 0)
            hd_buf_printf(out, "%" PRId64, max - 1);
        hd_buf_puts(out, min ? "} ws)" : "} ws)?");
        return;
    }
    hd_buf_printf(out, " (\",\" ws %s%d){%" PRId64 ",", sc->prefix, a->item, min);
    if (max >= 0)
        hd_buf_printf(out, "%" PRId64, max);
    hd_buf_puts(out, "}");
}

/* Item i of the prefix and all behind it. */
static enum hd_err put_prefix(struct hd_grammar__schema *sc, struct hd_buf *out,
                              const struct array *a, size_t i)
{
    char name[32];
    struct hd_buf body;
    if (a->max >= 0 && (int64_t)i >= a->max)
        return HD_OK;
    if (i == a->n_prefix) {
        put_rest(sc, out, a);
        return out->err;
    }
    snprintf(name, sizeof name, "prefixItems/%zu", i);
    hd_buf_init(&body, HD_GRAMMAR_MAX_TEXT);
    hd_buf_puts(&body, i ? " \",\" ws " : " ");
    enum hd_err err = put_part(sc, &body, name, json_array_get(a->prefix, i));
    if (!err)
        err = put_prefix(sc, &body, a, i + 1);
    if (!err)
        err = body.err;
    if (!err && (int64_t)i < a->min) {
        hd_buf_append(out, body.data, body.len);
    } else if (!err) { /* it may be absent, and all behind it */
        int number = sc->number++;
        hd_buf_printf(sc->out, "%s%d ::= \"\" |%s\n", sc->prefix, number, hd_buf_str(&body));
        hd_buf_printf(out, " %s%d", sc->prefix, number);
    }
    hd_buf_dispose(&body);
    return err ? err : out->err;
}

static enum hd_err put_array(struct hd_grammar__schema *sc, struct hd_buf *out, json_t *schema)
{
    struct array a = {.max = -1};
    enum hd_err err = read_array(sc, &a, schema);
    if (err)
        return err;
    if (a.n_prefix > 512)
        return hd_grammar__refuse(sc, HD_ERR_LIMIT, "prefixItems", "has more than 512 items");
    bool rest = a.items && (a.max < 0 || a.max > (int64_t)a.n_prefix);
    if (rest)
        err = part_rule(sc, &a.item, "items", a.items);
    if (err)
        return err;
    hd_buf_puts(out, "\"[\" ws");
    err = put_prefix(sc, out, &a, 0);
    hd_buf_puts(out, a.n_prefix ? " ws \"]\"" : " \"]\"");
    return err ? err : out->err;
}

/* --- objects
 * --------------------------------------------------------------------------------------- */

struct member {
    const char *key;
    json_t *schema;
    bool required;
    int rule; /* "key": value */
};

struct object {
    struct member *member;
    size_t n;
    json_t *extra;    /* schema of further members, or NULL */
    int extra_rule;   /* of one */
    int64_t min, max; /* members; only without named ones */
};

static bool is_required(const json_t *required, const char *key)
{
    size_t i;
    json_t *one;
    json_array_foreach(required, i, one)
    {
        if (json_is_string(one) && !strcmp(json_string_value(one), key))
            return true;
    }
    return false;
}

static enum hd_err read_members(struct hd_grammar__schema *sc, struct object *o, json_t *schema)
{
    json_t *properties = json_object_get(schema, "properties"), *value, *one;
    json_t *required = json_object_get(schema, "required");
    json_t *extra = json_object_get(schema, "additionalProperties");
    const char *key;
    size_t i;
    if (properties && !json_is_object(properties))
        return hd_grammar__refuse(sc, HD_ERR_INVALID, "properties", "must be an object");
    if (required && !json_is_array(required))
        return hd_grammar__refuse(sc, HD_ERR_INVALID, "required", "must be a list");
    size_t n = json_object_size(properties) + json_array_size(required);
    if (n > 1024)
        return hd_grammar__refuse(sc, HD_ERR_LIMIT, "properties", "has more than 1024 names");
    if (n && !(o->member = calloc(n, sizeof *o->member)))
        return HD_ERR_NOMEM;
    json_object_foreach(properties, key, value)
    {
        o->member[o->n++] = (struct member){key, value, is_required(required, key), 0};
    }
    o->extra = !extra                 ? (json_object_size(properties) ? NULL : sc->any)
               : json_is_false(extra) ? NULL
                                      : extra;
    json_array_foreach(required, i, one)
    {
        if (!json_is_string(one))
            return hd_grammar__refuse(sc, HD_ERR_INVALID, "required", "must be a list of names");
        key = json_string_value(one);
        bool known = false;
        for (size_t k = 0; k < o->n && !known; k++)
            known = !strcmp(o->member[k].key, key);
        if (known)
            continue;
        if (json_is_false(extra))
            return hd_grammar__refuse(sc, HD_ERR_INVALID, key,
                                      "is required, but additionalProperties forbids it");
        o->member[o->n++] = (struct member){key, extra ? extra : sc->any, true, 0};
    }
    return HD_OK;
}

static enum hd_err member_rules(struct hd_grammar__schema *sc, struct object *o)
{
    enum hd_err err = HD_OK;
    for (size_t i = 0; !err && i < o->n; i++) {
        struct member *m = &o->member[i];
        char name[128];
        int value;
        snprintf(name, sizeof name, "properties/%.100s", m->key);
        err = part_rule(sc, &value, name, m->schema);
        if (err)
            break;
        json_t *key = json_string(m->key);
        m->rule = sc->number++;
        hd_buf_printf(sc->out, "%s%d ::= ", sc->prefix, m->rule);
        err = key ? hd_grammar__put_value(sc->out, key) : HD_ERR_NOMEM;
        json_decref(key);
        hd_buf_printf(sc->out, " \":\" \" \"? %s%d\n", sc->prefix, value);
    }
    return err;
}

/* One further member: a name that is none of the others. */
static enum hd_err extra_rule(struct hd_grammar__schema *sc, struct object *o)
{
    const char **names = calloc(o->n + 1, sizeof *names);
    int value, other;
    if (!names)
        return HD_ERR_NOMEM;
    for (size_t i = 0; i < o->n; i++) {
        names[i] = o->member[i].key;
        if (strlen(names[i]) > 256) {
            free(names);
            return hd_grammar__refuse(sc, HD_ERR_LIMIT, "properties",
                                      "has a name of more than 256 bytes");
        }
    }
    enum hd_err err = part_rule(sc, &value, "additionalProperties", o->extra);
    other = sc->number;
    if (!err)
        err = hd_grammar__put_other_string(sc->out, sc->prefix, &sc->number, names, o->n);
    free(names);
    o->extra_rule = sc->number++;
    return err ? err
               : hd_buf_printf(sc->out, "%s%d ::= \"\\\"\" %s%d \":\" \" \"? %s%d\n", sc->prefix,
                               o->extra_rule, sc->prefix, other, sc->prefix, value);
}

static void put_extras(const struct hd_grammar__schema *sc, struct hd_buf *out,
                       const struct object *o, bool first)
{
    const char *p = sc->prefix;
    int64_t min = o->min, max = o->max;
    if (!o->extra || max == 0) {
        hd_buf_puts(out, "\"\"");
        return;
    }
    if (first) {
        hd_buf_printf(out, "(%s%d (\",\" ws %s%d){%" PRId64 ",", p, o->extra_rule, p, o->extra_rule,
                      min ? min - 1 : 0);
        if (max > 0)
            hd_buf_printf(out, "%" PRId64, max - 1);
        hd_buf_puts(out, min ? "} ws)" : "} ws)?");
    } else {
        hd_buf_printf(out, "(\",\" ws %s%d)* ws", p, o->extra_rule);
    }
}

/* What follows member i - 1: two rules per place, for whether a member has been written already.
 * The last rules come first, so that each names rules that are there. */
static void member_chain(struct hd_grammar__schema *sc, struct hd_buf *out, const struct object *o)
{
    const char *p = sc->prefix;
    int behind = sc->number++, first = -1;
    size_t i = o->n;
    hd_buf_printf(sc->out, "%s%d ::= ", p, behind);
    if (o->extra)
        put_extras(sc, sc->out, o, false);
    else
        hd_buf_puts(sc->out, "ws");
    hd_buf_putc(sc->out, '\n');
    first = sc->number++;
    hd_buf_printf(sc->out, "%s%d ::= ", p, first);
    put_extras(sc, sc->out, o, true);
    hd_buf_putc(sc->out, '\n');
    while (i-- > 0) {
        const struct member *m = &o->member[i];
        int next = sc->number;
        sc->number += 2;
        hd_buf_printf(sc->out, "%s%d ::= \",\" ws %s%d %s%d", p, next, p, m->rule, p, behind);
        if (!m->required)
            hd_buf_printf(sc->out, " | %s%d", p, behind);
        hd_buf_printf(sc->out, "\n%s%d ::= %s%d %s%d", p, next + 1, p, m->rule, p, behind);
        if (!m->required)
            hd_buf_printf(sc->out, " | %s%d", p, first);
        hd_buf_putc(sc->out, '\n');
        behind = next;
        first = next + 1;
    }
    hd_buf_printf(out, "\"{\" ws %s%d \"}\"", p, first);
}

static enum hd_err put_object(struct hd_grammar__schema *sc, struct hd_buf *out, json_t *schema)
{
    struct object o = {.max = -1};
    enum hd_err err = read_members(sc, &o, schema);
    if (!err)
        err = hd_grammar__size(sc, schema, "minProperties", "maxProperties", &o.min, &o.max);
    if (!err && o.n && (o.min || o.max >= 0))
        err = hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, o.min ? "minProperties" : "maxProperties",
                                 "beside named properties is not supported");
    if (!err)
        err = member_rules(sc, &o);
    if (!err && o.extra && o.max != 0)
        err = extra_rule(sc, &o);
    if (!err) {
        member_chain(sc, out, &o);
        err = sc->out->err ? sc->out->err : out->err;
    }
    free(o.member);
    return err;
}

/* --- types, alternatives
 * --------------------------------------------------------------------------- */

static enum hd_err put_values(struct hd_grammar__schema *sc, struct hd_buf *out, json_t *schema)
{
    json_t *list = json_object_get(schema, "enum"), *only = json_object_get(schema, "const"), *one;
    unsigned allowed = hd_grammar__types(sc, schema, 0, true);
    size_t i, n = 0;
    enum hd_err err = HD_OK;
    if (list && !json_is_array(list))
        return hd_grammar__refuse(sc, HD_ERR_INVALID, "enum", "must be a list");
    hd_buf_puts(out, "(");
    for (i = 0; !err && i < (only ? 1 : json_array_size(list)); i++) {
        one = only ? only : json_array_get(list, i);
        if (!(hd_grammar__type_of(one) & allowed))
            continue;
        hd_buf_puts(out, n++ ? " | " : "");
        err = hd_grammar__put_value(out, one);
    }
    hd_buf_puts(out, ")");
    if (!err && !n)
        return hd_grammar__refuse(sc, HD_ERR_INVALID, only ? "const" : "enum",
                                  "has no value that the type allows");
    return err ? err : out->err;
}

static enum hd_err put_choice(struct hd_grammar__schema *sc, struct hd_buf *out, json_t *schema,
                              const char *keyword)
{
    json_t *list = json_object_get(schema, keyword);
    enum hd_err err = HD_OK;
    if (!json_array_size(list))
        return hd_grammar__refuse(sc, HD_ERR_INVALID, keyword, "must be a list of schemas");
    if (!strcmp(keyword, "oneOf") && !hd_grammar__disjoint(sc, list))
        return hd_grammar__refuse(sc, HD_ERR_UNSUPPORTED, "oneOf",
                                  "must have schemas that exclude each other, by type or by a "
                                  "required property with different const values; use anyOf");
    hd_buf_puts(out, "(");
    for (size_t i = 0; !err && i < json_array_size(list); i++) {
        char name[48];
        json_t *merged = NULL;
        err = hd_grammar__merge_base(&merged, schema, keyword, json_array_get(list, i));
        snprintf(name, sizeof name, "%s/%zu", keyword, i);
        hd_buf_puts(out, i ? " | " : "");
        if (!err)
            err = put_part(sc, out, name, merged);
        json_decref(merged);
    }
    hd_buf_puts(out, ")");
    return err;
}

static enum hd_err put_type(struct hd_grammar__schema *sc, struct hd_buf *out, json_t *schema,
                            unsigned type)
{
    switch (type) {
    case TYPE_NULL:
        return hd_buf_puts(out, "\"null\"");
    case TYPE_BOOLEAN:
        return hd_buf_puts(out, "(\"true\" | \"false\")");
    case TYPE_INTEGER:
    case TYPE_NUMBER:
        return hd_grammar__put_number(sc, out, schema, type == TYPE_INTEGER);
    case TYPE_STRING:
        return put_string(sc, out, schema);
    case TYPE_ARRAY:
        return put_array(sc, out, schema);
    default:
        return put_object(sc, out, schema);
    }
}

static enum hd_err put_types(struct hd_grammar__schema *sc, struct hd_buf *out, json_t *schema)
{
    unsigned types = hd_grammar__types(sc, schema, 0, true), all = TYPE_ALL;
    bool more = false;
    enum hd_err err = HD_OK;
    if (!types)
        return hd_grammar__refuse(
            sc, HD_ERR_INVALID, "type",
            "must be string, number, integer, boolean, null, array or object, "
            "or a list of them");
    if (types & TYPE_NUMBER)
        types &= ~(unsigned)TYPE_INTEGER; /* which it includes */
    if (types == (all & ~(unsigned)TYPE_INTEGER) && !hd_grammar__has_keywords(schema))
        return hd_buf_puts(out, "value");
    hd_buf_puts(out, "(");
    for (unsigned type = 1; !err && type <= TYPE_OBJECT; type <<= 1)
        if (types & type) {
            hd_buf_puts(out, more ? " | " : "");
            more = true;
            err = put_type(sc, out, schema, type);
        }
    hd_buf_puts(out, ")");
    return err ? err : out->err;
}

static enum hd_err expression(struct hd_grammar__schema *sc, struct hd_buf *out, json_t *schema)
{
    json_t *merged = NULL, *ref = json_object_get(schema, "$ref");
    if (json_is_true(schema))
        return hd_buf_puts(out, "value");
    if (!json_is_object(schema))
        return hd_fail(sc->msg, HD_ERR_INVALID, "%s: must be a schema (an object, or true)",
                       sc->path);
    enum hd_err err = hd_grammar__check_keywords(sc, schema);
    if (err)
        return err;
    if (ref && !json_is_string(ref))
        return hd_grammar__refuse(sc, HD_ERR_INVALID, "$ref", "must be a string");
    if (ref && !hd_grammar__has_keywords(schema))
        return put_reference(sc, out, json_string_value(ref));
    if (ref || json_object_get(schema, "allOf")) {
        err = hd_grammar__merge(sc, &merged, schema);
        if (!err)
            err = schema_expression(sc, out, merged);
        json_decref(merged);
        return err;
    }
    if (json_object_get(schema, "anyOf"))
        return put_choice(sc, out, schema, "anyOf");
    if (json_object_get(schema, "oneOf"))
        return put_choice(sc, out, schema, "oneOf");
    if (json_object_get(schema, "enum") || json_object_get(schema, "const"))
        return put_values(sc, out, schema);
    return put_types(sc, out, schema);
}

static enum hd_err schema_expression(struct hd_grammar__schema *sc, struct hd_buf *out,
                                     json_t *schema)
{
    if (sc->depth == MAX_SCHEMA_DEPTH)
        return hd_fail(sc->msg, HD_ERR_LIMIT, "%s: schemas are nested too deeply", sc->path);
    if (sc->number > HD_GRAMMAR_MAX_RULES)
        return hd_fail(sc->msg, HD_ERR_LIMIT, "%s: the schema is too large", sc->path);
    sc->depth++;
    enum hd_err err = expression(sc, out, schema);
    sc->depth--;
    return err;
}

enum hd_err hd_grammar__schema(struct hd_buf *out, const char *name, const char *prefix,
                               const char *where, json_t *schema, struct hd_errmsg *msg)
{
    struct hd_errmsg why = {0};
    struct hd_buf body;
    struct hd_grammar__schema sc = {.root = schema,
                                    .out = out,
                                    .refs = json_object(),
                                    .any = json_true(),
                                    .prefix = prefix,
                                    .where = where,
                                    .msg = &why};
    snprintf(sc.path, sizeof sc.path, "%s", where);
    hd_buf_init(&body, HD_GRAMMAR_MAX_TEXT);
    enum hd_err err = sc.refs ? schema_expression(&sc, &body, schema) : HD_ERR_NOMEM;
    if (!err)
        err = body.err;
    if (!err)
        err = hd_buf_printf(out, "%s ::= %s\n", name, hd_buf_str(&body));
    hd_buf_dispose(&body);
    json_decref(sc.refs);
    if (err)
        hd_fail(msg, err, "%s", why.text[0] ? why.text : hd_err_text(err));
    return err;
}

enum hd_err hd_grammar_from_schema(struct hd_buf *out, const char *text, size_t len,
                                   struct hd_errmsg *msg)
{
    json_error_t why;
    if (len > HD_GRAMMAR_MAX_TEXT)
        return hd_fail(msg, HD_ERR_LIMIT, "schema: %zu bytes are too many", len);
    json_t *schema = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!schema)
        return hd_fail(msg, HD_ERR_INVALID, "schema: line %d: %s", why.line, why.text);
    enum hd_err err = hd_grammar__schema(out, "root", "s", "schema", schema, msg);
    if (!err)
        err = hd_buf_puts(out, hd_grammar__json);
    json_decref(schema);
    return err;
}
