/* Model files in: one handle over a GGUF file (v2 or v3, whole or in parts) or a Hugging Face
 * folder.
 *
 * Opening maps the files and checks every size, count and offset before anything uses it; it never
 * computes and never copies weights. A handle is immutable after opening and may be read from any
 * thread. Files are hostile input: a malformed one is refused with file, field and byte offset. */
#ifndef HD_STORE_STORE_H
#define HD_STORE_STORE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "tensor/dtype.h"

enum hd_store_format { HD_STORE_GGUF, HD_STORE_HF };

struct hd_store; /* an open model */

/* A type that we do not read: hd_dtype_info() of it is NULL. */
#define HD_STORE_UNREAD ((enum hd_dtype) - 1)

/* A matrix that a Hugging Face checkpoint keeps in several tensors (`X.qweight`, `X.scales`, … or
 * `X.weight`, `X.weight_scale_inv`, …). The store lists it as one tensor `X.weight` whose dtype is
 * the row form that it can be given (HD_INT4_128, …) and whose data are these parts: all present,
 * shapes in agreement, unaligned, little endian. Laying out rows is the model room's business. */
enum hd_store_scheme { HD_SCHEME_FP8, HD_SCHEME_AWQ, HD_SCHEME_GPTQ, HD_SCHEME_BNB };
enum { HD_STORE_MAX_PARTS = 6 };
struct hd_store_quant {
    enum hd_store_scheme scheme;
    int bits;             /* 4 or 8 (FP8: 8) */
    int64_t group;        /* elements that share a scale: of a row; BNB: of the flat matrix */
    int64_t group_rows;   /* FP8: rows that share it too; else 1 */
    bool zero_minus_1;    /* GPTQ v1: 1 was taken from every stored zero, word by word */
    const uint8_t *q;     /* FP8 [out, in]; AWQ i32 [in, out/8]; GPTQ i32 [in·bits/32, out];
                             BNB: two elements of the flat matrix per byte */
    const uint8_t *scale; /* FP8: rows of ceil(in/group); AWQ, GPTQ: f16 [groups, out]; BNB: one
                             per group, u8 where nested_scale is there */
    enum hd_dtype scale_dtype; /* FP8: F32, BF16 or F16 */
    const uint8_t *zero;       /* AWQ, GPTQ: i32 [groups, out·bits/32] */
    const uint8_t *g_idx;      /* GPTQ: i32 [in], the group of each input; NULL: element / group */
    /* BNB, double quantisation: scale = nested_map[u8] · nested_scale[i / nested_group] + offset */
    const uint8_t *nested_scale, *nested_map; /* f32; f32 [256] */
    int64_t nested_group;
    float nested_offset;
    struct {
        const void *data;
        size_t bytes;
    } part[HD_STORE_MAX_PARTS]; /* all of the above, for letting their pages go */
    int n_part;
};

/* A tensor of a type that we do not read is listed (dtype HD_STORE_UNREAD, data NULL, bytes 0
 * where its size is unknown), so that `inspect` can show it, but never handed out for use. */
struct hd_store_tensor {
    const char *name; /* as in the file */
    enum hd_dtype dtype;
    const char *type_name; /* "Q4_K", "BF16", "F8_E4M3", … also of types that we do not read */
    int n_dim;
    int64_t ne[4];                      /* GGUF order: ne[0] = row length; unused 1 */
    const char *advice;                 /* what to do where the type is not read; may be NULL */
    const void *data;                   /* inside the map; unaligned; of a matrix in parts: its q */
    size_t bytes;                       /* checked to lie inside the file; of all parts */
    const struct hd_store_quant *quant; /* NULL: data holds rows of dtype */
};

/* path: a .gguf file (of a model in several parts any one: all are opened) or a folder with
 * config.json. HF folders may lack weights (tokenizer only) or tokenizer files; what is absent is
 * simply not found later. */
enum hd_err hd_store_open(struct hd_store **out, const char *path, struct hd_errmsg *msg);
/* The same for looking only: weights that a truncated file lacks are no error (their data is NULL),
 * nor are missing parts of a split file. hd_store_missing_bytes tells how much is not there. */
enum hd_err hd_store_open_header(struct hd_store **out, const char *path, struct hd_errmsg *msg);
void hd_store_close(struct hd_store *store);

enum hd_store_format hd_store_format(const struct hd_store *store);
const char *hd_store_path(const struct hd_store *store);
/* Of all files together. */
size_t hd_store_file_bytes(const struct hd_store *store);
size_t hd_store_n_file(const struct hd_store *store);
/* Path and size of a file; NULL past the last one. */
const char *hd_store_file_at(const struct hd_store *store, size_t i, size_t *bytes);
/* Names of a split model's parts that are not there, after hd_store_open_header; NULL at the end.
 */
const char *hd_store_missing_part(const struct hd_store *store, size_t i);
/* Bytes by which the files are too short for their tensors; 0 after hd_store_open. */
size_t hd_store_missing_bytes(const struct hd_store *store);
/* Where the first file that is too short stops; NULL where none is. */
struct hd_store_cut {
    const char *path, *tensor; /* the tensor that the end falls into, or the first one behind it */
    size_t begin, end;         /* of the tensor, in the file */
    size_t have, need;         /* bytes of the file: there, at least due */
    size_t n_more;             /* tensors cut off besides */
};
const struct hd_store_cut *hd_store_cut(const struct hd_store *store);

/* The pages of the files that this process has looked at so far are dropped from it (not from the
 * page cache), to be mapped again when next used. */
void hd_store_forget_pages(const struct hd_store *store);
/* Whether the files lie in the page cache, as far as a look at every 256 KB of them tells. */
bool hd_store_resident(const struct hd_store *store);
/* 64 hexadecimal digits that change when a file is replaced or written to: of the path, and of each
 * file's device, inode, size and time of change. */
enum hd_err hd_store_identity(const struct hd_store *store, char hex[65]);
/* The same for what is kept on disk across restarts, wherever the files are mounted: 64 hexadecimal
 * digits of each file's inode, size, times, and some of its contents, and of a folder's
 * config.json.
 *
 * A digest of everything would take seconds per gigabyte at each start. Whoever writes to a file,
 * or puts another in its place, changes its inode or the time of its last change of state, which
 * unlike the time of modification nobody can set back; so size and times alone would do on a local
 * file system. The samples (the first 64 KB and 16 pages spread over the file) are for those that
 * only imitate inodes and times, such as network and overlay file systems. */
enum hd_err hd_store_stamp(const struct hd_store *store, char hex[65]);

size_t hd_store_n_tensor(const struct hd_store *store);
const struct hd_store_tensor *hd_store_tensor_at(const struct hd_store *store, size_t i);
/* NULL where it is absent, of a type that we do not read, or cut off. */
const struct hd_store_tensor *hd_store_tensor(const struct hd_store *store, const char *name);
/* The same with a sentence: NOTFOUND, or UNSUPPORTED ("IQ4_KS: not supported"). */
enum hd_err hd_store_tensor_get(const struct hd_store_tensor **out, const struct hd_store *store,
                                const char *name, struct hd_errmsg *msg);

/* --- GGUF metadata. Each returns false where the key is absent or of another type. ------------ */
bool hd_store_u64(const struct hd_store *store, const char *key,
                  uint64_t *out); /* any integer ≥ 0 */
bool hd_store_f64(const struct hd_store *store, const char *key, double *out); /* any number */
bool hd_store_bool(const struct hd_store *store, const char *key, bool *out);
/* Not NUL-terminated; inside the map. */
bool hd_store_str(const struct hd_store *store, const char *key, const char **out, size_t *len);
/* Arrays: type is GGUF's element type id (5 i32, 6 f32, 8 string, …). */
bool hd_store_array(const struct hd_store *store, const char *key, int *type, uint64_t *n);
/* An array found once, for loops over its elements; its bytes are inside the map. */
struct hd_store_view {
    int type; /* of the elements */
    uint64_t n;
    const uint8_t *data;
    size_t bytes;
};
bool hd_store_array_view(const struct hd_store *store, const char *key, struct hd_store_view *out);
bool hd_store_view_next_str(const struct hd_store_view *view, uint64_t *cursor, const char **out,
                            size_t *len);
bool hd_store_view_f64(const struct hd_store_view *view, uint64_t i, double *out);
/* Strings of an array in order: call with *cursor = 0 first; false at the end. */
bool hd_store_array_next_str(const struct hd_store *store, const char *key, uint64_t *cursor,
                             const char **out, size_t *len);
/* Elements of a numeric array, converted; false where i is out of range. */
bool hd_store_array_f64(const struct hd_store *store, const char *key, uint64_t i, double *out);
size_t hd_store_n_key(const struct hd_store *store);
const char *hd_store_key_at(const struct hd_store *store, size_t i, int *type);

/* --- Hugging Face folders. Parsed JSON, borrowed; NULL where the file is absent (or GGUF). ---- */
json_t *hd_store_config(const struct hd_store *store);           /* config.json */
json_t *hd_store_tokenizer(const struct hd_store *store);        /* tokenizer.json */
json_t *hd_store_tokenizer_config(const struct hd_store *store); /* tokenizer_config.json */
json_t *hd_store_generation_config(const struct hd_store *store);
/* "modules.json", "1_Pooling/config.json", "sentence_bert_config.json" or
 * "config_sentence_transformers.json": an object or an array. */
json_t *hd_store_side_file(const struct hd_store *store, const char *name);

#endif
