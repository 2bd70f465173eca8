/* Llama 3 and R1-Distill-Llama: the dense graph without biases (a checkpoint with attention_bias
 * brings its own).
 *
 * RoPE: a Hugging Face folder turns halves and gives the llama3 bands in config.json; a GGUF has
 * its Q and K rows reordered for adjacent pairs and carries the bands' factors as rope_freqs, which
 * model.c divides by. */
#include "model/model_impl.h"

enum hd_err hd_llama__bind(struct hd_binder *b, int layer)
{
    return hd_dense__bind(b, layer, false);
}
