#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "ops/options.h"

static enum hd_err parse(struct hd_options **out, const char *command, struct hd_errmsg *msg,
                         const char *line)
{
    static char copy[512];
    char *argv[32];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *p = copy, *word; (word = strsep(&p, " "));)
        if (*word)
            argv[argc++] = word;
    return hd_options_parse(out, command, argc, argv, msg);
}

static void takes_flags_values_lists_and_words(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_options *o;
    const char *const *models;
    assert_int_equal(parse(&o, "serve", &msg, "-m a --model=b --port 81 --json -- --word"), HD_OK);
    assert_int_equal(hd_options_list(o, "model", &models), 2);
    assert_string_equal(models[0], "a");
    assert_string_equal(models[1], "b");
    assert_int_equal(hd_options_int(o, "port"), 81);
    assert_true(hd_options_flag(o, "json"));
    assert_string_equal(hd_options_str(o, "host"), "127.0.0.1");
    assert_false(hd_options_is_set(o, "host"));
    assert_int_equal(hd_options_n_positional(o), 1);
    assert_string_equal(hd_options_positional(o, 0), "--word");
    assert_null(hd_options_positional(o, 1));
    hd_options_free(o);
}

static void refuses_with_a_sentence_that_names_the_option(void **state)
{
    static const struct {
        const char *line, *says;
    } cases[] = {
        {"--prot 80", "did you mean --port?"},
        {"--port x", "not a number"},
        {"--port 1.5", "not a whole number"},
        {"--port 70000", "out of range"},
        {"--port", "needs a value"},
        {"--json=1", "takes no value"},
        {"--tokens 1", "not an option of serve"},
        {"-q", "not an option of serve"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_errmsg msg = {0};
        struct hd_options *o = (void *)1;
        assert_int_equal(parse(&o, "serve", &msg, cases[i].line), HD_ERR_USAGE);
        assert_null(o);
        assert_non_null(strstr(msg.text, cases[i].says));
    }
}

static void flag_beats_environment_beats_file_beats_default(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_options *o;
    char path[] = "/tmp/holdfast-options-XXXXXX", line[128];
    int fd = mkstemp(path);
    const char *text = "config_version = 1\n# a comment\nport = 1\nhost = file\nmax-queue = 5\n";
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    setenv("HOLDFAST_PORT", "2", 1);
    setenv("HOLDFAST_HOST", "env", 1);
    snprintf(line, sizeof line, "--config %s --port 3", path);
    assert_int_equal(parse(&o, "serve", &msg, line), HD_OK);
    assert_int_equal(hd_options_int(o, "port"), 3);
    assert_string_equal(hd_options_str(o, "host"), "env");
    assert_int_equal(hd_options_int(o, "max-queue"), 5);
    assert_int_equal(hd_options_int(o, "max-sequences"), 16);
    hd_options_free(o);
    unsetenv("HOLDFAST_PORT");
    unsetenv("HOLDFAST_HOST");
    unlink(path);
}

static void names_the_line_of_a_bad_file(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_options *o;
    char path[] = "/tmp/holdfast-options-XXXXXX", line[128];
    int fd = mkstemp(path);
    const char *text = "config_version = 1\nno_such = 1\n";
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    snprintf(line, sizeof line, "--config %s", path);
    assert_int_equal(parse(&o, "serve", &msg, line), HD_ERR_USAGE);
    assert_non_null(strstr(msg.text, ":2: no_such"));
    unlink(path);
}

static void the_table_is_consistent(void **state)
{
    for (size_t i = 0; i < hd_option_count; i++) {
        const struct hd_option *a = &hd_option_table[i];
        assert_true(a->help && *a->help);
        assert_true((a->type == HD_OPT_FLAG) == (a->arg == NULL));
        if (a->type == HD_OPT_INT || a->type == HD_OPT_NUMBER)
            assert_true(a->min < a->max);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(a->name, hd_option_table[j].name);
            assert_true(!a->letter || a->letter != hd_option_table[j].letter);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_flags_values_lists_and_words),
        cmocka_unit_test(refuses_with_a_sentence_that_names_the_option),
        cmocka_unit_test(flag_beats_environment_beats_file_beats_default),
        cmocka_unit_test(names_the_line_of_a_bad_file),
        cmocka_unit_test(the_table_is_consistent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
