/* Inside the store room: the handle's fields and the helpers that its files share. */
#ifndef HD_STORE_STORE_IMPL_H
#define HD_STORE_STORE_IMPL_H

#include "base/file.h"
#include "store/store.h"

/* Limits on what a file may claim. The largest real model (DeepSeek-V3 671B in safetensors) has
 * 91,991 tensors in 163 shards; its header is below 10 MB. */
enum {
    HD_STORE_MAX_TENSORS = 1 << 20,
    HD_STORE_MAX_KEYS = 1 << 16,
    HD_STORE_MAX_KEY_LEN = 65535,
    HD_STORE_MAX_NAME_LEN = 512,
    HD_STORE_MAX_SHARDS = 4096,
    HD_STORE_MAX_ST_HEADER = 100 * 1000 * 1000,
};

/* GGUF's value types. */
enum hd_store__kv_type {
    HD_KV_U8 = 0,
    HD_KV_I8 = 1,
    HD_KV_U16 = 2,
    HD_KV_I16 = 3,
    HD_KV_U32 = 4,
    HD_KV_I32 = 5,
    HD_KV_F32 = 6,
    HD_KV_BOOL = 7,
    HD_KV_STR = 8,
    HD_KV_ARRAY = 9,
    HD_KV_U64 = 10,
    HD_KV_I64 = 11,
    HD_KV_F64 = 12,
};

/* One metadata entry. Its bytes were walked once: [value, value + bytes) is well-formed. */
struct hd_store__kv {
    const char *key;      /* in the arena, NUL-terminated */
    const uint8_t *value; /* inside the map; a string's or array's first element */
    size_t bytes;         /* of the value, without length fields of the value itself */
    uint64_t n;           /* elements of an array, else 1 */
    int type;             /* enum hd_store__kv_type */
    int elem;             /* element type of an array, else type */
};

/* Names to indices: open addressing, seeded so that a file cannot choose its collisions. */
struct hd_store__table {
    uint32_t *slot; /* index + 1, 0 = empty; a power of two of them */
    size_t mask;
    uint64_t seed;
};
enum hd_err hd_store__table_init(struct hd_store__table *table, size_t n);
void hd_store__table_dispose(struct hd_store__table *table);
/* name_of(ud, i) gives entry i's name. Returns the index already there, or SIZE_MAX if added. */
typedef const char *(*hd_store__name_fn)(const struct hd_store *store, size_t i);
size_t hd_store__table_add(struct hd_store__table *table, const struct hd_store *store,
                           hd_store__name_fn name_of, size_t i);
size_t hd_store__table_find(const struct hd_store__table *table, const struct hd_store *store,
                            hd_store__name_fn name_of, const char *name);

struct hd_store__chunk; /* of the arena for names */

struct hd_store__file {
    char *path; /* owned */
    struct hd_map map;
};

enum { HD_STORE_N_SIDE = 4 };

struct hd_store {
    enum hd_store_format format;
    bool header_only; /* opened for looking: missing weights are no error */
    char *path;       /* as given */
    struct hd_store__file *file;
    size_t n_file;
    struct hd_store_tensor *tensor;
    size_t n_tensor, cap_tensor;
    struct hd_store__table tensor_table;
    struct hd_store__kv *kv;
    size_t n_kv;
    struct hd_store__table kv_table;
    struct hd_store__chunk *chunk;
    struct hd_store_quant *quant; /* of matrices in parts, [n_quant] */
    size_t n_quant;
    size_t missing;
    struct hd_store_cut cut;   /* of the first file that is too short */
    const char **missing_part; /* names in the arena; only after opening for looking */
    size_t n_missing_part;
    json_t *config, *tokenizer, *tokenizer_config, *generation_config;
    struct {
        const char *name; /* static */
        json_t *json;
    } side[HD_STORE_N_SIDE];
};

/* A copy in the store's arena; NULL when out of memory. */
char *hd_store__strdup(struct hd_store *store, const char *s, size_t len);
/* Moves the arena of `from` to the store, so that its names live on there. */
void hd_store__take_strings(struct hd_store *store, struct hd_store *from);
/* Back to a handle that has opened nothing. */
void hd_store__forget(struct hd_store *store);
/* s made fit for a message: control bytes and broken UTF-8 become '?', long names are cut. */
const char *hd_store__shown(char out[96], const char *s, size_t len);
/* Opens one more file; *out is borrowed until the next call. */
enum hd_err hd_store__add_file(struct hd_store__file **out, struct hd_store *store,
                               const char *path, struct hd_errmsg *msg);
/* Builds the name table; FORMAT where a name occurs twice. */
enum hd_err hd_store__index_tensors(struct hd_store *store, struct hd_errmsg *msg);
/* Index of a tensor by name, or SIZE_MAX. */
size_t hd_store__find(const struct hd_store *store, const char *name);
/* Product of the dimensions (all ≥ 1); false on overflow or a dimension below 1. */
bool hd_store__n_element(const struct hd_store_tensor *tensor, size_t *out);

/* Notes where a file stops: the tensor at [begin, stop) of it does not lie in its `have` bytes. The
 * one that begins first is named. */
void hd_store__cut_note(struct hd_store_cut *cut, const char *path, const char *tensor,
                        size_t begin, size_t stop, size_t have);
/* The refusal of such a file: FORMAT. */
enum hd_err hd_store__cut_fail(const struct hd_store_cut *cut, struct hd_errmsg *msg);
/* Notes a file that is not there, when opened for looking; most: of how many. */
enum hd_err hd_store__note_missing(struct hd_store *store, const char *name, size_t most,
                                   struct hd_errmsg *msg);

/* A cursor over untrusted bytes: reads past the end fail and move nothing. */
struct hd_store__reader {
    const uint8_t *data;
    size_t size, pos;
};
bool hd_store__take(struct hd_store__reader *reader, void *out, size_t n);

/* One file (gguf.c), and the file with the other parts of its model (gguf_split.c). */
enum hd_err hd_store__read_gguf(struct hd_store *store, struct hd_errmsg *msg);
enum hd_err hd_store__open_gguf(struct hd_store *store, struct hd_errmsg *msg);
/* Reads n entries at the reader's position. */
enum hd_err hd_store__read_kv(struct hd_store *store, struct hd_store__reader *reader, uint64_t n,
                              struct hd_errmsg *msg);
enum hd_err hd_store__open_hf(struct hd_store *store, struct hd_errmsg *msg);
/* Puts matrices in parts together, once all tensors are indexed; UNSUPPORTED, by name, for schemes
 * that are not read (not when opened for looking). quant_file: quantize_config.json of older
 * checkpoints, or NULL. */
enum hd_err hd_store__join_parts(struct hd_store *store, const json_t *quant_file,
                                 struct hd_errmsg *msg);
/* Whether a safetensors file reaches beyond its header. */
bool hd_store__header_is_there(const struct hd_store__file *file);
/* Room for more tensors; LIMIT where there are too many. */
enum hd_err hd_store__reserve_tensors(struct hd_store *store, size_t more, const char *path,
                                      struct hd_errmsg *msg);
/* Appends the tensors of a PyTorch file (torch_zip.c), their names behind `prefix`. */
enum hd_err hd_store__read_torch(struct hd_store *store, const struct hd_store__file *file,
                                 const char *prefix, struct hd_errmsg *msg);
/* Appends the tensors of one safetensors file, which must be the last one added. */
enum hd_err hd_store__read_safetensors(struct hd_store *store, const struct hd_store__file *file,
                                       struct hd_errmsg *msg);

#endif
