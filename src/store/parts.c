/* Matrices that quantised Hugging Face checkpoints keep in several tensors, put together: which
 * scheme a checkpoint uses (config.json, or names of tensors), which parts belong to a matrix, and
 * whether their shapes agree. Schemes that are not read are refused by name.
 *
 * Layouts: DeepSeek-V3 (weight_scale_inv: README_WEIGHTS.md), AutoAWQ "gemm" and GPTQ (AutoGPTQ,
 * GPTQModel: checkpoint_format), bitsandbytes 4-bit (functional.py, QuantState.as_dict). */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/checked.h"
#include "store/store_impl.h"

struct scheme {
    enum hd_store_scheme kind;
    bool known;
    int bits;
    int64_t group; /* -1: a whole row */
    int64_t block[2];
    bool zero_minus_1;
};

static const char READ_INSTEAD[] =
    "use a checkpoint in BF16, F16, FP8 with 128x128 blocks, AWQ gemm, GPTQ or bitsandbytes 4-bit, "
    "or a GGUF file";

static enum hd_err not_read(const struct hd_store *store, const char *what, struct hd_errmsg *msg)
{
    return hd_fail(msg, HD_ERR_UNSUPPORTED, "%s: weights quantised as %s are not supported (%s)",
                   store->path, what, READ_INSTEAD);
}

/* --- settings ---------------------------------------------------------------------------------
 */

static int64_t whole(const json_t *object, const char *name, const char *other, int64_t def)
{
    const json_t *v = json_object_get(object, name);
    if (!json_is_integer(v))
        v = json_object_get(object, other);
    return json_is_integer(v) ? json_integer_value(v) : def;
}

static enum hd_err read_fp8(struct scheme *s, const struct hd_store *store, const json_t *q,
                            struct hd_errmsg *msg)
{
    const json_t *block = json_object_get(q, "weight_block_size");
    const char *fmt = json_string_value(json_object_get(q, "fmt"));
    if (!json_is_array(block) || json_array_size(block) != 2)
        return not_read(store, "FP8 with a scale per tensor or channel (no weight_block_size)",
                        msg);
    if (fmt && strcasecmp(fmt, "e4m3") != 0 && strcasecmp(fmt, "e4m3fn") != 0)
        return not_read(store, "FP8 other than e4m3", msg);
    for (size_t i = 0; i < 2; i++)
        s->block[i] = json_integer_value(json_array_get(block, i));
    if (s->block[0] < 1 || s->block[1] < 1 || s->block[0] > 1 << 20 || s->block[1] % 128)
        return not_read(store, "FP8 with blocks that are no multiple of 128 columns", msg);
    s->kind = HD_SCHEME_FP8;
    s->bits = 8;
    return HD_OK;
}

static enum hd_err read_awq(struct scheme *s, const struct hd_store *store, const json_t *q,
                            struct hd_errmsg *msg)
{
    const char *version = json_string_value(json_object_get(q, "version"));
    const char *backend = json_string_value(json_object_get(q, "backend"));
    char what[96];
    if (backend && !strcasecmp(backend, "llm-awq"))
        return not_read(store, "AWQ in llm-awq's layout", msg);
    if (version && strcasecmp(version, "gemm") != 0) {
        snprintf(what, sizeof what, "AWQ version \"%.20s\" (gemm is read)", version);
        return not_read(store, what, msg);
    }
    s->bits = (int)whole(q, "bits", "w_bit", 4);
    if (s->bits != 4) {
        snprintf(what, sizeof what, "AWQ with %d bits (4 are read)", s->bits);
        return not_read(store, what, msg);
    }
    s->kind = HD_SCHEME_AWQ;
    s->group = whole(q, "group_size", "q_group_size", 128);
    return HD_OK;
}

static enum hd_err read_gptq(struct scheme *s, const struct hd_store *store, const json_t *q,
                             struct hd_errmsg *msg)
{
    const char *format = json_string_value(json_object_get(q, "checkpoint_format"));
    char what[96];
    if (format && strcasecmp(format, "gptq") != 0 && strcasecmp(format, "gptq_v2") != 0) {
        snprintf(what, sizeof what, "GPTQ in the form \"%.20s\" (gptq and gptq_v2 are read)",
                 format);
        return not_read(store, what, msg);
    }
    s->bits = (int)whole(q, "bits", "w_bit", 4);
    if (s->bits != 4 && s->bits != 8) {
        snprintf(what, sizeof what, "GPTQ with %d bits (4 and 8 are read)", s->bits);
        return not_read(store, what, msg);
    }
    s->kind = HD_SCHEME_GPTQ;
    s->zero_minus_1 = !format || strcasecmp(format, "gptq_v2") != 0;
    s->group = whole(q, "group_size", "q_group_size", -1);
    return HD_OK;
}

/* *known stays false where nothing is quantised (or nothing says how). */
static enum hd_err read_scheme(struct scheme *s, const struct hd_store *store,
                               const json_t *quant_file, struct hd_errmsg *msg)
{
    const json_t *q = json_object_get(store->config, "quantization_config");
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    *s = (struct scheme){.group = -1, .block = {1, 1}};
    if (!json_is_object(q)) {
        if (json_is_object(json_object_get(store->config, "quantization")))
            return not_read(store, "MLX does", msg);
        q = quant_file;
        method = !q ? NULL : json_object_get(q, "version") ? "awq" : "gptq";
    } else if (!method) {
        method = json_is_true(json_object_get(q, "load_in_4bit")) ? "bitsandbytes" : "?";
    }
    if (!method)
        return HD_OK;
    s->known = true;
    if (!strcmp(method, "fp8"))
        return read_fp8(s, store, q, msg);
    if (!strcmp(method, "awq"))
        return read_awq(s, store, q, msg);
    if (!strcmp(method, "gptq"))
        return read_gptq(s, store, q, msg);
    if (!strncmp(method, "bitsandbytes", 12)) {
        s->kind = HD_SCHEME_BNB;
        s->bits = 4;
        return json_is_true(json_object_get(q, "load_in_8bit"))
                   ? not_read(store, "bitsandbytes LLM.int8", msg)
                   : HD_OK;
    }
    char what[96], shown[96];
    snprintf(what, sizeof what, "\"%.60s\"", hd_store__shown(shown, method, SIZE_MAX));
    return not_read(store, what, msg);
}

/* What nothing above names: tensors of other schemes, by their endings. */
static enum hd_err refuse_foreign(const struct hd_store *store, struct hd_errmsg *msg)
{
    static const struct {
        const char *ending, *what;
    } foreign[] = {
        {".SCB", "bitsandbytes LLM.int8"},
        {".W_q", "HQQ"},
        {".q_weight", "EXL2"},
        {".trellis", "EXL3"},
        {".codebooks", "AQLM"},
        {".weight_packed", "compressed-tensors"},
        {".weight_scale", "FP8 or integers with a scale per tensor or channel"},
        {".biases", "MLX does"},
        {".qweight", "GPTQ or AWQ without their settings (quantization_config in config.json)"},
    };
    for (size_t i = 0; i < store->n_tensor; i++) {
        const char *name = store->tensor[i].name;
        size_t len = strlen(name);
        for (size_t f = 0; f < sizeof foreign / sizeof *foreign; f++) {
            size_t n = strlen(foreign[f].ending);
            if (len > n && !strcmp(name + len - n, foreign[f].ending))
                return not_read(store, foreign[f].what, msg);
        }
    }
    return HD_OK;
}

/* --- one matrix -------------------------------------------------------------------------------
 */

/* What is being put together. */
struct join {
    struct hd_store *store;
    const struct scheme *scheme;
    struct hd_errmsg *msg;
    bool *gone;         /* [n_tensor] parts that are no tensors of their own any more */
    const char *prefix; /* X of X.weight, `len` bytes */
    size_t len;
    struct hd_store_quant *q;
    size_t at[HD_STORE_MAX_PARTS]; /* q's parts among the tensors */
    size_t bytes;
};

static enum hd_err bad(const struct join *j, const char *what, const char *why)
{
    char shown[96];
    return hd_fail(j->msg, HD_ERR_FORMAT, "%s: tensor \"%s\": %s: %s", j->store->path,
                   hd_store__shown(shown, j->prefix, j->len), what, why);
}

/* The tensor X + suffix, or NULL. */
static const struct hd_store_tensor *sibling(const struct join *j, const char *suffix, size_t *at)
{
    char name[HD_STORE_MAX_NAME_LEN + 64];
    if (j->len + strlen(suffix) >= sizeof name)
        return NULL;
    memcpy(name, j->prefix, j->len);
    memcpy(name + j->len, suffix, strlen(suffix) + 1);
    *at = hd_store__find(j->store, name);
    return *at == SIZE_MAX ? NULL : &j->store->tensor[*at];
}

/* Takes a part of the given type and shape in; *out NULL where it is absent and may be. */
static enum hd_err take(const uint8_t **out, struct join *j, const char *suffix, const char *type,
                        int64_t ne0, int64_t ne1, bool optional)
{
    size_t at;
    const struct hd_store_tensor *t = sibling(j, suffix, &at);
    *out = NULL;
    if (!t)
        return optional ? HD_OK : bad(j, suffix, "is missing");
    bool flat = ne1 == 1 && t->ne[0] == 1 && t->ne[1] == ne0; /* [n, 1] for [n] */
    if (strcmp(t->type_name, type) != 0 || t->ne[2] != 1 || t->ne[3] != 1 ||
        ((t->ne[0] != ne0 || t->ne[1] != ne1) && !flat)) {
        char why[160];
        snprintf(why, sizeof why, "is %.12s [%lld, %lld], expected %s [%lld, %lld]", t->type_name,
                 (long long)t->ne[1], (long long)t->ne[0], type, (long long)ne1, (long long)ne0);
        return bad(j, suffix, why);
    }
    *out = t->data; /* NULL in a truncated file opened for looking */
    j->at[j->q->n_part] = at;
    j->q->part[j->q->n_part].data = t->data;
    j->q->part[j->q->n_part++].bytes = t->bytes;
    j->bytes += t->bytes;
    return HD_OK;
}

static int64_t divide_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

/* The row form whose block divides the group (of a single group, any does). */
static enum hd_err row_form(enum hd_dtype *out, const struct join *j, int64_t n_in)
{
    static const enum hd_dtype forms[2][3] = {{HD_INT4_128, HD_INT4_64, HD_INT4_32},
                                              {HD_INT8_128, HD_INT8_64, HD_INT8_32}};
    for (int i = 0; i < 3; i++) {
        *out = forms[j->q->bits == 8][i];
        if (j->q->group >= n_in || j->q->group % (128 >> i) == 0)
            return HD_OK;
    }
    return hd_fail(j->msg, HD_ERR_UNSUPPORTED,
                   "%s: groups of %lld weights are not supported (multiples of 32 are)",
                   j->store->path, (long long)j->q->group);
}

static enum hd_err set_group(struct join *j, int64_t n_in)
{
    int64_t group = j->scheme->group;
    if (group != -1 && (group < 1 || group > 1 << 24))
        return hd_fail(j->msg, HD_ERR_FORMAT, "%s: group_size %lld", j->store->path,
                       (long long)group);
    j->q->group = group == -1 || group > n_in ? n_in : group;
    return HD_OK;
}

/* Each group must have its full number of elements, so that sorted by group they lie as if there
 * were no order. Leaves g_idx NULL where there is none. */
static enum hd_err check_g_idx(struct join *j, int64_t n_in)
{
    struct hd_store_quant *q = j->q;
    int64_t n_group = divide_up(n_in, q->group);
    bool plain = true;
    enum hd_err err = HD_OK;
    if (!q->g_idx)
        return HD_OK;
    int32_t *count = calloc((size_t)n_group, sizeof *count);
    if (!count)
        return HD_ERR_NOMEM;
    for (int64_t i = 0; i < n_in && !err; i++) {
        int32_t g;
        memcpy(&g, q->g_idx + 4 * i, 4);
        if (g < 0 || g >= n_group)
            err = bad(j, ".g_idx", "names a group that is not there");
        else
            count[g]++;
        plain = plain && g == i / q->group;
    }
    for (int64_t g = 0; g < n_group && !err; g++)
        if (count[g] != (g < n_group - 1 ? q->group : n_in - g * q->group))
            err = bad(j, ".g_idx", "groups of unequal size");
    free(count);
    if (plain)
        q->g_idx = NULL;
    return err;
}

/* AWQ and GPTQ; t is X.qweight. */
static enum hd_err join_int(struct hd_store_tensor *out, struct join *j,
                            const struct hd_store_tensor *t)
{
    struct hd_store_quant *q = j->q;
    bool awq = q->scheme == HD_SCHEME_AWQ;
    int64_t per_word = 32 / q->bits, n_in = awq ? t->ne[1] : t->ne[1] * per_word;
    int64_t n_out = awq ? t->ne[0] * per_word : t->ne[0];
    if (!strcmp(t->type_name, "I16"))
        return not_read(j->store, "AWQ in llm-awq's or gemv_fast's layout (16-bit words)", j->msg);
    if (t->ne[0] > INT32_MAX || t->ne[1] > INT32_MAX || n_out % per_word)
        return bad(j, ".qweight", "no possible shape");
    enum hd_err err = set_group(j, n_in);
    if (!err)
        err = row_form(&out->dtype, j, n_in);
    int64_t n_group = err ? 0 : divide_up(n_in, q->group);
    if (!err)
        err = take(&q->q, j, ".qweight", "I32", t->ne[0], t->ne[1], false);
    if (!err)
        err = take(&q->scale, j, ".scales", "F16", n_out, n_group, false);
    if (!err)
        err = take(&q->zero, j, ".qzeros", "I32", n_out / per_word, n_group, false);
    if (!err && !awq)
        err = take(&q->g_idx, j, ".g_idx", "I32", n_in, 1, true);
    if (!err)
        err = check_g_idx(j, n_in);
    out->ne[0] = n_in;
    out->ne[1] = n_out;
    out->type_name = awq ? "AWQ 4-bit" : q->bits == 4 ? "GPTQ 4-bit" : "GPTQ 8-bit";
    return err;
}

/* t is X.weight, F8_E4M3. */
static enum hd_err join_fp8(struct hd_store_tensor *out, struct join *j,
                            const struct hd_store_tensor *t)
{
    struct hd_store_quant *q = j->q;
    size_t at;
    const struct hd_store_tensor *scale = sibling(j, ".weight_scale_inv", &at);
    if (!scale)
        return bad(j, ".weight_scale_inv", "is missing");
    if (scale->dtype != HD_F32 && scale->dtype != HD_BF16 && scale->dtype != HD_F16)
        return bad(j, ".weight_scale_inv", "is neither F32 nor BF16 nor F16");
    q->group = j->scheme->block[1];
    q->group_rows = j->scheme->block[0];
    q->scale_dtype = scale->dtype;
    out->dtype = HD_FP8_128;
    out->type_name = "FP8";
    enum hd_err err = take(&q->q, j, ".weight", "F8_E4M3", t->ne[0], t->ne[1], false);
    if (!err)
        err = take(&q->scale, j, ".weight_scale_inv", scale->type_name,
                   divide_up(t->ne[0], q->group), divide_up(t->ne[1], q->group_rows), false);
    return err;
}

/* quant_state: JSON as bytes of a U8 tensor. */
static enum hd_err read_state(struct join *j, const char *suffix, const char *type, int64_t ne[2],
                              const uint8_t **nested)
{
    struct hd_store_quant *q = j->q;
    size_t at;
    const struct hd_store_tensor *t = sibling(j, suffix, &at);
    const uint8_t *text;
    enum hd_err err = t && t->bytes <= 65536
                          ? take(&text, j, suffix, "U8", (int64_t)t->bytes, 1, false)
                          : bad(j, suffix, "is missing or larger than 64 KB");
    if (err || !text)
        return err;
    json_t *state = json_loadb((const char *)text, t->bytes, JSON_REJECT_DUPLICATES, NULL);
    const json_t *shape = json_object_get(state, "shape");
    const char *name = json_string_value(json_object_get(state, "quant_type"));
    ne[1] = json_integer_value(json_array_get(shape, 0));
    ne[0] = json_integer_value(json_array_get(shape, 1));
    q->group = whole(state, "blocksize", "blocksize", 0);
    q->nested_group = whole(state, "nested_blocksize", "nested_blocksize", 0);
    q->nested_offset = (float)json_number_value(json_object_get(state, "nested_offset"));
    bool fits = name && !strcmp(name, type) && json_array_size(shape) == 2 && ne[0] > 0 &&
                ne[1] > 0 && ne[0] <= INT32_MAX && ne[1] <= INT32_MAX && q->group >= 1 &&
                q->group <= 1 << 20 && q->nested_group >= 0 && q->nested_group <= 1 << 20;
    json_decref(state);
    *nested = q->nested_group ? text : NULL;
    return fits ? HD_OK : bad(j, suffix, "no quantisation state that makes sense");
}

/* t is X.weight, U8; the state's name carries the code. */
static enum hd_err join_bnb(struct hd_store_tensor *out, struct join *j,
                            const struct hd_store_tensor *t, bool nf4)
{
    struct hd_store_quant *q = j->q;
    const uint8_t *code, *nested = NULL;
    int64_t ne[2] = {0, 0};
    enum hd_err err = read_state(
        j, nf4 ? ".weight.quant_state.bitsandbytes__nf4" : ".weight.quant_state.bitsandbytes__fp4",
        nf4 ? "nf4" : "fp4", ne, &nested);
    if (!err && !ne[0])
        err = bad(j, ".weight.quant_state", "is cut off");
    if (err)
        return err;
    if (ne[0] % 64 || q->group % 64)
        return hd_fail(j->msg, HD_ERR_UNSUPPORTED,
                       "%s: bitsandbytes blocks of %lld in rows of %lld are not supported "
                       "(multiples of 64 are)",
                       j->store->path, (long long)q->group, (long long)ne[0]);
    int64_t n = ne[0] * ne[1], n_scale = divide_up(n, q->group);
    out->dtype = nf4 ? HD_NF4_64 : HD_FP4_64;
    out->type_name = nf4 ? "NF4" : "FP4";
    out->ne[0] = ne[0];
    out->ne[1] = ne[1];
    err = take(&q->q, j, ".weight", "U8", t->ne[0] == 1 ? n / 2 : t->ne[0],
               t->ne[0] == 1 ? 1 : n / 2 / t->ne[0], false);
    if (!err && t->bytes != (size_t)n / 2)
        err = bad(j, ".weight", "does not hold the shape of its quant_state");
    if (!err)
        err = take(&q->scale, j, ".weight.absmax", nested ? "U8" : "F32", n_scale, 1, false);
    if (!err)
        err = take(&code, j, ".weight.quant_map", "F32", 16, 1, false);
    if (!err && nested)
        err = take(&q->nested_scale, j, ".weight.nested_absmax", "F32",
                   divide_up(n_scale, q->nested_group), 1, false);
    if (!err && nested)
        err = take(&q->nested_map, j, ".weight.nested_quant_map", "F32", 256, 1, false);
    for (size_t i = 0; !err && code && i < 16; i++) {
        float v;
        memcpy(&v, code + 4 * i, 4);
        if (!(v == hd_dtype_code(out->dtype)[i]))
            err = bad(j, ".weight.quant_map", "is not the code that its name says");
    }
    return err;
}

/* --- all of them ------------------------------------------------------------------------------
 */

enum main_kind { NOT_MAIN, MAIN_INT, MAIN_FP8, MAIN_NF4, MAIN_FP4 };

static bool ends_with(const char *name, size_t len, const char *ending, size_t *prefix)
{
    size_t n = strlen(ending);
    if (len <= n || strcmp(name + len - n, ending) != 0)
        return false;
    *prefix = len - n;
    return true;
}

/* Whether tensor i is the first part of a matrix, and the length of X. */
static enum main_kind main_kind(struct join *j, size_t i)
{
    const struct hd_store_tensor *t = &j->store->tensor[i];
    const struct scheme *s = j->scheme;
    size_t len = strlen(t->name), at;
    j->prefix = t->name;
    if (s->known && (s->kind == HD_SCHEME_AWQ || s->kind == HD_SCHEME_GPTQ) &&
        ends_with(t->name, len, ".qweight", &j->len))
        return MAIN_INT;
    if (!ends_with(t->name, len, ".weight", &j->len))
        return NOT_MAIN;
    if (s->known && s->kind == HD_SCHEME_FP8 && !strcmp(t->type_name, "F8_E4M3"))
        return MAIN_FP8;
    if (!strcmp(t->type_name, "U8") && sibling(j, ".weight.quant_state.bitsandbytes__nf4", &at))
        return MAIN_NF4;
    if (!strcmp(t->type_name, "U8") && sibling(j, ".weight.quant_state.bitsandbytes__fp4", &at))
        return MAIN_FP4;
    return NOT_MAIN;
}

static enum hd_err join_one(struct join *j, size_t i, enum main_kind kind)
{
    struct hd_store *store = j->store;
    struct hd_store_tensor out = store->tensor[i];
    char name[HD_STORE_MAX_NAME_LEN + 8];
    j->q = &store->quant[store->n_quant];
    j->bytes = 0;
    *j->q = (struct hd_store_quant){.scheme = j->scheme->kind,
                                    .bits = j->scheme->bits,
                                    .group_rows = 1,
                                    .zero_minus_1 = j->scheme->zero_minus_1};
    enum hd_err err;
    if (kind == MAIN_INT)
        err = join_int(&out, j, &store->tensor[i]);
    else if (kind == MAIN_FP8)
        err = join_fp8(&out, j, &store->tensor[i]);
    else {
        j->q->scheme = HD_SCHEME_BNB;
        j->q->bits = 4;
        err = join_bnb(&out, j, &store->tensor[i], kind == MAIN_NF4);
    }
    if (err)
        return err;
    memcpy(name, j->prefix, j->len);
    memcpy(name + j->len, ".weight", 8);
    out.name = hd_store__strdup(store, name, j->len + 7);
    out.n_dim = 2;
    out.data = j->q->q;
    for (int p = 0; p < j->q->n_part; p++) {
        j->gone[j->at[p]] = true;
        if (!j->q->part[p].data)
            out.data = NULL; /* cut off */
    }
    out.bytes = j->bytes;
    out.quant = j->q;
    store->tensor[i] = out;
    j->gone[i] = false;
    store->n_quant++;
    return out.name ? HD_OK : hd_fail(j->msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
}

/* Takes the parts out of the list and hides what nobody can read. */
static enum hd_err close_ranks(struct join *j)
{
    struct hd_store *store = j->store;
    size_t n = 0;
    for (size_t i = 0; i < store->n_tensor; i++)
        if (!j->gone[i])
            store->tensor[n++] = store->tensor[i];
    store->n_tensor = n;
    for (size_t i = 0; i < n; i++)
        if (store->tensor[i].dtype == HD_STORE_UNREAD)
            store->tensor[i].data = NULL;
    return hd_store__index_tensors(store, j->msg);
}

enum hd_err hd_store__join_parts(struct hd_store *store, const json_t *quant_file,
                                 struct hd_errmsg *msg)
{
    struct scheme scheme;
    struct join j = {.store = store, .scheme = &scheme, .msg = msg};
    size_t n_main = 0;
    enum hd_err err = read_scheme(&scheme, store, quant_file, msg);
    if (err == HD_ERR_UNSUPPORTED && store->header_only) {
        scheme.known = false;
        err = HD_OK;
    }
    if (err)
        return err;
    for (size_t i = 0; i < store->n_tensor; i++)
        n_main += main_kind(&j, i) != NOT_MAIN;
    store->quant = calloc(n_main + 1, sizeof *store->quant);
    j.gone = calloc(store->n_tensor + 1, sizeof *j.gone);
    if (!store->quant || !j.gone)
        err = hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    for (size_t i = 0; i < store->n_tensor && !err; i++) {
        enum main_kind kind = j.gone[i] ? NOT_MAIN : main_kind(&j, i);
        if (kind != NOT_MAIN && store->n_quant < n_main)
            err = join_one(&j, i, kind);
        if (store->header_only && err != HD_ERR_NOMEM)
            err = HD_OK; /* the parts are shown as they are */
    }
    if (!err)
        err = close_ranks(&j);
    if (!err && !store->header_only)
        err = refuse_foreign(store, msg);
    free(j.gone);
    return err;
}
