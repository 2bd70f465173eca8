/* The API over loopback sockets, with a tiny engine and knowledge base behind it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/api_impl.h"
#include "base/clock.h"
#include "fake_engine.h"
#include "fake_kb.h"

static struct hd_engine *engine;
static struct hd_api *api;

#define USER(text) "{\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]"
#define CHAT "/v1/chat/completions"

static void start_with(const char *key, int max_sessions)
{
    static const struct hd_api_file files[] = {{"index.html", "text/html", "<p>page</p>", 11},
                                               {"app.js", "text/javascript", "1", 1}};
    struct hd_engine_options engine_options = HD_ENGINE_OPTIONS_DEFAULT;
    struct hd_errmsg msg;
    engine_options.max_sessions = max_sessions;
    assert_int_equal(hd_engine_new(&engine, &engine_options, &msg), HD_OK);
    struct hd_api_options options = {.engine = engine,
                                     .kb_dir = "/nonexistent",
                                     .host = "127.0.0.1",
                                     .body_max = 100000,
                                     .max_sessions = max_sessions,
                                     .max_queue = 0,
                                     .api_key = key,
                                     .files = files,
                                     .n_file = 2};
    assert_int_equal(hd_api_new(&api, &options, &msg), HD_OK);
    hd_api_set_ready(api);
}

static int setup(void **state)
{
    signal(SIGPIPE, SIG_IGN);
    start_with(NULL, 4);
    return 0;
}

static int setup_key(void **state)
{
    start_with("s3cret", 4);
    return 0;
}

static int teardown(void **state)
{
    hd_api_free(api);
    hd_engine_free(engine);
    api = NULL;
    return 0;
}

static int dial(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)hd_api_port(api)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static void send_request(int fd, const char *method, const char *path, const char *headers,
                         const char *body)
{
    static char text[200000];
    int n = snprintf(text, sizeof text,
                     "%s %s HTTP/1.1\r\n%s%sConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                     method, path, strstr(headers, "Host:") ? "" : "Host: localhost\r\n", headers,
                     strlen(body), body);
    for (int sent = 0; sent < n;) {
        ssize_t k = send(fd, text + sent, (size_t)(n - sent), MSG_NOSIGNAL);
        if (k <= 0)
            return;
        sent += (int)k;
    }
}

static char got[400000];

static int receive(int fd, const char *until)
{
    size_t n = 0;
    double end = hd_clock_seconds() + 30;
    got[0] = 0;
    while (hd_clock_seconds() < end && n + 1 < sizeof got && !(until && strstr(got, until))) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 50) != 1)
            continue;
        ssize_t k = recv(fd, got + n, sizeof got - 1 - n, 0);
        if (k <= 0)
            break;
        n += (size_t)k;
        got[n] = 0;
    }
    return atoi(got + (n > 9 ? 9 : 0));
}

static int call_with(const char *method, const char *path, const char *headers, const char *body)
{
    int fd = dial();
    send_request(fd, method, path, headers, body);
    int status = receive(fd, NULL);
    close(fd);
    return status;
}

static int call(const char *method, const char *path, const char *body)
{
    return call_with(method, path, "", body);
}

static json_t *body_json(void)
{
    const char *body = strstr(got, "\r\n\r\n");
    assert_non_null(body);
    json_t *json = json_loads(body + 4, JSON_REJECT_DUPLICATES, NULL);
    if (!json)
        fail_msg("not JSON: %s", body);
    return json;
}

static void assert_error(const char *code, const char *param)
{
    json_t *json = body_json(), *error = json_object_get(json, "error");
    assert_true(json_is_string(json_object_get(error, "message")));
    assert_true(json_is_string(json_object_get(error, "type")));
    const char *have = json_string_value(json_object_get(error, "code"));
    if (!have || strcmp(have, code))
        fail_msg("wanted %s: %s", code, strstr(got, "\r\n\r\n"));
    if (param)
        assert_string_equal(json_string_value(json_object_get(error, "param")), param);
    json_decref(json);
}

static void assert_has(const char *text)
{
    if (!strstr(got, text))
        fail_msg("missing %s in %s", text, got);
}

/* --- tests -------------------------------------------------------------------------------------
 */

static void test_chat(void **state)
{
    assert_int_equal(call("POST", CHAT, USER("think twice") ",\"max_tokens\":3,\"seed\":9}"), 200);
    json_t *json = body_json();
    const char *object, *role, *content, *reasoning, *finish, *model;
    int prompt, completion, total, cached, thought;
    assert_int_equal(
        json_unpack(json, "{s:s,s:s,s:[{s:s,s:{s:s,s:s,s:s}}],s:{s:i,s:i,s:i,s:{s:i},s:{s:i}}}",
                    "object", &object, "model", &model, "choices", "finish_reason", &finish,
                    "message", "role", &role, "content", &content, "reasoning_content", &reasoning,
                    "usage", "prompt_tokens", &prompt, "completion_tokens", &completion,
                    "total_tokens", &total, "prompt_tokens_details", "cached_tokens", &cached,
                    "completion_tokens_details", "reasoning_tokens", &thought),
        0);
    assert_string_equal(object, "chat.completion");
    assert_string_equal(model, "tiny:1m");
    assert_string_equal(role, "assistant");
    assert_string_equal(reasoning, "词0 ");
    assert_string_equal(content, "词1 词2 ");
    assert_string_equal(finish, "length");
    assert_int_equal(prompt + completion, total);
    assert_int_equal(completion, 3);
    assert_int_equal(cached, 1);
    assert_int_equal(thought, 1);
    assert_true(engine->last_sampling.seed == 9);
    json_decref(json);
}

static void test_stream(void **state)
{
    assert_int_equal(call("POST", CHAT,
                          USER("think") ",\"stream\":true,\"stream_options\":{\"include_usage\":"
                                        "true}}"),
                     200);
    assert_has("Content-Type: text/event-stream");
    assert_has("id: 0\ndata: {\"id\":\"chatcmpl-");
    assert_has("\"delta\":{\"role\":\"assistant\",\"content\":\"\"}");
    assert_has("\"delta\":{\"reasoning_content\":\"词0 \"}");
    assert_has("\"delta\":{\"content\":\"词4 \"}");
    assert_has("\"finish_reason\":\"stop\"");
    assert_has("\"choices\":[],\"usage\":{");
    assert_has("data: [DONE]\n\n");
    assert_true(strstr(got, "\"finish_reason\":\"stop\"") < strstr(got, "\"usage\""));
    call("POST", CHAT, USER("plain") ",\"stream\":true}");
    assert_null(strstr(got, "usage"));
    call("POST", CHAT, USER("fail") ",\"stream\":true}");
    assert_has("data: {\"error\":{\"message\":\"the deadline passed\",\"type\":\"server_error\"");
    assert_has("data: [DONE]\n\n");
}

#define TOOLS ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f1\"}}]"

static void test_tool_calls(void **state)
{
    const char *id[2], *name[2], *finish, *content;
    assert_int_equal(call("POST", CHAT, USER("hi") TOOLS "}"), 200);
    json_t *json = body_json();
    assert_int_equal(json_unpack(json, "{s:[{s:s,s:{s:s,s:[{s:s,s:{s:s}},{s:s,s:{s:s}}]}}]}",
                                 "choices", "finish_reason", &finish, "message", "content",
                                 &content, "tool_calls", "id", &id[0], "function", "name", &name[0],
                                 "id", &id[1], "function", "name", &name[1]),
                     0);
    assert_string_equal(finish, "tool_calls");
    assert_string_equal(content, "词0 词3 词4 ");
    assert_string_equal(name[0], "f1");
    assert_string_equal(name[1], "f2");
    assert_int_equal(strncmp(id[0], "call_", 5), 0);
    assert_string_not_equal(id[0], id[1]);
    json_decref(json);
    call("POST", CHAT, USER("hi") TOOLS ",\"stream\":true}");
    assert_has("\"delta\":{\"tool_calls\":[{\"id\":\"call_");
    assert_has("\"function\":{\"name\":\"f1\",\"arguments\":\"{}\"},\"index\":0}]}");
    assert_has("\"function\":{\"name\":\"f2\",\"arguments\":\"{}\"},\"index\":1}]}");
    assert_has("\"finish_reason\":\"tool_calls\"");
    call("POST", CHAT, USER("hi") TOOLS ",\"tool_choice\":\"none\"}");
    assert_has("\"finish_reason\":\"stop\"");
    assert_int_equal(call("POST", CHAT, USER("hi") TOOLS ",\"knowledge_base\":\"house\"}"), 400);
    assert_has("\"param\":\"tools\"");
}

static void test_completions(void **state)
{
    assert_int_equal(call("POST", "/v1/completions", "{\"prompt\":\"hi\"}"), 200);
    assert_has("\"object\":\"text_completion\"");
    assert_has("\"text\":\"词0 词1 词2 词3 词4 \"");
    assert_int_equal(call("POST", "/v1/completions", "{\"prompt\":[1,2,3],\"stream\":true}"), 200);
    assert_has("\"text\":\"词4 \"");
}

static void test_errors(void **state)
{
    assert_int_equal(call("POST", CHAT, "{"), 400);
    assert_error("invalid_json", NULL);
    assert_int_equal(call("POST", CHAT, USER("x") ",\"temperatur\":1}"), 400);
    assert_error("unknown_parameter", "temperatur");
    assert_int_equal(call("POST", CHAT, USER("x") ",\"model\":\"gpt\"}"), 404);
    assert_error("model_not_found", "model");
    assert_int_equal(call("GET", "/v1/nothing", ""), 404);
    assert_error("not_found", NULL);
    assert_int_equal(call("GET", CHAT, ""), 405);
    assert_error("method_not_allowed", NULL);
    assert_has("Allow: POST");
    assert_int_equal(call("POST", CHAT, USER("fail") "}"), 504);
    char *big = calloc(1, 150001);
    memset(big, ' ', 150000);
    assert_int_equal(call("POST", CHAT, big), 413);
    assert_error("body_too_large", NULL);
    snprintf(big, 1500, "{\"messages\":[{\"role\":\"user\",\"content\":\"%01200d\"}]}", 1);
    assert_int_equal(call("POST", CHAT, big), 400);
    assert_error("context_length_exceeded", "messages");
    free(big);
    assert_has("X-Content-Type-Options: nosniff");
    assert_has("Content-Security-Policy: default-src 'none'");
}

static void test_sources(void **state)
{
    assert_int_equal(call_with("GET", "/v1/models", "Host: evil.example\r\n", ""), 403);
    assert_error("host_not_allowed", NULL);
    assert_int_equal(call_with("GET", "/v1/models", "Host: 127.0.0.1:99\r\n", ""), 200);
    assert_int_equal(call_with("POST", CHAT, "Origin: http://evil.example\r\n", USER("x") "}"),
                     403);
    assert_error("origin_not_allowed", NULL);
    assert_int_equal(call_with("POST", CHAT, "Origin: http://localhost\r\n", USER("x") "}"), 200);
    assert_int_equal(call("GET", "/", ""), 200);
    assert_has("<p>page</p>");
    assert_int_equal(call("GET", "/app.js", ""), 200);
    assert_int_equal(call("GET", "/..%2fetc", ""), 404);
}

static void test_key(void **state)
{
    assert_int_equal(call("GET", "/v1/models", ""), 401);
    assert_error("invalid_api_key", NULL);
    assert_has("WWW-Authenticate: Bearer");
    assert_int_equal(call_with("GET", "/v1/models", "Authorization: Bearer s3cre\r\n", ""), 401);
    assert_int_equal(call_with("GET", "/v1/models", "Authorization: Bearer s3crets\r\n", ""), 401);
    assert_int_equal(call_with("GET", "/v1/models", "Authorization: Basic s3cret\r\n", ""), 401);
    assert_int_equal(call_with("GET", "/v1/models", "Authorization: Bearer s3cret\r\n", ""), 200);
    assert_int_equal(call_with("GET", "/v1/models", "x-api-key: s3cret\r\n", ""), 200);
    assert_int_equal(call_with("GET", "/v1/models", "x-api-key: s3cre\r\n", ""), 401);
    assert_int_equal(call("POST", "/v1/messages", USER("x") ",\"max_tokens\":1}"), 401);
    assert_has("{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\",\"message\":");
    assert_int_equal(call("GET", "/api/tags", ""), 401);
    assert_has("{\"error\":\"an API key is needed");
    assert_int_equal(call("POST", CHAT, USER("x") "}"), 401);
    assert_int_equal(call("GET", "/metrics", ""), 401);
    assert_int_equal(call("GET", "/healthz", ""), 200);
    assert_int_equal(call("GET", "/", ""), 200);
}

static void test_interleaving(void **state)
{
    int fd[3];
    for (int i = 0; i < 3; i++) {
        fd[i] = dial();
        send_request(fd[i], "POST", CHAT, "", USER("hi") ",\"stream\":true,\"max_tokens\":60}");
    }
    for (int i = 0; i < 3; i++) { /* each has begun before the first is at its end */
        receive(fd[i], "词3 ");
        assert_null(strstr(got, "[DONE]"));
    }
    for (int i = 0; i < 3; i++) {
        receive(fd[i], "[DONE]");
        assert_has("词59 ");
        close(fd[i]);
    }
}

static void test_disconnect_cancels(void **state)
{
    struct hd_engine_stats stats;
    for (int stream = 0; stream < 2; stream++) {
        hd_engine_stats(engine, &stats);
        uint64_t before = stats.cancelled;
        int fd = dial();
        send_request(fd, "POST", CHAT, "",
                     stream ? USER("forever") ",\"stream\":true}" : USER("forever") "}");
        if (stream)
            receive(fd, "词3 ");
        else
            usleep(100000);
        double began = hd_clock_seconds();
        close(fd);
        do {
            usleep(5000);
            hd_engine_stats(engine, &stats);
        } while (stats.cancelled == before && hd_clock_seconds() - began < 2);
        assert_int_equal(stats.cancelled, before + 1);
        assert_true(hd_clock_seconds() - began < 1);
    }
    call("GET", "/metrics", "");
    assert_has("holdfast_cancelled_total{phase=\"decode\"} 2\n");
    assert_has("route=\"/v1/chat/completions\",method=\"POST\",code=\"499\"} 2\n");
}

static void test_full_queue(void **state)
{
    int fd[4];
    for (int i = 0; i < 4; i++) {
        fd[i] = dial();
        send_request(fd[i], "POST", CHAT, "", USER("forever") ",\"stream\":true}");
        receive(fd[i], "词0 ");
    }
    assert_int_equal(call("POST", CHAT, USER("x") "}"), 429);
    assert_error("rate_limit_exceeded", NULL);
    assert_has("Retry-After: ");
    assert_int_equal(call("GET", "/v1/models", ""), 200); /* the rest still answers */
    for (int i = 0; i < 4; i++)
        close(fd[i]);
    for (int i = 0, status = 429; i < 100 && status == 429; i++) {
        usleep(10000);
        status = call("POST", CHAT, USER("x") "}");
    }
    assert_has("HTTP/1.1 200");
}

static void test_health(void **state)
{
    assert_int_equal(call("GET", "/healthz", ""), 200);
    assert_int_equal(call("GET", "/readyz", ""), 200);
    assert_int_equal(call("GET", "/startupz", ""), 200);
    atomic_store(&api->ready, false);
    hd_api_set_stage(api, "tiny:1m", 0, 1);
    assert_int_equal(call("GET", "/startupz", ""), 503);
    assert_has("\"stage\":\"weights\"");
    assert_has("\"percent\":25.0,\"eta_seconds\":3.0");
    assert_has("\"id\":\"tiny:1m\",\"bytes\":30,\"bytes_total\":120");
    assert_int_equal(call("POST", "/tokenize", "{\"content\":\"x\"}"), 200); /* needs no weights */
    assert_int_equal(call("GET", "/readyz", ""), 503);
    assert_int_equal(call("POST", CHAT, USER("x") "}"), 503);
    assert_error("loading", NULL);
    assert_has("Retry-After: ");
    assert_int_equal(call("GET", "/healthz", ""), 200);
    atomic_store(&api->ready, true);
    call("GET", "/metrics", "");
    assert_has("# TYPE holdfast_ttft_seconds histogram");
    assert_has("holdfast_build_info{");
    assert_has("holdfast_ready 1\n");
}

static void test_models_and_tokens(void **state)
{
    assert_int_equal(call("GET", "/v1/models", ""), 200);
    assert_has("\"id\":\"tiny:1m\"");
    assert_has("\"id\":\"tiny:1m@handbook\"");
    assert_int_equal(call("GET", "/v1/models/tiny:1m", ""), 200);
    assert_int_equal(call("GET", "/v1/models/other", ""), 404);
    assert_int_equal(call("POST", "/tokenize", "{\"content\":\"ab\"}"), 200);
    assert_has("\"tokens\":[97,98]");
    assert_int_equal(call("POST", "/detokenize", "{\"tokens\":[97,98]}"), 200);
    assert_has("\"content\":\"ab\"");
    assert_int_equal(call("POST", "/detokenize", "{\"tokens\":[-1]}"), 400);
    assert_error("invalid_type", "tokens");
    assert_int_equal(call("POST", "/tokenize", "{}"), 400);
}

static void test_grounded(void **state)
{
    assert_int_equal(call("POST", CHAT, USER("days?") ",\"knowledge_base\":\"handbook\"}"), 200);
    assert_has("\"content\":\"二十天。[citation:1]\"");
    assert_has("\"citations\":[{\"n\":1,");
    assert_has("\"found\":true");
    assert_has("\"prompt_tokens\":30");
    assert_has("\"model\":\"tiny:1m\"");
    assert_int_equal(call("POST", CHAT,
                          USER("days?") ",\"model\":\"tiny:1m@handbook\",\"stream\":true,"
                                        "\"stream_options\":{\"include_usage\":true}}"),
                     200);
    assert_has("二十天");
    const char *citations = strstr(got, "\"citations\":["), *usage = strstr(got, "\"usage\":");
    assert_true(citations && usage && citations < usage);
    assert_int_equal(call("POST", CHAT, USER("q") ",\"model\":\"none@handbook\"}"), 200);
    assert_has("\"quoted\":true");
    assert_has("\"model\":\"none\"");
    assert_int_equal(call("POST", CHAT, USER("q") ",\"knowledge_base\":\"other\"}"), 404);
    assert_error("knowledge_base_not_found", "knowledge_base");
    assert_int_equal(call("POST", CHAT, USER("q") ",\"model\":\"m@a\",\"knowledge_base\":\"b\"}"),
                     400);
    assert_error("invalid_value", "knowledge_base");
    assert_int_equal(call("POST", CHAT, USER("fail") ",\"knowledge_base\":\"handbook\"}"), 200);
    engine->n_model = 0; /* no model at all: quoting */
    assert_int_equal(call("POST", CHAT, USER("q") ",\"knowledge_base\":\"handbook\"}"), 200);
    assert_has("\"quoted\":true");
    assert_int_equal(call("POST", CHAT, USER("q") "}"), 404);
    assert_int_equal(call("GET", "/v1/models", ""), 200);
    assert_has("\"id\":\"none@handbook\"");
    engine->n_model = 1;
}

static void test_knowledge_bases(void **state)
{
#define KB "/v1/knowledge_bases"
    assert_int_equal(call("GET", KB, ""), 200);
    assert_has("\"id\":\"handbook\"");
    assert_int_equal(call("POST", KB, "{\"name\":\"handbook\"}"), 409);
    assert_error("already_exists", NULL);
    assert_int_equal(call("GET", KB "/handbook", ""), 200);
    assert_int_equal(call("GET", KB "/none", ""), 404);
    assert_int_equal(call("GET", KB "/handbook/documents", ""), 200);
    assert_int_equal(call("POST", KB "/handbook/documents", "{\"name\":\"a.md\",\"text\":\"# A\"}"),
                     201);
    assert_has("\"id\":7");
    assert_string_equal(fake_added_name, "a.md");
    assert_int_equal(call("POST", KB "/handbook/documents", "{\"name\":\"a.md\"}"), 400);
    assert_error("invalid_type", "text");
    assert_int_equal(call_with("POST", KB "/handbook/documents",
                               "Content-Type: multipart/form-data; boundary=B\r\n",
                               "--B\r\nContent-Disposition: form-data; name=\"file\"; "
                               "filename=\"b.txt\"\r\n\r\nhello\r\n--B--\r\n"),
                     201);
    assert_string_equal(fake_added_name, "b.txt");
    assert_int_equal(fake_added_len, 5);
    assert_int_equal(call_with("POST", KB "/handbook/documents",
                               "Content-Type: multipart/form-data; boundary=B\r\n", "--X"),
                     400);
    assert_error("invalid_multipart", NULL);
    assert_int_equal(call("DELETE", KB "/handbook/documents/7", ""), 200);
    assert_int_equal(call("DELETE", KB "/handbook/documents/8", ""), 404);
    assert_int_equal(call("DELETE", KB "/handbook/documents/7x", ""), 404);
    assert_int_equal(call("GET", KB "/handbook/documents/7", ""), 200);
    assert_int_equal(call("POST", KB "/handbook/search", "{\"query\":\"days\",\"top\":3}"), 200);
    assert_has("\"results\":[]");
    assert_int_equal(call("POST", KB "/handbook/search", "{\"query\":\"days\",\"top\":0}"), 400);
    assert_int_equal(call("DELETE", KB "/handbook", ""), 200);
}

enum { DRAIN_S = 60 }; /* a busy machine takes its time; the end must come long before */

static void *drain(void *arg)
{
    *(int *)arg = hd_api_drain(api, DRAIN_S);
    return NULL;
}

static void test_drain(void **state)
{
    pthread_t thread;
    int left = -1, fd = dial();
    send_request(fd, "POST", CHAT, "", USER("x") ",\"stream\":true,\"max_tokens\":100}");
    receive(fd, "词3 ");
    pthread_create(&thread, NULL, drain, &left);
    double began = hd_clock_seconds();
    while (call("GET", "/readyz", "") == 200 && hd_clock_seconds() - began < DRAIN_S / 4)
        usleep(5000);
    assert_int_equal(call("POST", CHAT, USER("x") "}"), 503);
    assert_error("draining", NULL);
    assert_int_equal(call("GET", "/readyz", ""), 503);
    assert_int_equal(call("GET", "/healthz", ""), 200); /* draining is not dead */
    receive(fd, "[DONE]");
    assert_has("词99 ");
    close(fd);
    pthread_join(thread, NULL);
    assert_int_equal(left, 0);
    assert_true(hd_clock_seconds() - began < DRAIN_S / 2); /* it ended when the last stream did */
}

/* Ends with clients connected and generations running: nothing leaks, nothing hangs. */
static void test_free_while_running(void **state)
{
    int fd[3];
    for (int i = 0; i < 3; i++) {
        fd[i] = dial();
        send_request(fd[i], "POST", CHAT, "",
                     i == 0   ? USER("forever") "}"
                     : i == 1 ? USER("forever") ",\"stream\":true}"
                              : USER("forever") ",\"knowledge_base\":\"handbook\"}");
    }
    usleep(50000);
    double began = hd_clock_seconds();
    hd_api_free(api);
    api = NULL;
    assert_true(hd_clock_seconds() - began < 10);
    for (int i = 0; i < 3; i++)
        close(fd[i]);
}

/* The events' names in order, without repetitions. */
static void assert_events(const char *const *names, size_t n)
{
    const char *at = got, *last = "";
    size_t i = 0, len = 0;
    while ((at = strstr(at, "\nevent: "))) {
        at += 8;
        size_t k = strcspn(at, "\n");
        if (k == len && !strncmp(at, last, k))
            continue;
        if (i >= n || strlen(names[i]) != k || strncmp(at, names[i], k))
            fail_msg("event %zu is %.*s, not %s", i, (int)k, at, i < n ? names[i] : "the end");
        last = at;
        len = k;
        i++;
    }
    assert_int_equal(i, n);
}

#define TOOL_CHAT "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f1\"}}]"

static void test_anthropic(void **state)
{
    static const char *const thought[] = {"message_start",       "ping",
                                          "content_block_start", "content_block_delta",
                                          "content_block_stop",  "content_block_start",
                                          "content_block_delta", "content_block_stop",
                                          "message_delta",       "message_stop"};
    static const char *const failed[] = {"message_start", "ping", "content_block_start",
                                         "content_block_delta", "error"};
    const char *path = "/v1/messages";
    assert_int_equal(call("POST", path, USER("think") ",\"max_tokens\":3,\"system\":\"S\"}"), 200);
    assert_string_equal(engine->last_prompt, "think");
    json_t *body = body_json(), *content = json_object_get(body, "content");
    assert_int_equal(json_array_size(content), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(content, 0), "thinking")),
                        "词0 ");
    assert_string_equal(json_string_value(json_object_get(json_array_get(content, 1), "text")),
                        "词1 词2 ");
    assert_string_equal(json_string_value(json_object_get(body, "stop_reason")), "max_tokens");
    json_decref(body);
    call("POST", path, USER("think") ",\"max_tokens\":3,\"stream\":true}");
    assert_events(thought, sizeof thought / sizeof *thought);
    assert_has("\"delta\":{\"type\":\"text_delta\",\"text\":\"词2 \"}");
    call("POST", path, USER("fail") ",\"max_tokens\":9,\"stream\":true}");
    assert_events(failed, sizeof failed / sizeof *failed);
    assert_has("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"");
    call("POST", path,
         "{\"max_tokens\":4,\"stream\":true,\"tools\":[{\"name\":\"f1\",\"input_schema\":{}}],"
         "\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":["
         "{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"\"},{\"type\":\"tool_use\","
         "\"id\":\"i\",\"name\":\"f1\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":"
         "\"tool_result\",\"tool_use_id\":\"i\",\"content\":\"r\"},{\"type\":\"text\",\"text\":"
         "\"b\"}]}]}");
    assert_has("\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_");
    assert_has("\"partial_json\":\"{}\"");
    assert_has("\"stop_reason\":\"max_tokens\"");
    assert_int_equal(call("POST", path, USER("x") "}"), 400);
    assert_has("\"type\":\"invalid_request_error\",\"message\":\"max_tokens: is missing\"");
    assert_int_equal(
        call("POST", path,
             USER("x") ",\"max_tokens\":1,\"tools\":[{\"name\":\"a b\",\"input_schema\":{}}]}"),
        400);
    assert_has("\"message\":\"tools[0].name: ");
    assert_int_equal(call("POST", "/v1/messages/count_tokens", USER("four") ",\"system\":\"S\"}"),
                     200);
    assert_has("{\"input_tokens\":5}");
    assert_int_equal(call("GET", path, ""), 405);
    assert_has("{\"type\":\"error\",");
}

static void test_ollama(void **state)
{
    assert_int_equal(call("POST", "/api/chat", USER("think") ",\"stream\":false}"), 200);
    assert_has("\"message\":{\"role\":\"assistant\",\"content\":\"词1 词2 词3 词4 \",\"thinking\":"
               "\"词0 \"}");
    assert_has("\"done_reason\":\"stop\"");
    call("POST", "/api/chat",
         USER("x") ",\"options\":{\"num_predict\":2,\"seed\":5,\"num_ctx\":9}}");
    assert_has("Content-Type: application/x-ndjson");
    assert_has("\"done\":false,\"message\":{\"role\":\"assistant\",\"content\":\"词1 \"}}\n");
    assert_has("\"done_reason\":\"length\"");
    assert_int_equal(engine->last_sampling.seed, 5);
    assert_int_equal(engine->last_n_max, 2);
    call("POST", "/api/chat", USER("fail") "}");
    assert_has("{\"error\":\"the deadline passed\"}\n");
    call("POST", "/api/chat", USER("x") "," TOOL_CHAT "}");
    assert_has("\"function\":{\"index\":0,\"name\":\"f1\",\"arguments\":{}}");
    call("POST", "/api/generate", "{\"prompt\":\"p\",\"system\":\"S\",\"stream\":false}");
    assert_string_equal(engine->last_prompt, "p");
    assert_has("\"response\":\"词0 ");
    call("POST", "/api/generate", "{\"prompt\":\"p\",\"raw\":true,\"stream\":false}");
    assert_string_equal(engine->last_prompt, "p");
    assert_int_equal(call("POST", "/api/chat", USER("x") ",\"options\":{\"mirostat\":1}}"), 400);
    assert_has("{\"error\":\"options.mirostat: is not supported\"}");
    assert_int_equal(call("POST", "/api/chat", USER("x") ",\"options\":{\"num_predict\":0}}"), 400);
    assert_has("{\"error\":\"options.num_predict: ");
    assert_int_equal(call("GET", "/api/absent", ""), 404);
    assert_has("{\"error\":\"");
    assert_int_equal(call("GET", "/api/tags", ""), 200);
    assert_int_equal(call("POST", "/api/show", "{\"model\":\"absent\"}"), 404);
}

static void test_responses(void **state)
{
    static const char *const names[] = {"response.created",
                                        "response.in_progress",
                                        "response.output_item.added",
                                        "response.content_part.added",
                                        "response.reasoning_text.delta",
                                        "response.reasoning_text.done",
                                        "response.content_part.done",
                                        "response.output_item.done",
                                        "response.output_item.added",
                                        "response.content_part.added",
                                        "response.output_text.delta",
                                        "response.output_text.done",
                                        "response.content_part.done",
                                        "response.output_item.done",
                                        "response.completed"};
    const char *path = "/v1/responses";
    assert_int_equal(call("POST", path, "{\"input\":\"think\",\"instructions\":\"S\"}"), 200);
    assert_string_equal(engine->last_prompt, "think");
    json_t *body = body_json(), *output = json_object_get(body, "output");
    assert_int_equal(json_array_size(output), 2);
    assert_string_equal(json_string_value(json_object_get(body, "status")), "completed");
    json_decref(body);
    call("POST", path, "{\"input\":\"think\",\"stream\":true}");
    assert_events(names, sizeof names / sizeof *names);
    assert_has("\"text\":\"词1 词2 词3 词4 \"");
    call("POST", path, "{\"input\":\"fail\",\"stream\":true}");
    assert_has("event: response.failed\n");
    assert_has("\"message\":\"the deadline passed\"");
    call("POST", path,
         "{\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"type\":\"function_call\","
         "\"call_id\":\"c\",\"name\":\"f1\",\"arguments\":\"{}\"},{\"type\":"
         "\"function_call_output\",\"call_id\":\"c\",\"output\":\"r\"}],\"tools\":[{\"type\":"
         "\"function\",\"name\":\"f1\"}]}");
    assert_has("\"type\":\"function_call\",\"status\":\"completed\",\"call_id\":\"call_");
    assert_int_equal(call("POST", path, "{\"input\":\"x\",\"previous_response_id\":\"r\"}"), 400);
    assert_error("unsupported_value", "previous_response_id");
    assert_int_equal(call("POST", path, "{\"input\":\"x\",\"max_output_tokens\":0}"), 400);
    assert_error("invalid_value", "max_output_tokens");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_chat),
        TEST(test_tool_calls),
        TEST(test_stream),
        TEST(test_completions),
        TEST(test_anthropic),
        TEST(test_ollama),
        TEST(test_responses),
        TEST(test_errors),
        TEST(test_sources),
        cmocka_unit_test_setup_teardown(test_key, setup_key, teardown),
        TEST(test_interleaving),
        TEST(test_disconnect_cancels),
        TEST(test_full_queue),
        TEST(test_health),
        TEST(test_models_and_tokens),
        TEST(test_grounded),
        TEST(test_knowledge_bases),
        TEST(test_drain),
        TEST(test_free_while_running),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
