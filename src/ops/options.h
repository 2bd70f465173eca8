/* The option table: one row per option feeds flags, environment, config file, --help and the
 * reference page (docs/options.md).
 *
 * Precedence: default < config file < HOLDFAST_<NAME> < flag. A config file has `name = value`
 * lines with the flags' names and a line `config_version = 1`. */
#ifndef HD_OPS_OPTIONS_H
#define HD_OPS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"

enum hd_option_type {
    HD_OPT_FLAG, /* no value */
    HD_OPT_INT,
    HD_OPT_NUMBER,
    HD_OPT_STRING,
    HD_OPT_LIST, /* repeatable string */
};

struct hd_option {
    const char *name; /* long name, without dashes */
    char letter;      /* short name or 0 */
    enum hd_option_type type;
    const char *def;      /* default as text; NULL = unset */
    double min, max;      /* for INT and NUMBER, inclusive */
    const char *arg;      /* what the value is called in help: "FILE" */
    const char *commands; /* " serve chat " — commands that take it, each between spaces; "*" all */
    const char *help;
};

extern const struct hd_option hd_option_table[];
extern const size_t hd_option_count;

struct hd_options; /* parsed values; owned by the caller, immutable after parsing */

/* argv: what follows the command's name. Words that are no options are positionals (after `--` all
 * are). USAGE with a sentence that names the option and the nearest known one. */
enum hd_err hd_options_parse(struct hd_options **out, const char *command, int argc, char **argv,
                             struct hd_errmsg *msg);
void hd_options_free(struct hd_options *options);

/* The value, or the default; asking for a name that the table lacks is a programming error
 * (assert). */
bool hd_options_flag(const struct hd_options *options, const char *name);
long hd_options_int(const struct hd_options *options, const char *name);
double hd_options_number(const struct hd_options *options, const char *name);
const char *hd_options_str(const struct hd_options *options, const char *name); /* NULL if unset */
size_t hd_options_list(const struct hd_options *options, const char *name, const char *const **out);
bool hd_options_is_set(const struct hd_options *options, const char *name); /* not by default */
size_t hd_options_n_positional(const struct hd_options *options);
const char *hd_options_positional(const struct hd_options *options,
                                  size_t i); /* NULL past the end */

/* The options of a command as aligned help text. */
void hd_options_help(FILE *to, const char *command);
/* The whole table as a Markdown page: docs/options.md. */
void hd_options_reference(FILE *to);
/* Every option's value as `name = value` lines: --print-config. Secrets are not options. */
void hd_options_print(const struct hd_options *options, FILE *to);

#endif
