/* share/openapi.json against the code: every route is described and nothing else, and a body's
 * fields are those that the code takes, with its types and limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "api/api_impl.h"
#include "fake_engine.h"
#include "fake_kb.h"

static json_t *description;

static int setup(void **state)
{
    json_error_t error;
    description =
        json_load_file(HD_TEST_ROOT "/../share/openapi.json", JSON_REJECT_DUPLICATES, &error);
    if (!description)
        fprintf(stderr, "openapi.json:%d: %s\n", error.line, error.text);
    return description ? 0 : -1;
}

static int teardown(void **state)
{
    json_decref(description);
    return 0;
}

/* Follows "$ref": "#/a/b". */
static json_t *resolve(json_t *value)
{
    const char *ref = json_string_value(json_object_get(value, "$ref"));
    char path[160], *save = NULL;
    if (!ref)
        return value;
    snprintf(path, sizeof path, "%s", ref + 2);
    json_t *at = description;
    for (char *name = strtok_r(path, "/", &save); name; name = strtok_r(NULL, "/", &save))
        at = json_object_get(at, name);
    if (!at)
        fail_msg("%s leads nowhere", ref);
    return at;
}

static json_t *operation(const struct hd_http_route *route)
{
    char method[8] = {0};
    for (size_t i = 0; route->method[i] && i < sizeof method - 1; i++)
        method[i] = (char)tolower((unsigned char)route->method[i]);
    json_t *paths = json_object_get(description, "paths");
    return json_object_get(json_object_get(paths, route->pattern), method);
}

static void test_routes(void **state)
{
    size_t n, count = 0;
    const struct hd_http_route *routes = hd_api__routes(&n);
    const char *path, *method;
    json_t *methods, *one;
    for (size_t i = 0; i < n; i++)
        if (!operation(&routes[i]))
            fail_msg("%s %s is not described", routes[i].method, routes[i].pattern);
    json_object_foreach(json_object_get(description, "paths"), path, methods)
    {
        json_object_foreach(methods, method, one) count += strcmp(method, "parameters") != 0;
    }
    if (count != n)
        fail_msg("%zu operations are described, there are %zu", count, n);
    assert_memory_equal(json_string_value(json_object_get(description, "openapi")), "3.1.", 4);
}

static void check_kind(const struct hd_api__field *field, json_t *schema, const char *where)
{
    static const char *const types[] = {[KIND_BOOL] = "boolean",
                                        [KIND_INT] = "integer",
                                        [KIND_U64] = "integer",
                                        [KIND_FLOAT] = "number",
                                        [KIND_STRING] = "string"};
    json_t *type = json_object_get(schema, "type");
    if (field->kind == KIND_JSON || field->kind == KIND_ANY)
        return;
    if (!json_is_string(type) || strcmp(json_string_value(type), types[field->kind]))
        fail_msg("%s: %s is not described as %s", where, field->name, types[field->kind]);
    if (field->kind != KIND_INT && field->kind != KIND_FLOAT)
        return;
    double min = json_number_value(json_object_get(schema, "minimum"));
    double max = json_number_value(json_object_get(schema, "maximum"));
    if (min != (double)field->min || max != (double)field->max)
        fail_msg("%s: %s goes from %g to %g, not from %g to %g", where, field->name, field->min,
                 field->max, min, max);
}

static void check_body(const struct hd_http_route *route, const struct hd_api__schema *schema)
{
    json_t *body = json_object_get(operation(route), "requestBody");
    json_t *content = json_object_get(json_object_get(body, "content"), "application/json");
    json_t *object = resolve(json_object_get(content, "schema"));
    json_t *properties = json_object_get(object, "properties");
    if (!json_is_false(json_object_get(object, "additionalProperties")))
        fail_msg("%s: additionalProperties is not false", route->pattern);
    for (size_t i = 0; i < schema->n; i++) {
        json_t *property = json_object_get(properties, schema->fields[i].name);
        if (!property)
            fail_msg("%s: %s is not described", route->pattern, schema->fields[i].name);
        check_kind(&schema->fields[i], resolve(property), route->pattern);
    }
    if (json_object_size(properties) != schema->n)
        fail_msg("%s: %zu fields are described, there are %zu", route->pattern,
                 json_object_size(properties), schema->n);
}

static void test_bodies(void **state)
{
    size_t n;
    const struct hd_http_route *routes = hd_api__routes(&n);
    for (size_t i = 0; i < n; i++) {
        const struct hd_api__schema *schema =
            hd_api__body_schema(routes[i].method, routes[i].pattern);
        bool described = json_object_get(operation(&routes[i]), "requestBody") != NULL;
        if (described != (schema != NULL))
            fail_msg("%s %s: a body is %sdescribed", routes[i].method, routes[i].pattern,
                     described ? "" : "not ");
        if (schema)
            check_body(&routes[i], schema);
    }
}

/* Each operation tells its answer, and the error that any of them may be. */
static void test_answers(void **state)
{
    size_t n;
    const struct hd_http_route *routes = hd_api__routes(&n);
    for (size_t i = 0; i < n; i++) {
        json_t *responses = json_object_get(operation(&routes[i]), "responses");
        const char *ok = json_object_get(responses, "201") ? "201" : "200";
        if (!json_object_get(responses, ok))
            fail_msg("%s %s: no answer is described", routes[i].method, routes[i].pattern);
        if (routes[i].tag != ROUTE_OPEN && !resolve(json_object_get(responses, "default")))
            fail_msg("%s %s: no error is described", routes[i].method, routes[i].pattern);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_answers),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
