/* The static key file: who may call, and as whom. */
#include "api/api_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"

enum {
    MAX_FILE = 1 << 20,
    MAX_KEYS = 10000,
    MAX_GROUPS = 64,
    MAX_SCOPES = 8,
    MAX_WEIGHT = 1000,
    MIN_KEY = 16
};

struct key {
    char digest[65];
    char *line; /* owned; the strings of `who` lie in it */
    const char *groups[MAX_GROUPS], *scopes[MAX_SCOPES];
    struct hd_principal who; /* of a key that a file holds; groups point into this */
};

struct hd_api__keys {
    size_t n;
    struct key **key; /* each of its own, so that principals keep their address */
};

void hd_api__keys_free(struct hd_api__keys *keys)
{
    for (size_t i = 0; keys && i < keys->n; i++) {
        free(keys->key[i]->line);
        free(keys->key[i]);
    }
    if (keys)
        free(keys->key);
    free(keys);
}

static bool is_name(const char *s)
{
    size_t n = strlen(s);
    return n && n <= 64 && s[0] != '-' && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

/* KEY or sha256:HEX. A short key can be guessed. */
static bool take_digest(struct key *k, const char *word)
{
    if (!strncmp(word, "sha256:", 7)) {
        const char *hex = word + 7;
        if (strlen(hex) != 64 || strspn(hex, "0123456789abcdef") != 64)
            return false;
        memcpy(k->digest, hex, 65);
        return true;
    }
    return strlen(word) >= MIN_KEY && !hd_sha256_hex(k->digest, word, strlen(word));
}

static bool take_groups(struct key *k, char *list)
{
    char *save = NULL;
    for (char *g = strtok_r(list, ",", &save); g; g = strtok_r(NULL, ",", &save)) {
        if (k->who.n_group == MAX_GROUPS || !is_name(g))
            return false;
        k->groups[k->who.n_group++] = g;
    }
    k->who.groups = k->groups;
    return true;
}

static bool take_scopes(struct key *k, char *list)
{
    char *save = NULL;
    for (char *s = strtok_r(list, ",", &save); s; s = strtok_r(NULL, ",", &save)) {
        if (k->who.n_scope == MAX_SCOPES || !hd_api__is_scope(s))
            return false;
        k->scopes[k->who.n_scope++] = s;
    }
    k->who.scopes = k->scopes;
    return k->who.n_scope > 0;
}

static const char *take_line(struct key *k)
{
    char *save = NULL, *word[7] = {NULL}, *end;
    int n = 0;
    for (char *w = strtok_r(k->line, " \t\r", &save); w && n < 7;
         w = strtok_r(NULL, " \t\r", &save))
        word[n++] = w;
    if (n < 2 || n > 6)
        return "expected `KEY tenant [weight [name [groups [scopes]]]]`";
    if (!take_digest(k, word[0]))
        return "a key has at least 16 characters, a digest is sha256: and 64 digits";
    if (!is_name(word[1]))
        return "a tenant has up to 64 of a-z, 0-9, _ and -";
    long weight = word[2] ? strtol(word[2], &end, 10) : 1;
    if (weight < 1 || weight > MAX_WEIGHT || (word[2] && *end))
        return "a weight is a whole number from 1 to 1000";
    if (word[3] && !is_name(word[3]))
        return "a key's name has up to 64 of a-z, 0-9, _ and -";
    k->who.tenant = word[1];
    k->who.weight = (int)weight;
    k->who.key_id = word[3] ? word[3] : "";
    if (word[4] && strcmp(word[4], "-") && !take_groups(k, word[4]))
        return "groups are names with commas between them, at most 64 (- for none)";
    if (word[5] && !take_scopes(k, word[5]))
        return "scopes are chat, embed, kb:read, kb:write and admin, with commas between them";
    return NULL;
}

static enum hd_err add_line(struct hd_api__keys *keys, const char *line, const char *path,
                            int number, struct hd_errmsg *msg)
{
    const char *from = line + strspn(line, " \t\r");
    if (!*from || *from == '#')
        return HD_OK;
    if (keys->n == MAX_KEYS)
        return hd_fail(msg, HD_ERR_LIMIT, "%s: more than %d keys", path, MAX_KEYS);
    struct key **grown = realloc(keys->key, (keys->n + 1) * sizeof *grown);
    struct key *k = calloc(1, sizeof *k);
    if (grown)
        keys->key = grown;
    if (!grown || !k || !(k->line = strdup(from))) {
        free(k);
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", path);
    }
    keys->key[keys->n++] = k;
    const char *fault = take_line(k);
    OPENSSL_cleanse(k->line, strlen(k->line)); /* its first word: the key itself */
    if (fault)
        return hd_fail(msg, HD_ERR_INVALID, "%s:%d: %s", path, number, fault);
    for (size_t i = 0; i + 1 < keys->n; i++)
        if (!memcmp(keys->key[i]->digest, k->digest, 64))
            return hd_fail(msg, HD_ERR_INVALID, "%s:%d: this key stands in the file twice", path,
                           number);
    if (!*k->who.key_id) /* its own, so that keys of a tenant are told apart */
        k->who.key_id = k->digest;
    return HD_OK;
}

/* Secrets that others on the machine can read are none. */
static enum hd_err read_secret(char **out, const char *path, struct hd_errmsg *msg)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        enum hd_err err = hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return err;
    }
    enum hd_err err = HD_OK;
    if (st.st_mode & 077)
        err = hd_fail(msg, HD_ERR_INVALID,
                      "%s: keys that others may read (mode %03o) are refused (chmod 600 %s)", path,
                      (unsigned)st.st_mode & 0777, path);
    if (!err)
        err = hd_fd_read(out, NULL, fd, MAX_FILE, msg);
    close(fd);
    return err;
}

enum hd_err hd_api__keys_load(struct hd_api__keys **out, const char *path, struct hd_errmsg *msg)
{
    char *text = NULL, *save = NULL;
    int number = 0;
    *out = NULL;
    struct hd_api__keys *keys = calloc(1, sizeof *keys);
    if (!keys)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", path);
    enum hd_err err = read_secret(&text, path, msg);
    for (char *line = text; line && !err; line = save) {
        save = strchr(line, '\n');
        if (save)
            *save++ = 0;
        err = add_line(keys, line, path, ++number, msg);
    }
    if (text)
        OPENSSL_cleanse(text, strlen(text));
    free(text);
    if (!err && !keys->n)
        err = hd_fail(msg, HD_ERR_INVALID, "%s: no key in it, so that nobody could call", path);
    if (err)
        hd_api__keys_free(keys);
    else
        *out = keys;
    return err;
}

/* All digests are compared, each in constant time: how long it takes tells nothing of the keys. */
const struct hd_principal *hd_api__keys_find(const struct hd_api__keys *keys, const char *digest)
{
    const struct hd_principal *found = NULL;
    for (size_t i = 0; i < keys->n; i++)
        if (!CRYPTO_memcmp(keys->key[i]->digest, digest, 64))
            found = &keys->key[i]->who;
    return found;
}
