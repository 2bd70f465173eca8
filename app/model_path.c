/* Which file or folder a user means by -m MODEL, or by no -m at all. */
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "base/buf.h"
#include "base/file.h"
#include "pull/installed.h"

enum { MAX_NAMES_SHOWN = 300 };

/* "a, b, c" of what is installed, for the sentence of an error. */
static void put_names(struct hd_buf *buf, const struct hd_installed *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (buf->len + strlen(list[i].name) > MAX_NAMES_SHOWN) {
            hd_buf_puts(buf, ", …");
            return;
        }
        hd_buf_printf(buf, "%s%s", i ? ", " : "", list[i].name);
    }
}

static enum hd_err not_there(const struct hd_installed *list, size_t n, const char *name,
                             struct hd_errmsg *msg)
{
    struct hd_buf names;
    hd_buf_init(&names, 4096);
    put_names(&names, list, n);
    if (name && n)
        hd_fail(msg, HD_ERR_NOTFOUND,
                "%s: no such file, folder or installed model (installed: %s; others: holdfast "
                "pull NAME, holdfast pull --list)",
                name, hd_buf_str(&names));
    else if (name)
        hd_fail(msg, HD_ERR_NOTFOUND,
                "%s: no such file or folder, and no model is installed (get one: holdfast pull "
                "qwen2.5-coder:1.5b)",
                name);
    else if (n)
        hd_fail(msg, HD_ERR_NOTFOUND, "model: several are installed, name one with -m (%s)",
                hd_buf_str(&names));
    else
        hd_fail(msg, HD_ERR_NOTFOUND,
                "model: none is installed (get one: holdfast pull qwen2.5-coder:1.5b, or name a "
                "file with -m)");
    hd_buf_dispose(&names);
    return HD_ERR_NOTFOUND;
}

/* Names for files that no pull has noted. A user's own catalogue that cannot be read is pull's
 * business, not a reason to refuse a model. */
static void name_by_catalogue(struct hd_installed *list, size_t n, const char *home)
{
    struct hd_catalogue *catalogue;
    char *own = hd_path_join(home, "catalogue.json");
    const char *paths[] = {own};
    bool there = own && hd_path_exists(own);
    if (hd_catalogue_load(&catalogue, paths, there ? 1 : 0, NULL) == HD_OK) {
        hd_installed_name(list, n, catalogue);
        hd_catalogue_free(catalogue);
    }
    free(own);
}

enum hd_err hd_app_model_path(char **out, const struct hd_app *app, const char *name,
                              struct hd_errmsg *msg)
{
    struct hd_installed *list = NULL;
    size_t n = 0;
    *out = NULL;
    if (name && hd_path_exists(name)) {
        *out = strdup(name);
        return *out ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", name);
    }
    char *models = hd_path_join(app->home, "models");
    if (!models)
        return hd_fail(msg, HD_ERR_NOMEM, "model: out of memory");
    enum hd_err err = hd_installed_list(&list, &n, models, msg);
    if (!err) {
        name_by_catalogue(list, n, app->home);
        const struct hd_installed *item =
            name ? hd_installed_find(list, n, name) : hd_installed_default(list, n);
        if (!item)
            err = not_there(list, n, name, msg);
        else if (!(*out = strdup(item->path)))
            err = hd_fail(msg, HD_ERR_NOMEM, "model: out of memory");
    }
    hd_installed_free(list, n);
    free(models);
    return err;
}
