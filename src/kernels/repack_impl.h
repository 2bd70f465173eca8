/* Inside repack.c and repack_write.c: the file's layout (little-endian, as every machine that has
 * these kernels). */
#ifndef HD_KERNELS_REPACK_IMPL_H
#define HD_KERNELS_REPACK_IMPL_H

#include "kernels/ops.h"
#include "kernels/repack.h"

enum { HD_REPACK_PAGE = 4096, HD_REPACK_HUGE = 2 << 20, HD_REPACK_SLICE = 16 << 20 };

struct hd_repack__head {
    char magic[8]; /* "HDREPACK" */
    uint32_t version, layout;
    char identity[64];
    uint64_t n_source; /* bytes of the path, without a NUL */
    uint64_t n_row, n_sum;
    uint64_t data_at, data_bytes;
    uint64_t body_sum;
    uint64_t checksum; /* of what stands before it */
};

struct hd_repack__row {
    uint32_t dtype, reserved;
    int64_t n_in, n_out, n_matrix;
    uint64_t at, bytes; /* in the data */
    uint64_t n_part, grab;
    uint64_t first_sum;
};

/* Head and body of the file for a key; the checksums of pieces are zeros yet. */
struct hd_repack__plan {
    struct hd_repack__head head;
    uint8_t *body; /* owned: rows, sums, source */
    size_t body_bytes;
};
static inline struct hd_repack__row *hd_repack__rows(const struct hd_repack__plan *p)
{
    return (struct hd_repack__row *)p->body;
}
static inline uint64_t *hd_repack__sums(const struct hd_repack__plan *p)
{
    return (uint64_t *)(p->body + p->head.n_row * sizeof(struct hd_repack__row));
}
enum hd_err hd_repack__plan(struct hd_repack__plan *out, const struct hd_repack_key *key,
                            struct hd_errmsg *msg);
uint64_t hd_repack__head_sum(const struct hd_repack__head *head);

/* Address space that begins at a huge page's boundary. */
void *hd_repack__space(size_t bytes);
/* Whether all that is in memory of the map of a file that holds p lies in huge pages. */
bool hd_repack__is_huge(const void *p);
/* All of it, however often the system stops in between. */
bool hd_repack__read(int fd, void *out, size_t n, uint64_t at);

struct hd_repack {
    struct hd_repack__plan plan;        /* as read, hence with the checksums */
    int fd;                             /* locked, shared */
    uint8_t *map;                       /* of the data, or NULL */
    struct hd_weight_cached *of_weight; /* [n_row] */
    atomic_size_t n_bad;
};

#endif
