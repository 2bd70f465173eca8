/* Statements to text. */
#include <stdlib.h>

#include "token/jinja/jinja_impl.h"

/* --- scopes ----------------------------------------------------------------------------------- */

void hd_jinja__assign(struct hd_jinja_run *run, struct hd_jinja__scope *scope, int sym, jv value)
{
    for (size_t i = 0; i < scope->n; i++)
        if (scope->var[i].sym == sym) {
            scope->var[i].value = value;
            return;
        }
    if (scope->n == scope->cap) {
        size_t cap = scope->cap ? scope->cap * 2 : 8;
        struct hd_jinja__var *grown = hd_jinja__make(run, cap * sizeof *grown);
        if (!grown)
            return;
        if (scope->n)
            memcpy(grown, scope->var, scope->n * sizeof *grown);
        scope->var = grown;
        scope->cap = cap;
    }
    scope->var[scope->n++] = (struct hd_jinja__var){sym, value};
}

static struct hd_jinja__scope *open_scope(struct hd_jinja_run *run, struct hd_jinja__scope *parent)
{
    struct hd_jinja__scope *scope = hd_jinja__make(run, sizeof *scope);
    if (scope)
        *scope = (struct hd_jinja__scope){.parent = parent};
    return scope;
}

static void set_attribute(struct hd_jinja_run *run, const struct hd_jinja__node *target, jv value)
{
    jv object = hd_jinja__eval(run, target->a);
    run->line = target->line;
    if (!run->err && object.kind != JV_NAMESPACE)
        hd_jinja__fail(run, HD_ERR_INVALID, "only a namespace's attributes can be set");
    jv name = hd_jinja__own(run, target->name);
    if (!run->err)
        hd_jinja__dict_put(run, object.u.dict, name, value);
}

void hd_jinja__set_target(struct hd_jinja_run *run, const struct hd_jinja__node *target, jv value)
{
    if (run->err)
        return;
    if (target->type == N_NAME) {
        hd_jinja__assign(run, run->scope, target->sym, value);
        return;
    }
    if (target->type == N_ATTR) {
        set_attribute(run, target, value);
        return;
    }
    struct hd_jinja__list *list = hd_jinja__iterate(run, value);
    if (!run->err && list->n != target->n)
        hd_jinja__fail(run, HD_ERR_INVALID, "%zu values for %zu names", list->n, target->n);
    for (size_t i = 0; i < target->n && !run->err; i++)
        hd_jinja__set_target(run, target->list[i], list->item[i]);
}

/* --- statements ------------------------------------------------------------------------------- */

static void exec_output(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv value = hd_jinja__eval(run, node->a);
    if (run->err)
        return;
    run->line = node->line;
    if (value.kind == JV_STR)
        hd_jinja__text_add(run, run->out, value.u.str);
    else
        hd_jinja__put_value(run, run->out, value);
}

static void exec_if(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    for (size_t i = 0; i + 1 < node->n; i += 2) {
        bool holds = hd_jinja__truth(hd_jinja__eval(run, node->list[i]));
        if (run->err)
            return;
        if (holds) {
            hd_jinja__exec(run, node->list[i + 1]);
            return;
        }
    }
    if (node->b)
        hd_jinja__exec(run, node->b);
}

static int loop_symbol(const struct hd_jinja_run *run)
{
    for (size_t i = 0; i < run->jinja->n_name; i++)
        if (!strcmp(run->jinja->names[i], "loop"))
            return (int)i;
    return -1;
}

/* The elements that the loop's filter keeps. */
static struct hd_jinja__list *kept(struct hd_jinja_run *run, const struct hd_jinja__node *node,
                                   struct hd_jinja__list *all)
{
    struct hd_jinja__list *some = hd_jinja__new_list(run, 0);
    struct hd_jinja__scope *outer = run->scope, *scope = open_scope(run, outer);
    if (run->err)
        return all;
    run->scope = scope;
    for (size_t i = 0; i < all->n && !run->err; i++) {
        scope->n = 0;
        hd_jinja__set_target(run, node->a, all->item[i]);
        if (!run->err && hd_jinja__truth(hd_jinja__eval(run, node->c)))
            hd_jinja_push(run, (jv){.kind = JV_LIST, .u.list = some}, all->item[i]);
    }
    run->scope = outer;
    return some;
}

static void exec_for(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv over = hd_jinja__eval(run, node->b);
    run->line = node->line;
    struct hd_jinja__list *list = run->err ? NULL : hd_jinja__iterate(run, over);
    if (!run->err && node->c)
        list = kept(run, node, list);
    struct hd_jinja__loop *loop = hd_jinja__make(run, sizeof *loop);
    struct hd_jinja__scope *outer = run->scope, *scope = open_scope(run, outer);
    if (run->err)
        return;
    int sym = loop_symbol(run);
    *loop = (struct hd_jinja__loop){.list = list};
    run->scope = scope;
    for (size_t i = 0; i < list->n && !run->err; i++) {
        loop->index0 = i;
        scope->n = 0;
        if (sym >= 0)
            hd_jinja__assign(run, scope, sym, (jv){.kind = JV_LOOP, .u.loop = loop});
        hd_jinja__set_target(run, node->a, list->item[i]);
        hd_jinja__exec(run, node->list[0]);
        bool stops = run->flow == FLOW_BREAK;
        run->flow = FLOW_ON;
        if (stops)
            break;
    }
    run->scope = outer;
    if (!list->n && node->list[1])
        hd_jinja__exec(run, node->list[1]);
}

/* What a body writes, as a string. */
static jv capture(struct hd_jinja_run *run, const struct hd_jinja__node *body)
{
    struct hd_jinja__text text, *outer = run->out;
    hd_jinja__text_init(run, &text);
    run->out = &text;
    hd_jinja__exec(run, body);
    run->out = outer;
    return hd_jinja__text_take(run, &text);
}

/* The filters over a block: the innermost one's input is a placeholder. */
static jv apply_filters(struct hd_jinja_run *run, const struct hd_jinja__node *node, jv input)
{
    if (node->type != N_FILTER)
        return input;
    jv inner = apply_filters(run, node->a, input);
    return run->err ? inner : hd_jinja__filter_node(run, node, inner);
}

static jv exec_captured(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    struct hd_jinja__scope *outer = run->scope, *scope = open_scope(run, outer);
    if (!scope)
        return hd_jinja__undefined(NULL);
    run->scope = scope;
    jv value = capture(run, node->b);
    run->scope = outer;
    return node->c && !run->err ? apply_filters(run, node->c, value) : value;
}

static void exec_macro(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    struct hd_jinja__macro *macro = hd_jinja__make(run, sizeof *macro);
    if (!macro)
        return;
    *macro = (struct hd_jinja__macro){node, run->scope};
    hd_jinja__assign(run, run->scope, node->sym, (jv){.kind = JV_MACRO, .u.macro = macro});
}

static int symbol_of(const struct hd_jinja_run *run, const char *name)
{
    size_t i = 0;
    while (run->jinja->names[i] != name && strcmp(run->jinja->names[i], name))
        i++;
    return (int)i; /* every parameter is a symbol */
}

static void check_arguments(struct hd_jinja_run *run, const struct hd_jinja__node *node,
                            const struct hd_jinja__args *args)
{
    size_t positional = 0;
    for (size_t i = 0; i < args->n; i++) {
        size_t k = 0;
        positional += !args->name[i];
        while (args->name[i] && k < node->n && strcmp(args->name[i], node->names[k]))
            k++;
        if (args->name[i] && k == node->n)
            hd_jinja__fail(run, HD_ERR_INVALID, "macro %.60s has no parameter %.60s", node->name,
                           args->name[i]);
    }
    if (positional > node->n)
        hd_jinja__fail(run, HD_ERR_INVALID, "macro %.60s takes at most %zu arguments", node->name,
                       node->n);
}

jv hd_jinja__call_macro(struct hd_jinja_run *run, const struct hd_jinja__macro *macro,
                        const struct hd_jinja__args *args)
{
    const struct hd_jinja__node *node = macro->node;
    struct hd_jinja__scope *outer = run->scope, *scope = open_scope(run, macro->scope);
    check_arguments(run, node, args);
    if (run->err)
        return hd_jinja__undefined(NULL);
    run->scope = scope;
    for (size_t i = 0; i < node->n && !run->err; i++) {
        jv value = hd_jinja__arg(args, i, node->names[i]);
        if (node->list[i] && !hd_jinja__given(args, i, node->names[i]))
            value = hd_jinja__eval(run, node->list[i]);
        hd_jinja__assign(run, scope, symbol_of(run, node->names[i]), value);
    }
    jv out = run->err ? hd_jinja__undefined(NULL) : capture(run, node->b);
    run->scope = outer;
    return out;
}

static void exec_with(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    struct hd_jinja__scope *outer = run->scope, *scope = open_scope(run, outer);
    for (size_t i = 0; i + 1 < node->n && !run->err; i += 2) {
        run->scope = outer; /* values see the outside only */
        jv value = hd_jinja__eval(run, node->list[i + 1]);
        run->scope = scope;
        hd_jinja__set_target(run, node->list[i], value);
    }
    if (!run->err) {
        run->scope = scope;
        hd_jinja__exec(run, node->b);
    }
    run->scope = outer;
}

static void exec(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    jv value;
    switch (node->type) {
    case N_TEXT:
        hd_jinja__text_add(run, run->out, node->value.u.str);
        return;
    case N_OUTPUT:
        exec_output(run, node);
        return;
    case N_BODY:
        for (size_t i = 0; i < node->n && !run->err && run->flow == FLOW_ON; i++)
            hd_jinja__exec(run, node->list[i]);
        return;
    case N_IF:
        exec_if(run, node);
        return;
    case N_FOR:
        exec_for(run, node);
        return;
    case N_SET:
        value = hd_jinja__eval(run, node->b);
        hd_jinja__set_target(run, node->a, value);
        return;
    case N_SETBLOCK:
        value = exec_captured(run, node);
        hd_jinja__set_target(run, node->a, value);
        return;
    case N_FILTERED:
        value = exec_captured(run, node);
        if (!run->err)
            hd_jinja__put_value(run, run->out, value);
        return;
    case N_MACRO:
        exec_macro(run, node);
        return;
    case N_WITH:
        exec_with(run, node);
        return;
    case N_BREAK:
        run->flow = FLOW_BREAK;
        return;
    case N_CONTINUE:
        run->flow = FLOW_CONTINUE;
        return;
    default:
        hd_jinja__fail(run, HD_ERR_INTERNAL, "no statement");
    }
}

void hd_jinja__exec(struct hd_jinja_run *run, const struct hd_jinja__node *node)
{
    run->line = node->line;
    if (++run->depth > 4 * HD_JINJA_MAX_DEPTH)
        hd_jinja__fail(run, HD_ERR_INVALID, "the template nests its calls too deeply");
    if (hd_jinja__step(run, 1))
        exec(run, node);
    run->depth--;
}

/* --- the run ---------------------------------------------------------------------------------- */

enum hd_err hd_jinja_run_new(struct hd_jinja_run **out, const struct hd_jinja *jinja,
                             const struct hd_jinja_limits *limits, int64_t now)
{
    struct hd_jinja_run *run = calloc(1, sizeof *run);
    *out = run;
    if (!run)
        return HD_ERR_NOMEM;
    run->jinja = jinja;
    run->limits = *limits;
    run->arena.max = limits->max_memory;
    run->scope = &run->top;
    run->now = now;
    hd_buf_init(&run->output.text, limits->max_output);
    hd_buf_init(&run->output.mask, limits->max_output);
    run->out = &run->output;
    return HD_OK;
}

void hd_jinja_run_free(struct hd_jinja_run *run)
{
    if (!run)
        return;
    hd_jinja__text_dispose(&run->output);
    hd_jinja__arena_dispose(&run->arena);
    free(run);
}

void hd_jinja_set(struct hd_jinja_run *run, const char *name, jv value)
{
    for (size_t i = 0; i < run->jinja->n_name; i++)
        if (!strcmp(run->jinja->names[i], name)) {
            hd_jinja__assign(run, &run->top, (int)i, value);
            return;
        }
}

enum hd_err hd_jinja_render(struct hd_jinja_run *run, struct hd_jinja_output *out,
                            struct hd_errmsg *msg)
{
    struct hd_jinja__scope *scope = open_scope(run, &run->top);
    if (!run->err) {
        run->scope = scope;
        hd_jinja__exec(run, run->jinja->root);
    }
    if (run->err)
        return hd_fail(msg, run->err, "%s", run->msg.text);
    *out = (struct hd_jinja_output){
        .text = hd_buf_str(&run->output.text),
        .mask = run->output.mixed ? (const unsigned char *)run->output.mask.data : NULL,
        .len = run->output.text.len,
        .request = run->output.request,
    };
    return HD_OK;
}
