/* Making small model files, good and bad. Header-only; each test program uses what it needs. */
#ifndef STORE_TEST_SUPPORT_H
#define STORE_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "store/store.h"

/* A fresh folder under $TMPDIR; removed with what is directly in it. */
static inline char *temp_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    char *path = hd_path_join(tmp && *tmp ? tmp : "/tmp", "hd_store_XXXXXX");
    assert_non_null(path);
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void write_file(const char *folder, const char *name, const void *data, size_t len)
{
    char *path = hd_path_join(folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    free(path);
}

static inline void write_text(const char *folder, const char *name, const char *text)
{
    write_file(folder, name, text, strlen(text));
}

/* Files that tests may have put there. */
static inline void remove_folder(char *folder)
{
    static const char *const names[] = {"pytorch_model.bin",
                                        "m.gguf",
                                        "config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "a.st",
                                        "model.safetensors",
                                        "b.st",
                                        "model.safetensors.index.json",
                                        "generation_config.json",
                                        "p-00001-of-00003.gguf",
                                        "p-00002-of-00003.gguf",
                                        "p-00003-of-00003.gguf",
                                        "p-00001-of-00002.gguf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = hd_path_join(folder, names[i]);
        unlink(path);
        free(path);
    }
    assert_int_equal(rmdir(folder), 0);
    free(folder);
}

/* --- writing GGUF ----------------------------------------------------------------------------- */

static inline void put_u32(struct hd_buf *buf, uint32_t value)
{
    hd_buf_append(buf, &value, sizeof value);
}

static inline void put_u64(struct hd_buf *buf, uint64_t value)
{
    hd_buf_append(buf, &value, sizeof value);
}

static inline void put_str(struct hd_buf *buf, const char *text)
{
    put_u64(buf, strlen(text));
    hd_buf_puts(buf, text);
}

static inline void put_header(struct hd_buf *buf, uint32_t version, uint64_t n_tensor,
                              uint64_t n_kv)
{
    hd_buf_init(buf, 1 << 24);
    hd_buf_puts(buf, "GGUF");
    put_u32(buf, version);
    put_u64(buf, n_tensor);
    put_u64(buf, n_kv);
}

static inline void put_kv_u32(struct hd_buf *buf, const char *key, uint32_t value)
{
    put_str(buf, key);
    put_u32(buf, 4);
    put_u32(buf, value);
}

static inline void put_kv_str(struct hd_buf *buf, const char *key, const char *value)
{
    put_str(buf, key);
    put_u32(buf, 8);
    put_str(buf, value);
}

static inline void put_info(struct hd_buf *buf, const char *name, uint32_t n_dim,
                            const uint64_t *ne, uint32_t type, uint64_t offset)
{
    put_str(buf, name);
    put_u32(buf, n_dim);
    for (uint32_t d = 0; d < n_dim; d++)
        put_u64(buf, ne[d]);
    put_u32(buf, type);
    put_u64(buf, offset);
}

static inline void pad(struct hd_buf *buf, size_t alignment)
{
    while (buf->len % alignment)
        hd_buf_putc(buf, 0);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Opens path; on failure *msg has a sentence that names the file. */
static inline enum hd_err open_path(struct hd_store **out, const char *path, struct hd_errmsg *msg)
{
    *msg = (struct hd_errmsg){0};
    enum hd_err err = hd_store_open(out, path, msg);
    if (err) {
        assert_null(*out);
        assert_true(strlen(msg->text) > strlen(path));
    }
    return err;
}

static inline void assert_says(const struct hd_errmsg *msg, const char *part)
{
    if (!strstr(msg->text, part))
        fail_msg("\"%s\" does not say \"%s\"", msg->text, part);
}

#endif
