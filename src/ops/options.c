#include "ops/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { MAX_LIST = 64, MAX_CONFIG_BYTES = 1 << 20 };

/* Where a value came from; a higher source replaces a lower one. */
enum source { FROM_DEFAULT, FROM_FILE, FROM_ENV, FROM_FLAG };

struct value {
    char **text; /* owned strings; one, or several of a LIST */
    size_t n;
    enum source source;
};

struct hd_options {
    const char *command; /* borrowed */
    struct value *value; /* hd_option_count of them */
    char **positional;   /* owned */
    size_t n_positional;
};

static bool applies(const struct hd_option *option, const char *command)
{
    char word[64];
    if (!strcmp(option->commands, "*"))
        return true;
    snprintf(word, sizeof word, " %s ", command);
    return strstr(option->commands, word) != NULL;
}

static const struct hd_option *find(const char *name, size_t len)
{
    for (size_t i = 0; i < hd_option_count; i++)
        if (strlen(hd_option_table[i].name) == len && !memcmp(hd_option_table[i].name, name, len))
            return &hd_option_table[i];
    return NULL;
}

static const struct hd_option *find_letter(char letter)
{
    for (size_t i = 0; i < hd_option_count; i++)
        if (hd_option_table[i].letter == letter)
            return &hd_option_table[i];
    return NULL;
}

/* Levenshtein distance, for "did you mean"; names are short. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b), row[64];
    if (n >= 63 || m >= 63)
        return 63;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

static const char *nearest_name(const char *name, const char *command)
{
    const char *best = NULL;
    size_t distance = strlen(name) / 2 + 1;
    for (size_t i = 0; i < hd_option_count; i++) {
        size_t d = edit_distance(name, hd_option_table[i].name);
        if (d < distance && applies(&hd_option_table[i], command)) {
            distance = d;
            best = hd_option_table[i].name;
        }
    }
    return best;
}

static enum hd_err unknown_option(struct hd_errmsg *msg, const char *name, const char *command)
{
    const char *near = nearest_name(name, command);
    if (near)
        return hd_fail(msg, HD_ERR_USAGE, "--%s: not an option of %s (did you mean --%s?)", name,
                       command, near);
    return hd_fail(msg, HD_ERR_USAGE, "--%s: not an option of %s (holdfast %s --help lists them)",
                   name, command, command);
}

static enum hd_err check_value(const struct hd_option *option, const char *text,
                               struct hd_errmsg *msg)
{
    char *end;
    if (option->type != HD_OPT_INT && option->type != HD_OPT_NUMBER)
        return HD_OK;
    errno = 0;
    double number = strtod(text, &end);
    if (end == text || *end || errno || !isfinite(number))
        return hd_fail(msg, HD_ERR_USAGE, "--%s: \"%s\" is not a number", option->name, text);
    if (option->type == HD_OPT_INT && number != floor(number))
        return hd_fail(msg, HD_ERR_USAGE, "--%s: \"%s\" is not a whole number", option->name, text);
    if (number < option->min || number > option->max)
        return hd_fail(msg, HD_ERR_USAGE, "--%s: %s is out of range (%.15g to %.15g)", option->name,
                       text, option->min, option->max);
    return HD_OK;
}

static void forget(struct value *value)
{
    for (size_t i = 0; i < value->n; i++)
        free(value->text[i]);
    value->n = 0;
}

static enum hd_err set(struct hd_options *options, const struct hd_option *option, const char *text,
                       enum source source, struct hd_errmsg *msg)
{
    struct value *value = &options->value[option - hd_option_table];
    enum hd_err err = check_value(option, text, msg);
    if (err)
        return err;
    if (value->source > source)
        return HD_OK;
    if (value->source < source || option->type != HD_OPT_LIST)
        forget(value);
    if (value->n >= MAX_LIST)
        return hd_fail(msg, HD_ERR_USAGE, "--%s: given more than %d times", option->name, MAX_LIST);
    if (!value->text)
        value->text = calloc(MAX_LIST, sizeof *value->text);
    char *copy = strdup(text);
    if (!value->text || !copy) {
        free(copy);
        return hd_fail(msg, HD_ERR_NOMEM, "options: out of memory");
    }
    value->text[value->n++] = copy;
    value->source = source;
    return HD_OK;
}

static bool is_true(const char *text)
{
    return !strcmp(text, "1") || !strcmp(text, "true") || !strcmp(text, "yes") ||
           !strcmp(text, "on");
}

static enum hd_err set_from_environment(struct hd_options *options, struct hd_errmsg *msg)
{
    for (size_t i = 0; i < hd_option_count; i++) {
        const struct hd_option *option = &hd_option_table[i];
        char name[64] = "HOLDFAST_";
        size_t n = strlen(name);
        for (const char *p = option->name; *p && n + 1 < sizeof name; p++)
            name[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
        name[n] = 0;
        const char *text = getenv(name);
        if (!text || !*text || !applies(option, options->command))
            continue;
        enum hd_err err = set(options, option, text, FROM_ENV, msg);
        if (err)
            return err;
    }
    return HD_OK;
}

static char *trim(char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    size_t n = strlen(s);
    while (n && isspace((unsigned char)s[n - 1]))
        s[--n] = 0;
    return s;
}

static enum hd_err set_from_line(struct hd_options *options, char *line, const char *path,
                                 int number, struct hd_errmsg *msg)
{
    char *equals = strchr(line, '=');
    struct hd_errmsg why = {0};
    if (!*line || *line == '#')
        return HD_OK;
    if (!equals)
        return hd_fail(msg, HD_ERR_USAGE, "%s:%d: expected `name = value`", path, number);
    *equals = 0;
    char *name = trim(line), *text = trim(equals + 1);
    if (!strcmp(name, "config_version")) {
        if (strcmp(text, "1"))
            return hd_fail(msg, HD_ERR_USAGE, "%s:%d: config_version %s is newer than this program",
                           path, number, text);
        return HD_OK;
    }
    const struct hd_option *option = find(name, strlen(name));
    if (!option)
        return hd_fail(msg, HD_ERR_USAGE, "%s:%d: %s: unknown option", path, number, name);
    enum hd_err err = set(options, option, text, FROM_FILE, &why);
    return err ? hd_fail(msg, err, "%s:%d: %s", path, number, why.text) : HD_OK;
}

static enum hd_err set_from_file(struct hd_options *options, const char *path,
                                 struct hd_errmsg *msg)
{
    char *text, *save = NULL;
    int number = 0;
    enum hd_err err = hd_file_read(&text, NULL, path, MAX_CONFIG_BYTES, msg);
    if (err)
        return err;
    for (char *line = text; line && !err; line = save) {
        save = strchr(line, '\n');
        if (save)
            *save++ = 0;
        err = set_from_line(options, trim(line), path, ++number, msg);
    }
    free(text);
    return err;
}

/* One word that begins with '-'; *used says whether the next word was its value. */
static enum hd_err set_from_flag(struct hd_options *options, const char *word, const char *next,
                                 bool *used, struct hd_errmsg *msg)
{
    const struct hd_option *option;
    const char *text = NULL;
    *used = false;
    if (word[1] == '-') {
        const char *name = word + 2, *equals = strchr(name, '=');
        option = find(name, equals ? (size_t)(equals - name) : strlen(name));
        text = equals ? equals + 1 : NULL;
    } else {
        option = find_letter(word[1]);
        text = word[2] ? word + 2 : NULL;
    }
    if (!option || !applies(option, options->command))
        return unknown_option(msg, word + (word[1] == '-' ? 2 : 1), options->command);
    if (option->type == HD_OPT_FLAG) {
        if (text)
            return hd_fail(msg, HD_ERR_USAGE, "--%s: takes no value", option->name);
        return set(options, option, "true", FROM_FLAG, msg);
    }
    if (!text) {
        if (!next)
            return hd_fail(msg, HD_ERR_USAGE, "--%s: needs a value (%s)", option->name,
                           option->arg);
        text = next;
        *used = true;
    }
    return set(options, option, text, FROM_FLAG, msg);
}

static enum hd_err set_from_arguments(struct hd_options *options, int argc, char **argv,
                                      struct hd_errmsg *msg)
{
    bool only_words = false, used;
    options->positional = calloc((size_t)argc + 1, sizeof *options->positional);
    if (!options->positional)
        return hd_fail(msg, HD_ERR_NOMEM, "options: out of memory");
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (!only_words && !strcmp(word, "--")) {
            only_words = true;
        } else if (only_words || word[0] != '-' || !word[1]) {
            char *copy = strdup(word);
            if (!copy)
                return hd_fail(msg, HD_ERR_NOMEM, "options: out of memory");
            options->positional[options->n_positional++] = copy;
        } else {
            enum hd_err err =
                set_from_flag(options, word, i + 1 < argc ? argv[i + 1] : NULL, &used, msg);
            if (err)
                return err;
            i += used;
        }
    }
    return HD_OK;
}

enum hd_err hd_options_parse(struct hd_options **out, const char *command, int argc, char **argv,
                             struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_options *options = calloc(1, sizeof *options);
    if (options)
        options->value = calloc(hd_option_count, sizeof *options->value);
    if (!options || !options->value) {
        free(options);
        return hd_fail(msg, HD_ERR_NOMEM, "options: out of memory");
    }
    options->command = command;
    enum hd_err err = set_from_arguments(options, argc, argv, msg);
    if (!err)
        err = set_from_environment(options, msg);
    const char *config = hd_options_str(options, "config");
    if (!err && config)
        err = set_from_file(options, config, msg);
    if (err) {
        hd_options_free(options);
        return err;
    }
    *out = options;
    return HD_OK;
}

void hd_options_free(struct hd_options *options)
{
    if (!options)
        return;
    for (size_t i = 0; i < hd_option_count; i++) {
        forget(&options->value[i]);
        free(options->value[i].text);
    }
    for (size_t i = 0; i < options->n_positional; i++)
        free(options->positional[i]);
    free(options->positional);
    free(options->value);
    free(options);
}

static const struct value *get(const struct hd_options *options, const char *name,
                               const struct hd_option **out_option)
{
    const struct hd_option *option = find(name, strlen(name));
    assert(option && "an option that the table lacks");
    *out_option = option;
    return &options->value[option - hd_option_table];
}

const char *hd_options_str(const struct hd_options *options, const char *name)
{
    const struct hd_option *option;
    const struct value *value = get(options, name, &option);
    return value->n ? value->text[value->n - 1] : option->def;
}

bool hd_options_flag(const struct hd_options *options, const char *name)
{
    const char *text = hd_options_str(options, name);
    return text && is_true(text);
}

double hd_options_number(const struct hd_options *options, const char *name)
{
    const char *text = hd_options_str(options, name);
    return text ? strtod(text, NULL) : 0;
}

long hd_options_int(const struct hd_options *options, const char *name)
{
    return (long)hd_options_number(options, name);
}

size_t hd_options_list(const struct hd_options *options, const char *name, const char *const **out)
{
    const struct hd_option *option;
    const struct value *value = get(options, name, &option);
    *out = (const char *const *)value->text;
    return value->n;
}

bool hd_options_is_set(const struct hd_options *options, const char *name)
{
    const struct hd_option *option;
    return get(options, name, &option)->n > 0;
}

size_t hd_options_n_positional(const struct hd_options *options)
{
    return options->n_positional;
}

const char *hd_options_positional(const struct hd_options *options, size_t i)
{
    return i < options->n_positional ? options->positional[i] : NULL;
}

void hd_options_help(FILE *to, const char *command)
{
    for (size_t i = 0; i < hd_option_count; i++) {
        const struct hd_option *option = &hd_option_table[i];
        char left[64];
        if (!applies(option, command))
            continue;
        int n = option->letter ? snprintf(left, sizeof left, "-%c, ", option->letter)
                               : snprintf(left, sizeof left, "    ");
        snprintf(left + n, sizeof left - (size_t)n, "--%s%s%s", option->name,
                 option->arg ? " " : "", option->arg ? option->arg : "");
        fprintf(to, "  %-30s %s", left, option->help);
        if (option->def && option->type != HD_OPT_FLAG)
            fprintf(to, " [%s]", option->def);
        fputc('\n', to);
    }
}

/* Text for a table cell of Markdown, where a bar would end the cell. */
static void put_cell(FILE *to, const char *text)
{
    for (; *text; text++)
        fprintf(to, *text == '|' ? "\\|" : "%c", *text);
}

void hd_options_reference(FILE *to)
{
    fprintf(to,
            "# Options\n\nMade by `holdfast help options` from the option table.\n\n"
            "Each option is a flag (`--port 81`), an environment variable (`HOLDFAST_PORT=81`) "
            "and a line of a\nconfig file (`port = 81`, given with `--config`). A flag wins over "
            "the environment, that over the file.\n\n"
            "| option | value | default | commands | meaning |\n| --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < hd_option_count; i++) {
        const struct hd_option *option = &hd_option_table[i];
        fprintf(to, "| `--%s`", option->name);
        if (option->letter)
            fprintf(to, ", `-%c`", option->letter);
        fprintf(to, " | ");
        put_cell(to, option->arg ? option->arg : "");
        fprintf(to, " | %s | %s | ", option->def ? option->def : "",
                strcmp(option->commands, "*") ? option->commands : "all");
        put_cell(to, option->help);
        fprintf(to, " |\n");
    }
}

void hd_options_print(const struct hd_options *options, FILE *to)
{
    fprintf(to, "config_version = 1\n");
    for (size_t i = 0; i < hd_option_count; i++) {
        const struct hd_option *option = &hd_option_table[i];
        const struct value *value = &options->value[i];
        if (!applies(option, options->command) || !strcmp(option->name, "api-key"))
            continue;
        for (size_t j = 0; j < value->n; j++)
            fprintf(to, "%s = %s\n", option->name, value->text[j]);
        if (!value->n && option->def)
            fprintf(to, "%s = %s\n", option->name, option->def);
    }
}
