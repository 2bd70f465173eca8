/* Statements, and the compiled template. */
#include <stdlib.h>

#include "token/jinja/jinja_impl.h"

typedef struct hd_jinja__node node;

static node *body(struct hd_jinja *jinja, const char *const *ends, size_t n_end);

static void end_tag(struct hd_jinja *jinja)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    if (jinja->err)
        return;
    if (token->type != LX_BLOCK_END)
        hd_jinja__refuse(jinja, HD_ERR_FORMAT, token->line, "unexpected \"%.*s\" in a tag",
                         (int)(token->len < 40 ? token->len : 40), token->text ? token->text : "");
    hd_jinja__next(jinja);
}

/* The body up to {% name %}, whose tag is passed too. */
static node *body_to(struct hd_jinja *jinja, const char *name)
{
    node *n = body(jinja, &name, 1);
    hd_jinja__skip_name(jinja, name);
    end_tag(jinja);
    return n;
}

static node *target_name(struct hd_jinja *jinja)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    node *n = hd_jinja__node(jinja, N_NAME, token->line);
    if (!jinja->err && token->type != LX_NAME)
        hd_jinja__refuse(jinja, HD_ERR_FORMAT, token->line, "a variable's name is due");
    if (jinja->err)
        return n;
    hd_jinja__next(jinja);
    n->sym = hd_jinja__symbol(jinja, token->text, token->len);
    if (!jinja->err)
        n->name = jinja->names[n->sym];
    return n;
}

/* name, name.attribute (of a namespace), or several separated by commas, maybe in brackets. */
static node *target_one(struct hd_jinja *jinja, bool attributes);

static node *target(struct hd_jinja *jinja, bool attributes)
{
    node *first = target_one(jinja, attributes);
    if (jinja->err || !hd_jinja__at_op(jinja, ","))
        return first;
    node *n = hd_jinja__node(jinja, N_TUPLE, first->line);
    hd_jinja__add(jinja, n, first);
    while (hd_jinja__skip_op(jinja, ",")) {
        if (hd_jinja__at_name(jinja, "in") || hd_jinja__at_op(jinja, "=") ||
            hd_jinja__at_op(jinja, ")"))
            break;
        hd_jinja__add(jinja, n, target_one(jinja, attributes));
    }
    return hd_jinja__close(jinja, n);
}

static node *target_one(struct hd_jinja *jinja, bool attributes)
{
    if (hd_jinja__skip_op(jinja, "(")) {
        if (++jinja->depth > HD_JINJA_MAX_DEPTH)
            hd_jinja__refuse(jinja, HD_ERR_LIMIT, hd_jinja__peek(jinja)->line,
                             "nested more than %d levels deep", HD_JINJA_MAX_DEPTH);
        node *n = target(jinja, attributes);
        jinja->depth--;
        hd_jinja__expect_op(jinja, ")");
        return n;
    }
    node *n = target_name(jinja);
    if (!attributes || !hd_jinja__skip_op(jinja, "."))
        return n;
    struct hd_jinja__token *token = hd_jinja__next(jinja);
    node *attr = hd_jinja__node(jinja, N_ATTR, token->line);
    if (!jinja->err && token->type != LX_NAME)
        hd_jinja__refuse(jinja, HD_ERR_FORMAT, token->line, "an attribute's name is due");
    if (jinja->err)
        return attr;
    attr->a = n;
    attr->name = hd_jinja__copy(jinja, token->text, token->len);
    return attr;
}

static node *if_statement(struct hd_jinja *jinja, int line)
{
    static const char *const ends[] = {"elif", "else", "endif"};
    node *n = hd_jinja__node(jinja, N_IF, line);
    do {
        hd_jinja__add(jinja, n, hd_jinja__tuple(jinja, true));
        end_tag(jinja);
        hd_jinja__add(jinja, n, body(jinja, ends, 3));
    } while (hd_jinja__skip_name(jinja, "elif"));
    if (hd_jinja__skip_name(jinja, "else")) {
        end_tag(jinja);
        node *otherwise = body(jinja, &ends[2], 1);
        if (!jinja->err)
            n->b = otherwise;
    }
    hd_jinja__skip_name(jinja, "endif");
    end_tag(jinja);
    return hd_jinja__close(jinja, n);
}

static node *for_statement(struct hd_jinja *jinja, int line)
{
    static const char *const ends[] = {"else", "endfor"};
    node *n = hd_jinja__node(jinja, N_FOR, line), *otherwise = NULL, *condition = NULL;
    node *names = target(jinja, false);
    if (!jinja->err && !hd_jinja__skip_name(jinja, "in"))
        hd_jinja__refuse(jinja, HD_ERR_FORMAT, line, "\"in\" is due in for");
    node *over = hd_jinja__tuple(jinja, false);
    if (hd_jinja__skip_name(jinja, "if"))
        condition = hd_jinja__expression(jinja);
    if (!jinja->err && hd_jinja__at_name(jinja, "recursive"))
        hd_jinja__refuse(jinja, HD_ERR_UNSUPPORTED, line, "recursive loops are not supported");
    end_tag(jinja);
    jinja->loops++;
    node *inside = body(jinja, ends, 2);
    jinja->loops--;
    if (hd_jinja__skip_name(jinja, "else")) {
        end_tag(jinja);
        otherwise = body(jinja, &ends[1], 1);
    }
    hd_jinja__skip_name(jinja, "endfor");
    end_tag(jinja);
    hd_jinja__add(jinja, n, inside);
    hd_jinja__add(jinja, n, otherwise);
    if (jinja->err)
        return n;
    n->a = names;
    n->b = over;
    n->c = condition;
    return hd_jinja__close(jinja, n);
}

/* "| filter …" over what a block will give: the tree below an empty constant. */
static node *block_filters(struct hd_jinja *jinja, bool starts_inside)
{
    node *input = hd_jinja__node(jinja, N_CONST, hd_jinja__peek(jinja)->line);
    if (!jinja->err)
        input->value = hd_jinja_none();
    return hd_jinja__filters(jinja, input, starts_inside);
}

static node *set_statement(struct hd_jinja *jinja, int line)
{
    node *to = target(jinja, true), *filters = NULL;
    if (hd_jinja__skip_op(jinja, "=")) {
        node *n = hd_jinja__node(jinja, N_SET, line);
        node *value = hd_jinja__tuple(jinja, true);
        end_tag(jinja);
        if (jinja->err)
            return n;
        n->a = to;
        n->b = value;
        return hd_jinja__close(jinja, n);
    }
    if (!jinja->err && hd_jinja__at_op(jinja, "|"))
        filters = block_filters(jinja, false);
    end_tag(jinja);
    node *n = hd_jinja__node(jinja, N_SETBLOCK, line), *inside = body_to(jinja, "endset");
    if (jinja->err)
        return n;
    n->a = to;
    n->b = inside;
    n->c = filters;
    return hd_jinja__close(jinja, n);
}

static node *filter_statement(struct hd_jinja *jinja, int line)
{
    node *filters = block_filters(jinja, true);
    end_tag(jinja);
    node *n = hd_jinja__node(jinja, N_FILTERED, line), *inside = body_to(jinja, "endfilter");
    if (jinja->err)
        return n;
    n->b = inside;
    n->c = filters;
    return hd_jinja__close(jinja, n);
}

static node *macro_statement(struct hd_jinja *jinja, int line)
{
    node *n = hd_jinja__node(jinja, N_MACRO, line), *name = target_name(jinja);
    hd_jinja__expect_op(jinja, "(");
    for (bool first = true; !jinja->err && !hd_jinja__at_op(jinja, ")"); first = false) {
        if (!first)
            hd_jinja__expect_op(jinja, ",");
        if (hd_jinja__at_op(jinja, ")"))
            break;
        node *parameter = target_name(jinja), *standard = NULL;
        if (hd_jinja__skip_op(jinja, "="))
            standard = hd_jinja__expression(jinja);
        hd_jinja__add(jinja, n, standard);
        if (jinja->err)
            break;
        n->names[n->n - 1] = parameter->name;
        if (n->n > HD_JINJA_MAX_ARGS)
            hd_jinja__refuse(jinja, HD_ERR_LIMIT, line, "too many parameters");
    }
    hd_jinja__expect_op(jinja, ")");
    end_tag(jinja);
    int loops = jinja->loops;
    jinja->loops = 0;
    node *inside = body_to(jinja, "endmacro");
    jinja->loops = loops;
    if (jinja->err)
        return n;
    n->sym = name->sym;
    n->name = name->name;
    n->b = inside;
    return hd_jinja__close(jinja, n);
}

static node *with_statement(struct hd_jinja *jinja, int line)
{
    node *n = hd_jinja__node(jinja, N_WITH, line);
    while (!jinja->err && hd_jinja__peek(jinja)->type != LX_BLOCK_END) {
        if (n->n)
            hd_jinja__expect_op(jinja, ",");
        hd_jinja__add(jinja, n, target(jinja, false));
        hd_jinja__expect_op(jinja, "=");
        hd_jinja__add(jinja, n, hd_jinja__expression(jinja));
    }
    end_tag(jinja);
    node *inside = body_to(jinja, "endwith");
    if (jinja->err)
        return n;
    n->b = inside;
    return hd_jinja__close(jinja, n);
}

static node *jump_statement(struct hd_jinja *jinja, enum hd_jinja__type type, int line)
{
    if (!jinja->loops)
        hd_jinja__refuse(jinja, HD_ERR_FORMAT, line, "break or continue outside a loop");
    end_tag(jinja);
    return hd_jinja__node(jinja, type, line);
}

static node *statement(struct hd_jinja *jinja)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    int line = token->line;
    if (hd_jinja__skip_name(jinja, "if"))
        return if_statement(jinja, line);
    if (hd_jinja__skip_name(jinja, "for"))
        return for_statement(jinja, line);
    if (hd_jinja__skip_name(jinja, "set"))
        return set_statement(jinja, line);
    if (hd_jinja__skip_name(jinja, "macro"))
        return macro_statement(jinja, line);
    if (hd_jinja__skip_name(jinja, "with"))
        return with_statement(jinja, line);
    if (hd_jinja__skip_name(jinja, "filter"))
        return filter_statement(jinja, line);
    if (hd_jinja__skip_name(jinja, "break"))
        return jump_statement(jinja, N_BREAK, line);
    if (hd_jinja__skip_name(jinja, "continue"))
        return jump_statement(jinja, N_CONTINUE, line);
    if (hd_jinja__skip_name(jinja, "generation")) { /* marks the assistant's text for training */
        end_tag(jinja);
        return body_to(jinja, "endgeneration");
    }
    hd_jinja__refuse(jinja, HD_ERR_UNSUPPORTED, line, "the statement \"%.*s\" is not supported",
                     (int)(token->len < 40 ? token->len : 40), token->text ? token->text : "");
    return hd_jinja__node(jinja, N_BODY, line);
}

static node *data(struct hd_jinja *jinja, const struct hd_jinja__token *token)
{
    node *n = hd_jinja__node(jinja, N_TEXT, token->line);
    struct hd_jinja__str *s =
        jinja->err ? NULL : hd_jinja__alloc(&jinja->arena, sizeof(struct hd_jinja__str));
    if (!s) {
        hd_jinja__refuse(jinja, HD_ERR_LIMIT, token->line, "the template is too large");
        return n;
    }
    *s = (struct hd_jinja__str){.data = token->text, .len = token->len};
    n->value = (jv){.kind = JV_STR, .u.str = s};
    return n;
}

static node *output(struct hd_jinja *jinja, int line)
{
    node *n = hd_jinja__node(jinja, N_OUTPUT, line), *value = hd_jinja__tuple(jinja, true);
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    if (!jinja->err && token->type != LX_VAR_END)
        hd_jinja__refuse(jinja, HD_ERR_FORMAT, token->line, "unexpected \"%.*s\"",
                         (int)(token->len < 40 ? token->len : 40), token->text ? token->text : "");
    hd_jinja__next(jinja);
    if (jinja->err)
        return n;
    n->a = value;
    return hd_jinja__close(jinja, n);
}

/* Up to a block tag that begins with one of `ends` (that name is next then), or the file's end
 * where n_end is 0. */
static node *body(struct hd_jinja *jinja, const char *const *ends, size_t n_end)
{
    struct hd_jinja__token *token = hd_jinja__peek(jinja);
    node *n = hd_jinja__node(jinja, N_BODY, token->line);
    if (++jinja->depth > HD_JINJA_MAX_DEPTH)
        hd_jinja__refuse(jinja, HD_ERR_LIMIT, token->line, "nested more than %d levels deep",
                         HD_JINJA_MAX_DEPTH);
    while (!jinja->err) {
        token = hd_jinja__next(jinja);
        if (token->type == LX_END) {
            if (n_end)
                hd_jinja__refuse(jinja, HD_ERR_FORMAT, n->line, "\"%s\" is missing",
                                 ends[n_end - 1]);
            break;
        }
        if (token->type == LX_DATA) {
            hd_jinja__add(jinja, n, data(jinja, token));
        } else if (token->type == LX_VAR_BEGIN) {
            hd_jinja__add(jinja, n, output(jinja, token->line));
        } else if (token->type == LX_BLOCK_BEGIN) {
            size_t i = 0;
            while (i < n_end && !hd_jinja__at_name(jinja, ends[i]))
                i++;
            if (i < n_end)
                break;
            hd_jinja__add(jinja, n, statement(jinja));
        }
    }
    jinja->depth--;
    return hd_jinja__close(jinja, n);
}

void hd_jinja__parse(struct hd_jinja *jinja)
{
    jinja->root = body(jinja, NULL, 0);
}

enum hd_err hd_jinja_compile(struct hd_jinja **out, const char *text, size_t len,
                             struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_jinja *jinja = calloc(1, sizeof *jinja);
    if (!jinja)
        return hd_fail(msg, HD_ERR_NOMEM, "template: out of memory");
    /* A token takes at most a few nodes: what a template of n bytes may need, and some more. */
    jinja->arena.max = 1 << 20 > SIZE_MAX / 512 - len ? SIZE_MAX : (len + (1 << 20)) * 512;
    hd_jinja__lex(jinja, text, len);
    if (!jinja->err)
        hd_jinja__parse(jinja);
    free(jinja->token);
    jinja->token = NULL;
    enum hd_err err = jinja->err;
    if (err) {
        hd_fail(msg, err, "%s", jinja->msg.text);
        hd_jinja_free(jinja);
        return err;
    }
    *out = jinja;
    return HD_OK;
}

void hd_jinja_free(struct hd_jinja *jinja)
{
    if (!jinja)
        return;
    hd_jinja__arena_dispose(&jinja->arena);
    free(jinja->names);
    free(jinja->token);
    free(jinja);
}

static bool reads(const node *n, int sym)
{
    if (!n)
        return false;
    if (n->type == N_NAME && n->sym == sym)
        return true;
    bool writes = n->type == N_SET || n->type == N_SETBLOCK || n->type == N_FOR;
    if (reads(writes ? NULL : n->a, sym) || reads(n->b, sym) || reads(n->c, sym))
        return true;
    for (size_t i = 0; i < n->n; i++)
        if (reads(n->list[i], sym))
            return true;
    return false;
}

bool hd_jinja_reads(const struct hd_jinja *jinja, const char *name)
{
    for (size_t i = 0; i < jinja->n_name; i++)
        if (!strcmp(jinja->names[i], name))
            return reads(jinja->root, (int)i);
    return false;
}
