/* Every type in a whole model: a tiny random Qwen2 whose matrices are of one type, and its twin
 * that holds the decoded values in F32. `ref` gives the same log-probabilities for both (it
 * computes with the decoded values), the vector kernels stay within the limit that holds for real
 * models. */
#include "support.h"

#include "../kernels/support.h"
#include "base/buf.h"

enum { D = 256, FF = 512, HEADS = 4, KV_HEADS = 2, LAYERS = 2, VOCAB = 96, ROWS = 40 };
enum { KV = D / HEADS * KV_HEADS };

static const struct {
    const char *name;
    int64_t n_in, n_out; /* n_out 0: a vector */
} layer_tensors[] = {
    {"attn_norm.weight", D, 0}, {"attn_q.weight", D, D},      {"attn_k.weight", D, KV},
    {"attn_v.weight", D, KV},   {"attn_output.weight", D, D}, {"attn_q.bias", D, 0},
    {"attn_k.bias", KV, 0},     {"attn_v.bias", KV, 0},       {"ffn_norm.weight", D, 0},
    {"ffn_gate.weight", D, FF}, {"ffn_up.weight", D, FF},     {"ffn_down.weight", FF, D},
};
enum { N_LAYER_TENSOR = sizeof layer_tensors / sizeof layer_tensors[0] };

struct tensor {
    char name[40];
    int64_t n_in, n_out;
    enum hd_dtype type;
    uint8_t *data;
    size_t bytes;
};
enum { N_TENSOR = 2 + LAYERS * N_LAYER_TENSOR };

static void put(struct hd_buf *buf, const void *data, size_t n)
{
    assert_int_equal(hd_buf_append(buf, data, n), HD_OK);
}

static void put_u32(struct hd_buf *buf, uint32_t v)
{
    put(buf, &v, 4);
}

static void put_u64(struct hd_buf *buf, uint64_t v)
{
    put(buf, &v, 8);
}

static void put_str(struct hd_buf *buf, const char *s)
{
    put_u64(buf, strlen(s));
    put(buf, s, strlen(s));
}

static void put_number(struct hd_buf *buf, const char *key, uint32_t type, const void *value)
{
    put_str(buf, key);
    put_u32(buf, type);
    put(buf, value, 4);
}

static void put_metadata(struct hd_buf *buf)
{
    static const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {{"qwen2.block_count", LAYERS},
                   {"qwen2.embedding_length", D},
                   {"qwen2.feed_forward_length", FF},
                   {"qwen2.attention.head_count", HEADS},
                   {"qwen2.attention.head_count_kv", KV_HEADS},
                   {"qwen2.context_length", 512},
                   {"qwen2.vocab_size", VOCAB}};
    put(buf, "GGUF", 4);
    put_u32(buf, 3);
    put_u64(buf, N_TENSOR);
    put_u64(buf, 3 + sizeof numbers / sizeof numbers[0]);
    put_str(buf, "general.architecture");
    put_u32(buf, 8);
    put_str(buf, "qwen2");
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        put_number(buf, numbers[i].key, 4, &numbers[i].value);
    put_number(buf, "qwen2.rope.freq_base", 6, &(float){10000});
    put_number(buf, "qwen2.attention.layer_norm_rms_epsilon", 6, &(float){1e-6f});
}

/* The F32 twin of the tensors if `dense`. */
static void write_model(const char *path, const struct tensor *tensors, bool dense)
{
    struct hd_buf buf;
    uint64_t offset = 0;
    hd_buf_init(&buf, 64 << 20);
    put_metadata(&buf);
    for (const struct tensor *t = tensors; t < tensors + N_TENSOR; t++) {
        enum hd_dtype type = dense ? HD_F32 : t->type;
        put_str(&buf, t->name);
        put_u32(&buf, t->n_out ? 2 : 1);
        put_u64(&buf, (uint64_t)t->n_in);
        if (t->n_out)
            put_u64(&buf, (uint64_t)t->n_out);
        put_u32(&buf, type);
        put_u64(&buf, offset);
        offset += hd_dtype_row_bytes(type, t->n_in) * (size_t)(t->n_out ? t->n_out : 1);
        offset = (offset + 31) / 32 * 32;
    }
    for (const struct tensor *t = tensors; t < tensors + N_TENSOR; t++) {
        while (buf.len % 32)
            put(&buf, "", 1);
        if (!dense) {
            put(&buf, t->data, t->bytes);
            continue;
        }
        int64_t n = t->n_in * (t->n_out ? t->n_out : 1);
        float *values = malloc((size_t)n * sizeof *values);
        hd_dtype_info(t->type)->dequantise(values, t->data, n);
        put(&buf, values, (size_t)n * sizeof *values);
        free(values);
    }
    assert_int_equal(hd_file_write(path, buf.data, buf.len, NULL), HD_OK);
    hd_buf_dispose(&buf);
}

/* Root mean square of the values that random blocks of the type have. */
static float rms_of(struct hd_rng rng, enum hd_dtype type)
{
    enum { N = 4096 };
    float values[N], sum = 0;
    uint8_t *blocks = random_blocks(&rng, type, N);
    hd_dtype_info(type)->dequantise(values, blocks, N);
    free(blocks);
    for (int i = 0; i < N; i++)
        sum += values[i] * values[i] / N;
    return sqrtf(sum);
}

/* A vector of `mean`, give or take a tenth. */
static uint8_t *vector(struct hd_rng *rng, int64_t n, float mean, float spread)
{
    float *v = malloc((size_t)n * sizeof *v);
    for (int64_t i = 0; i < n; i++)
        v[i] = mean + spread * random_value(rng);
    return (uint8_t *)v;
}

/* Norms scale what the matrices make of them back to about one, so that the model behaves. */
static void fill(struct tensor *t, struct hd_rng *rng, enum hd_dtype type, float rms)
{
    float gain = 1 / (rms * sqrtf((float)D));
    bool bias = strstr(t->name, "bias");
    t->type = t->n_out ? type : HD_F32;
    t->bytes = hd_dtype_row_bytes(t->type, t->n_in) * (size_t)(t->n_out ? t->n_out : 1);
    if (t->n_out)
        t->data = random_blocks(rng, type, (size_t)(t->n_in * t->n_out));
    else
        t->data = vector(rng, t->n_in, bias ? 0 : gain, bias ? 0.1f : 0.1f * gain);
}

static void make_tensors(struct tensor *t, struct hd_rng *rng, enum hd_dtype type)
{
    float rms = rms_of(*rng, type);
    *t++ = (struct tensor){.name = "token_embd.weight", .n_in = D, .n_out = VOCAB};
    *t++ = (struct tensor){.name = "output_norm.weight", .n_in = D};
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < N_LAYER_TENSOR; i++, t++) {
            *t = (struct tensor){.n_in = layer_tensors[i].n_in, .n_out = layer_tensors[i].n_out};
            snprintf(t->name, sizeof t->name, "blk.%d.%s", l, layer_tensors[i].name);
        }
    for (struct tensor *each = t - N_TENSOR; each < t; each++)
        fill(each, rng, type, rms);
}

/* Log-probabilities [ROWS][VOCAB]: a prompt of all but the last rows, those one by one. */
static double *log_probabilities(const char *path, const char *kernels)
{
    enum { PROMPT = ROWS - 6 };
    static const int32_t table[] = {3, 1};
    struct opened o;
    float logits[ROWS * VOCAB];
    int32_t ids[ROWS], at[ROWS];
    struct hd_errmsg msg = {0};
    open_model(&o, path, kernels);
    for (int i = 0; i < ROWS; i++)
        ids[i] = (i * 37 + i * i) % VOCAB, at[i] = i;
    for (int from = 0, n; from < ROWS; from += n) {
        n = from ? 1 : PROMPT;
        struct hd_seq_rows seq = {0, n, from, table};
        struct hd_batch batch = {
            ids + from, at + from, n, &seq, 1, from ? HD_FORM_DECODE : HD_FORM_PROMPT, at, n};
        if (hd_runner_forward(o.runner, &batch, &msg) ||
            hd_runner_logits(o.runner, logits + from * VOCAB, 0, n, &msg))
            fail_msg("%s", msg.text);
    }
    close_model(&o);
    double *out = malloc(sizeof(double[ROWS * VOCAB]));
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = 0; i < VOCAB; i++)
            sum += exp((double)logits[r * VOCAB + i]);
        for (int i = 0; i < VOCAB; i++)
            out[r * VOCAB + i] = (double)logits[r * VOCAB + i] - log(sum);
    }
    return out;
}

static double largest_difference(const double *a, const double *b)
{
    double most = 0;
    for (int i = 0; i < ROWS * VOCAB; i++)
        most = fabs(a[i] - b[i]) <= most ? most : fabs(a[i] - b[i]); /* NaN counts */
    return most;
}

/* Mean over the rows. */
static double divergence(const double *p, const double *q)
{
    double sum = 0;
    for (int i = 0; i < ROWS * VOCAB; i++)
        sum += exp(p[i]) * (p[i] - q[i]) / ROWS;
    return sum;
}

static void check_type(enum hd_dtype type, const char *quantised, const char *dense)
{
    struct hd_rng rng = {77 + (uint64_t)type};
    struct tensor tensors[N_TENSOR];
    make_tensors(tensors, &rng, type);
    write_model(quantised, tensors, false);
    write_model(dense, tensors, true);
    double *ref = log_probabilities(quantised, "ref");
    double *twin = log_probabilities(dense, "ref");
    double *fast = log_probabilities(quantised, "auto");
    double difference = largest_difference(ref, twin), kl = divergence(ref, fast);
    print_message("%-8s largest difference from its F32 twin %.1e, KL of the fast kernels %.1e\n",
                  hd_dtype_info(type)->name, difference, kl);
    if (!(difference <= 1e-3))
        fail_msg("%s: %g from the F32 twin", hd_dtype_info(type)->name, difference);
    if (!(kl <= 2e-3))
        fail_msg("%s: KL of the fast kernels %g", hd_dtype_info(type)->name, kl);
    for (int i = 0; i < N_TENSOR; i++)
        free(tensors[i].data);
    free(ref), free(twin), free(fast);
}

static void a_model_of_any_type_equals_its_decoded_twin(void **state)
{
    char folder[] = "/tmp/holdfast-types-XXXXXX", quantised[64], dense[64];
    assert_non_null(mkdtemp(folder));
    snprintf(quantised, sizeof quantised, "%s/q.gguf", folder);
    snprintf(dense, sizeof dense, "%s/f32.gguf", folder);
    for (int t = 0; t < N_WEIGHT_TYPE; t++)
        if ((int)weight_types[t] < HD_OWN_TYPES) /* no GGUF file holds those */
            check_type(weight_types[t], quantised, dense);
    unlink(quantised), unlink(dense);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_of_any_type_equals_its_decoded_twin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
