/* Expressions, in Jinja's order of precedence: ternary, or, and, not, comparisons, + -, ~,
 * * / // %, **, signs; filters and tests bind tighter than any of them. */
#include <stdarg.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "token/jinja/jinja_impl.h"

typedef struct hd_jinja__node node;

/* --- tokens ----------------------------------------------------------------------------------- */

struct hd_jinja__token *hd_jinja__peek(struct hd_jinja *jinja)
{
    return &jinja->token[jinja->at];
}

struct hd_jinja__token *hd_jinja__next(struct hd_jinja *jinja)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    if (token->type != LX_END)
        jinja->at++;
    return token;
}

static bool is_text(const struct hd_jinja__token *token, const char *text)
{
    return token->len == strlen(text) && !memcmp(token->text, text, token->len);
}

bool hd_jinja__at_op(struct hd_jinja *jinja, const char *op)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    return token->type == LX_OP && is_text(token, op);
}

bool hd_jinja__at_name(struct hd_jinja *jinja, const char *name)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    return token->type == LX_NAME && is_text(token, name);
}

bool hd_jinja__skip_op(struct hd_jinja *jinja, const char *op)
{
    bool at = !jinja->err && hd_jinja__at_op(jinja, op);
    if (at)
        hd_jinja__next(jinja);
    return at;
}

bool hd_jinja__skip_name(struct hd_jinja *jinja, const char *name)
{
    bool at = !jinja->err && hd_jinja__at_name(jinja, name);
    if (at)
        hd_jinja__next(jinja);
    return at;
}

static void unexpected(struct hd_jinja *jinja, const char *due)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    hd_jinja__refuse(jinja, HD_ERR_FORMAT, token->line, "%s is due, not \"%.*s\"", due,
                     (int)(token->len < 40 ? token->len : 40), token->text ? token->text : "");
}

void hd_jinja__expect_op(struct hd_jinja *jinja, const char *op)
{
    if (!jinja->err && !hd_jinja__skip_op(jinja, op))
        unexpected(jinja, op);
}

/* --- nodes ------------------------------------------------------------------------------------ */

static void *make(struct hd_jinja *jinja, size_t size)
{
    void *out = hd_jinja__alloc(&jinja->arena, size);
    if (!out)
        hd_jinja__refuse(jinja, HD_ERR_LIMIT, 0, "the template is too large");
    return out;
}

char *hd_jinja__copy(struct hd_jinja *jinja, const char *text, size_t len)
{
    char *copy = make(jinja, len + 1);
    if (!copy)
        return NULL;
    if (len)
        memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

node *hd_jinja__node(struct hd_jinja *jinja, enum hd_jinja__type type, int line)
{
    node *made = jinja->err ? NULL : make(jinja, sizeof *made);
    if (!made) {
        jinja->no_node = (node){0};
        return &jinja->no_node;
    }
    *made = (node){.type = type, .line = line, .sym = -1, .depth = 1};
    return made;
}

node *hd_jinja__close(struct hd_jinja *jinja, node *n)
{
    int deepest = 0;
    const node *child[] = {n->a, n->b, n->c};
    if (jinja->err)
        return n;
    for (size_t i = 0; i < 3; i++)
        if (child[i] && child[i]->depth > deepest)
            deepest = child[i]->depth;
    for (size_t i = 0; i < n->n; i++)
        if (n->list[i] && n->list[i]->depth > deepest)
            deepest = n->list[i]->depth;
    n->depth = deepest + 1;
    if (n->depth > HD_JINJA_MAX_DEPTH)
        hd_jinja__refuse(jinja, HD_ERR_LIMIT, n->line, "nested more than %d levels deep",
                         HD_JINJA_MAX_DEPTH);
    return n;
}

/* A list has room for the next power of two. */
void hd_jinja__add(struct hd_jinja *jinja, node *n, node *child)
{
    if (jinja->err)
        return;
    if (!(n->n & (n->n - 1))) {
        size_t cap = n->n ? n->n * 2 : 1;
        node **list = make(jinja, cap * sizeof *list);
        const char **names = make(jinja, cap * sizeof *names);
        uint8_t *ops = make(jinja, cap);
        if (!list || !names || !ops)
            return;
        if (n->n) {
            memcpy(list, n->list, n->n * sizeof *list);
            memcpy(names, n->names, n->n * sizeof *names);
            memcpy(ops, n->ops, n->n);
        }
        n->list = list;
        n->names = names;
        n->ops = ops;
    }
    n->names[n->n] = NULL;
    n->ops[n->n] = 0;
    n->list[n->n++] = child;
}

int hd_jinja__symbol(struct hd_jinja *jinja, const char *name, size_t len)
{
    for (size_t i = 0; i < jinja->n_name; i++)
        if (strlen(jinja->names[i]) == len && !memcmp(jinja->names[i], name, len))
            return (int)i;
    if (jinja->n_name == jinja->cap_name) {
        size_t cap = jinja->cap_name * 2 + 32;
        const char **grown =
            cap > HD_JINJA_MAX_NAMES ? NULL : realloc(jinja->names, cap * sizeof *grown);
        if (!grown) {
            hd_jinja__refuse(jinja, HD_ERR_LIMIT, 0, "too many variables");
            return -1;
        }
        jinja->names = grown;
        jinja->cap_name = cap;
    }
    const char *copy = hd_jinja__copy(jinja, name, len);
    if (!copy)
        return -1;
    jinja->names[jinja->n_name] = copy;
    return (int)jinja->n_name++;
}

static node *constant(struct hd_jinja *jinja, int line, jv value)
{
    node *n = hd_jinja__node(jinja, N_CONST, line);
    if (!jinja->err)
        n->value = value;
    return n;
}

static node *text_constant(struct hd_jinja *jinja, int line, const char *text, size_t len)
{
    struct hd_jinja__str *s = make(jinja, sizeof *s);
    if (!s)
        return constant(jinja, line, hd_jinja_none());
    *s = (struct hd_jinja__str){.data = text, .len = len};
    return constant(jinja, line, (jv){.kind = JV_STR, .u.str = s});
}

static const char *take_name(struct hd_jinja *jinja)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    if (jinja->err || token->type != LX_NAME) {
        unexpected(jinja, "a name");
        return "";
    }
    hd_jinja__next(jinja);
    const char *name = hd_jinja__copy(jinja, token->text, token->len);
    return name ? name : "";
}

/* --- primaries -------------------------------------------------------------------------------- */

static node *unary(struct hd_jinja *jinja, bool with_filter);

static node *sequence(struct hd_jinja *jinja, enum hd_jinja__type type, const char *close)
{
    node *n = hd_jinja__node(jinja, type, hd_jinja__next(jinja)->line);
    while (!jinja->err && !hd_jinja__at_op(jinja, close)) {
        if (n->n)
            hd_jinja__expect_op(jinja, ",");
        if (hd_jinja__at_op(jinja, close))
            break;
        hd_jinja__add(jinja, n, hd_jinja__expression(jinja));
        if (type == N_DICT && !jinja->err) {
            hd_jinja__expect_op(jinja, ":");
            node *value = hd_jinja__expression(jinja);
            /* the comma test above counts entries, of which each is two children */
            hd_jinja__add(jinja, n, value);
        }
    }
    hd_jinja__expect_op(jinja, close);
    return hd_jinja__close(jinja, n);
}

static node *parenthesis(struct hd_jinja *jinja)
{
    hd_jinja__next(jinja);
    node *n = hd_jinja__at_op(jinja, ")") ? hd_jinja__node(jinja, N_TUPLE, 0)
                                          : hd_jinja__tuple(jinja, true);
    hd_jinja__expect_op(jinja, ")");
    return n;
}

static node *name_or_constant(struct hd_jinja *jinja)
{
    static const struct {
        const char *name;
        jv value;
    } constants[] = {
        {"true", {JV_BOOL, {.b = true}}}, {"True", {JV_BOOL, {.b = true}}},
        {"false", {JV_BOOL, {0}}},        {"False", {JV_BOOL, {0}}},
        {"none", {JV_NONE, {0}}},         {"None", {JV_NONE, {0}}},
    };
    struct hd_jinja__token *token = hd_jinja__next(jinja);
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (is_text(token, constants[i].name))
            return constant(jinja, token->line, constants[i].value);
    node *n = hd_jinja__node(jinja, N_NAME, token->line);
    int sym = hd_jinja__symbol(jinja, token->text, token->len);
    if (!jinja->err) {
        n->sym = sym;
        n->name = jinja->names[sym];
    }
    return n;
}

/* Adjacent strings are one. */
static node *string(struct hd_jinja *jinja)
{
    struct hd_jinja__token *first = hd_jinja__next(jinja);
    struct hd_buf text;
    if (hd_jinja__peek(jinja)->type != LX_STRING)
        return text_constant(jinja, first->line, first->text, first->len);
    hd_buf_init(&text, (size_t)1 << 24);
    hd_buf_append(&text, first->text, first->len);
    while (hd_jinja__peek(jinja)->type == LX_STRING) {
        struct hd_jinja__token *more = hd_jinja__next(jinja);
        hd_buf_append(&text, more->text, more->len);
    }
    const char *copy = hd_jinja__copy(jinja, hd_buf_str(&text), text.len);
    size_t len = text.len;
    if (text.err)
        hd_jinja__refuse(jinja, text.err, first->line, "the string is too long");
    hd_buf_dispose(&text);
    return text_constant(jinja, first->line, copy, len);
}

static node *primary(struct hd_jinja *jinja)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    switch (token->type) {
    case LX_NAME:
        return name_or_constant(jinja);
    case LX_STRING:
        return string(jinja);
    case LX_INT:
        hd_jinja__next(jinja);
        return constant(jinja, token->line, hd_jinja__int(token->i));
    case LX_REAL:
        hd_jinja__next(jinja);
        return constant(jinja, token->line, hd_jinja__real(token->f));
    default:
        break;
    }
    if (hd_jinja__at_op(jinja, "("))
        return parenthesis(jinja);
    if (hd_jinja__at_op(jinja, "["))
        return sequence(jinja, N_LIST, "]");
    if (hd_jinja__at_op(jinja, "{"))
        return sequence(jinja, N_DICT, "}");
    unexpected(jinja, "an expression");
    return hd_jinja__node(jinja, N_CONST, token->line);
}

/* --- what follows a primary ------------------------------------------------------------------- */

/* "(a, b, name=c)" into n's list and names. */
static void arguments(struct hd_jinja *jinja, node *n)
{
    hd_jinja__expect_op(jinja, "(");
    for (bool first = true; !jinja->err && !hd_jinja__at_op(jinja, ")"); first = false) {
        if (!first)
            hd_jinja__expect_op(jinja, ",");
        if (hd_jinja__at_op(jinja, ")"))
            break;
        if (hd_jinja__at_op(jinja, "*") || hd_jinja__at_op(jinja, "**")) {
            hd_jinja__refuse(jinja, HD_ERR_UNSUPPORTED, hd_jinja__peek(jinja)->line,
                             "* in arguments is not supported");
            return;
        }
        struct hd_jinja__token *token = hd_jinja__peek(jinja);
        const char *name = NULL;
        if (token->type == LX_NAME && token[1].type == LX_OP && is_text(&token[1], "=")) {
            name = take_name(jinja);
            hd_jinja__next(jinja);
        }
        hd_jinja__add(jinja, n, hd_jinja__expression(jinja));
        if (!jinja->err)
            n->names[n->n - 1] = name;
        if (!jinja->err && n->n > HD_JINJA_MAX_ARGS)
            hd_jinja__refuse(jinja, HD_ERR_LIMIT, token->line, "too many arguments");
    }
    hd_jinja__expect_op(jinja, ")");
}

/* "[x]" or "[from:to:step]" behind object. */
static node *subscript(struct hd_jinja *jinja, node *object)
{
    int line = hd_jinja__next(jinja)->line;
    node *part[3] = {NULL, NULL, NULL};
    size_t i = 0;
    bool slice = false;
    for (; i < 3 && !jinja->err; i++) {
        if (!hd_jinja__at_op(jinja, ":") && !hd_jinja__at_op(jinja, "]"))
            part[i] = slice ? hd_jinja__expression(jinja) : hd_jinja__tuple(jinja, true);
        if (!hd_jinja__skip_op(jinja, ":"))
            break;
        slice = true;
    }
    hd_jinja__expect_op(jinja, "]");
    if (!slice && !part[0])
        hd_jinja__refuse(jinja, HD_ERR_FORMAT, line, "[] without an index");
    node *n = hd_jinja__node(jinja, slice ? N_SLICE : N_ITEM, line);
    if (jinja->err)
        return n;
    n->a = object;
    if (slice)
        for (i = 0; i < 3; i++)
            hd_jinja__add(jinja, n, part[i]);
    else
        n->b = part[0];
    return hd_jinja__close(jinja, n);
}

static node *attribute(struct hd_jinja *jinja, node *object)
{
    int line = hd_jinja__next(jinja)->line;
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    bool index = token->type == LX_INT;
    node *n = hd_jinja__node(jinja, index ? N_ITEM : N_ATTR, line);
    if (index) {
        hd_jinja__next(jinja);
        n->b = constant(jinja, line, hd_jinja__int(token->i));
    } else {
        const char *name = take_name(jinja);
        if (!jinja->err)
            n->name = name;
    }
    if (jinja->err)
        return n;
    n->a = object;
    return hd_jinja__close(jinja, n);
}

static node *call(struct hd_jinja *jinja, node *callee)
{
    node *n = hd_jinja__node(jinja, N_CALL, hd_jinja__peek(jinja)->line);
    arguments(jinja, n);
    if (!jinja->err)
        n->a = callee;
    return hd_jinja__close(jinja, n);
}

static node *postfix(struct hd_jinja *jinja, node *n)
{
    while (!jinja->err) {
        if (hd_jinja__at_op(jinja, "."))
            n = attribute(jinja, n);
        else if (hd_jinja__at_op(jinja, "["))
            n = subscript(jinja, n);
        else if (hd_jinja__at_op(jinja, "("))
            n = call(jinja, n);
        else
            break;
    }
    return n;
}

static node *filter(struct hd_jinja *jinja, node *input)
{
    node *n = hd_jinja__node(jinja, N_FILTER, hd_jinja__peek(jinja)->line);
    const char *name = take_name(jinja);
    if (jinja->err)
        return n;
    n->a = input;
    n->name = name;
    if (hd_jinja__at_op(jinja, "("))
        arguments(jinja, n);
    return hd_jinja__close(jinja, n);
}

node *hd_jinja__filters(struct hd_jinja *jinja, node *n, bool starts_inside)
{
    if (starts_inside)
        n = filter(jinja, n);
    while (hd_jinja__skip_op(jinja, "|"))
        n = filter(jinja, n);
    return n;
}

/* Whether a test's argument without brackets follows, as in "is divisibleby 3". */
static bool at_bare_argument(struct hd_jinja *jinja)
{
    static const char *const ends[] = {"else", "or", "and", "is", "not", "in", "if"};
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    if (token->type == LX_NAME) {
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
            if (is_text(token, ends[i]))
                return false;
        return true;
    }
    return token->type == LX_STRING || token->type == LX_INT || token->type == LX_REAL ||
           hd_jinja__at_op(jinja, "[") || hd_jinja__at_op(jinja, "{");
}

static node *test(struct hd_jinja *jinja, node *input)
{
    node *n = hd_jinja__node(jinja, N_TEST, hd_jinja__next(jinja)->line);
    bool negated = hd_jinja__skip_name(jinja, "not");
    const char *name = take_name(jinja);
    if (jinja->err)
        return n;
    n->a = input;
    n->op = negated;
    n->name = name;
    if (hd_jinja__at_op(jinja, "("))
        arguments(jinja, n);
    else if (at_bare_argument(jinja))
        hd_jinja__add(jinja, n, postfix(jinja, primary(jinja)));
    return hd_jinja__close(jinja, n);
}

static node *filters_and_tests(struct hd_jinja *jinja, node *n)
{
    while (!jinja->err) {
        if (hd_jinja__skip_op(jinja, "|"))
            n = filter(jinja, n);
        else if (hd_jinja__at_name(jinja, "is"))
            n = test(jinja, n);
        else if (hd_jinja__at_op(jinja, "("))
            n = call(jinja, n);
        else
            break;
    }
    return n;
}

/* --- operators -------------------------------------------------------------------------------- */

/* Recursion of the parser itself; undone by leave. */
static bool enter(struct hd_jinja *jinja)
{
    if (++jinja->depth > HD_JINJA_MAX_DEPTH)
        hd_jinja__refuse(jinja, HD_ERR_LIMIT, hd_jinja__peek(jinja)->line,
                         "nested more than %d levels deep", HD_JINJA_MAX_DEPTH);
    return !jinja->err;
}

static node *leave(struct hd_jinja *jinja, node *n)
{
    jinja->depth--;
    return n;
}

static node *with(struct hd_jinja *jinja, enum hd_jinja__type type, int line, node *a, node *b)
{
    node *n = hd_jinja__node(jinja, type, line);
    if (jinja->err)
        return n;
    n->a = a;
    n->b = b;
    return hd_jinja__close(jinja, n);
}

static node *unary(struct hd_jinja *jinja, bool with_filter)
{
    node *n;
    int line = hd_jinja__peek(jinja)->line;
    if (!enter(jinja))
        return leave(jinja, hd_jinja__node(jinja, N_CONST, line));
    if (hd_jinja__skip_op(jinja, "-"))
        n = with(jinja, N_NEG, line, unary(jinja, false), NULL);
    else if (hd_jinja__skip_op(jinja, "+"))
        n = with(jinja, N_POS, line, unary(jinja, false), NULL);
    else
        n = primary(jinja);
    n = postfix(jinja, n);
    return leave(jinja, with_filter ? filters_and_tests(jinja, n) : n);
}

struct operator
{
    const char *text;
    enum hd_jinja__op op;
};

static bool skip_operator(struct hd_jinja *jinja, const struct operator* ops, size_t n,
                          enum hd_jinja__op *op)
{
    for (size_t i = 0; i < n; i++)
        if (hd_jinja__skip_op(jinja, ops[i].text)) {
            *op = ops[i].op;
            return true;
        }
    return false;
}

/* Left-associative operators of one level over the next tighter one. */
static node *level(struct hd_jinja *jinja, int which)
{
    static const struct operator sums[] = {{"+", OP_ADD}, {"-", OP_SUB}};
    static const struct operator joins[] = {{"~", OP_CONCAT}};
    static const struct operator products[] = {
        {"*", OP_MUL}, {"//", OP_FLOORDIV}, {"/", OP_DIV}, {"%", OP_MOD}};
    static const struct operator powers[] = {{"**", OP_POW}};
    static const struct {
        const struct operator* ops;
        size_t n;
    } levels[] = {{sums, 2}, {joins, 1}, {products, 4}, {powers, 1}};
    if (which == 4)
        return unary(jinja, true);
    enum hd_jinja__op op;
    node *n = level(jinja, which + 1);
    int line = hd_jinja__peek(jinja)->line;
    while (skip_operator(jinja, levels[which].ops, levels[which].n, &op)) {
        n = with(jinja, N_BINARY, line, n, level(jinja, which + 1));
        if (!jinja->err)
            n->op = (uint8_t)op;
    }
    return n;
}

static bool skip_comparison(struct hd_jinja *jinja, enum hd_jinja__op *op)
{
    static const struct operator ops[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<=", OP_LE},
                                          {">=", OP_GE}, {"<", OP_LT},  {">", OP_GT}};
    if (skip_operator(jinja, ops, 6, op))
        return true;
    *op = OP_IN;
    if (hd_jinja__skip_name(jinja, "in"))
        return true;
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    if (!hd_jinja__at_name(jinja, "not") || token[1].type != LX_NAME || !is_text(&token[1], "in"))
        return false;
    hd_jinja__next(jinja);
    hd_jinja__next(jinja);
    *op = OP_NOT_IN;
    return true;
}

static node *comparison(struct hd_jinja *jinja)
{
    enum hd_jinja__op op;
    int line = hd_jinja__peek(jinja)->line;
    node *first = level(jinja, 0), *n = NULL;
    while (!jinja->err && skip_comparison(jinja, &op)) {
        if (!n)
            n = hd_jinja__node(jinja, N_COMPARE, line);
        node *right = level(jinja, 0);
        if (jinja->err)
            break;
        n->a = first;
        hd_jinja__add(jinja, n, right);
        if (!jinja->err)
            n->ops[n->n - 1] = (uint8_t)op;
    }
    return n ? hd_jinja__close(jinja, n) : first;
}

static node *negation(struct hd_jinja *jinja)
{
    int line = hd_jinja__peek(jinja)->line;
    if (!hd_jinja__skip_name(jinja, "not"))
        return comparison(jinja);
    if (!enter(jinja))
        return leave(jinja, hd_jinja__node(jinja, N_CONST, line));
    return leave(jinja, with(jinja, N_NOT, line, negation(jinja), NULL));
}

static node *conjunction(struct hd_jinja *jinja)
{
    int line = hd_jinja__peek(jinja)->line;
    node *n = negation(jinja);
    while (hd_jinja__skip_name(jinja, "and"))
        n = with(jinja, N_AND, line, n, negation(jinja));
    return n;
}

node *hd_jinja__or(struct hd_jinja *jinja)
{
    int line = hd_jinja__peek(jinja)->line;
    node *n = conjunction(jinja);
    while (hd_jinja__skip_name(jinja, "or"))
        n = with(jinja, N_OR, line, n, conjunction(jinja));
    return n;
}

node *hd_jinja__expression(struct hd_jinja *jinja)
{
    int line = hd_jinja__peek(jinja)->line;
    if (!enter(jinja))
        return leave(jinja, hd_jinja__node(jinja, N_CONST, line));
    node *n = hd_jinja__or(jinja);
    while (hd_jinja__skip_name(jinja, "if")) {
        node *condition = hd_jinja__or(jinja), *otherwise = NULL;
        if (hd_jinja__skip_name(jinja, "else"))
            otherwise = hd_jinja__expression(jinja);
        node *whole = hd_jinja__node(jinja, N_COND, line);
        if (jinja->err)
            break;
        whole->a = condition;
        whole->b = n;
        whole->c = otherwise;
        n = hd_jinja__close(jinja, whole);
    }
    return leave(jinja, n);
}

node *hd_jinja__tuple(struct hd_jinja *jinja, bool with_condition)
{
    node *first = with_condition ? hd_jinja__expression(jinja) : hd_jinja__or(jinja);
    if (jinja->err || !hd_jinja__at_op(jinja, ","))
        return first;
    node *n = hd_jinja__node(jinja, N_TUPLE, hd_jinja__peek(jinja)->line);
    hd_jinja__add(jinja, n, first);
    while (hd_jinja__skip_op(jinja, ",")) {
        enum hd_jinja__lexeme type = hd_jinja__peek(jinja)->type;
        if (type == LX_VAR_END || type == LX_BLOCK_END || hd_jinja__at_op(jinja, ")") ||
            hd_jinja__at_op(jinja, "]") || hd_jinja__at_op(jinja, "="))
            break;
        hd_jinja__add(jinja, n, with_condition ? hd_jinja__expression(jinja) : hd_jinja__or(jinja));
    }
    return hd_jinja__close(jinja, n);
}
