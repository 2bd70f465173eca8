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

/* A tensor of a type that we do not read is listed (dtype HD_STORE_UNREAD, data NULL, bytes 0
 * where its size is unknown), so that `inspect` can show it, but never handed out for use. */
struct hd_store_tensor {
    const char *name; /* as in the file */
    enum hd_dtype dtype;
    const char *type_name; /* "Q4_K", "BF16", "F8_E4M3", … also of types that we do not read */
    int n_dim;
    int64_t ne[4];      /* GGUF order: ne[0] = row length; unused 1 */
    const char *advice; /* what to do where the type is not read; may be NULL */
    const void *data;   /* inside the map; unaligned */
    size_t bytes;       /* checked to lie inside the file */
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

/* Whether the files lie in the page cache, as far as a look at every 256 KB of them tells. */
bool hd_store_resident(const struct hd_store *store);
/* 64 hexadecimal digits that change when a file is replaced or written to: of the path, and of each
 * file's device, inode, size and time of change. */
enum hd_err hd_store_identity(const struct hd_store *store, char hex[65]);

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
