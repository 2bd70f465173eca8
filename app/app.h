/* What a subcommand gets, and how it reports. app/ only wires the rooms together. */
#ifndef HD_APP_APP_H
#define HD_APP_APP_H

#include <stdbool.h>

#include "base/error.h"
#include "ops/options.h"

enum { HD_EXIT_OK = 0, HD_EXIT_FAILED = 1, HD_EXIT_USAGE = 2 };

struct hd_app {
    const char *command;        /* its name */
    struct hd_options *options; /* parsed */
    char *home;                 /* resolved --home */
    bool json;                  /* --json */
};

/* Prints "holdfast: SENTENCE" to stderr; returns the exit status for err. */
int hd_app_fail(enum hd_err err, const struct hd_errmsg *msg);

/* The path of a model: as given if it exists, else a name pulled before (models/ under home), else,
 * without a name, the installed default. *out is owned. NOTFOUND with a sentence that says how to
 * get one. */
enum hd_err hd_app_model_path(char **out, const struct hd_app *app, const char *name,
                              struct hd_errmsg *msg);

#define HD_COMMAND(name) int hd_cmd_##name(struct hd_app *app);
#include "commands.inc"
#undef HD_COMMAND

#endif
