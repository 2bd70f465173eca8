/* holdfast bench: how fast this machine runs a model, and how fast it could. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "model_run.h"

static size_t peak_rss(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (size_t)usage.ru_maxrss * 1024;
}

static enum hd_err parse_count(int *out, const char *text, int def, struct hd_errmsg *msg)
{
    char *end;
    *out = def;
    if (!text)
        return HD_OK;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < 1 || value > 10000000)
        return hd_fail(msg, HD_ERR_USAGE, "bench: -p is \"%.40s\", must be a number of tokens",
                       text);
    *out = (int)value;
    return HD_OK;
}

static enum hd_err print_json(const struct hd_bench_result *r, const struct hd_model_info *info,
                              int batch, double decode_gbps)
{
    json_t *json = json_pack(
        "{s:f,s:f,s:f,s:i,s:i,s:s,s:I,s:f,s:f,s:f,s:I}", "load_s", info->load_s, "prefill_tps",
        r->prefill_tps, "decode_tps", r->decode_tps, "threads", r->n_thread, "batch", batch, "isa",
        info->backend, "weight_bytes_per_token", (json_int_t)info->weight_bytes_per_token,
        "probe_read_gbps", r->probe_read_gbps, "decode_read_gbps", decode_gbps, "probe_int8_tops",
        r->probe_int8_tops, "peak_rss_bytes", (json_int_t)peak_rss());
    if (!json)
        return HD_ERR_NOMEM;
    json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
    return HD_OK;
}

static void print_text(const struct hd_bench_result *r, const struct hd_model_info *info, int batch,
                       int n_prompt, int n_gen, double decode_gbps)
{
    printf("%s, %s kernels, %d threads\n", info->path, info->backend, r->n_thread);
    printf("load     %8.2f s\n", info->load_s);
    printf("prompt   %8.1f tokens/s  (%d tokens)\n", r->prefill_tps, n_prompt);
    printf("answer   %8.1f tokens/s  (%d tokens, batch of %d)\n", r->decode_tps, n_gen, batch);
    printf("weights  %8.1f MB per token, read at %.1f GB/s of the %.1f GB/s that memory gives\n",
           (double)info->weight_bytes_per_token / 1e6, decode_gbps, r->probe_read_gbps);
    printf("integer product at best %.3f TOPS; peak memory %.0f MB\n", r->probe_int8_tops,
           (double)peak_rss() / 1e6);
}

int hd_cmd_bench(struct hd_app *app)
{
    struct hd_errmsg msg = {0};
    struct hd_engine *engine = NULL;
    struct hd_model_info info;
    struct hd_bench_result result;
    int batch = (int)hd_options_int(app->options, "batch"), n_prompt = 0;
    int n_gen = hd_options_str(app->options, "n") ? (int)hd_options_int(app->options, "n") : 64;
    int n_ctx = (int)hd_options_int(app->options, "ctx");
    enum hd_err err = parse_count(&n_prompt, hd_options_str(app->options, "prompt"), 512, &msg);
    if (!err)
        err = hd_app_engine(&engine, &info, app, batch, n_ctx ? n_ctx : n_prompt + n_gen, &msg);
    if (!err)
        err = hd_engine_bench(engine, NULL, n_prompt, n_gen, batch, &result, &msg);
    if (!err)
        err = hd_engine_model_info(engine, 0, &info); /* load_s: of the whole loading */
    if (!err) {
        double gbps = (double)info.weight_bytes_per_token * result.decode_tps / batch / 1e9;
        if (app->json)
            err = print_json(&result, &info, batch, gbps);
        else
            print_text(&result, &info, batch, n_prompt, n_gen, gbps);
    }
    hd_engine_free(engine);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
