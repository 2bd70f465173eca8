/* Hyper-parameters from GGUF keys (the GGUF v3 specification's names, prefixed by the
 * architecture). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/hparams.h"

struct keys {
    const struct hd_store *store;
    char arch[64];
    struct hd_errmsg *msg;
    enum hd_err err; /* the first failure; later reads do nothing */
};

static const char *full_key(char out[160], const struct keys *k, const char *key)
{
    snprintf(out, 160, "%s.%s", k->arch, key);
    return out;
}

/* Absent leaves *out as it is (the default). */
static bool get_int(struct keys *k, int *out, const char *key)
{
    char name[160];
    uint64_t value;
    if (k->err || !hd_store_u64(k->store, full_key(name, k, key), &value))
        return false;
    if (value > 1u << 30) {
        k->err = hd_fail(k->msg, HD_ERR_FORMAT, "%s: %s is %llu, absurdly large",
                         hd_store_path(k->store), name, (unsigned long long)value);
        return false;
    }
    *out = (int)value;
    return true;
}

static void need_int(struct keys *k, int *out, const char *key)
{
    if (!get_int(k, out, key) && !k->err)
        k->err = hd_fail(k->msg, HD_ERR_FORMAT, "%s: %s.%s is missing or no whole number",
                         hd_store_path(k->store), k->arch, key);
}

static bool get_f64(struct keys *k, double *out, const char *key)
{
    char name[160];
    double value;
    if (k->err || !hd_store_f64(k->store, full_key(name, k, key), &value) || !isfinite(value))
        return false;
    *out = value;
    return true;
}

static void read_rope(struct keys *k, struct hd_hparams *hp)
{
    struct hd_rope_hparams *r = &hp->rope;
    char name[160];
    const char *type = NULL;
    size_t len = 0;
    r->theta = 10000;
    r->factor = r->mscale = 1;
    get_f64(k, &r->theta, "rope.freq_base");
    get_f64(k, &r->factor, "rope.scaling.factor");
    r->n_ctx_orig = hp->n_ctx;
    get_f64(k, &r->n_ctx_orig, "rope.scaling.original_context_length");
    r->beta_fast = 32;
    r->beta_slow = 1;
    get_f64(k, &r->beta_fast, "rope.scaling.yarn_beta_fast");
    get_f64(k, &r->beta_slow, "rope.scaling.yarn_beta_slow");
    if (!hd_store_str(k->store, full_key(name, k, "rope.scaling.type"), &type, &len))
        return;
    if (len == 4 && !memcmp(type, "yarn", 4))
        r->scaling = HD_ROPE_YARN;
    else if (len == 6 && !memcmp(type, "linear", 6))
        r->scaling = HD_ROPE_LINEAR;
    else if (!(len == 4 && !memcmp(type, "none", 4)) && !k->err)
        k->err = hd_fail(k->msg, HD_ERR_UNSUPPORTED,
                         "%s: RoPE scaling \"%.*s\" is not supported (none, linear and yarn are)",
                         hd_store_path(k->store), (int)(len < 40 ? len : 40), type);
}

static void read_dense(struct keys *k, struct hd_hparams *hp)
{
    int n_expert = 0, value_length;
    need_int(k, &hp->n_head, "attention.head_count");
    hp->n_head_kv = hp->n_head;
    get_int(k, &hp->n_head_kv, "attention.head_count_kv");
    hp->head_dim = hp->n_head > 0 ? hp->n_embd / hp->n_head : 0;
    if (!get_int(k, &hp->head_dim, "attention.key_length") && !k->err && hp->n_head > 0 &&
        hp->n_embd % hp->n_head)
        k->err = hd_fail(k->msg, HD_ERR_FORMAT, "%s: n_embd %d does not divide into %d heads",
                         hd_store_path(k->store), hp->n_embd, hp->n_head);
    if (get_int(k, &value_length, "attention.value_length") && value_length != hp->head_dim)
        k->err = hd_fail(k->msg, HD_ERR_UNSUPPORTED,
                         "%s: value heads of %d beside key heads of %d are not supported",
                         hd_store_path(k->store), value_length, hp->head_dim);
    read_rope(k, hp);
    hp->rope.n_rot = hp->head_dim;
    get_int(k, &hp->rope.n_rot, "rope.dimension_count");
    /* The converter of Llama files reorders the rows of Q and K for adjacent pairs. */
    hp->rope.neox = hp->arch == HD_ARCH_QWEN2;
    if (hp->rope.scaling == HD_ROPE_YARN)
        hp->rope.mscale = 0.1 * log(hp->rope.factor) + 1;
    if (get_int(k, &n_expert, "expert_count") && n_expert > 0)
        k->err =
            hd_fail(k->msg, HD_ERR_UNSUPPORTED,
                    "%s: %s with %d experts is not supported (supported: " HD_ARCH_SUPPORTED ")",
                    hd_store_path(k->store), k->arch, n_expert);
}

static void read_experts(struct keys *k, struct hd_hparams *hp)
{
    char name[160];
    int gating = 2;
    double scale = 1;
    hp->n_layer_dense = 0;
    get_int(k, &hp->n_layer_dense, "leading_dense_block_count");
    need_int(k, &hp->n_expert, "expert_count");
    need_int(k, &hp->n_expert_used, "expert_used_count");
    get_int(k, &hp->n_expert_shared, "expert_shared_count");
    need_int(k, &hp->n_ff_exp, "expert_feed_forward_length");
    get_int(k, &gating, "expert_gating_func");
    if (!k->err && gating != 2)
        k->err = hd_fail(k->msg, HD_ERR_UNSUPPORTED,
                         "%s: %s.expert_gating_func is %d; only sigmoid routing (2: DeepSeek-V3, "
                         "R1) is supported, not DeepSeek-V2's softmax",
                         hd_store_path(k->store), k->arch, gating);
    get_f64(k, &scale, "expert_weights_scale");
    hp->routed_scale = (float)scale;
    hp->expert_norm = true;
    hd_store_bool(k->store, full_key(name, k, "expert_weights_norm"), &hp->expert_norm);
    /* Many files lack the groups; the model they hold is known by its 256 experts. */
    hp->n_expert_group = hp->n_expert == 256 ? 8 : 1;
    hp->n_expert_group_used = hp->n_expert == 256 ? 4 : 1;
    get_int(k, &hp->n_expert_group, "expert_group_count");
    get_int(k, &hp->n_expert_group_used, "expert_group_used_count");
}

static void read_deepseek(struct keys *k, struct hd_hparams *hp)
{
    int key_length = 0;
    double log_multiplier = 0.1; /* of every published V3 and R1 */
    need_int(k, &hp->n_head, "attention.head_count");
    get_int(k, &hp->q_lora_rank, "attention.q_lora_rank");
    need_int(k, &hp->kv_lora_rank, "attention.kv_lora_rank");
    need_int(k, &hp->qk_rope_head_dim, "rope.dimension_count");
    /* Files for absorbed attention give the cache's sizes in key_length and the heads' in *_mla. */
    if (!get_int(k, &key_length, "attention.key_length_mla"))
        need_int(k, &key_length, "attention.key_length");
    if (!get_int(k, &hp->v_head_dim, "attention.value_length_mla"))
        need_int(k, &hp->v_head_dim, "attention.value_length");
    hp->qk_nope_head_dim = key_length - hp->qk_rope_head_dim;
    hp->n_head_kv = 1;
    hp->head_dim = hp->kv_lora_rank + hp->qk_rope_head_dim;
    read_rope(k, hp);
    hp->rope.n_rot = hp->qk_rope_head_dim;
    get_f64(k, &log_multiplier, "rope.scaling.yarn_log_multiplier");
    /* mscale and mscale_all_dim are equal in these files, so cos and sin keep their size. */
    hp->rope.mscale_all_dim = log_multiplier * 10;
    read_experts(k, hp);
}

static bool has_eh_proj(const struct keys *k, int layer)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%d.nextn.eh_proj.weight", layer);
    return hd_store_tensor(k->store, name) != NULL;
}

/* Multi-token-prediction layers are no part of the graph. Newer converters keep them and count them
 * in block_count; older ones leave them out. */
static void read_mtp(struct keys *k, struct hd_hparams *hp)
{
    int n = 0;
    if (!get_int(k, &n, "nextn_predict_layers") || n < 1)
        return;
    if (n < hp->n_layer && has_eh_proj(k, hp->n_layer - n))
        hp->n_layer -= n;
    hp->n_layer_mtp = hp->arch == HD_ARCH_DEEPSEEK && has_eh_proj(k, hp->n_layer);
}

static enum hd_err read_arch(struct keys *k, struct hd_hparams *hp)
{
    static const struct {
        const char *gguf, *name;
        enum hd_arch arch;
    } known[] = {{"qwen2", "qwen2", HD_ARCH_QWEN2},
                 {"llama", "llama", HD_ARCH_LLAMA},
                 {"deepseek2", "deepseek_v3", HD_ARCH_DEEPSEEK}};
    const char *arch;
    size_t len;
    if (!hd_store_str(k->store, "general.architecture", &arch, &len))
        return hd_fail(k->msg, HD_ERR_FORMAT,
                       "%s: general.architecture is missing (not a language model's GGUF?)",
                       hd_store_path(k->store));
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].gguf) == len && !memcmp(known[i].gguf, arch, len)) {
            hp->arch = known[i].arch;
            hp->arch_name = known[i].name;
            snprintf(k->arch, sizeof k->arch, "%s", known[i].gguf);
            return HD_OK;
        }
    return hd_fail(k->msg, HD_ERR_UNSUPPORTED,
                   "%s: architecture \"%.*s\" is not supported (supported: " HD_ARCH_SUPPORTED ")",
                   hd_store_path(k->store), (int)(len < 60 ? len : 60), arch);
}

enum hd_err hd_hparams__read_gguf(struct hd_hparams *hp, const struct hd_store *store,
                                  struct hd_errmsg *msg)
{
    struct keys k = {.store = store, .msg = msg};
    double eps = 0;
    k.err = read_arch(&k, hp);
    need_int(&k, &hp->n_embd, "embedding_length");
    need_int(&k, &hp->n_layer, "block_count");
    need_int(&k, &hp->n_ctx, "context_length");
    need_int(&k, &hp->n_ff, "feed_forward_length");
    if (!k.err && !get_f64(&k, &eps, "attention.layer_norm_rms_epsilon"))
        k.err = hd_fail(msg, HD_ERR_FORMAT,
                        "%s: %s.attention.layer_norm_rms_epsilon is missing or no number",
                        hd_store_path(store), k.arch);
    hp->norm_eps = (float)eps;
    const struct hd_store_tensor *embd = hd_store_tensor(store, "token_embd.weight");
    if (!k.err && (!embd || embd->n_dim != 2 || embd->ne[1] > INT32_MAX))
        k.err = hd_fail(msg, HD_ERR_FORMAT,
                        "%s: tensor token_embd.weight is missing or no matrix (a file without "
                        "weights?)",
                        hd_store_path(store));
    if (k.err)
        return k.err;
    hp->n_vocab = (int)embd->ne[1];
    hp->tied = !hd_store_tensor(store, "output.weight");
    if (hp->arch == HD_ARCH_DEEPSEEK)
        read_deepseek(&k, hp);
    else
        read_dense(&k, hp);
    if (!k.err)
        read_mtp(&k, hp);
    return k.err;
}
