/* Sets of characters as automata over the bytes of UTF-8. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "token/grammar/grammar_impl.h"

enum { LAST = 0x10ffff, MAX_EDGES = 1 << 18, MAX_RANGES = 1 << 18 };

enum hd_err hd_grammar__grow(void *data, size_t *cap, size_t n, size_t size, size_t max)
{
    if (n < *cap)
        return HD_OK;
    if (n >= max)
        return HD_ERR_LIMIT;
    size_t want = *cap ? *cap * 2 : 64;
    want = want < max ? want : max;
    void *p = realloc(*(void **)data, want * size);
    if (!p)
        return HD_ERR_NOMEM;
    *(void **)data = p;
    *cap = want;
    return HD_OK;
}

void hd_grammar__classes_dispose(struct hd_grammar__classes *c)
{
    free(c->node);
    free(c->edge);
    free(c->range);
    free(c->class);
}

/* --- ranges of code points ----------------------------------------------------------------------
 */

static int by_lo(const void *a, const void *b)
{
    const struct hd_grammar__range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

size_t hd_grammar__ranges_normal(struct hd_grammar__range *range, size_t n)
{
    size_t m = 0;
    qsort(range, n, sizeof *range, by_lo);
    for (size_t i = 0; i < n; i++) {
        if (m && range[i].lo <= range[m - 1].hi + 1)
            range[m - 1].hi = range[i].hi > range[m - 1].hi ? range[i].hi : range[m - 1].hi;
        else
            range[m++] = range[i];
    }
    for (size_t i = 0; i < m; i++) { /* without D800 … DFFF */
        struct hd_grammar__range r = range[i];
        if (r.lo > 0xdfff || r.hi < 0xd800)
            continue;
        size_t keep = (r.lo < 0xd800) + (r.hi > 0xdfff);
        memmove(range + i + keep, range + i + 1, (m - i - 1) * sizeof *range);
        m = m - 1 + keep;
        if (r.lo < 0xd800)
            range[i++] = (struct hd_grammar__range){r.lo, 0xd7ff};
        if (r.hi > 0xdfff)
            range[i++] = (struct hd_grammar__range){0xe000, r.hi};
        i--; /* the loop's own step */
    }
    return m;
}

size_t hd_grammar__ranges_invert(struct hd_grammar__range *out,
                                 const struct hd_grammar__range *range, size_t n)
{
    size_t m = 0;
    uint32_t lo = 0;
    for (size_t i = 0; i < n; i++) {
        if (range[i].lo > lo)
            out[m++] = (struct hd_grammar__range){lo, range[i].lo - 1};
        lo = range[i].hi + 1;
    }
    if (lo <= LAST)
        out[m++] = (struct hd_grammar__range){lo, LAST};
    return hd_grammar__ranges_normal(out, m);
}

/* --- byte automata ------------------------------------------------------------------------------
 */

struct tree { /* a node while it is built; edges in ascending order */
    struct {
        uint8_t lo, hi;
        struct tree *to;
    } * edge;
    size_t n, cap;
};

static void tree_free(struct tree *tree)
{
    for (size_t i = 0; tree && i < tree->n; i++)
        tree_free(tree->edge[i].to);
    if (tree)
        free(tree->edge);
    free(tree);
}

/* Characters come in ascending order, so an edge is the last one or lies behind it. */
static enum hd_err tree_add(struct tree *tree, const uint8_t *lo, const uint8_t *hi, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        size_t n = tree->n;
        if (n && tree->edge[n - 1].lo == lo[i] && tree->edge[n - 1].hi == hi[i] &&
            tree->edge[n - 1].to) {
            tree = tree->edge[n - 1].to;
            continue;
        }
        enum hd_err err =
            hd_grammar__grow(&tree->edge, &tree->cap, n, sizeof *tree->edge, MAX_EDGES);
        if (err)
            return err;
        tree->edge[n].lo = lo[i];
        tree->edge[n].hi = hi[i];
        tree->edge[n].to = NULL;
        tree->n++;
        if (i + 1 == len)
            break;
        tree = tree->edge[n].to = calloc(1, sizeof *tree);
        if (!tree)
            return HD_ERR_NOMEM;
    }
    return HD_OK;
}

static size_t encode(uint8_t out[4], uint32_t c)
{
    size_t len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len; i-- > 1; c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3f));
    out[0] = (uint8_t)(lead[len] | c);
    return len;
}

/* Cuts the range until each byte of lo … hi may be chosen by itself. */
static enum hd_err add_range(struct tree *tree, uint32_t lo, uint32_t hi)
{
    static const uint32_t last_of_length[] = {0x7f, 0x7ff, 0xffff};
    uint8_t from[4], to[4];
    for (size_t i = 0; i < 3; i++)
        if (lo <= last_of_length[i] && hi > last_of_length[i]) {
            enum hd_err err = add_range(tree, lo, last_of_length[i]);
            return err ? err : add_range(tree, last_of_length[i] + 1, hi);
        }
    for (unsigned bits = 18; hi > 0x7f && bits >= 6; bits -= 6) {
        uint32_t low = (1u << bits) - 1;
        if ((lo & ~low) == (hi & ~low))
            continue;
        if (lo & low) {
            enum hd_err err = add_range(tree, lo, lo | low);
            return err ? err : add_range(tree, (lo | low) + 1, hi);
        }
        if ((hi & low) != low) {
            enum hd_err err = add_range(tree, lo, (hi & ~low) - 1);
            return err ? err : add_range(tree, hi & ~low, hi);
        }
    }
    size_t len = encode(from, lo);
    encode(to, hi);
    return tree_add(tree, from, to, len);
}

/* Copies a tree into nodes and edges. */
static enum hd_err flatten(struct hd_grammar__classes *c, const struct tree *tree, uint32_t *out)
{
    enum hd_err err =
        hd_grammar__grow(&c->node, &c->cap_node, c->n_node, sizeof *c->node, HD_GRAMMAR_MAX_NODES);
    if (err)
        return err;
    uint32_t node = (uint32_t)c->n_node++, first = (uint32_t)c->n_edge;
    for (size_t i = 0; i < tree->n; i++) {
        err = hd_grammar__grow(&c->edge, &c->cap_edge, c->n_edge, sizeof *c->edge, MAX_EDGES);
        if (err)
            return err;
        c->edge[c->n_edge++] = (struct hd_grammar__edge){tree->edge[i].lo, tree->edge[i].hi, 0};
    }
    c->node[node] = (struct hd_grammar__node){first, (uint32_t)tree->n};
    *out = node;
    for (size_t i = 0; i < tree->n; i++) {
        uint32_t to = 0;
        if (tree->edge[i].to && (err = flatten(c, tree->edge[i].to, &to)))
            return err;
        c->edge[first + i].to = to;
    }
    return HD_OK;
}

/* An equal class that is there, or NULL's index n_class. */
static size_t find(const struct hd_grammar__classes *c, const struct hd_grammar__range *range,
                   size_t n, uint64_t hash)
{
    size_t i = 0;
    while (i < c->n_class && (c->class[i].hash != hash || c->class[i].n_range != n ||
                              memcmp(c->range + c->class[i].range, range, n * sizeof *range) != 0))
        i++;
    return i;
}

static enum hd_err remember(struct hd_grammar__classes *c, const struct hd_grammar__range *range,
                            size_t n, uint64_t hash, uint32_t node)
{
    enum hd_err err = hd_grammar__grow(&c->class, &c->cap_class, c->n_class, sizeof *c->class,
                                       HD_GRAMMAR_MAX_CLASSES);
    size_t first = c->n_range;
    for (size_t i = 0; !err && i < n; i++) {
        err = hd_grammar__grow(&c->range, &c->cap_range, c->n_range, sizeof *c->range, MAX_RANGES);
        if (!err)
            c->range[c->n_range++] = range[i];
    }
    if (err)
        return err;
    c->class[c->n_class].hash = hash;
    c->class[c->n_class].range = (uint32_t)first;
    c->class[c->n_class].n_range = (uint32_t)n;
    c->class[c->n_class++].node = node;
    return HD_OK;
}

enum hd_err hd_grammar__class(struct hd_grammar__classes *c, uint32_t *out,
                              const struct hd_grammar__range *range, size_t n)
{
    uint64_t hash = hd_hash64(range, n * sizeof *range, 1);
    size_t i = find(c, range, n, hash);
    if (i < c->n_class) {
        *out = c->class[i].node;
        return HD_OK;
    }
    struct tree *tree = calloc(1, sizeof *tree);
    enum hd_err err = tree ? HD_OK : HD_ERR_NOMEM;
    if (!err && !c->n_node) { /* number 0 stays free */
        err = hd_grammar__grow(&c->node, &c->cap_node, 0, sizeof *c->node, HD_GRAMMAR_MAX_NODES);
        if (!err)
            c->node[c->n_node++] = (struct hd_grammar__node){0, 0};
    }
    for (i = 0; !err && i < n; i++)
        err = add_range(tree, range[i].lo, range[i].hi);
    if (!err)
        err = flatten(c, tree, out);
    if (!err)
        err = remember(c, range, n, hash, *out);
    tree_free(tree);
    return err;
}
