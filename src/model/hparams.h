/* Hyper-parameters: what a checkpoint says about its own shape, in the words of the field.
 *
 * Read from GGUF keys or from config.json, checked once, immutable afterwards. Everything that
 * sizes memory or a loop later is bounded here, so the code behind may multiply without fear. */
#ifndef HD_MODEL_HPARAMS_H
#define HD_MODEL_HPARAMS_H

#include <stdbool.h>

#include "base/error.h"
#include "kernels/backend.h"
#include "store/store.h"

enum hd_arch { HD_ARCH_QWEN2, HD_ARCH_LLAMA, HD_ARCH_DEEPSEEK, HD_ARCH_BERT };

enum hd_rope_scaling {
    HD_ROPE_PLAIN,
    HD_ROPE_LINEAR, /* every frequency divided by factor */
    HD_ROPE_YARN,   /* Peng et al. 2023: by wavelength, with a ramp */
    HD_ROPE_LLAMA3, /* Llama 3.1's bands */
};

struct hd_rope_hparams {
    double theta; /* base */
    int n_rot;    /* elements rotated per head */
    bool neox;    /* pairs (i, i + n_rot/2) instead of (2i, 2i + 1) */
    enum hd_rope_scaling scaling;
    double factor;
    double n_ctx_orig;           /* context before scaling */
    double beta_fast, beta_slow; /* YaRN */
    double mscale;               /* YaRN: multiplier of cos and sin, as computed */
    double mscale_all_dim;       /* DeepSeek's YaRN: enters the softmax scale */
    double freq_low, freq_high;  /* llama3 */
};

enum hd_pooling { HD_POOLING_NONE, HD_POOLING_MEAN, HD_POOLING_CLS };

/* What only encoders have (BERT, XLM-RoBERTa). */
struct hd_encoder_hparams {
    enum hd_activation act;
    enum hd_pooling pooling; /* NONE: the file names no way to make one vector of a text */
    bool normalise;          /* vectors are scaled to length 1 */
    int n_type;              /* token types (segments) */
    int pos_first;           /* row of position_embd of the first token */
    bool score_head;         /* a cross-encoder: two texts in, one score out */
    bool sparse_head, colbert_head;
    int n_colbert;           /* size of a token's ColBERT vector */
    char query_prefix[64];   /* what the model wants before a query, "" if nothing */
    char passage_prefix[64]; /* and before a passage */
};

struct hd_hparams {
    enum hd_arch arch;
    const char *arch_name; /* "qwen2", "llama", "deepseek_v3"; static */

    int n_vocab, n_embd, n_layer, n_ff;
    int n_ctx; /* longest sequence that the checkpoint was made for */
    int n_head, n_head_kv, head_dim;
    float norm_eps;
    bool tied; /* the embedding is the output matrix */
    struct hd_rope_hparams rope;

    /* DeepSeek only; 0 elsewhere. */
    int q_lora_rank; /* 0: the query is not compressed */
    int kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim;
    int n_layer_dense; /* leading layers without experts */
    int n_ff_exp;      /* width of one expert */
    int n_layer_mtp;   /* 1: the checkpoint has a multi-token-prediction layer, at index n_layer */
    int n_expert, n_expert_used, n_expert_shared, n_expert_group, n_expert_group_used;
    bool expert_norm; /* the chosen experts' weights are divided by their sum */
    float routed_scale;

    struct hd_encoder_hparams enc; /* HD_ARCH_BERT only */
};

/* UNSUPPORTED for an architecture or a feature that we do not run (the sentence lists what we do),
 * FORMAT for a missing, mistyped or absurd value. */
enum hd_err hd_hparams_read(struct hd_hparams *out, const struct hd_store *store,
                            struct hd_errmsg *msg);

/* The softmax scale of attention. */
float hd_hparams_attention_scale(const struct hd_hparams *hp);
/* inv_freq[n_rot / 2] for the op table; factors (n_rot / 2 of them, each ≥ a tiny number) divide
 * the plain frequencies where a GGUF carries rope_freqs, else NULL. */
void hd_hparams_inv_freq(float *inv_freq, const struct hd_hparams *hp, const float *factors);

/* --- inside the room ------------------------------------------------------------------------ */
enum hd_err hd_hparams__read_gguf(struct hd_hparams *out, const struct hd_store *store,
                                  struct hd_errmsg *msg);
enum hd_err hd_hparams__read_hf(struct hd_hparams *out, const struct hd_store *store,
                                struct hd_errmsg *msg);

/* hparams_encoder.c: BERT and XLM-RoBERTa, from either format, checked. */
bool hd_hparams__is_encoder(const struct hd_store *store);
enum hd_err hd_hparams__read_encoder(struct hd_hparams *out, const struct hd_store *store,
                                     struct hd_errmsg *msg);

#define HD_ARCH_SUPPORTED "Qwen2, Llama, DeepSeek-V3/R1, BERT and XLM-RoBERTa"

#endif
