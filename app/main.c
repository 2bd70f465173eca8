/* holdfast: finds the subcommand, parses its options, runs it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "base/file.h"
#include "base/log.h"

static const struct command {
    const char *name;
    int (*run)(struct hd_app *app);
} commands[] = {
#define HD_COMMAND(name) {#name, hd_cmd_##name},
#include "commands.inc"
#undef HD_COMMAND
};

/* One line per command for `holdfast help`, in the order in which a newcomer meets them. */
static const struct {
    const char *name, *usage, *what;
} summaries[] = {
    {"pull", "NAME[:TAG]", "fetch a model by name, checked by hash"},
    {"serve", "[-m MODEL]…", "serve the OpenAI API and the web page"},
    {"chat", "-m MODEL", "chat in the terminal"},
    {"generate", "-m MODEL -p TEXT", "answer one prompt"},
    {"kb", "create|add|list|remove|search|ask …",
     "knowledge bases: documents in, cited answers out"},
    {"inspect", "PATH", "what a model file holds"},
    {"bench", "-m MODEL", "how fast this machine runs a model"},
    {"eval", "perplexity -m MODEL < TEXT", "how well a model predicts a text"},
    {"embed", "-m MODEL [--as query|passage] < LINES", "vectors of texts, one line each"},
    {"tokenize", "-m MODEL < TEXT", "text to token ids"},
    {"detokenize", "-m MODEL < IDS", "token ids to text"},
    {"logits", "-m MODEL --tokens 1,2,3", "log-probabilities of the next token"},
    {"doctor", "", "what this machine offers and what is missing"},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

/* Bytes of UTF-8 that begin no character: what a column of bytes lacks in characters. */
static int continuation_bytes(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) == 0x80;
    return n;
}

static void print_help(FILE *to)
{
    fprintf(to, "holdfast %s: DeepSeek-R1 and its kin on your own machines\n\n", HOLDFAST_VERSION);
    for (size_t i = 0; i < sizeof summaries / sizeof *summaries; i++)
        if (find_command(summaries[i].name))
            fprintf(to, "  holdfast %-10s %-*s %s\n", summaries[i].name,
                    38 + continuation_bytes(summaries[i].usage), summaries[i].usage,
                    summaries[i].what);
    fprintf(to, "\nholdfast COMMAND --help lists a command's options.\n");
}

static void print_command_help(const char *name)
{
    for (size_t i = 0; i < sizeof summaries / sizeof *summaries; i++)
        if (!strcmp(summaries[i].name, name))
            printf("holdfast %s %s\n%s\n\n", name, summaries[i].usage, summaries[i].what);
    hd_options_help(stdout, name);
}

int hd_app_fail(enum hd_err err, const struct hd_errmsg *msg)
{
    fprintf(stderr, "holdfast: %s\n", msg && msg->text[0] ? msg->text : hd_err_text(err));
    return err == HD_ERR_USAGE ? HD_EXIT_USAGE : HD_EXIT_FAILED;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct hd_errmsg msg = {0};
    struct hd_app app = {.command = command->name};
    enum hd_err err = hd_options_parse(&app.options, command->name, argc, argv, &msg);
    if (err)
        return hd_app_fail(err, &msg);
    int status = HD_EXIT_OK;
    app.json = hd_options_flag(app.options, "json");
    app.home = hd_path_home(hd_options_str(app.options, "home"));
    if (hd_options_flag(app.options, "verbose"))
        hd_log_set_level(HD_LOG_DEBUG);
    if (hd_options_flag(app.options, "help"))
        print_command_help(command->name);
    else if (!app.home)
        status = hd_app_fail(HD_ERR_NOMEM, NULL);
    else
        status = command->run(&app);
    free(app.home);
    hd_options_free(app.options);
    return status;
}

/* holdfast help [COMMAND | options] */
static int help(const char *topic)
{
    if (!topic)
        print_help(stdout);
    else if (!strcmp(topic, "options"))
        hd_options_reference(stdout);
    else if (find_command(topic))
        print_command_help(topic);
    else {
        fprintf(stderr, "holdfast: help: %s is no command (holdfast help lists them)\n", topic);
        return HD_EXIT_USAGE;
    }
    return HD_EXIT_OK;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return HD_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        return help(argv[2]);
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version")) {
        printf("holdfast %s\n", HOLDFAST_VERSION);
        return HD_EXIT_OK;
    }
    const struct command *command = find_command(argv[1]);
    if (!command) {
        fprintf(stderr, "holdfast: %s: unknown command (holdfast help lists them)\n", argv[1]);
        return HD_EXIT_USAGE;
    }
    return run(command, argc - 2, argv + 2);
}
