/* Checks that hold for every source, and what is computed from the values. */
#include "model/hparams.h"

#include <math.h>
#include <stdint.h>

static const double PI = 3.14159265358979323846;

struct range {
    const char *name;
    long value, min, max;
};

static enum hd_err check_ranges(const struct range *ranges, size_t n, const char *path,
                                struct hd_errmsg *msg)
{
    for (size_t i = 0; i < n; i++)
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max)
            return hd_fail(msg, HD_ERR_FORMAT,
                           "%s: %s is %ld, must be %ld to %ld (damaged or unusual checkpoint)",
                           path, ranges[i].name, ranges[i].value, ranges[i].min, ranges[i].max);
    return HD_OK;
}

static enum hd_err check_rope(const struct hd_rope_hparams *r, const char *path,
                              struct hd_errmsg *msg)
{
    if (!(r->theta >= 1 && r->theta <= 1e12))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: RoPE base is %g, must be 1 to 1e12", path,
                       r->theta);
    if (r->n_rot % 2)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: RoPE dimensions are %d, must be even", path,
                       r->n_rot);
    if (r->scaling == HD_ROPE_PLAIN)
        return HD_OK;
    if (!(r->factor >= 1 && r->factor <= 1e6) || !(r->n_ctx_orig >= 1 && r->n_ctx_orig <= 1e8) ||
        !(r->mscale > 0 && r->mscale < 1e3) || !(r->mscale_all_dim >= 0 && r->mscale_all_dim < 1e3))
        return hd_fail(msg, HD_ERR_FORMAT,
                       "%s: RoPE scaling has an absurd value (factor %g, original context %g)",
                       path, r->factor, r->n_ctx_orig);
    if (r->scaling == HD_ROPE_YARN && !(r->beta_fast > r->beta_slow && r->beta_slow > 0))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: YaRN needs beta_fast > beta_slow > 0", path);
    if (r->scaling == HD_ROPE_LLAMA3 && !(r->freq_high > r->freq_low && r->freq_low > 0))
        return hd_fail(msg, HD_ERR_FORMAT,
                       "%s: llama3 RoPE needs high_freq_factor > low_freq_factor > 0", path);
    return HD_OK;
}

static enum hd_err check_dense(const struct hd_hparams *hp, const char *path, struct hd_errmsg *msg)
{
    const struct range ranges[] = {
        {"head_count_kv", hp->n_head_kv, 1, 1024},
        {"head size", hp->head_dim, 2, 1024},
        {"RoPE dimensions", hp->rope.n_rot, 2, hp->head_dim},
    };
    enum hd_err err = check_ranges(ranges, sizeof ranges / sizeof *ranges, path, msg);
    if (!err && hp->n_head % hp->n_head_kv)
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: %d heads cannot share %d KV heads evenly", path,
                      hp->n_head, hp->n_head_kv);
    return err;
}

static enum hd_err check_deepseek(const struct hd_hparams *hp, const char *path,
                                  struct hd_errmsg *msg)
{
    bool moe = hp->n_layer_dense < hp->n_layer || hp->n_layer_mtp;
    const struct range ranges[] = {
        {"q_lora_rank", hp->q_lora_rank, 0, 65536},
        {"kv_lora_rank", hp->kv_lora_rank, 1, 8192},
        {"qk_nope_head_dim", hp->qk_nope_head_dim, 1, 1024},
        {"qk_rope_head_dim", hp->qk_rope_head_dim, 2, 1024},
        {"v_head_dim", hp->v_head_dim, 1, 1024},
        {"leading dense layers", hp->n_layer_dense, 0, hp->n_layer},
        {"expert width", hp->n_ff_exp, moe, 1 << 20},
        {"expert count", hp->n_expert, moe, 4096},
        {"experts used", hp->n_expert_used, moe, hp->n_expert},
        {"shared experts", hp->n_expert_shared, 0, 64},
        {"expert groups", hp->n_expert_group, moe, hp->n_expert},
        {"expert groups used", hp->n_expert_group_used, moe, hp->n_expert_group},
    };
    enum hd_err err = check_ranges(ranges, sizeof ranges / sizeof *ranges, path, msg);
    if (err || !moe)
        return err;
    if (hp->n_expert % hp->n_expert_group)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: %d experts do not divide into %d groups", path,
                       hp->n_expert, hp->n_expert_group);
    if (hp->n_expert_used > hp->n_expert / hp->n_expert_group * hp->n_expert_group_used)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: %d experts used, but the %d groups kept hold fewer",
                       path, hp->n_expert_used, hp->n_expert_group_used);
    if (!(hp->routed_scale > 0 && hp->routed_scale < 1e4f))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: expert weight scale is %g", path,
                       (double)hp->routed_scale);
    return HD_OK;
}

enum hd_err hd_hparams_read(struct hd_hparams *out, const struct hd_store *store,
                            struct hd_errmsg *msg)
{
    struct hd_hparams hp = {0};
    const char *path = hd_store_path(store);
    if (hd_hparams__is_encoder(store))
        return hd_hparams__read_encoder(out, store, msg);
    enum hd_err err = hd_store_format(store) == HD_STORE_GGUF
                          ? hd_hparams__read_gguf(&hp, store, msg)
                          : hd_hparams__read_hf(&hp, store, msg);
    if (err)
        return err;
    const struct range ranges[] = {
        {"vocabulary size", hp.n_vocab, 1, 1 << 22}, {"n_embd", hp.n_embd, 1, 65536},
        {"layer count", hp.n_layer, 1, 1024},        {"feed-forward width", hp.n_ff, 1, 1 << 20},
        {"context length", hp.n_ctx, 1, 1 << 26},    {"head count", hp.n_head, 1, 1024},
    };
    err = check_ranges(ranges, sizeof ranges / sizeof *ranges, path, msg);
    if (!err)
        err = hp.arch == HD_ARCH_DEEPSEEK ? check_deepseek(&hp, path, msg)
                                          : check_dense(&hp, path, msg);
    if (!err)
        err = check_rope(&hp.rope, path, msg);
    if (!err && !(hp.norm_eps > 0 && hp.norm_eps < 0.1f))
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: norm epsilon is %g", path, (double)hp.norm_eps);
    if (!err)
        *out = hp;
    return err;
}

float hd_hparams_attention_scale(const struct hd_hparams *hp)
{
    if (hp->arch != HD_ARCH_DEEPSEEK)
        return (float)(1 / sqrt(hp->head_dim));
    double scale = 1 / sqrt(hp->qk_nope_head_dim + hp->qk_rope_head_dim);
    if (hp->rope.scaling == HD_ROPE_YARN && hp->rope.mscale_all_dim > 0) {
        double m = 0.1 * hp->rope.mscale_all_dim * log(hp->rope.factor) + 1;
        scale *= m * m;
    }
    return (float)scale;
}

/* YaRN's ramp runs over pair indices; a pair that turns `turns` times within the original context
 * has this (fractional) index. Peng et al., eq. 17 onwards. */
static double yarn_pair_of(double turns, const struct hd_rope_hparams *r)
{
    return r->n_rot * log(r->n_ctx_orig / (turns * 2 * PI)) / (2 * log(r->theta));
}

static double yarn(double freq, int i, const struct hd_rope_hparams *r)
{
    double low = floor(yarn_pair_of(r->beta_fast, r));
    double high = ceil(yarn_pair_of(r->beta_slow, r));
    low = low < 0 ? 0 : low;
    high = high > r->n_rot - 1 ? r->n_rot - 1 : high;
    if (high <= low)
        high = low + 0.001;
    double ramp = (i - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return freq / r->factor * ramp + freq * (1 - ramp);
}

/* Long waves are slowed down by the factor, short ones kept, in between blended (Llama 3.1). */
static double llama3(double freq, const struct hd_rope_hparams *r)
{
    double wave = 2 * PI / freq;
    if (wave < r->n_ctx_orig / r->freq_high)
        return freq;
    if (wave > r->n_ctx_orig / r->freq_low)
        return freq / r->factor;
    double smooth = (r->n_ctx_orig / wave - r->freq_low) / (r->freq_high - r->freq_low);
    return (1 - smooth) * freq / r->factor + smooth * freq;
}

void hd_hparams_inv_freq(float *inv_freq, const struct hd_hparams *hp, const float *factors)
{
    const struct hd_rope_hparams *r = &hp->rope;
    for (int i = 0; i < r->n_rot / 2; i++) {
        double freq = pow(r->theta, -2.0 * i / r->n_rot);
        if (factors)
            freq /= (double)factors[i];
        if (r->scaling == HD_ROPE_LINEAR)
            freq /= r->factor;
        else if (r->scaling == HD_ROPE_YARN)
            freq = yarn(freq, i, r);
        else if (r->scaling == HD_ROPE_LLAMA3)
            freq = llama3(freq, r);
        inv_freq[i] = (float)freq;
    }
}
