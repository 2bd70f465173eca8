/* holdfast generate: one prompt, one answer. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "model_run.h"

enum { MAX_PROMPT = 64 << 20 };

static json_t *usage_json(const struct hd_result *r)
{
    return json_pack("{s:i,s:i,s:i,s:i,s:i}", "prompt_tokens", r->n_prompt, "completion_tokens",
                     r->n_generated, "total_tokens", r->n_prompt + r->n_generated, "cached_tokens",
                     r->n_cached, "reasoning_tokens", r->n_reasoning);
}

static json_t *timings_json(const struct hd_result *r, double load_s)
{
    return json_pack("{s:f,s:f,s:f,s:f,s:f}", "load_s", load_s, "queue_s", r->queue_s, "prefill_s",
                     r->prefill_s, "ttft_s", r->ttft_s, "decode_s", r->decode_s);
}

static enum hd_err print_json(const struct hd_app_answer *a, double load_s, struct hd_errmsg *msg)
{
    json_t *json =
        json_pack("{s:s,s:s,s:o,s:s,s:s,s:o}", "answer", hd_buf_str(&a->answer), "reasoning",
                  hd_buf_str(&a->reasoning), "usage", usage_json(&a->result), "finish_reason",
                  hd_app_finish_name(a->result.finish), "reasoning_stop",
                  hd_reasoning_stop_name(a->result.reasoning_stop), "timings",
                  timings_json(&a->result, load_s));
    if (!json)
        return hd_fail(msg, HD_ERR_NOMEM, "generate: out of memory");
    json_dumpf(json, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(json);
    return HD_OK;
}

/* -p TEXT, or - for standard input. *owned is freed by the caller. */
static enum hd_err get_prompt(const char **prompt, char **owned, const struct hd_app *app,
                              struct hd_errmsg *msg)
{
    *prompt = hd_options_str(app->options, "prompt");
    if (!*prompt)
        return hd_fail(msg, HD_ERR_USAGE,
                       "generate: no prompt given (-p TEXT, or -p - to read it "
                       "from standard input)");
    if (strcmp(*prompt, "-"))
        return HD_OK;
    enum hd_err err = hd_fd_read(owned, NULL, STDIN_FILENO, MAX_PROMPT, msg);
    *prompt = *owned;
    return err;
}

static void fill_request(struct hd_request *r, const struct hd_app *app, const char *prompt,
                         struct hd_message messages[2])
{
    const char *system = hd_options_str(app->options, "system");
    size_t n = 0;
    if (system)
        messages[n++] = (struct hd_message){.role = "system", .content = system};
    messages[n++] = (struct hd_message){.role = "user", .content = prompt};
    r->sampling = hd_app_sampling(app);
    r->n_max = hd_options_str(app->options, "n") ? (int)hd_options_int(app->options, "n") : 0;
    r->n_stop = hd_options_list(app->options, "stop", &r->stop);
    if (hd_options_flag(app->options, "raw")) {
        r->prompt = prompt;
    } else {
        r->messages = messages;
        r->n_message = n;
    }
}

int hd_cmd_generate(struct hd_app *app)
{
    struct hd_errmsg msg = {0};
    struct hd_engine *engine = NULL;
    struct hd_model_info info;
    struct hd_app_answer answer;
    struct hd_request request = {.principal = &HD_PRINCIPAL_LOCAL};
    struct hd_message messages[2];
    const char *prompt;
    char *owned = NULL;
    enum hd_app_show show = app->json               ? HD_SHOW_NOTHING
                            : isatty(STDOUT_FILENO) ? HD_SHOW_TERMINAL
                                                    : HD_SHOW_PIPE;
    hd_app_answer_init(&answer);
    enum hd_err err = get_prompt(&prompt, &owned, app, &msg);
    if (!err)
        err = hd_app_engine(&engine, &info, app, 1, 0, &msg);
    if (!err) {
        hd_app_catch_interrupt();
        fill_request(&request, app, prompt, messages);
        err = hd_app_thinking(&request, app, &msg);
    }
    if (!err)
        err = hd_app_answer_run(&answer, engine, &request, show, &msg);
    if (!err && app->json)
        err = print_json(&answer, info.load_s, &msg);
    else if (!err)
        putchar('\n');
    hd_engine_free(engine);
    hd_app_answer_dispose(&answer);
    free(owned);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
