#include "tensor/tensor.h"

struct hd_tensor hd_tensor_at(struct hd_buffer *buffer, size_t offset, enum hd_dtype dtype,
                              int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3)
{
    struct hd_tensor t = {.buffer = buffer, .offset = offset, .dtype = dtype, .n_dim = 1};
    const int64_t ne[4] = {ne0, ne1, ne2, ne3};
    size_t stride = hd_dtype_row_bytes(dtype, ne0);
    t.ne[0] = ne0;
    t.nb[0] = (size_t)hd_dtype_info(dtype)->block_bytes;
    for (int i = 1; i < 4; i++) {
        t.ne[i] = ne[i];
        t.nb[i] = stride;
        stride *= (size_t)ne[i];
        if (ne[i] != 1)
            t.n_dim = i + 1;
    }
    return t;
}

struct hd_tensor hd_tensor_rows(struct hd_tensor t, int64_t begin, int64_t n)
{
    int d = t.n_dim > 2 ? t.n_dim - 1 : 1;
    t.offset += (size_t)begin * t.nb[d];
    t.ne[d] = n;
    return t;
}

struct hd_tensor hd_tensor_cols(struct hd_tensor t, int64_t begin, int64_t n)
{
    t.offset += hd_dtype_row_bytes(t.dtype, begin);
    t.ne[0] = n;
    return t;
}

int64_t hd_tensor_elements(const struct hd_tensor *t)
{
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}

size_t hd_tensor_bytes(const struct hd_tensor *t)
{
    return hd_dtype_row_bytes(t->dtype, t->ne[0]) * (size_t)(t->ne[1] * t->ne[2] * t->ne[3]);
}
