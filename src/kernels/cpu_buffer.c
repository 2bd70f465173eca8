/* Memory of the CPU back ends: buffers, copies, scratch. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/ops.h"

enum { HUGE_PAGE = 2 << 20 };

/* Large blocks start at a huge page's boundary: a product then walks 1 GB of weights with a few
 * hundred TLB entries instead of 250,000. The map is made one huge page larger and trimmed. */
void *hd_pages_new(size_t bytes)
{
    if (bytes > SIZE_MAX - 2 * HUGE_PAGE)
        return NULL;
    size_t size = hd_round_up(bytes ? bytes : 1, 4096);
    size_t slack = size >= HUGE_PAGE ? HUGE_PAGE : 0;
    uint8_t *p =
        mmap(NULL, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (slack) {
        uint8_t *start = (uint8_t *)hd_round_up((uintptr_t)p, HUGE_PAGE);
        if (start > p)
            munmap(p, (size_t)(start - p));
        if (start + size < p + size + slack)
            munmap(start + size, (size_t)(p + slack - start));
        p = start;
        madvise(p, size, MADV_HUGEPAGE); /* a hint: without it the pages are small */
    }
    return p;
}

void hd_pages_free(void *data, size_t bytes)
{
    if (data)
        munmap(data, hd_round_up(bytes ? bytes : 1, 4096));
}

enum hd_err hd_buffer_new(struct hd_buffer **out, const struct hd_backend *backend, size_t bytes,
                          struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_buffer *buffer = calloc(1, sizeof *buffer);
    if (buffer) {
        *buffer = (struct hd_buffer){backend, hd_pages_new(bytes), bytes};
        if (buffer->data) {
            *out = buffer;
            return HD_OK;
        }
    }
    free(buffer);
    return hd_fail(msg, HD_ERR_NOMEM, "buffer of %zu bytes: out of memory", bytes);
}

void hd_buffer_free(struct hd_buffer *buffer)
{
    if (!buffer)
        return;
    hd_pages_free(buffer->data, buffer->bytes);
    free(buffer);
}

void hd_buffer_discard(struct hd_buffer *buffer)
{
    madvise(buffer->data, hd_round_up(buffer->bytes ? buffer->bytes : 1, 4096), MADV_DONTNEED);
}

size_t hd_buffer_bytes(const struct hd_buffer *buffer)
{
    return buffer->bytes;
}

/* Calls memcpy for every row of a tensor and the matching piece of contiguous memory. */
static void copy_rows(const struct hd_tensor *t, uint8_t *host, bool up)
{
    size_t row = hd_dtype_row_bytes(t->dtype, t->ne[0]);
    for (int64_t i3 = 0; i3 < t->ne[3]; i3++)
        for (int64_t i2 = 0; i2 < t->ne[2]; i2++)
            for (int64_t i1 = 0; i1 < t->ne[1]; i1++, host += row) {
                uint8_t *p = (uint8_t *)hd_tensor_row(t, i1, i2) + (size_t)i3 * t->nb[3];
                if (up)
                    memcpy(p, host, row);
                else
                    memcpy(host, p, row);
            }
}

void hd_tensor_upload(const struct hd_tensor *t, const void *host)
{
    copy_rows(t, (uint8_t *)host, true); /* only read */
}

void hd_tensor_download(void *host, const struct hd_tensor *t)
{
    copy_rows(t, host, false);
}

void *hd_stream_scratch(struct hd_stream *s, enum hd_scratch purpose, size_t bytes)
{
    if (s->scratch[purpose].bytes < bytes) {
        size_t size = hd_round_up(bytes + bytes / 4, 4096);
        hd_pages_free(s->scratch[purpose].data, s->scratch[purpose].bytes);
        s->scratch[purpose].data = hd_pages_new(size);
        s->scratch[purpose].bytes = s->scratch[purpose].data ? size : 0;
        if (!s->scratch[purpose].data && !s->failure)
            s->failure = HD_ERR_NOMEM;
    }
    return s->scratch[purpose].data;
}

void *hd_tensor_host(const struct hd_tensor *t)
{
    size_t row = hd_dtype_row_bytes(t->dtype, t->ne[0]);
    bool dense = t->ne[2] == 1 && t->ne[3] == 1 && (t->ne[1] == 1 || t->nb[1] == row);
    return dense ? hd_tensor_row(t, 0, 0) : NULL;
}
