/* Left recursion: a rule that reaches itself before it has read a byte, with something behind it,
 * would push frames for ever. (One that reaches itself as its last part pushes none.) */
#include <stdlib.h>

#include "token/grammar/grammar_impl.h"

struct edge { /* from a rule to one that it may begin with */
    uint32_t to;
    bool last; /* nothing stands behind it */
};

struct graph {
    const struct hd_grammar__program *p;
    bool *nullable;
    struct edge *edge;
    size_t n_edge, cap_edge;
    uint32_t *first; /* [n_rule + 1] in edge */
    /* Tarjan's strongly connected components */
    uint32_t *index, *low, *component, *stack, *path, *next;
    size_t n_stack, n_path;
    uint32_t n_index, n_component;
};

static bool sequence_nullable(const struct graph *g, uint32_t at)
{
    const struct hd_grammar__elem *e = g->p->elem + at;
    while (e->kind == ELEM_RULE && g->nullable[e->value])
        e++;
    return e->kind == ELEM_END;
}

static void find_nullable(struct graph *g)
{
    const struct hd_grammar__program *p = g->p;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t r = p->n_rule; r-- > 0;)
            for (uint32_t i = 0; !g->nullable[r] && i < p->rule[r].n_alt; i++)
                if (sequence_nullable(g, p->alt[p->rule[r].alt + i]))
                    g->nullable[r] = changed = true;
    }
}

static enum hd_err find_edges(struct graph *g)
{
    const struct hd_grammar__program *p = g->p;
    for (size_t r = 0; r < p->n_rule; r++) {
        g->first[r] = (uint32_t)g->n_edge;
        for (uint32_t i = 0; i < p->rule[r].n_alt; i++) {
            const struct hd_grammar__elem *e = p->elem + p->alt[p->rule[r].alt + i];
            for (; e->kind == ELEM_RULE; e++) {
                enum hd_err err = hd_grammar__grow(&g->edge, &g->cap_edge, g->n_edge,
                                                   sizeof *g->edge, HD_GRAMMAR_MAX_ELEMS);
                if (err)
                    return err;
                g->edge[g->n_edge++] = (struct edge){e->value, e[1].kind == ELEM_END};
                if (!g->nullable[e->value])
                    break;
            }
        }
    }
    g->first[p->n_rule] = (uint32_t)g->n_edge;
    return HD_OK;
}

static void enter(struct graph *g, uint32_t rule)
{
    g->index[rule] = g->low[rule] = ++g->n_index;
    g->next[rule] = g->first[rule];
    g->stack[g->n_stack++] = rule;
    g->path[g->n_path++] = rule;
}

static void leave(struct graph *g, uint32_t rule)
{
    g->n_path--;
    if (g->n_path && g->low[g->path[g->n_path - 1]] > g->low[rule])
        g->low[g->path[g->n_path - 1]] = g->low[rule];
    if (g->low[rule] != g->index[rule])
        return;
    g->n_component++;
    for (uint32_t member = UINT32_MAX; member != rule;) {
        member = g->stack[--g->n_stack];
        g->component[member] = g->n_component;
    }
}

static void find_components(struct graph *g)
{
    for (uint32_t start = 0; start < g->p->n_rule; start++) {
        if (g->index[start])
            continue;
        enter(g, start);
        while (g->n_path) {
            uint32_t rule = g->path[g->n_path - 1];
            if (g->next[rule] == g->first[rule + 1]) {
                leave(g, rule);
                continue;
            }
            uint32_t to = g->edge[g->next[rule]++].to;
            if (!g->index[to])
                enter(g, to);
            else if (!g->component[to] && g->low[rule] > g->index[to])
                g->low[rule] = g->index[to];
        }
    }
}

static enum hd_err refuse(const json_t *names, uint32_t rule, struct hd_errmsg *msg)
{
    const char *name;
    json_t *id;
    json_object_foreach((json_t *)names, name, id)
    {
        if (json_integer_value(id) == rule)
            return hd_fail(msg, HD_ERR_INVALID,
                           "grammar: rule \"%.64s\" begins with itself (write the repetition "
                           "behind: x ::= y | y x)",
                           name);
    }
    return hd_fail(msg, HD_ERR_INVALID, "grammar: a group begins with itself");
}

enum hd_err hd_grammar__check(const struct hd_grammar__program *p, const json_t *names,
                              struct hd_errmsg *msg)
{
    size_t n = p->n_rule;
    struct graph g = {.p = p};
    uint32_t *words = calloc(7 * n + 1, sizeof *words);
    g.nullable = calloc(n + 1, sizeof *g.nullable);
    enum hd_err err = words && g.nullable ? HD_OK : HD_ERR_NOMEM;
    if (!err) {
        uint32_t **const part[] = {&g.index, &g.low, &g.component, &g.stack, &g.path, &g.next};
        for (size_t i = 0; i < 6; i++)
            *part[i] = words + i * n;
        g.first = words + 6 * n; /* n + 1 of them */
        find_nullable(&g);
        err = find_edges(&g);
    }
    if (err)
        hd_fail(msg, err, "grammar: %s", hd_err_text(err));
    else
        find_components(&g);
    for (uint32_t r = 0; !err && r < n; r++)
        for (uint32_t i = g.first[r]; !err && i < g.first[r + 1]; i++)
            if (!g.edge[i].last && g.component[g.edge[i].to] == g.component[r])
                err = refuse(names, r, msg);
    free(words);
    free(g.nullable);
    free(g.edge);
    return err;
}
