/* The pickle in a PyTorch file, read as a table and not run.
 *
 * A pickle is a program for a machine with a stack and a memo; in general it may call anything.
 * This reader knows the instructions that torch.save writes for dictionaries of tensors (protocol
 * 2) and four names: torch._utils._rebuild_tensor_v2 and _rebuild_parameter,
 * collections.OrderedDict, and torch's storage types. Any other instruction or name is refused.
 * Calls of those names only note what they describe. Stack, memo and tuples are bounded by the
 * pickle's own size. */
#include <stdlib.h>
#include <string.h>

#include "store/torch_impl.h"

enum { MAX_VALUES = 1 << 20 };

enum kind { NONE, MARK, INT, TEXT, TUPLE, DICT, NAME, STORAGE, TENSOR };
enum name { REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED_DICT, STORAGE_TYPE };

struct value {
    enum kind kind;
    int64_t number;   /* INT; NAME: enum name; STORAGE: elements; TENSOR: index in `made` */
    const char *text; /* TEXT; STORAGE: key */
    size_t len;
    size_t first, n; /* TUPLE: values in the pool */
    int type;        /* NAME (STORAGE_TYPE) and STORAGE: row of `types` */
};

static const struct {
    const char *name; /* of the storage */
    enum hd_dtype dtype;
    const char *type_name;
    int bytes;
} types[] = {
    {"FloatStorage", HD_F32, "F32", 4},           {"HalfStorage", HD_F16, "F16", 2},
    {"BFloat16Storage", HD_BF16, "BF16", 2},      {"IntStorage", HD_I32, "I32", 4},
    {"DoubleStorage", HD_STORE_UNREAD, "F64", 8}, {"LongStorage", HD_STORE_UNREAD, "I64", 8},
    {"ShortStorage", HD_STORE_UNREAD, "I16", 2},  {"CharStorage", HD_STORE_UNREAD, "I8", 1},
    {"ByteStorage", HD_STORE_UNREAD, "U8", 1},    {"BoolStorage", HD_STORE_UNREAD, "BOOL", 1},
};

struct list {
    struct value *v;
    size_t n, cap;
};

struct machine {
    const char *path;
    struct hd_store__reader in;
    struct list stack, memo, pool;
    struct hd_store__torch_table made; /* tensors without names yet */
    struct hd_store__torch_table *out;
    struct hd_errmsg *msg;
};

/* --- lists ----------------------------------------------------------------------------------- */

static enum hd_err push(struct list *l, struct value v)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        struct value *grown = cap > MAX_VALUES ? NULL : realloc(l->v, cap * sizeof *grown);
        if (!grown)
            return cap > MAX_VALUES ? HD_ERR_LIMIT : HD_ERR_NOMEM;
        l->v = grown;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return HD_OK;
}

static enum hd_err keep(struct hd_store__torch_table *t,
                        const struct hd_store__torch_tensor *tensor)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        struct hd_store__torch_tensor *grown =
            cap > MAX_VALUES ? NULL : realloc(t->tensor, cap * sizeof *grown);
        if (!grown)
            return cap > MAX_VALUES ? HD_ERR_LIMIT : HD_ERR_NOMEM;
        t->tensor = grown;
        t->cap = cap;
    }
    t->tensor[t->n++] = *tensor;
    return HD_OK;
}

/* --- refusals -------------------------------------------------------------------------------- */

static enum hd_err broken(const struct machine *m, const char *why)
{
    return hd_fail(m->msg, HD_ERR_FORMAT, "%s: data.pkl, byte %zu: %s (a damaged file?)", m->path,
                   m->in.pos, why);
}

static enum hd_err foreign(const struct machine *m, const char *what, const char *text, size_t len)
{
    char shown[96];
    return hd_fail(m->msg, HD_ERR_UNSUPPORTED,
                   "%s: data.pkl, byte %zu: %s \"%s\" is not read: the file holds more than "
                   "tensors (convert it to safetensors)",
                   m->path, m->in.pos, what, hd_store__shown(shown, text, len));
}

/* --- the stack ------------------------------------------------------------------------------- */

static enum hd_err put(struct machine *m, struct value v)
{
    enum hd_err err = push(&m->stack, v);
    return err ? hd_fail(m->msg, err, "%s: data.pkl: %s", m->path, hd_err_text(err)) : HD_OK;
}

static bool pop(struct machine *m, struct value *out)
{
    if (!m->stack.n || m->stack.v[m->stack.n - 1].kind == MARK)
        return false;
    *out = m->stack.v[--m->stack.n];
    return true;
}

/* Index of the topmost mark, or SIZE_MAX. */
static size_t mark_of(const struct machine *m)
{
    for (size_t i = m->stack.n; i-- > 0;)
        if (m->stack.v[i].kind == MARK)
            return i;
    return SIZE_MAX;
}

/* The values from `first` on become a tuple. */
static enum hd_err make_tuple(struct machine *m, size_t first, bool has_mark)
{
    struct value t = {.kind = TUPLE, .first = m->pool.n, .n = m->stack.n - first};
    for (size_t i = first; i < m->stack.n; i++) {
        enum hd_err err =
            m->stack.v[i].kind == MARK ? HD_ERR_FORMAT : push(&m->pool, m->stack.v[i]);
        if (err)
            return err == HD_ERR_FORMAT
                       ? broken(m, "a mark inside a tuple")
                       : hd_fail(m->msg, err, "%s: data.pkl: %s", m->path, hd_err_text(err));
    }
    m->stack.n = first - has_mark;
    return put(m, t);
}

static enum hd_err tuple_of(struct machine *m, size_t n)
{
    if (m->stack.n < n)
        return broken(m, "a tuple of more values than there are");
    return make_tuple(m, m->stack.n - n, false);
}

static enum hd_err tuple_to_mark(struct machine *m)
{
    size_t mark = mark_of(m);
    return mark == SIZE_MAX ? broken(m, "no mark") : make_tuple(m, mark + 1, true);
}

/* --- what the known names describe ----------------------------------------------------------- */

static const struct value *arg(const struct machine *m, const struct value *tuple, size_t i,
                               enum kind kind)
{
    if (tuple->kind != TUPLE || i >= tuple->n)
        return NULL;
    const struct value *v = &m->pool.v[tuple->first + i];
    return v->kind == kind ? v : NULL;
}

/* ("storage", type, key, device, elements) */
static enum hd_err make_storage(struct machine *m)
{
    struct value id, storage = {.kind = STORAGE};
    if (!pop(m, &id))
        return broken(m, "a reference without its tuple");
    const struct value *word = arg(m, &id, 0, TEXT), *type = arg(m, &id, 1, NAME);
    const struct value *key = arg(m, &id, 2, TEXT), *n = arg(m, &id, 4, INT);
    if (!word || word->len != 7 || memcmp(word->text, "storage", 7) || !type ||
        type->number != STORAGE_TYPE || !key || !n || n->number < 0)
        return broken(m, "a reference to something else than a storage");
    storage.text = key->text;
    storage.len = key->len;
    storage.number = n->number;
    storage.type = type->type;
    return put(m, storage);
}

/* Sizes and strides, slowest first, as ours; contiguous ones only. */
static enum hd_err take_shape(struct machine *m, struct hd_store__torch_tensor *t,
                              const struct value *sizes, const struct value *strides)
{
    int64_t step = 1;
    if (sizes->n > 4 || sizes->n != strides->n)
        return broken(m, "a tensor of more than 4 dimensions");
    t->n_dim = (int)sizes->n;
    for (size_t i = 0; i < 4; i++)
        t->ne[i] = 1;
    for (size_t i = 0; i < sizes->n; i++) {
        const struct value *size = arg(m, sizes, sizes->n - 1 - i, INT);
        const struct value *stride = arg(m, strides, sizes->n - 1 - i, INT);
        if (!size || !stride || size->number < 1 || size->number > INT64_MAX / step)
            return broken(m, "a tensor without a possible shape");
        if (size->number > 1 && stride->number != step)
            return hd_fail(m->msg, HD_ERR_UNSUPPORTED,
                           "%s: data.pkl: a tensor whose rows do not lie one behind the other is "
                           "not read (convert the file to safetensors)",
                           m->path);
        t->ne[i] = size->number;
        step *= size->number;
    }
    return HD_OK;
}

/* (storage, offset, sizes, strides, requires_grad, hooks[, metadata]) */
static enum hd_err make_tensor(struct machine *m, const struct value *args)
{
    const struct value *storage = arg(m, args, 0, STORAGE), *offset = arg(m, args, 1, INT);
    const struct value *sizes = arg(m, args, 2, TUPLE), *strides = arg(m, args, 3, TUPLE);
    if (!storage || !offset || offset->number < 0 || !sizes || !strides)
        return broken(m, "a tensor without storage, offset, sizes and strides");
    struct hd_store__torch_tensor t = {.key = storage->text,
                                       .key_len = storage->len,
                                       .dtype = types[storage->type].dtype,
                                       .type_name = types[storage->type].type_name,
                                       .elem_bytes = types[storage->type].bytes,
                                       .offset = offset->number};
    enum hd_err err = take_shape(m, &t, sizes, strides);
    if (!err && (err = keep(&m->made, &t)))
        hd_fail(m->msg, err, "%s: data.pkl: %s", m->path, hd_err_text(err));
    return err ? err : put(m, (struct value){.kind = TENSOR, .number = (int64_t)m->made.n - 1});
}

static enum hd_err call(struct machine *m)
{
    struct value args, name;
    if (!pop(m, &args) || !pop(m, &name) || name.kind != NAME || args.kind != TUPLE)
        return broken(m, "a call of something that is no name");
    const struct value *tensor;
    switch (name.number) {
    case REBUILD_TENSOR:
        return make_tensor(m, &args);
    case REBUILD_PARAMETER:
        tensor = arg(m, &args, 0, TENSOR);
        return tensor ? put(m, *tensor) : broken(m, "a parameter without a tensor");
    case ORDERED_DICT:
        return put(m, (struct value){.kind = DICT});
    default:
        return broken(m, "a call of a storage type");
    }
}

/* --- names, texts, numbers ------------------------------------------------------------------- */

static bool is(const char *a, size_t len, const char *b)
{
    return strlen(b) == len && !memcmp(a, b, len);
}

/* Up to a line break, which is taken too. */
static bool take_line(struct machine *m, const char **text, size_t *len)
{
    const uint8_t *from = m->in.data + m->in.pos;
    const uint8_t *end = memchr(from, '\n', m->in.size - m->in.pos);
    if (!end)
        return false;
    *text = (const char *)from;
    *len = (size_t)(end - from);
    m->in.pos += *len + 1;
    return true;
}

static enum hd_err take_name(struct machine *m)
{
    struct value v = {.kind = NAME, .number = -1};
    const char *module, *name;
    size_t n_module, n_name;
    if (!take_line(m, &module, &n_module) || !take_line(m, &name, &n_name))
        return broken(m, "a name is cut off");
    if (is(module, n_module, "torch._utils") && is(name, n_name, "_rebuild_tensor_v2"))
        v.number = REBUILD_TENSOR;
    else if (is(module, n_module, "torch._utils") && is(name, n_name, "_rebuild_parameter"))
        v.number = REBUILD_PARAMETER;
    else if (is(module, n_module, "collections") && is(name, n_name, "OrderedDict"))
        v.number = ORDERED_DICT;
    for (size_t i = 0; is(module, n_module, "torch") && i < sizeof types / sizeof *types; i++)
        if (is(name, n_name, types[i].name)) {
            v.number = STORAGE_TYPE;
            v.type = (int)i;
        }
    return v.number < 0 ? foreign(m, "the name", name, n_name) : put(m, v);
}

static enum hd_err take_text(struct machine *m)
{
    uint32_t len;
    if (!hd_store__take(&m->in, &len, sizeof len) || len > m->in.size - m->in.pos)
        return broken(m, "a text is cut off");
    struct value v = {.kind = TEXT, .text = (const char *)m->in.data + m->in.pos, .len = len};
    m->in.pos += len;
    return put(m, v);
}

/* n bytes, little endian; the last one's sign counts where `sign` is set. */
static enum hd_err take_int(struct machine *m, size_t n, bool sign)
{
    uint8_t bytes[8] = {0};
    if (n > 8 || !hd_store__take(&m->in, bytes, n))
        return broken(m, "a number is cut off or too long");
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    if (sign && n && n < 8 && bytes[n - 1] & 0x80)
        value |= UINT64_MAX << (8 * n);
    return put(m, (struct value){.kind = INT, .number = (int64_t)value});
}

static enum hd_err take_long(struct machine *m)
{
    uint8_t n;
    return hd_store__take(&m->in, &n, 1) ? take_int(m, n, true) : broken(m, "a number is cut off");
}

/* --- memo and dictionaries ------------------------------------------------------------------- */

static bool take_index(struct machine *m, size_t bytes, size_t *out)
{
    uint32_t wide = 0;
    uint8_t narrow = 0;
    bool ok = bytes == 1 ? hd_store__take(&m->in, &narrow, 1) : hd_store__take(&m->in, &wide, 4);
    *out = bytes == 1 ? narrow : wide;
    return ok;
}

/* Indices come in order, so the memo grows by one at a time. */
static enum hd_err memo_put(struct machine *m, size_t bytes)
{
    size_t i;
    if (!take_index(m, bytes, &i) || !m->stack.n || i > m->memo.n)
        return broken(m, "a memo out of order");
    struct value v = m->stack.v[m->stack.n - 1];
    enum hd_err err = HD_OK;
    if (i < m->memo.n)
        m->memo.v[i] = v;
    else
        err = push(&m->memo, v);
    return err ? hd_fail(m->msg, err, "%s: data.pkl: %s", m->path, hd_err_text(err)) : HD_OK;
}

static enum hd_err memo_get(struct machine *m, size_t bytes)
{
    size_t i;
    if (!take_index(m, bytes, &i) || i >= m->memo.n)
        return broken(m, "a memo that was never filled");
    return put(m, m->memo.v[i]);
}

static enum hd_err set_item(struct machine *m, const struct value *key, const struct value *value)
{
    if (key->kind != TEXT || value->kind != TENSOR)
        return HD_OK; /* metadata */
    struct hd_store__torch_tensor t = m->made.tensor[value->number];
    t.name = key->text;
    t.name_len = key->len;
    enum hd_err err = keep(m->out, &t);
    return err ? hd_fail(m->msg, err, "%s: data.pkl: %s", m->path, hd_err_text(err)) : HD_OK;
}

/* The pairs from `first` on go into the dictionary below them. */
static enum hd_err set_items(struct machine *m, size_t first, bool has_mark)
{
    size_t dict = first - has_mark;
    if (!dict-- || m->stack.v[dict].kind != DICT || (m->stack.n - first) % 2)
        return broken(m, "entries of no dictionary");
    enum hd_err err = HD_OK;
    for (size_t i = first; !err && i < m->stack.n; i += 2)
        err = set_item(m, &m->stack.v[i], &m->stack.v[i + 1]);
    m->stack.n = dict + 1;
    return err;
}

static enum hd_err items_to_mark(struct machine *m)
{
    size_t mark = mark_of(m);
    return mark == SIZE_MAX ? broken(m, "no mark") : set_items(m, mark + 1, true);
}

/* An OrderedDict's attributes (_metadata): dropped. */
static enum hd_err build(struct machine *m)
{
    struct value state;
    if (!pop(m, &state) || !m->stack.n || m->stack.v[m->stack.n - 1].kind != DICT)
        return broken(m, "attributes of no dictionary");
    return HD_OK;
}

/* --- instructions ---------------------------------------------------------------------------- */

static enum hd_err step(struct machine *m, uint8_t op)
{
    char shown[8] = {(char)op, 0};
    uint8_t version;
    switch (op) {
    case 0x80: /* PROTO */
        if (!hd_store__take(&m->in, &version, 1) || version != 2)
            return broken(m, "not of protocol 2");
        return HD_OK;
    case '}':
        return put(m, (struct value){.kind = DICT});
    case ')':
        return put(m, (struct value){.kind = TUPLE, .first = m->pool.n});
    case '(':
        return put(m, (struct value){.kind = MARK});
    case 'N':
    case 0x88:
    case 0x89:
        return put(m, (struct value){.kind = NONE});
    case 'K':
        return take_int(m, 1, false);
    case 'M':
        return take_int(m, 2, false);
    case 'J':
        return take_int(m, 4, true);
    case 0x8a:
        return take_long(m);
    case 'X':
        return take_text(m);
    case 'c':
        return take_name(m);
    case 'q':
        return memo_put(m, 1);
    case 'r':
        return memo_put(m, 4);
    case 'h':
        return memo_get(m, 1);
    case 'j':
        return memo_get(m, 4);
    case 't':
        return tuple_to_mark(m);
    case 0x85:
    case 0x86:
    case 0x87:
        return tuple_of(m, (size_t)op - 0x84);
    case 'Q':
        return make_storage(m);
    case 'R':
        return call(m);
    case 's':
        return m->stack.n < 3 ? broken(m, "an entry of no dictionary")
                              : set_items(m, m->stack.n - 2, false);
    case 'u':
        return items_to_mark(m);
    case 'b':
        return build(m);
    default:
        return foreign(m, "the instruction", shown, 1);
    }
}

enum hd_err hd_store__torch_pickle(struct hd_store__torch_table *table, const char *path,
                                   const uint8_t *data, size_t size, struct hd_errmsg *msg)
{
    struct machine m = {.path = path, .in = {.data = data, .size = size}, .out = table, .msg = msg};
    enum hd_err err = HD_OK;
    uint8_t op = 0;
    while (!err && op != '.') {
        if (!hd_store__take(&m.in, &op, 1))
            err = broken(&m, "cut off");
        else if (op != '.')
            err = step(&m, op);
    }
    free(m.stack.v);
    free(m.memo.v);
    free(m.pool.v);
    free(m.made.tensor);
    return err;
}
