/* Splitting text into words before merging: regexes in sequence, each on the pieces that the one
 * before left. PCRE2 with JIT; the patterns are the published ones, word for word. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "token/token_impl.h"

/* Bounds on what one match may cost, whatever the pattern and the text. */
enum { MATCH_LIMIT = 50000000, DEPTH_LIMIT = 100000, HEAP_LIMIT_KIB = 65536 };
enum { JIT_STACK_MIN = 32 * 1024, JIT_STACK_MAX = 16 * 1024 * 1024 };

/* --- the patterns by GGUF's names ------------------------------------------------------------- */

/* GPT-2 (openai/gpt-2, MIT). */
const char hd_token__gpt2_regex[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+"
                                    "| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* From the models' tokenizer.json. Qwen2 takes digits one at a time, Llama 3 up to three. */
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char qwen2_regex[] =
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
static const char llama3_regex[] = CONTRACTIONS
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
static const char deepseek_digits[] = "\\p{N}{1,3}";
static const char deepseek_cjk[] = "[一-龥\u3040-ゟ゠-ヿ]+";
static const char deepseek_main[] = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
                                    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
                                    "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

static const struct named {
    const char *name;
    bool nfc, ignore_merges;
    const char *regex[3];
} named[] = {
    {"deepseek-v3", false, false, {deepseek_digits, deepseek_cjk, deepseek_main}},
    {"deepseek-r1-qwen", true, false, {qwen2_regex}},
    {"qwen2", true, false, {qwen2_regex}},
    {"llama-bpe", false, true, {llama3_regex}},
    {"llama-v3", false, true, {llama3_regex}},
    {"llama3", false, true, {llama3_regex}},
    {"smollm", false, false, {"\\p{N}", hd_token__gpt2_regex}},
    {"gpt-2", false, false, {hd_token__gpt2_regex}},
};

enum hd_err hd_token__pretok_named(struct hd_tokenizer *tok, const char *name, size_t len,
                                   struct hd_errmsg *msg)
{
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        enum hd_err err = HD_OK;
        if (strlen(named[i].name) != len || memcmp(named[i].name, name, len) != 0)
            continue;
        tok->ignore_merges = named[i].ignore_merges;
        if (named[i].nfc)
            err = hd_token__normalizer_add(tok, "NFC");
        for (size_t k = 0; k < 3 && named[i].regex[k] && !err; k++)
            err = hd_token__pretok_add(&tok->pretok, named[i].regex[k], false, false, msg);
        return err;
    }
    return hd_fail(msg, HD_ERR_UNSUPPORTED,
                   "tokenizer.ggml.pre \"%.*s\": not supported (known: deepseek-v3, "
                   "deepseek-r1-qwen, qwen2, llama-bpe, smollm, gpt-2)",
                   (int)(len < 64 ? len : 64), name);
}

/* --- compiling -------------------------------------------------------------------------------- */

/* Oniguruma's \s is Unicode's White_Space; PCRE2's has U+180E as well. */
#define WHITE                                                                                      \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"             \
    "\\x{202f}\\x{205f}\\x{3000}"

/* Rewrites \s and \S to exactly Oniguruma's meaning. */
static enum hd_err translate(struct hd_buf *out, const char *regex)
{
    bool in_class = false;
    for (const char *p = regex; *p; p++) {
        if (*p == '\\' && p[1]) {
            if (p[1] == 's')
                hd_buf_puts(out, in_class ? WHITE : "[" WHITE "]");
            else if (p[1] == 'S' && !in_class)
                hd_buf_puts(out, "[^" WHITE "]");
            else
                hd_buf_append(out, p, 2);
            p++;
            continue;
        }
        if (*p == '[' && !in_class) {
            in_class = true;
            hd_buf_putc(out, *p);
            if (p[1] == '^')
                hd_buf_putc(out, *++p);
            if (p[1] == ']') /* a literal one */
                hd_buf_putc(out, *++p);
            continue;
        }
        if (*p == ']')
            in_class = false;
        hd_buf_putc(out, *p);
    }
    return out->err;
}

pcre2_code *hd_token__regex(const char *regex, struct hd_errmsg *msg)
{
    struct hd_buf pattern;
    PCRE2_UCHAR why[128];
    int code;
    PCRE2_SIZE at;
    hd_buf_init(&pattern, 65536);
    enum hd_err err = translate(&pattern, regex);
    if (err) {
        hd_buf_dispose(&pattern);
        hd_fail(msg, err, "pattern: %s", hd_err_text(err));
        return NULL;
    }
    pcre2_code *compiled = pcre2_compile(
        (PCRE2_SPTR)hd_buf_str(&pattern), pattern.len,
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    hd_buf_dispose(&pattern);
    if (!compiled) {
        pcre2_get_error_message(code, why, sizeof why);
        hd_fail(msg, HD_ERR_UNSUPPORTED, "pattern, at byte %zu: %s", at, why);
        return NULL;
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); /* without JIT it is only slower */
    return compiled;
}

enum hd_err hd_token__pretok_add(struct hd_token__pretok *pretok, const char *regex, bool removes,
                                 bool inverted, struct hd_errmsg *msg)
{
    struct hd_errmsg why = {0};
    if (pretok->n == HD_TOKEN_MAX_STAGES)
        return hd_fail(msg, HD_ERR_LIMIT, "pre_tokenizer: more than %d patterns in sequence",
                       HD_TOKEN_MAX_STAGES);
    pcre2_code *compiled = hd_token__regex(regex, &why);
    if (!compiled)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "pre_tokenizer: %.300s", why.text);
    pretok->stage[pretok->n++] =
        (struct hd_token__stage){.code = compiled, .removes = removes, .inverted = inverted};
    return HD_OK;
}

void hd_token__pretok_dispose(struct hd_token__pretok *pretok)
{
    for (size_t i = 0; i < pretok->n; i++)
        pcre2_code_free(pretok->stage[i].code);
    pretok->n = 0;
}

pcre2_match_context *hd_token__match_context(void)
{
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    if (context) {
        pcre2_set_match_limit(context, MATCH_LIMIT);
        pcre2_set_depth_limit(context, DEPTH_LIMIT);
        pcre2_set_heap_limit(context, HEAP_LIMIT_KIB);
    }
    return context;
}

/* --- matching --------------------------------------------------------------------------------- */

enum hd_err hd_token__work_init(struct hd_token__work *work, const struct hd_tokenizer *tok,
                                struct hd_ids *out, size_t len)
{
    *work = (struct hd_token__work){.tok = tok, .out = out};
    work->context = hd_token__match_context();
    if (!work->context)
        return HD_ERR_NOMEM;
    for (size_t i = 0; i < tok->pretok.n; i++)
        if (!(work->match[i] = pcre2_match_data_create(1, NULL)))
            return HD_ERR_NOMEM;
    if (len < 4096)
        return HD_OK;
    /* Short texts do with PCRE2's own 32 KiB and without remembering words. */
    work->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
    work->seen = calloc(HD_TOKEN_SEEN, sizeof *work->seen);
    if (!work->stack || !work->seen)
        return HD_ERR_NOMEM;
    pcre2_jit_stack_assign(work->context, NULL, work->stack);
    return HD_OK;
}

void hd_token__work_dispose(struct hd_token__work *work)
{
    for (size_t i = 0; i < HD_TOKEN_MAX_STAGES; i++)
        pcre2_match_data_free(work->match[i]);
    pcre2_match_context_free(work->context);
    pcre2_jit_stack_free(work->stack);
    free(work->seen);
    free(work->id);
    free(work->prev);
    free(work->next);
    free(work->rank);
    free(work->heap);
}

/* Runs stage i on a piece and hands what it leaves to the next one. The depth of recursion is the
 * number of stages, whatever the text. */
static enum hd_err run_stage(struct hd_token__work *work, size_t i, const char *text, size_t len)
{
    const struct hd_token__stage *stage = &work->tok->pretok.stage[i];
    size_t done = 0;
    enum hd_err err = HD_OK;
    if (!len)
        return HD_OK;
    if (i == work->tok->pretok.n)
        return hd_token__bpe(work, text, len);
    bool keeps_match = !stage->removes || stage->inverted;
    bool keeps_rest = !stage->removes || !stage->inverted;
    while (!err) {
        int rc = pcre2_match(stage->code, (PCRE2_SPTR)text, len, done,
                             PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, work->match[i], work->context);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(work->match[i]);
        if (rc < 0) {
            hd_log(HD_LOG_WARN, "token", "pre-tokenizer stage=%zu bytes=%zu error=%d", i, len, rc);
            return HD_ERR_LIMIT;
        }
        size_t begin = at[0], end = at[1];
        if (begin < done || end <= begin) /* \K in a lookahead may do that */
            return HD_ERR_LIMIT;
        if (keeps_rest)
            err = run_stage(work, i + 1, text + done, begin - done);
        if (!err && keeps_match)
            err = run_stage(work, i + 1, text + begin, end - begin);
        done = end;
    }
    return !err && keeps_rest ? run_stage(work, i + 1, text + done, len - done) : err;
}

enum hd_err hd_token__pretokenize(struct hd_token__work *work, const char *text, size_t len)
{
    return run_stage(work, 0, text, len);
}
