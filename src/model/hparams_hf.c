/* Hyper-parameters from config.json (the names of Hugging Face transformers). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/hparams.h"

struct config {
    const struct hd_store *store;
    const char *path;
    const json_t *json;
    struct hd_errmsg *msg;
    enum hd_err err; /* the first failure; later reads do nothing */
};

static bool get_int(struct config *c, int *out, const char *name)
{
    const json_t *v = json_object_get(c->json, name);
    if (c->err || !v || json_is_null(v))
        return false;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 1 << 30) {
        c->err = hd_fail(c->msg, HD_ERR_FORMAT,
                         "%s/config.json: %s must be a whole number from 0 to 2^30", c->path, name);
        return false;
    }
    *out = (int)json_integer_value(v);
    return true;
}

static void need_int(struct config *c, int *out, const char *name)
{
    if (!get_int(c, out, name) && !c->err)
        c->err = hd_fail(c->msg, HD_ERR_FORMAT, "%s/config.json: %s is missing", c->path, name);
}

static bool get_number(struct config *c, double *out, const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);
    if (c->err || !v || json_is_null(v))
        return false;
    if (!json_is_number(v) || !isfinite(json_number_value(v))) {
        c->err =
            hd_fail(c->msg, HD_ERR_FORMAT, "%s/config.json: %s must be a number", c->path, name);
        return false;
    }
    *out = json_number_value(v);
    return true;
}

static bool get_bool(struct config *c, bool def, const char *name)
{
    const json_t *v = json_object_get(c->json, name);
    return json_is_boolean(v) ? json_is_true(v) : def;
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static void read_yarn(struct config *c, struct hd_hparams *hp, const json_t *scaling)
{
    struct hd_rope_hparams *r = &hp->rope;
    double mscale = 0, all_dim = 0;
    r->scaling = HD_ROPE_YARN;
    r->beta_fast = 32;
    r->beta_slow = 1;
    get_number(c, &r->beta_fast, scaling, "beta_fast");
    get_number(c, &r->beta_slow, scaling, "beta_slow");
    get_number(c, &mscale, scaling, "mscale");
    get_number(c, &all_dim, scaling, "mscale_all_dim");
    r->mscale = mscale > 0 && all_dim > 0
                    ? yarn_mscale(r->factor, mscale) / yarn_mscale(r->factor, all_dim)
                    : yarn_mscale(r->factor, 1);
    get_number(c, &r->mscale, scaling, "attention_factor");
    r->mscale_all_dim = all_dim;
}

static void read_scaling(struct config *c, struct hd_hparams *hp, const json_t *scaling)
{
    struct hd_rope_hparams *r = &hp->rope;
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    if (!type)
        type = json_string_value(json_object_get(scaling, "type"));
    if (!type || !strcmp(type, "default"))
        return;
    r->n_ctx_orig = hp->n_ctx;
    get_number(c, &r->n_ctx_orig, scaling, "original_max_position_embeddings");
    if (!get_number(c, &r->factor, scaling, "factor") && !c->err)
        c->err = hd_fail(c->msg, HD_ERR_FORMAT,
                         "%s/config.json: RoPE scaling \"%.40s\" has no factor", c->path, type);
    if (!strcmp(type, "linear")) {
        r->scaling = HD_ROPE_LINEAR;
    } else if (!strcmp(type, "yarn")) {
        read_yarn(c, hp, scaling);
    } else if (!strcmp(type, "llama3")) {
        r->scaling = HD_ROPE_LLAMA3;
        r->freq_low = 1;
        r->freq_high = 4;
        get_number(c, &r->freq_low, scaling, "low_freq_factor");
        get_number(c, &r->freq_high, scaling, "high_freq_factor");
    } else if (!c->err) {
        c->err = hd_fail(c->msg, HD_ERR_UNSUPPORTED,
                         "%s/config.json: RoPE scaling \"%.40s\" is not supported (linear, yarn "
                         "and llama3 are)",
                         c->path, type);
    }
}

/* Older configs have rope_theta and rope_scaling, newer ones both inside rope_parameters. */
static void read_rope(struct config *c, struct hd_hparams *hp)
{
    const json_t *parameters = json_object_get(c->json, "rope_parameters");
    const json_t *scaling = json_object_get(c->json, "rope_scaling");
    hp->rope.theta = 10000;
    hp->rope.factor = hp->rope.mscale = 1;
    get_number(c, &hp->rope.theta, c->json, "rope_theta");
    if (json_is_object(parameters)) {
        get_number(c, &hp->rope.theta, parameters, "rope_theta");
        read_scaling(c, hp, parameters);
    } else if (json_is_object(scaling)) {
        read_scaling(c, hp, scaling);
    }
}

static void refuse(struct config *c, bool condition, const char *what)
{
    if (condition && !c->err)
        c->err = hd_fail(c->msg, HD_ERR_UNSUPPORTED, "%s/config.json: %s is not supported", c->path,
                         what);
}

static void read_dense(struct config *c, struct hd_hparams *hp)
{
    int window_from = 0;
    need_int(c, &hp->n_head, "num_attention_heads");
    hp->n_head_kv = hp->n_head;
    get_int(c, &hp->n_head_kv, "num_key_value_heads");
    hp->head_dim = hp->n_head > 0 ? hp->n_embd / hp->n_head : 0;
    if (!get_int(c, &hp->head_dim, "head_dim") && !c->err && hp->n_head > 0 &&
        hp->n_embd % hp->n_head)
        c->err = hd_fail(c->msg, HD_ERR_FORMAT,
                         "%s/config.json: hidden_size %d does not divide into %d heads", c->path,
                         hp->n_embd, hp->n_head);
    read_rope(c, hp);
    hp->rope.n_rot = hp->head_dim;
    hp->rope.neox = true;
    refuse(c, get_bool(c, false, "mlp_bias"), "mlp_bias");
    if (get_bool(c, false, "use_sliding_window") &&
        (!get_int(c, &window_from, "max_window_layers") || window_from < hp->n_layer))
        refuse(c, true, "use_sliding_window");
}

/* config.json promises the layer even where a checkpoint was saved without it. */
static void read_mtp(struct config *c, struct hd_hparams *hp)
{
    char name[96];
    int n = 0;
    get_int(c, &n, "num_nextn_predict_layers");
    snprintf(name, sizeof name, "model.layers.%d.eh_proj.weight", hp->n_layer);
    hp->n_layer_mtp = n > 0 && hd_store_tensor(c->store, name);
}

static void read_deepseek(struct config *c, struct hd_hparams *hp)
{
    const char *method = json_string_value(json_object_get(c->json, "topk_method"));
    const char *score = json_string_value(json_object_get(c->json, "scoring_func"));
    double scale = 1;
    int freq = 1;
    need_int(c, &hp->n_head, "num_attention_heads");
    get_int(c, &hp->q_lora_rank, "q_lora_rank");
    need_int(c, &hp->kv_lora_rank, "kv_lora_rank");
    need_int(c, &hp->qk_nope_head_dim, "qk_nope_head_dim");
    need_int(c, &hp->qk_rope_head_dim, "qk_rope_head_dim");
    need_int(c, &hp->v_head_dim, "v_head_dim");
    hp->n_head_kv = 1;
    hp->head_dim = hp->kv_lora_rank + hp->qk_rope_head_dim;
    read_rope(c, hp);
    hp->rope.n_rot = hp->qk_rope_head_dim;
    hp->rope.neox = !get_bool(c, true, "rope_interleave");
    need_int(c, &hp->n_layer_dense, "first_k_dense_replace");
    need_int(c, &hp->n_expert, "n_routed_experts");
    need_int(c, &hp->n_expert_used, "num_experts_per_tok");
    get_int(c, &hp->n_expert_shared, "n_shared_experts");
    need_int(c, &hp->n_ff_exp, "moe_intermediate_size");
    hp->n_expert_group = hp->n_expert_group_used = 1;
    get_int(c, &hp->n_expert_group, "n_group");
    get_int(c, &hp->n_expert_group_used, "topk_group");
    hp->expert_norm = get_bool(c, true, "norm_topk_prob");
    get_number(c, &scale, c->json, "routed_scaling_factor");
    hp->routed_scale = (float)scale;
    get_int(c, &freq, "moe_layer_freq");
    read_mtp(c, hp);
    refuse(c, freq != 1, "moe_layer_freq other than 1");
    refuse(c, get_bool(c, false, "attention_bias"), "attention_bias");
    refuse(c, method && strcmp(method, "noaux_tc"), "topk_method other than noaux_tc");
    refuse(c, score && strcmp(score, "sigmoid"), "scoring_func other than sigmoid");
}

static enum hd_err read_arch(struct config *c, struct hd_hparams *hp)
{
    static const struct {
        const char *type;
        enum hd_arch arch;
    } known[] = {
        {"qwen2", HD_ARCH_QWEN2}, {"llama", HD_ARCH_LLAMA}, {"deepseek_v3", HD_ARCH_DEEPSEEK}};
    const char *type = json_string_value(json_object_get(c->json, "model_type"));
    if (!type)
        return hd_fail(c->msg, HD_ERR_FORMAT, "%s/config.json: model_type is missing", c->path);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].type, type)) {
            hp->arch = known[i].arch;
            hp->arch_name = known[i].type;
            return HD_OK;
        }
    return hd_fail(
        c->msg, HD_ERR_UNSUPPORTED,
        "%s/config.json: model_type \"%.60s\" is not supported (supported: " HD_ARCH_SUPPORTED ")",
        c->path, type);
}

static enum hd_err check_features(struct config *c)
{
    const char *act = json_string_value(json_object_get(c->json, "hidden_act"));
    if (act && strcmp(act, "silu"))
        return hd_fail(c->msg, HD_ERR_UNSUPPORTED,
                       "%s/config.json: hidden_act \"%.40s\" is not supported (silu is)", c->path,
                       act);
    return HD_OK;
}

enum hd_err hd_hparams__read_hf(struct hd_hparams *hp, const struct hd_store *store,
                                struct hd_errmsg *msg)
{
    struct config c = {
        .store = store, .path = hd_store_path(store), .json = hd_store_config(store), .msg = msg};
    double eps = 0;
    if (!json_is_object(c.json))
        return hd_fail(msg, HD_ERR_NOTFOUND, "%s: no config.json (not a model folder?)", c.path);
    c.err = read_arch(&c, hp);
    if (!c.err)
        c.err = check_features(&c);
    need_int(&c, &hp->n_vocab, "vocab_size");
    need_int(&c, &hp->n_embd, "hidden_size");
    need_int(&c, &hp->n_layer, "num_hidden_layers");
    need_int(&c, &hp->n_ctx, "max_position_embeddings");
    need_int(&c, &hp->n_ff, "intermediate_size");
    if (!get_number(&c, &eps, c.json, "rms_norm_eps") && !c.err)
        c.err = hd_fail(msg, HD_ERR_FORMAT, "%s/config.json: rms_norm_eps is missing", c.path);
    hp->norm_eps = (float)eps;
    hp->tied = get_bool(&c, false, "tie_word_embeddings");
    if (c.err)
        return c.err;
    if (hp->arch == HD_ARCH_DEEPSEEK)
        read_deepseek(&c, hp);
    else
        read_dense(&c, hp);
    return c.err;
}
