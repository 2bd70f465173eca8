/* Expressions to values. */
#include "token/jinja/jinja_impl.h"

static const jv *find_arg(const struct hd_jinja__args *args, size_t i, const char *name)
{
    size_t position = 0;
    for (size_t k = 0; k < args->n; k++) {
        if (args->name[k] ? name && !strcmp(args->name[k], name) : position == i)
            return &args->value[k];
        position += !args->name[k];
    }
    return NULL;
}

jv hd_jinja__arg(const struct hd_jinja__args *args, size_t i, const char *name)
{
    const jv *value = find_arg(args, i, name);
    return value ? *value : hd_jinja__undefined(name);
}

bool hd_jinja__given(const struct hd_jinja__args *args, size_t i, const char *name)
{
    return find_arg(args, i, name) != NULL;
}

/* --- names, attributes, subscripts ------------------------------------------------------------ */

static jv lookup(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    for (const struct hd_jinja__scope *scope = run->scope; scope; scope = scope->parent)
        for (size_t i = scope->n; i-- > 0;)
            if (scope->var[i].sym == node->sym)
                return scope->var[i].value;
    const char *function = hd_jinja__function_name(node->name);
    if (function)
        return (jv){.kind = JV_FUNCTION, .u.name = function};
    return hd_jinja__undefined(node->name);
}

static jv loop_attr(struct hd_jinja_run *run, const struct hd_jinja__loop *loop, const char *name)
{
    int64_t index0 = (int64_t)loop->index0, n = (int64_t)loop->list->n;
    if (!strcmp(name, "index0"))
        return hd_jinja__int(index0);
    if (!strcmp(name, "index"))
        return hd_jinja__int(index0 + 1);
    if (!strcmp(name, "revindex"))
        return hd_jinja__int(n - index0);
    if (!strcmp(name, "revindex0"))
        return hd_jinja__int(n - index0 - 1);
    if (!strcmp(name, "first"))
        return hd_jinja_bool(!index0);
    if (!strcmp(name, "last"))
        return hd_jinja_bool(index0 + 1 == n);
    if (!strcmp(name, "length"))
        return hd_jinja__int(n);
    if (!strcmp(name, "depth"))
        return hd_jinja__int(1); /* only recursive loops have more, which there are none of */
    if (!strcmp(name, "depth0"))
        return hd_jinja__int(0);
    if (!strcmp(name, "previtem"))
        return index0 ? loop->list->item[index0 - 1] : hd_jinja__undefined("loop.previtem");
    if (!strcmp(name, "nextitem"))
        return index0 + 1 < n ? loop->list->item[index0 + 1] : hd_jinja__undefined("loop.nextitem");
    return hd_jinja__undefined("the loop's attribute");
}

static jv find_key(struct hd_jinja_run *run, jv object, const char *name, size_t len)
{
    jv key = hd_jinja__str(run, name, NULL, len, false);
    struct hd_jinja__entry *entry = run->err ? NULL : hd_jinja__dict_find(run, object.u.dict, key);
    return entry ? entry->value : hd_jinja__undefined(name);
}

/* object.name: a method, else the item of this name. */
jv hd_jinja__attr(struct hd_jinja_run *run, jv object, const char *name, size_t len)
{
    if (hd_jinja__fail_undefined(run, object))
        return object;
    if (object.kind == JV_LOOP)
        return loop_attr(run, object.u.loop, name);
    const char *known = hd_jinja__method_name(object, name, len);
    if (known) {
        struct hd_jinja__method *method = hd_jinja__make(run, sizeof *method);
        if (!method)
            return hd_jinja__undefined(name);
        *method = (struct hd_jinja__method){object, known};
        return (jv){.kind = JV_METHOD, .u.method = method};
    }
    if (object.kind == JV_DICT || object.kind == JV_NAMESPACE)
        return find_key(run, object, name, len);
    return hd_jinja__undefined(name);
}

static jv item_at(struct hd_jinja_run *run, jv object, int64_t i)
{
    int64_t n = hd_jinja__length(run, object);
    i = i < 0 ? i + n : i;
    if (run->err || i < 0 || i >= n)
        return hd_jinja__undefined("an element");
    if (object.kind == JV_LIST)
        return object.u.list->item[i];
    const struct hd_jinja__str *s = object.u.str;
    size_t from = hd_jinja__at(s, (size_t)i);
    return hd_jinja__cut(
        run, s, from,
        from +
            hd_jinja__at(&(struct hd_jinja__str){.data = s->data + from, .len = s->len - from}, 1));
}

/* object[key]: the item, else, where the key is a string, the attribute. */
jv hd_jinja__item(struct hd_jinja_run *run, jv object, jv key)
{
    if (hd_jinja__fail_undefined(run, object))
        return object;
    if (object.kind == JV_DICT) {
        struct hd_jinja__entry *entry = hd_jinja__dict_find(run, object.u.dict, key);
        if (entry || run->err)
            return entry ? entry->value : hd_jinja__undefined(NULL);
    } else if ((object.kind == JV_LIST || object.kind == JV_STR) &&
               (key.kind == JV_INT || key.kind == JV_BOOL)) {
        return item_at(run, object, key.kind == JV_INT ? key.u.i : key.u.b);
    }
    if (key.kind != JV_STR)
        return hd_jinja__undefined("an element");
    const char *name = hd_jinja__make(run, key.u.str->len + 1);
    if (!name)
        return hd_jinja__undefined(NULL);
    memcpy((char *)(uintptr_t)name, key.u.str->data, key.u.str->len);
    ((char *)(uintptr_t)name)[key.u.str->len] = 0;
    return hd_jinja__attr(run, object, name, key.u.str->len);
}

static jv slice(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv part[3], object = hd_jinja__eval(run, node->a);
    for (size_t i = 0; i < 3; i++)
        part[i] = node->list[i] ? hd_jinja__eval(run, node->list[i]) : hd_jinja_none();
    if (run->err || hd_jinja__fail_undefined(run, object))
        return hd_jinja__undefined(NULL);
    return hd_jinja__slice(run, object, part[0], part[1], part[2]);
}

/* --- calls ------------------------------------------------------------------------------------ */

static void eval_args(struct hd_jinja_run *run, const struct hd_jinja__node *node, jv *value,
                      struct hd_jinja__args *args)
{
    *args = (struct hd_jinja__args){value, node->names, node->n};
    for (size_t i = 0; i < node->n && !run->err; i++)
        value[i] = hd_jinja__eval(run, node->list[i]);
}

static jv *room_for(struct hd_jinja_run *run, size_t n)
{
    return hd_jinja__make(run, (n ? n : 1) * sizeof(jv));
}

static jv call(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    struct hd_jinja__args args;
    jv callee = hd_jinja__eval(run, node->a), *value = room_for(run, node->n);
    if (!value || run->err)
        return hd_jinja__undefined(NULL);
    eval_args(run, node, value, &args);
    run->line = node->line;
    if (run->err)
        return hd_jinja__undefined(NULL);
    switch (callee.kind) {
    case JV_FUNCTION:
        return hd_jinja__call_function(run, callee.u.name, &args);
    case JV_METHOD:
        return hd_jinja__call_method(run, callee.u.method, &args);
    case JV_MACRO:
        return hd_jinja__call_macro(run, callee.u.macro, &args);
    case JV_UNDEFINED:
        hd_jinja__fail_undefined(run, callee);
        return callee;
    default:
        hd_jinja__fail(run, HD_ERR_INVALID, "%s cannot be called", hd_jinja__type_name(callee));
        return callee;
    }
}

jv hd_jinja__filter_node(struct hd_jinja_run *run, const struct hd_jinja__node *node, jv input)
{
    struct hd_jinja__args args;
    jv *value = room_for(run, node->n);
    if (!value)
        return hd_jinja__undefined(NULL);
    eval_args(run, node, value, &args);
    run->line = node->line;
    return run->err ? hd_jinja__undefined(NULL) : hd_jinja__filter(run, node->name, input, &args);
}

static jv test(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    struct hd_jinja__args args;
    jv input = hd_jinja__eval(run, node->a), *value = room_for(run, node->n);
    if (!value)
        return hd_jinja__undefined(NULL);
    eval_args(run, node, value, &args);
    if (run->err)
        return hd_jinja__undefined(NULL);
    return hd_jinja_bool(hd_jinja__test(run, node->name, input, &args) != node->op);
}

/* --- the rest --------------------------------------------------------------------------------- */

static jv list(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    struct hd_jinja__list *made = hd_jinja__new_list(run, node->n);
    jv out = {.kind = JV_LIST, .u.list = made};
    if (run->err)
        return hd_jinja__undefined(NULL);
    made->tuple = node->type == N_TUPLE;
    for (size_t i = 0; i < node->n && !run->err; i++)
        hd_jinja_push(run, out, hd_jinja__eval(run, node->list[i]));
    return out;
}

static jv dict(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv out = hd_jinja_dict(run);
    for (size_t i = 0; i + 1 < node->n && !run->err; i += 2) {
        jv key = hd_jinja__eval(run, node->list[i]);
        jv value = hd_jinja__eval(run, node->list[i + 1]);
        if (key.kind > JV_STR || key.kind == JV_UNDEFINED)
            hd_jinja__fail(run, HD_ERR_INVALID, "%s cannot be a key", hd_jinja__type_name(key));
        if (!run->err)
            hd_jinja__dict_put(run, out.u.dict, key, value);
    }
    return out;
}

static jv comparison(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv left = hd_jinja__eval(run, node->a);
    bool holds = true;
    for (size_t i = 0; i < node->n && holds && !run->err; i++) {
        jv right = hd_jinja__eval(run, node->list[i]);
        run->line = node->line;
        if (!run->err)
            holds = hd_jinja__compare(run, node->ops[i], left, right);
        left = right;
    }
    return hd_jinja_bool(holds);
}

static jv sign(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv value = hd_jinja__eval(run, node->a);
    if (run->err || hd_jinja__fail_undefined(run, value))
        return value;
    if (!hd_jinja__is_number(value)) {
        hd_jinja__fail(run, HD_ERR_INVALID, "%s has no sign", hd_jinja__type_name(value));
        return value;
    }
    if (node->type == N_POS)
        return value.kind == JV_BOOL ? hd_jinja__int(value.u.b) : value;
    if (value.kind == JV_REAL)
        return hd_jinja__real(-value.u.f);
    return hd_jinja__binary(run, OP_SUB, hd_jinja__int(0), value);
}

static jv binary(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv a = hd_jinja__eval(run, node->a);
    jv b = run->err ? a : hd_jinja__eval(run, node->b);
    run->line = node->line;
    return run->err ? a : hd_jinja__binary(run, node->op, a, b);
}

static jv eval(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv a;
    switch (node->type) {
    case N_CONST:
        return node->value;
    case N_NAME:
        return lookup(run, node);
    case N_LIST:
    case N_TUPLE:
        return list(run, node);
    case N_DICT:
        return dict(run, node);
    case N_ATTR:
        a = hd_jinja__eval(run, node->a);
        run->line = node->line;
        return run->err ? a : hd_jinja__attr(run, a, node->name, strlen(node->name));
    case N_ITEM: {
        a = hd_jinja__eval(run, node->a);
        jv key = run->err ? a : hd_jinja__eval(run, node->b);
        run->line = node->line;
        return run->err ? a : hd_jinja__item(run, a, key);
    }
    case N_SLICE:
        return slice(run, node);
    case N_CALL:
        return call(run, node);
    case N_FILTER:
        a = hd_jinja__eval(run, node->a);
        return run->err ? a : hd_jinja__filter_node(run, node, a);
    case N_TEST:
        return test(run, node);
    case N_NOT:
        return hd_jinja_bool(!hd_jinja__truth(hd_jinja__eval(run, node->a)));
    case N_NEG:
    case N_POS:
        return sign(run, node);
    case N_BINARY:
        return binary(run, node);
    case N_AND:
    case N_OR:
        a = hd_jinja__eval(run, node->a);
        return run->err || hd_jinja__truth(a) == (node->type == N_OR)
                   ? a
                   : hd_jinja__eval(run, node->b);
    case N_COMPARE:
        return comparison(run, node);
    case N_COND:
        if (hd_jinja__truth(hd_jinja__eval(run, node->a)))
            return hd_jinja__eval(run, node->b);
        return node->c && !run->err ? hd_jinja__eval(run, node->c)
                                    : hd_jinja__undefined("the value of an if without else");
    default:
        hd_jinja__fail(run, HD_ERR_INTERNAL, "no expression");
        return hd_jinja__undefined(NULL);
    }
}

jv hd_jinja__eval(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv out = hd_jinja__undefined(NULL);
    run->line = node->line;
    if (++run->depth > 4 * HD_JINJA_MAX_DEPTH)
        hd_jinja__fail(run, HD_ERR_INVALID, "the template nests its calls too deeply");
    if (hd_jinja__step(run, 1))
        out = eval(run, node);
    run->depth--;
    return out;
}
