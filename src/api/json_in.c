/* Requests: strict JSON, and tables that say which fields exist. */
#include "api/api_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

/* jansson would recurse 2,048 levels; brackets outside strings are counted first. */
static bool too_deep(const char *s, size_t len)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        if (in_string && s[i] == '\\')
            i++;
        else if (s[i] == '"')
            in_string = !in_string;
        else if (!in_string && (s[i] == '{' || s[i] == '['))
            depth++;
        else if (!in_string && (s[i] == '}' || s[i] == ']'))
            depth--;
        if (depth > MAX_DEPTH)
            return true;
    }
    return false;
}

int hd_api__parse(json_t **out, const char *body, size_t len, struct hd_api__fault *fault)
{
    json_error_t error;
    *out = NULL;
    if (!len)
        return hd_api__fault(fault, 400, "invalid_json", NULL,
                             "the request has no body; a JSON object is expected");
    if (too_deep(body, len))
        return hd_api__fault(fault, 400, "invalid_json", NULL,
                             "the JSON is nested more than %d levels deep", MAX_DEPTH);
    json_t *root = json_loadb(body, len, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return hd_api__fault(fault, 400, "invalid_json", NULL,
                             "the body is not valid JSON: %s (line %d, byte %d)", error.text,
                             error.line, error.position);
    if (!json_is_object(root)) {
        json_decref(root);
        return hd_api__fault(fault, 400, "invalid_json", NULL, "the body must be a JSON object");
    }
    *out = root;
    return 0;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "a boolean";
    }
}

static int wrong_type(struct hd_api__fault *fault, const char *param, const char *wanted,
                      const json_t *value)
{
    return hd_api__fault(fault, 400, "invalid_type", param, "%s: must be %s, not %s", param, wanted,
                         type_name(value));
}

static int set_number(const struct hd_api__field *field, const json_t *value, char *at,
                      const char *param, struct hd_api__fault *fault)
{
    bool whole = field->kind != KIND_FLOAT;
    if (!json_is_number(value) || (whole && !json_is_integer(value)))
        return wrong_type(fault, param, whole ? "a whole number" : "a number", value);
    double number = json_number_value(value);
    if (!isfinite(number) || number < field->min || number > field->max)
        return hd_api__fault(fault, 400, "invalid_value", param,
                             "%s: %.15g is out of range (%.15g to %.15g)", param, number,
                             field->min, field->max);
    if (field->kind == KIND_INT)
        *(int *)at = (int)json_integer_value(value);
    else if (field->kind == KIND_U64)
        *(uint64_t *)at = (uint64_t)json_integer_value(value);
    else
        *(float *)at = (float)number;
    return 0;
}

static int set_field(const struct hd_api__field *field, json_t *value, char *out, const char *param,
                     struct hd_api__fault *fault)
{
    char *at = out + field->offset;
    int rc = 0;
    switch (field->kind) {
    case KIND_BOOL:
        if (!json_is_boolean(value))
            return wrong_type(fault, param, "a boolean", value);
        *(bool *)at = json_is_true(value);
        break;
    case KIND_STRING:
        if (!json_is_string(value))
            return wrong_type(fault, param, "a string", value);
        *(const char **)at = json_string_value(value);
        break;
    case KIND_JSON:
        *(json_t **)at = value;
        break;
    case KIND_ANY:
        return 0;
    default:
        rc = set_number(field, value, at, param, fault);
    }
    if (!rc && field->seen)
        *(bool *)(out + field->seen) = true;
    return rc;
}

int hd_api__fields(json_t *object, const struct hd_api__field *fields, size_t n, void *out,
                   const char *prefix, struct hd_api__fault *fault)
{
    const char *key;
    json_t *value;
    char param[80];
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        snprintf(param, sizeof param, "%s%s", prefix, key);
        while (i < n && strcmp(fields[i].name, key))
            i++;
        if (i == n)
            return hd_api__fault(fault, 400, "unknown_parameter", param,
                                 "%s: this field is not known here", param);
        if (json_is_null(value))
            continue;
        int rc = set_field(&fields[i], value, out, param, fault);
        if (rc)
            return rc;
    }
    return 0;
}
