/* Loading: the same answer however weights come into memory and however far they have come, what
 * is said meanwhile, and what is refused before anything is reserved. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "holdfast/holdfast.h"
#include "kernels/arena.h"

static const char *const models[] = {"qwen2-wide.gguf", "deepseek-v3-mla.gguf", "qwen2-tied"};
static const char *const kernels[] = {"ref", "avx2", "avx512", "amx"};

static struct hd_engine *start_repacked(const char *name, const char *model, const char *preload,
                                        const char *repack, const char *cache_dir,
                                        struct hd_errmsg *msg)
{
    struct hd_engine *e = NULL;
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    char path[512];
    o.kernels = name;
    o.n_thread = 2;
    o.kv_bytes_max = 1 << 22;
    o.max_sessions = 4;
    o.preload = preload;
    o.repack = repack;
    o.cache_dir = cache_dir;
    snprintf(path, sizeof path, HD_TEST_ROOT "/golden/models/%s", model);
    if (hd_engine_new(&e, &o, msg))
        return NULL;
    if (hd_engine_load(e, "m", path, 0, msg)) {
        hd_engine_free(e);
        return NULL;
    }
    return e;
}

static struct hd_engine *start(const char *name, const char *model, const char *preload,
                               struct hd_errmsg *msg)
{
    return start_repacked(name, model, preload, NULL, NULL, msg);
}

static char *answer(struct hd_engine *e)
{
    static const int32_t ids[] = {11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
    struct hd_errmsg msg = {0};
    struct hd_result result;
    char *text = NULL;
    struct hd_request r = {.ids = ids,
                           .n_id = 10,
                           .n_max = 40,
                           .ignore_end = true,
                           .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1}};
    if (hd_engine_generate(e, &text, NULL, &result, &r, &msg))
        fail_msg("%s", msg.text);
    assert_int_equal(result.n_generated, 40);
    return text;
}

static void expect_loaded(struct hd_engine *e, bool reused)
{
    struct hd_load_progress p;
    assert_int_equal(hd_engine_wait_loaded(e, "m"), HD_OK);
    assert_int_equal(hd_engine_load_progress(e, 0, &p), HD_OK);
    assert_string_equal(p.name, "m");
    assert_true(p.loaded && p.ready && p.eta_s == 0);
    assert_true(p.bytes_total > 0 && p.bytes_done == p.bytes_total);
    assert_int_equal(p.reused, reused);
    assert_int_equal(hd_engine_load_progress(e, 1, &p), HD_ERR_NOTFOUND);
    assert_int_equal(hd_engine_wait_loaded(e, "other"), HD_ERR_NOTFOUND);
}

/* One model on one set of kernels: at once, after loading, and a second start. */
static void run_case(const char *name, const char *model)
{
    static const char *const ways[] = {"mmap", "memfd", "shm", "shm", "none", "shm"};
    char *want = NULL;
    struct hd_errmsg msg = {0};
    for (int i = 0; i < 6; i++) {
        struct hd_engine *e = start(name, model, ways[i], &msg);
        if (!e && !want)
            return; /* this machine lacks the kernels */
        if (!e)
            fail_msg("%s, %s, %s: %s", name, model, ways[i], msg.text);
        char *first = answer(e);  /* races with the loader */
        expect_loaded(e, i == 3); /* none has removed what shm left */
        char *second = answer(e);
        if (!want)
            want = strdup(first);
        if (strcmp(first, want) != 0 || strcmp(second, want) != 0)
            fail_msg("%s, %s, %s: another answer", name, model, ways[i]);
        free(first), free(second);
        hd_engine_free(e);
    }
    free(want);
    struct hd_engine *e = start(name, model, "none", &msg);
    hd_engine_free(e);
}

static void the_same_answer_however_weights_come(void **state)
{
    for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++)
        for (size_t m = 0; m < sizeof models / sizeof *models; m++)
            run_case(kernels[k], models[m]);
}

static void an_engine_can_end_while_it_loads(void **state)
{
    struct hd_errmsg msg = {0};
    for (int i = 0; i < 20; i++) {
        struct hd_engine *e = start("auto", "qwen2-wide.gguf", i % 2 ? "memfd" : "mmap", &msg);
        assert_non_null(e);
        hd_engine_free(e);
    }
}

static void unknown_ways_are_refused(void **state)
{
    struct hd_errmsg msg = {0};
    assert_null(start("auto", models[0], "disk", &msg));
    assert_non_null(strstr(msg.text, "--preload: \"disk\" is none of mmap, shm, memfd, none"));
}

/* --- repacked weights on disk ---------------------------------------------------------------- */

/* The one file of repacked weights in a folder; false where there is none. */
static bool find_cached(char out[300], const char *cache_dir)
{
    char folder[256];
    struct dirent *d;
    bool found = false;
    snprintf(folder, sizeof folder, "%s/repack", cache_dir);
    DIR *dir = opendir(folder);
    while (dir && (d = readdir(dir)))
        if (strstr(d->d_name, ".repack") && !strstr(d->d_name, ".tmp")) {
            assert_false(found);
            found = true;
            snprintf(out, 300, "%.200s/%.90s", folder, d->d_name);
        }
    if (dir)
        closedir(dir);
    return found;
}

static void wait_cached(char out[300], const char *cache_dir)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    for (int i = 0; !find_cached(out, cache_dir); i++) {
        assert_true(i < 6000);
        nanosleep(&pause, NULL);
    }
}

/* Into the page cache: a file that is not there yet is slower to read than copies are to make. */
static void warm(const char *path)
{
    char *bytes;
    assert_int_equal(hd_file_read(&bytes, NULL, path, 1 << 30, NULL), 0);
    free(bytes);
}

static void expect_answer(const char *want, const char *name, const char *model, const char *repack,
                          const char *cache_dir, bool reused)
{
    struct hd_errmsg msg = {0};
    char path[300];
    struct hd_engine *e = start_repacked(name, model, NULL, repack, cache_dir, &msg);
    if (!e)
        fail_msg("%s", msg.text);
    for (int i = 0; i < 2; i++) {
        char *got = answer(e);
        if (strcmp(got, want) != 0)
            fail_msg("%s, %s, %s: another answer", name, model, repack);
        free(got);
        if (strcmp(repack, "off") != 0)
            expect_loaded(e, reused);
    }
    if (!strcmp(repack, "cache")) {
        wait_cached(path, cache_dir);
        warm(path);
    }
    hd_engine_free(e);
}

static void overwrite(const char *path, long at, const char *text)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

/* Made by one engine, used by the next, made anew where it is damaged: always the same answer. */
static void run_cached(const char *name, const char *model)
{
    char dir[] = "/tmp/hd_cached_XXXXXX", path[300], command[64];
    struct hd_errmsg msg = {0};
    assert_non_null(mkdtemp(dir));
    struct hd_engine *e = start(name, model, NULL, &msg);
    if (e) {
        char *want = answer(e);
        hd_engine_free(e);
        expect_answer(want, name, model, "off", dir, false);
        assert_false(find_cached(path, dir));
        expect_answer(want, name, model, "auto", dir, false); /* too small a model for auto */
        assert_false(find_cached(path, dir));
        expect_answer(want, name, model, "cache", dir, false);
        expect_answer(want, name, model, "cache", dir, true);
        expect_answer(want, name, model, "auto", dir, false);
        assert_true(find_cached(path, dir));
        overwrite(path, 2 << 20, "wrong weights"); /* the data's beginning */
        expect_answer(want, name, model, "cache", dir, true);
        overwrite(path, 100, "wrong head");
        expect_answer(want, name, model, "cache", dir, false);
        assert_int_equal(truncate(path, 5000), 0);
        expect_answer(want, name, model, "cache", dir, false);
        free(want);
    }
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

static void the_same_answer_from_repacked_weights(void **state)
{
    for (size_t k = 1; k < sizeof kernels / sizeof *kernels; k++)
        for (size_t m = 0; m < sizeof models / sizeof *models; m++)
            run_cached(kernels[k], models[m]);
}

/* --- 8-bit KV -------------------------------------------------------------------------------- */

static struct hd_engine *start_kv8(const char *kernels_name, int threads, int batch,
                                   const char *spill, struct hd_errmsg *msg)
{
    struct hd_engine *e = NULL;
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    o.kernels = kernels_name;
    o.n_thread = threads;
    o.max_batch_tokens = batch;
    o.max_sessions = 2;
    o.kv_bytes_max = 1 << 22;
    o.kv_type = "q8";
    o.spill_dir = spill;
    o.spill_bytes = spill ? 1e7 : 0;
    if (hd_engine_new(&e, &o, msg))
        return NULL;
    if (hd_engine_load(e, "m", HD_TEST_ROOT "/golden/models/qwen2-wide.gguf", 0, msg)) {
        hd_engine_free(e);
        return NULL;
    }
    return e;
}

static char *long_answer(struct hd_engine *e, int *n_cached)
{
    int32_t ids[300];
    struct hd_errmsg msg = {0};
    struct hd_result result;
    char *text = NULL;
    for (int i = 0; i < 300; i++)
        ids[i] = 20 + i * 37 % 200;
    struct hd_request r = {.ids = ids,
                           .n_id = 300,
                           .n_max = 40,
                           .ignore_end = true,
                           .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1}};
    if (hd_engine_generate(e, &text, NULL, &result, &r, &msg))
        fail_msg("%s", msg.text);
    *n_cached = result.n_cached;
    return text;
}

/* Neither threads nor chunks nor reuse, in memory or from disk, change a bit of it. */
static void eight_bit_kv_gives_one_answer(void **state)
{
    static const struct {
        int threads, batch;
    } ways[] = {{2, 512}, {1, 64}, {2, 128}, {2, 512}};
    for (size_t k = 1; k < sizeof kernels / sizeof *kernels; k++) {
        char dir[] = "/tmp/hd_kv8_XXXXXX", command[64], *want = NULL;
        struct hd_errmsg msg = {0};
        int n_cached, from_disk = 0;
        assert_non_null(mkdtemp(dir));
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            bool spill = i == 0 || i == 3;
            struct hd_engine *e =
                start_kv8(kernels[k], ways[i].threads, ways[i].batch, spill ? dir : NULL, &msg);
            if (!e)
                break; /* this machine lacks the kernels */
            for (int again = 0; again < 2; again++) {
                char *text = long_answer(e, &n_cached);
                want = want ? want : strdup(text);
                assert_string_equal(text, want);
                free(text);
                if (again)
                    assert_true(n_cached >= 192);
                else if (i == 3)
                    from_disk = n_cached;
            }
            hd_engine_free(e);
        }
        if (want)
            assert_true(from_disk >= 192);
        free(want);
        snprintf(command, sizeof command, "rm -r %s", dir);
        assert_int_equal(system(command), 0);
    }
}

static void eight_bit_kv_is_refused_by_name(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_engine *e = NULL;
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    assert_null(start_kv8("ref", 1, 512, NULL, &msg));
    assert_non_null(strstr(msg.text, "--kv-type q8: the ref kernels keep KV in F32"));
    o.kv_type = "q4";
    assert_int_equal(hd_engine_new(&e, &o, &msg), HD_ERR_USAGE);
    assert_non_null(strstr(msg.text, "--kv-type: \"q4\" is none of f16, q8"));
}

static void unknown_repacking_is_refused(void **state)
{
    struct hd_errmsg msg = {0};
    assert_null(start_repacked("auto", models[0], NULL, "always", NULL, &msg));
    assert_non_null(strstr(msg.text, "--repack: \"always\" is none of auto, off, cache"));
    assert_null(start_repacked("auto", models[0], "shm", "off", NULL, &msg));
    assert_non_null(strstr(msg.text, "there is no copy for --preload shm"));
}

/* --- memory ---------------------------------------------------------------------------------- */

static void put(const char *root, const char *name, const char *text)
{
    char path[256], folder[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = 0;
    assert_int_equal(hd_mkdirs(folder, NULL), 0);
    assert_int_equal(hd_file_write(path, text, strlen(text), NULL), 0);
}

static enum hd_err load_within(size_t bytes, size_t kv_bytes, int n_ctx, const char *name,
                               struct hd_errmsg *msg)
{
    char root[] = "/tmp/hd_loading_XXXXXX", text[64], command[64];
    struct hd_engine *e = NULL;
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    assert_non_null(mkdtemp(root));
    put(root, "proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\n");
    put(root, "proc/self/cgroup", "0::/box\n");
    snprintf(text, sizeof text, "%zu\n", bytes + 1000);
    put(root, "sys/fs/cgroup/box/memory.max", text);
    put(root, "sys/fs/cgroup/box/memory.current", "1000\n");
    o.kernels = name;
    o.n_thread = 1;
    o.system_root = root;
    o.kv_bytes_max = kv_bytes;
    o.max_sessions = 1;
    o.max_batch_tokens = 64;
    assert_int_equal(hd_engine_new(&e, &o, msg), HD_OK);
    enum hd_err err =
        hd_engine_load(e, "m", HD_TEST_ROOT "/golden/models/qwen2-wide.gguf", n_ctx, msg);
    hd_engine_free(e);
    snprintf(command, sizeof command, "rm -rf %s", root);
    assert_int_equal(system(command), 0);
    return err;
}

static void what_does_not_fit_is_refused_with_figures(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_engine *e = start("auto", "qwen2-wide.gguf", "mmap", &msg);
    struct hd_model_info info;
    struct hd_load_progress p;
    assert_int_equal(hd_engine_model_info(e, 0, &info), HD_OK);
    assert_int_equal(hd_engine_load_progress(e, 0, &p), HD_OK);
    bool copies = strcmp(info.backend, "ref") != 0;
    size_t weights = p.bytes_total;
    hd_engine_free(e);

    assert_int_equal(load_within((size_t)1 << 30, 0, 0, "auto", &msg), HD_OK);
    if (copies) {
        assert_int_equal(load_within(weights / 2, 0, 0, "auto", &msg), HD_ERR_LIMIT);
        assert_non_null(strstr(msg.text, "the weights need"));
        assert_non_null(strstr(msg.text, "the control group /box (memory.max)"));
        assert_non_null(strstr(msg.text, "use a smaller model or a stronger quantisation"));
    }
    /* the weights fit, the KV cache that was asked for does not */
    assert_int_equal(load_within(weights + (64 << 10), 64 << 20, 4096, "auto", &msg), HD_ERR_LIMIT);
    assert_non_null(strstr(msg.text, "lower --"));
    assert_non_null(strstr(msg.text, "the control group /box (memory.max)"));
    /* ref computes from the file's map: pages can be dropped, nothing is refused for them */
    assert_int_equal(load_within(weights / 2 + (8 << 20), 1 << 20, 64, "ref", &msg), HD_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_answer_however_weights_come),
        cmocka_unit_test(an_engine_can_end_while_it_loads),
        cmocka_unit_test(unknown_ways_are_refused),
        cmocka_unit_test(the_same_answer_from_repacked_weights),
        cmocka_unit_test(unknown_repacking_is_refused),
        cmocka_unit_test(eight_bit_kv_gives_one_answer),
        cmocka_unit_test(eight_bit_kv_is_refused_by_name),
        cmocka_unit_test(what_does_not_fit_is_refused_with_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
