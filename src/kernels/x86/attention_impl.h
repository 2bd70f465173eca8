/* placeholder */
#include "kernels/ref/ref.h"
#include "kernels/x86/rows.h"
void ISA(attention)(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                    struct hd_tensor k, struct hd_tensor v, float scale,
                    const struct hd_seq_rows *seqs, int n_seq, enum hd_form form)
{
    hd_ref_attention(s, out, q, k, v, scale, seqs, n_seq, form);
}
