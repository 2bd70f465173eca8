/* Hyper-parameters of encoders: BERT and XLM-RoBERTa, from GGUF keys ("bert.…") or from the files
 * of a Hugging Face folder, sentence-transformers' side files included. */
#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "model/hparams.h"

/* --- which prefix a model wants --------------------------------------------------------------- */

/* multilingual-e5 and its kin were trained with these before every text; their checkpoints do not
 * always say so, but their names do. */
static bool names_e5(const char *name, size_t len)
{
    for (size_t i = 0; i + 1 < len; i++) {
        bool word = !i || !isalnum((unsigned char)name[i - 1]);
        bool ends = i + 2 == len || !isalnum((unsigned char)name[i + 2]);
        if (word && ends && (name[i] == 'e' || name[i] == 'E') && name[i + 1] == '5')
            return true;
    }
    return false;
}

static void set_e5(struct hd_encoder_hparams *enc)
{
    snprintf(enc->query_prefix, sizeof enc->query_prefix, "query: ");
    snprintf(enc->passage_prefix, sizeof enc->passage_prefix, "passage: ");
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* A prefix that does not fit is none that we know: better none than half of one. */
static bool copy_prefix(char out[64], const char *text, size_t len)
{
    if (!text || len >= 64)
        return false;
    memcpy(out, text, len);
    out[len] = 0;
    return true;
}

/* --- GGUF --------------------------------------------------------------------------------------
 */

struct keys {
    const struct hd_store *store;
    struct hd_errmsg *msg;
    enum hd_err err; /* the first failure; later reads do nothing */
};

static bool get_int(struct keys *k, int *out, const char *key)
{
    uint64_t value;
    if (k->err || !hd_store_u64(k->store, key, &value))
        return false;
    if (value > 1u << 30) {
        k->err = hd_fail(k->msg, HD_ERR_FORMAT, "%s: %s is %llu, absurdly large",
                         hd_store_path(k->store), key, (unsigned long long)value);
        return false;
    }
    *out = (int)value;
    return true;
}

static void need_int(struct keys *k, int *out, const char *key)
{
    if (!get_int(k, out, key) && !k->err)
        k->err = hd_fail(k->msg, HD_ERR_FORMAT, "%s: %s is missing or no whole number",
                         hd_store_path(k->store), key);
}

static void read_gguf_prefixes(struct keys *k, struct hd_encoder_hparams *enc)
{
    const char *text, *path = hd_store_path(k->store);
    size_t len;
    bool told = false;
    if (hd_store_str(k->store, "holdfast.prefix.query", &text, &len))
        told |= copy_prefix(enc->query_prefix, text, len);
    if (hd_store_str(k->store, "holdfast.prefix.passage", &text, &len))
        told |= copy_prefix(enc->passage_prefix, text, len);
    if (told)
        return;
    if ((hd_store_str(k->store, "general.name", &text, &len) && names_e5(text, len)) ||
        names_e5(base_name(path), strlen(base_name(path))))
        set_e5(enc);
}

/* GGUF's pooling types: 0 none, 1 mean, 2 cls, 3 last, 4 rank. Absent: mean, the common one. */
static void read_gguf_pooling(struct keys *k, struct hd_encoder_hparams *enc)
{
    int pooling = 1;
    get_int(k, &pooling, "bert.pooling_type");
    if (pooling == 3 && !k->err)
        k->err = hd_fail(k->msg, HD_ERR_UNSUPPORTED,
                         "%s: bert.pooling_type is 3 (last token), which is not supported (mean "
                         "and cls are)",
                         hd_store_path(k->store));
    enc->pooling = pooling == 1 ? HD_POOLING_MEAN : pooling == 2 ? HD_POOLING_CLS : HD_POOLING_NONE;
    enc->normalise = true;
    enc->score_head = pooling == 4;
}

static enum hd_err read_gguf(struct hd_hparams *hp, const struct hd_store *store,
                             struct hd_errmsg *msg)
{
    struct keys k = {.store = store, .msg = msg};
    double eps = 0;
    bool causal = false;
    hp->arch_name = "bert";
    need_int(&k, &hp->n_embd, "bert.embedding_length");
    need_int(&k, &hp->n_layer, "bert.block_count");
    need_int(&k, &hp->n_ctx, "bert.context_length");
    need_int(&k, &hp->n_ff, "bert.feed_forward_length");
    need_int(&k, &hp->n_head, "bert.attention.head_count");
    if (!k.err && !hd_store_f64(store, "bert.attention.layer_norm_epsilon", &eps))
        k.err = hd_fail(msg, HD_ERR_FORMAT,
                        "%s: bert.attention.layer_norm_epsilon is missing or no number",
                        hd_store_path(store));
    if (!k.err && hd_store_bool(store, "bert.attention.causal", &causal) && causal)
        k.err = hd_fail(msg, HD_ERR_UNSUPPORTED,
                        "%s: bert.attention.causal is true, which is not supported",
                        hd_store_path(store));
    hp->norm_eps = (float)eps;
    read_gguf_pooling(&k, &hp->enc);
    read_gguf_prefixes(&k, &hp->enc);
    const struct hd_store_tensor *embd = hd_store_tensor(store, "token_embd.weight");
    const struct hd_store_tensor *types = hd_store_tensor(store, "token_types.weight");
    const struct hd_store_tensor *positions = hd_store_tensor(store, "position_embd.weight");
    if (!k.err && (!embd || embd->n_dim != 2 || embd->ne[1] > INT32_MAX || !positions))
        k.err = hd_fail(msg, HD_ERR_FORMAT,
                        "%s: tensor token_embd.weight or position_embd.weight is missing or no "
                        "matrix (a file without weights?)",
                        hd_store_path(store));
    if (k.err)
        return k.err;
    hp->n_vocab = (int)embd->ne[1];
    hp->enc.n_type = types ? (int)(types->ne[1] < 1024 ? types->ne[1] : 1024) : 0;
    /* Converters of XLM-RoBERTa cut off the rows before the first position. */
    if (hp->n_ctx > positions->ne[1])
        hp->n_ctx = (int)positions->ne[1];
    return HD_OK;
}

/* --- Hugging Face ------------------------------------------------------------------------------
 */

struct config {
    const char *path;
    const struct hd_store *store;
    const json_t *json;
    struct hd_errmsg *msg;
    enum hd_err err;
};

static bool config_int(struct config *c, int *out, const json_t *object, const char *file,
                       const char *name)
{
    const json_t *v = json_object_get(object, name);
    if (c->err || !v || json_is_null(v))
        return false;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 1 << 30) {
        c->err = hd_fail(c->msg, HD_ERR_FORMAT, "%s/%s: %s must be a whole number from 0 to 2^30",
                         c->path, file, name);
        return false;
    }
    *out = (int)json_integer_value(v);
    return true;
}

static void config_need(struct config *c, int *out, const char *name)
{
    if (!config_int(c, out, c->json, "config.json", name) && !c->err)
        c->err = hd_fail(c->msg, HD_ERR_FORMAT, "%s/config.json: %s is missing", c->path, name);
}

static void refuse(struct config *c, bool condition, const char *what)
{
    if (condition && !c->err)
        c->err = hd_fail(c->msg, HD_ERR_UNSUPPORTED, "%s/config.json: %s is not supported", c->path,
                         what);
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static void read_activation(struct config *c, struct hd_encoder_hparams *enc)
{
    static const struct {
        const char *name;
        enum hd_activation act;
    } known[] = {{"gelu", HD_ACT_GELU}, {"gelu_new", HD_ACT_GELU_TANH},
                 {"relu", HD_ACT_RELU}, {"gelu_pytorch_tanh", HD_ACT_GELU_TANH},
                 {"silu", HD_ACT_SILU}, {"swish", HD_ACT_SILU},
                 {"tanh", HD_ACT_TANH}};
    const char *name = text_of(c->json, "hidden_act");
    enc->act = HD_ACT_GELU;
    if (!*name)
        return;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name)) {
            enc->act = known[i].act;
            return;
        }
    if (!c->err)
        c->err = hd_fail(c->msg, HD_ERR_UNSUPPORTED,
                         "%s/config.json: hidden_act \"%.40s\" is not supported (gelu, gelu_new, "
                         "relu, silu and tanh are)",
                         c->path, name);
}

/* modules.json lists the steps after the transformer; without it, vectors are the mean of the
 * tokens (cls for XLM-RoBERTa with BGE-M3's heads) scaled to length 1. */
static void read_modules(struct config *c, struct hd_encoder_hparams *enc)
{
    const json_t *modules = hd_store_side_file(c->store, "modules.json");
    size_t i;
    json_t *module;
    enc->normalise = !modules;
    json_array_foreach((json_t *)modules, i, module)
    {
        const char *type = text_of(module, "type");
        const char *name = strrchr(type, '.') ? strrchr(type, '.') + 1 : type;
        if (!strcmp(name, "Normalize"))
            enc->normalise = true;
        else if (strcmp(name, "Transformer") && strcmp(name, "Pooling") && !c->err)
            c->err = hd_fail(c->msg, HD_ERR_UNSUPPORTED,
                             "%s/modules.json: module \"%.60s\" is not supported (Transformer, "
                             "Pooling and Normalize are)",
                             c->path, name);
    }
}

static void read_pooling(struct config *c, struct hd_encoder_hparams *enc)
{
    const json_t *pooling = hd_store_side_file(c->store, "1_Pooling/config.json");
    const char *mode = text_of(pooling, "pooling_mode");
    enc->pooling = enc->sparse_head || enc->colbert_head ? HD_POOLING_CLS : HD_POOLING_MEAN;
    if (!pooling || c->err)
        return;
    bool mean =
        json_is_true(json_object_get(pooling, "pooling_mode_mean_tokens")) || !strcmp(mode, "mean");
    bool cls =
        json_is_true(json_object_get(pooling, "pooling_mode_cls_token")) || !strcmp(mode, "cls");
    static const char *const others[] = {
        "pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"};
    bool other = *mode && !mean && !cls;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        other |= json_is_true(json_object_get(pooling, others[i]));
    if (other || mean == cls)
        c->err = hd_fail(c->msg, HD_ERR_UNSUPPORTED,
                         "%s/1_Pooling/config.json: this way of pooling is not supported (the mean "
                         "of all tokens, or the first token alone, are)",
                         c->path);
    enc->pooling = cls ? HD_POOLING_CLS : HD_POOLING_MEAN;
}

static void read_hf_prefixes(struct config *c, struct hd_encoder_hparams *enc)
{
    const json_t *prompts = json_object_get(
        hd_store_side_file(c->store, "config_sentence_transformers.json"), "prompts");
    const json_t *query = json_object_get(prompts, "query");
    const json_t *passage = json_object_get(prompts, "passage");
    if (!passage)
        passage = json_object_get(prompts, "document");
    bool told = copy_prefix(enc->query_prefix, json_string_value(query), json_string_length(query));
    told |=
        copy_prefix(enc->passage_prefix, json_string_value(passage), json_string_length(passage));
    const char *from = text_of(c->json, "_name_or_path"), *folder = base_name(c->path);
    if ((!told || (!enc->query_prefix[0] && !enc->passage_prefix[0])) &&
        (names_e5(from, strlen(from)) || names_e5(folder, strlen(folder))))
        set_e5(enc);
}

static void read_head(struct config *c, struct hd_encoder_hparams *enc)
{
    const char *class =
        json_string_value(json_array_get(json_object_get(c->json, "architectures"), 0));
    int n_label = 2; /* the library's default */
    if (!class || !strstr(class, "ForSequenceClassification"))
        return;
    const json_t *labels = json_object_get(c->json, "id2label");
    if (json_is_object(labels))
        n_label = (int)json_object_size(labels);
    config_int(c, &n_label, c->json, "config.json", "num_labels");
    if (n_label != 1 && !c->err)
        c->err = hd_fail(c->msg, HD_ERR_UNSUPPORTED,
                         "%s/config.json: a classifier with %d labels is not supported (a "
                         "re-ranker has one)",
                         c->path, n_label);
    enc->score_head = true;
}

static void read_vector_heads(const struct hd_store *store, struct hd_encoder_hparams *enc)
{
    const struct hd_store_tensor *colbert = hd_store_tensor(store, "colbert_linear.weight");
    enc->sparse_head = hd_store_tensor(store, "sparse_linear.weight") != NULL;
    enc->colbert_head = colbert && colbert->ne[1] > 0 && colbert->ne[1] <= 65536;
    enc->n_colbert = enc->colbert_head ? (int)colbert->ne[1] : 0;
}

static enum hd_err read_hf(struct hd_hparams *hp, const struct hd_store *store,
                           struct hd_errmsg *msg)
{
    struct config c = {
        .path = hd_store_path(store), .store = store, .json = hd_store_config(store), .msg = msg};
    struct hd_encoder_hparams *enc = &hp->enc;
    const json_t *eps = json_object_get(c.json, "layer_norm_eps");
    const char *positions = text_of(c.json, "position_embedding_type");
    bool roberta = !strcmp(text_of(c.json, "model_type"), "xlm-roberta");
    int n_max = 0, pad = 1;
    hp->arch_name = roberta ? "xlm-roberta" : "bert";
    config_need(&c, &hp->n_vocab, "vocab_size");
    config_need(&c, &hp->n_embd, "hidden_size");
    config_need(&c, &hp->n_layer, "num_hidden_layers");
    config_need(&c, &hp->n_ctx, "max_position_embeddings");
    config_need(&c, &hp->n_ff, "intermediate_size");
    config_need(&c, &hp->n_head, "num_attention_heads");
    enc->n_type = 2;
    config_int(&c, &enc->n_type, c.json, "config.json", "type_vocab_size");
    hp->norm_eps = json_is_number(eps) ? (float)json_number_value(eps) : 1e-12f;
    if (roberta) { /* positions count from the row after the padding's */
        config_int(&c, &pad, c.json, "config.json", "pad_token_id");
        enc->pos_first = pad + 1;
        hp->n_ctx -= enc->pos_first;
    }
    refuse(&c, *positions && strcmp(positions, "absolute"),
           "position_embedding_type other than absolute");
    refuse(&c, json_is_true(json_object_get(c.json, "is_decoder")), "is_decoder");
    refuse(&c, json_is_object(json_object_get(c.json, "quantization_config")),
           "an encoder with quantization_config");
    read_activation(&c, enc);
    read_modules(&c, enc);
    read_head(&c, enc);
    read_pooling(&c, enc);
    read_hf_prefixes(&c, enc);
    if (config_int(&c, &n_max, hd_store_side_file(store, "sentence_bert_config.json"),
                   "sentence_bert_config.json", "max_seq_length") &&
        n_max > 0 && n_max < hp->n_ctx)
        hp->n_ctx = n_max;
    return c.err;
}

/* --- both --------------------------------------------------------------------------------------
 */

bool hd_hparams__is_encoder(const struct hd_store *store)
{
    const char *arch;
    size_t len;
    if (hd_store_format(store) == HD_STORE_GGUF)
        return hd_store_str(store, "general.architecture", &arch, &len) && len == 4 &&
               !memcmp(arch, "bert", 4);
    const char *type = text_of(hd_store_config(store), "model_type");
    return !strcmp(type, "bert") || !strcmp(type, "xlm-roberta");
}

static enum hd_err check(const struct hd_hparams *hp, const char *path, struct hd_errmsg *msg)
{
    const struct {
        const char *name;
        long value, min, max;
    } ranges[] = {
        {"vocabulary size", hp->n_vocab, 1, 1 << 22},
        {"n_embd", hp->n_embd, 1, 65536},
        {"layer count", hp->n_layer, 1, 1024},
        {"feed-forward width", hp->n_ff, 1, 1 << 20},
        {"context length", hp->n_ctx, 8, 1 << 20},
        {"head count", hp->n_head, 1, 1024},
        {"token types", hp->enc.n_type, 0, 1024},
        {"first position", hp->enc.pos_first, 0, 1024},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max)
            return hd_fail(msg, HD_ERR_FORMAT,
                           "%s: %s is %ld, must be %ld to %ld (damaged or unusual checkpoint)",
                           path, ranges[i].name, ranges[i].value, ranges[i].min, ranges[i].max);
    if (hp->n_embd % hp->n_head || hp->n_embd / hp->n_head > 1024)
        return hd_fail(msg, HD_ERR_FORMAT,
                       "%s: n_embd %d does not divide into %d heads of at most "
                       "1024",
                       path, hp->n_embd, hp->n_head);
    if (!(hp->norm_eps > 0 && hp->norm_eps < 0.1f))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: norm epsilon is %g", path, (double)hp->norm_eps);
    return HD_OK;
}

enum hd_err hd_hparams__read_encoder(struct hd_hparams *out, const struct hd_store *store,
                                     struct hd_errmsg *msg)
{
    struct hd_hparams hp = {.arch = HD_ARCH_BERT};
    read_vector_heads(store, &hp.enc);
    enum hd_err err = hd_store_format(store) == HD_STORE_GGUF ? read_gguf(&hp, store, msg)
                                                              : read_hf(&hp, store, msg);
    if (!err)
        err = check(&hp, hd_store_path(store), msg);
    if (err)
        return err;
    hp.n_head_kv = hp.n_head;
    hp.head_dim = hp.n_embd / hp.n_head;
    hp.rope.theta = 10000;
    hp.rope.factor = 1;
    *out = hp;
    return HD_OK;
}
