/* What the model tests share: the tiny golden models, opened, and folders with a changed config. */
#ifndef HD_TEST_MODEL_SUPPORT_H
#define HD_TEST_MODEL_SUPPORT_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "model/model.h"

#define MODELS HD_TEST_ROOT "/golden/models/"

struct opened {
    struct hd_store *store;
    const struct hd_backend *backend;
    struct hd_pool *pool;
    struct hd_model *model;
    struct hd_runner *runner;
};

static inline void open_model(struct opened *o, const char *path, const char *kernels)
{
    struct hd_errmsg msg = {0};
    *o = (struct opened){0};
    if (hd_store_open(&o->store, path, &msg) || hd_backend_get(&o->backend, kernels, &msg) ||
        hd_pool_new(&o->pool, 2) || hd_model_load(&o->model, o->store, o->backend, o->pool, &msg))
        fail_msg("%s: %s", path, msg.text);
    const struct hd_runner_options options = {
        .n_row_max = 192, .n_out_max = 192, .n_ctx = 512, .n_block = 24};
    assert_int_equal(hd_runner_new(&o->runner, o->model, o->pool, &options, &msg), HD_OK);
}

static inline void close_model(struct opened *o)
{
    hd_runner_free(o->runner);
    hd_model_free(o->model);
    hd_pool_free(o->pool);
    hd_store_close(o->store);
}

static inline json_t *load_json(const char *path)
{
    json_error_t error;
    json_t *json = json_load_file(path, 0, &error);
    if (!json)
        fail_msg("%s: %s", path, error.text);
    return json;
}

/* A folder under /tmp with the config of golden model `name`, changed by `patch` (JSON; null
 * removes a key), and, if wanted, a link to its weights. */
static inline void make_folder(char out[64], const char *name, const char *patch, int weights)
{
    char path[512], target[512];
    json_error_t error;
    json_t *changes = json_loads(patch, 0, &error), *value;
    const char *key;
    snprintf(out, 64, "/tmp/holdfast-model-XXXXXX");
    assert_non_null(mkdtemp(out));
    assert_non_null(changes);
    snprintf(path, sizeof path, MODELS "%s/config.json", name);
    json_t *config = load_json(path);
    json_object_foreach(changes, key, value)
    {
        if (json_is_null(value))
            json_object_del(config, key);
        else
            json_object_set(config, key, value);
    }
    snprintf(path, sizeof path, "%s/config.json", out);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    json_decref(changes);
    snprintf(target, sizeof target, MODELS "%s/model.safetensors", name);
    snprintf(path, sizeof path, "%s/model.safetensors", out);
    if (weights)
        assert_int_equal(symlink(target, path), 0);
}

static inline void remove_folder(const char *folder)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    char path[512];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

#endif
