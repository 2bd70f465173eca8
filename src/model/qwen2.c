/* Qwen2 and R1-Distill-Qwen: the dense graph with biases on Q, K and V. RoPE turns halves, in GGUF
 * and in Hugging Face folders alike. */
#include "model/model_impl.h"

enum hd_err hd_qwen2__bind(struct hd_binder *b, int layer)
{
    return hd_dense__bind(b, layer, true);
}
