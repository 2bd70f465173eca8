/* What the commands that run one model share: an engine with the model loaded, sampling options,
 * and one answer streamed to the terminal. */
#ifndef HD_APP_MODEL_RUN_H
#define HD_APP_MODEL_RUN_H

#include <stdbool.h>

#include "app.h"
#include "base/buf.h"
#include "holdfast/holdfast.h"

#define HD_DEFAULT_ENCODER "e5-small" /* of `embed` without -m */

/* Starts an engine as --kernels, -t, --kv-bytes and --max-batch-tokens say, and loads -m (or the
 * installed default). n_ctx 0: what --ctx says. */
enum hd_err hd_app_engine(struct hd_engine **out, struct hd_model_info *info,
                          const struct hd_app *app, int max_sessions, int n_ctx,
                          struct hd_errmsg *msg);
/* The same with other kernels than --kernels names. */
enum hd_err hd_app_engine_kernels(struct hd_engine **out, struct hd_model_info *info,
                                  const struct hd_app *app, const char *kernels, int max_sessions,
                                  int n_ctx, struct hd_errmsg *msg);
/* "1.5b  45 % of 980 MB, 3 s left": how far loading is, for a line of text. */
void hd_app_progress_text(char out[160], const struct hd_load_progress *progress);
/* Waits until a prompt need not wait for the disk; what takes longer than a second shows a line on
 * stderr, if that is a terminal. */
void hd_app_wait_ready(struct hd_engine *engine, size_t model);
/* --temp, --top-p, --top-k, --min-p, --repeat-penalty and --seed. */
struct hd_sampling hd_app_sampling(const struct hd_app *app);

/* --no-think, --reasoning-effort, --max-thinking-tokens and --allow-loops. USAGE for an effort that
 * does not exist. */
enum hd_err hd_app_thinking(struct hd_request *out, const struct hd_app *app,
                            struct hd_errmsg *msg);

/* SIGINT is counted instead of ending the program. */
void hd_app_catch_interrupt(void);
bool hd_app_interrupted(void); /* since the last call */

enum hd_app_show { HD_SHOW_NOTHING, HD_SHOW_PIPE, HD_SHOW_TERMINAL };

struct hd_app_answer {
    struct hd_buf answer, reasoning;
    struct hd_result result;
};
void hd_app_answer_init(struct hd_app_answer *answer);
void hd_app_answer_dispose(struct hd_app_answer *answer);
/* Runs the request to its end. TERMINAL streams both, the thought dimmed; PIPE streams the answer
 * to stdout and the thought to stderr. Ctrl-C cancels it: result.finish is then CANCELLED and the
 * call returns OK. */
enum hd_err hd_app_answer_run(struct hd_app_answer *answer, struct hd_engine *engine,
                              const struct hd_request *request, enum hd_app_show show,
                              struct hd_errmsg *msg);
/* "stop", "length", "cancelled", "error". */
const char *hd_app_finish_name(enum hd_finish finish);

#endif
