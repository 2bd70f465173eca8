/* Calls of functions in generated text.
 *
 *   DeepSeek
 * <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME⏎```json⏎ARGUMENTS⏎```<｜tool▁call▁end｜>…<｜tool▁calls▁end｜>
 *             (V3, R1, R1-0528), and
 * …<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS<｜tool▁call▁end｜>… (V3.1) Qwen2.5
 * <tool_call>⏎{"name": NAME, "arguments": ARGUMENTS}⏎</tool_call>, each call its own bare      the
 * whole answer is such an object, a list of them, or several (Llama 3.1, which says "parameters";
 * Qwen2.5-Coder, which may put them into a fence or <tools>)
 *
 * Arguments are passed on as the model wrote them; they must be a JSON object. Whatever is not
 * exactly a call is text. A bare call must name one of the functions that the request gave. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "token/token_impl.h"

#define CALLS_BEGIN "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL_BEGIN "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define SEP "<｜tool▁sep｜>"

static const struct mark {
    const char *begin, *end;
} marks[] = {{CALLS_BEGIN, CALLS_END}, {CALL_BEGIN, CALL_END}, {"<tool_call>", "</tool_call>"}};
enum { N_MARK = sizeof marks / sizeof *marks, N_DEEPSEEK = 2 };

static const char *const shown[] = {CALLS_BEGIN, CALLS_END,     CALL_BEGIN,     CALL_END,
                                    SEP,         "<tool_call>", "</tool_call>", "<|python_tag|>"};

const char *hd_token__call_mark(size_t i, bool in_answer)
{
    return i < (in_answer ? N_MARK : N_DEEPSEEK) ? marks[i].begin : NULL;
}

const char *hd_token__call_token(size_t i)
{
    return i < sizeof shown / sizeof *shown ? shown[i] : NULL;
}

struct span {
    const char *s;
    size_t len;
};

static struct span trim(struct span text)
{
    while (text.len && strchr(" \t\r\n", text.s[0])) {
        text.s++;
        text.len--;
    }
    while (text.len && strchr(" \t\r\n", text.s[text.len - 1]))
        text.len--;
    return text;
}

/* Takes `what` off the text's front; false where it does not stand there. */
static bool skip(struct span *text, const char *what)
{
    size_t n = strlen(what);
    if (text->len < n || memcmp(text->s, what, n) != 0)
        return false;
    text->s += n;
    text->len -= n;
    return true;
}

/* Splits at the first `what`: the part before it, and *text behind it. */
static bool cut(struct span *text, struct span *before, const char *what)
{
    const char *at = text->len ? memmem(text->s, text->len, what, strlen(what)) : NULL;
    if (!at)
        return false;
    *before = (struct span){text->s, (size_t)(at - text->s)};
    text->len -= before->len + strlen(what);
    text->s = at + strlen(what);
    return true;
}

/* --- JSON as it was written ------------------------------------------------------------------- */

/* Length of the JSON value at the front, by its brackets and quotes; 0 where it does not end. */
static size_t value_len(struct span text)
{
    size_t depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.s[i];
        if (quoted) {
            i += c == '\\';
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth <= 1)
                return depth ? i + 1 : i;
            depth--;
        } else if (!depth && strchr(", \t\r\n;", c)) {
            return i;
        }
        if (!quoted && !depth && c == '"')
            return i + 1;
    }
    return depth || quoted ? 0 : text.len;
}

/* The member's value as written, of an object that is known to be valid JSON. */
static bool member(struct span object, const char *key, struct span *out)
{
    struct span rest = trim(object);
    if (!skip(&rest, "{"))
        return false;
    for (;;) {
        rest = trim(rest);
        size_t n = value_len(rest);
        bool found = n == strlen(key) + 2 && !memcmp(rest.s + 1, key, n - 2);
        if (!n || *rest.s != '"')
            return false;
        rest = trim((struct span){rest.s + n, rest.len - n});
        if (!skip(&rest, ":"))
            return false;
        rest = trim(rest);
        n = value_len(rest);
        *out = (struct span){rest.s, n};
        if (found || !n)
            return found && n;
        rest = trim((struct span){rest.s + n, rest.len - n});
        if (!skip(&rest, ","))
            return false;
    }
}

static json_t *load(struct span text)
{
    return json_loadb(text.s, text.len, JSON_REJECT_DUPLICATES, NULL);
}

/* Appends {"name", "arguments"}; false where the arguments are no JSON object. */
static bool add(json_t *calls, struct span name, struct span arguments)
{
    arguments = trim(arguments);
    if (!arguments.len)
        arguments = (struct span){"{}", 2};
    json_t *parsed = load(arguments);
    bool fine = name.len && json_is_object(parsed) &&
                !json_array_append_new(calls, json_pack("{s:s%,s:s%}", "name", name.s, name.len,
                                                        "arguments", arguments.s, arguments.len));
    json_decref(parsed);
    return fine;
}

/* {"name", "arguments" or "parameters"}, maybe inside {"type":"function","function":…}. */
static bool add_object(json_t *calls, struct span text, const json_t *known)
{
    struct span inner, arguments = {"", 0};
    json_t *object = load(text), *function = json_object_get(object, "function");
    bool fine = json_is_object(object);
    if (fine && json_is_object(function) && member(text, "function", &inner)) {
        fine = add_object(calls, inner, known);
        json_decref(object);
        return fine;
    }
    const char *name = json_string_value(json_object_get(object, "name"));
    const char *key = json_object_get(object, "arguments") ? "arguments" : "parameters";
    json_t *value = json_object_get(object, key);
    fine = fine && name && (!known || (json_object_get(known, name) && value));
    if (fine && json_is_string(value))
        arguments = (struct span){json_string_value(value), json_string_length(value)};
    else if (fine && value && !json_is_null(value))
        fine = member(text, key, &arguments);
    if (fine)
        fine = add(calls, (struct span){name, strlen(name)}, arguments);
    json_decref(object);
    return fine;
}

/* Objects one after another, separated by white space, ';' or ',', or in lists. Doubled braces are
 * what the template of Qwen2.5-Coder-1.5B shows its model. */
static bool add_objects(json_t *calls, struct span text, const json_t *known)
{
    bool doubled = false;
    for (text = trim(text); text.len; text = trim(text)) {
        if (skip(&text, "[") || skip(&text, "]") || skip(&text, ",") || skip(&text, ";"))
            continue;
        if (doubled && skip(&text, "}"))
            continue;
        doubled = text.len > 1 && text.s[0] == '{' && text.s[1] == '{';
        if (doubled)
            skip(&text, "{");
        size_t n = *text.s == '{' ? value_len(text) : 0;
        if (!n || !add_object(calls, (struct span){text.s, n}, known))
            return false;
        text = (struct span){text.s + n, text.len - n};
    }
    return true;
}

/* --- DeepSeek --------------------------------------------------------------------------------- */

static struct span without_fence(struct span text)
{
    struct span line;
    text = trim(text);
    if (!skip(&text, "```"))
        return text;
    if (!cut(&text, &line, "\n"))
        return text;
    if (text.len >= 3 && !memcmp(text.s + text.len - 3, "```", 3))
        text.len -= 3;
    return trim(text);
}

static bool add_deepseek(json_t *calls, struct span text)
{
    skip(&text, CALLS_BEGIN);
    for (text = trim(text); text.len && !skip(&text, CALLS_END); text = trim(text)) {
        struct span body, head, name;
        if (!skip(&text, CALL_BEGIN))
            return false;
        if (!cut(&text, &body, CALL_END)) { /* the model stopped short of it */
            body = text;
            text.len = 0;
        }
        if (!cut(&body, &head, SEP))
            return false;
        name = head = trim(head);
        if (head.len == 8 && !memcmp(head.s, "function", 8) && !cut(&body, &name, "\n")) {
            name = body;
            body.len = 0;
        }
        if (!add(calls, trim(name), without_fence(body)))
            return false;
    }
    return !trim(text).len;
}

/* --- blocks ----------------------------------------------------------------------------------- */

/* Whether a string of the JSON before `len` is open there: the end mark is inside it. */
static bool inside_string(const char *text, size_t len)
{
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
    }
    return quoted;
}

size_t hd_token__call_block(const char *mark, const char *text, size_t len)
{
    size_t i = 0, at = strlen(mark);
    while (strcmp(marks[i].begin, mark))
        i++;
    const char *end;
    for (; at < len && (end = memmem(text + at, len - at, marks[i].end, strlen(marks[i].end)));
         at = (size_t)(end - text) + 1)
        if (i < N_DEEPSEEK || !inside_string(text, (size_t)(end - text)))
            return (size_t)(end - text) + strlen(marks[i].end);
    return 0;
}

json_t *hd_token__parse_calls(const char *mark, const char *text, size_t len)
{
    json_t *calls = json_array();
    struct span rest = {text, len};
    bool fine;
    if (mark && strcmp(mark, marks[2].begin) != 0) {
        fine = add_deepseek(calls, rest);
    } else {
        skip(&rest, marks[2].begin);
        if (rest.len >= strlen(marks[2].end) &&
            !memcmp(rest.s + rest.len - strlen(marks[2].end), marks[2].end, strlen(marks[2].end)))
            rest.len -= strlen(marks[2].end);
        fine = add_objects(calls, rest, NULL);
    }
    if (fine && json_array_size(calls))
        return calls;
    json_decref(calls);
    return NULL;
}

json_t *hd_token__parse_bare(const char *text, size_t len, const json_t *known)
{
    json_t *calls = json_array();
    struct span rest = trim((struct span){text, len}), inner;
    skip(&rest, "<|python_tag|>");
    rest = without_fence(rest);
    if (skip(&rest, "<tools>") && cut(&rest, &inner, "</tools>")) {
        if (trim(rest).len)
            inner.len = 0; /* more than calls */
        rest = inner;
    }
    if (add_objects(calls, rest, known) && json_array_size(calls))
        return calls;
    json_decref(calls);
    return NULL;
}

/* --- what may become a call ------------------------------------------------------------------- */

enum match { NO, MAYBE, YES };

/* Whether the text goes on with `what`; MAYBE: it ends before that is decided. */
static enum match goes_on(struct span *text, const char *what)
{
    size_t n = strlen(what), have = text->len < n ? text->len : n;
    if (memcmp(text->s, what, have) != 0)
        return NO;
    if (have < n)
        return MAYBE;
    skip(text, what);
    return YES;
}

/* The first of the list that the text goes on with; MAYBE where a longer one may still come. */
static enum match any_of(struct span *text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        enum match match = goes_on(text, list[i]);
        if (match != NO)
            return match;
    }
    return NO;
}

bool hd_token__may_be_call(const char *text, size_t len)
{
    static const char *const openings[] = {"<|python_tag|>", "<tools>", "```json", "```"};
    static const char *const keys[] = {"\"name\"",     "\"arguments\"", "\"parameters\"",
                                       "\"function\"", "\"type\"",      "\"id\""};
    struct span rest = trim((struct span){text, len});
    for (size_t i = 0; i < N_MARK && rest.len; i++) {
        struct span copy = rest;
        if (goes_on(&copy, marks[i].begin) == MAYBE)
            return true;
    }
    if (rest.len && any_of(&rest, openings, 4) == MAYBE)
        return true;
    rest = trim(rest);
    if (rest.len && goes_on(&rest, "[") == YES)
        rest = trim(rest);
    if (!rest.len)
        return true;
    if (goes_on(&rest, "{") != YES)
        return false;
    rest = trim(rest);
    if (rest.len && goes_on(&rest, "{") == YES)
        rest = trim(rest);
    return !rest.len || any_of(&rest, keys, 6) != NO;
}
