/* See translate.h. */
#include "kb/translate.h"

#include <stdlib.h>
#include <string.h>

#include "kb/evidence.h"

enum { QUESTION_MAX = 2000, TEXT_MAX = 4000, TOKENS = 80 };

/* Shown before the real one, so that the model translates the question and does not answer it. */
static const struct pair {
    const char *english, *chinese;
} shown[2] = {{"How many volumes can one person take home?", "一个人可以借走几本书？"},
              {"What is the fine for each day that a book is late?", "书晚还一天罚多少钱？"}};

static char *ask(const char *question, bool into_chinese)
{
    struct hd_buf out;
    hd_buf_init(&out, TEXT_MAX);
    hd_buf_printf(&out, "%s\n\n%s",
                  into_chinese ? "Translate the question into Chinese." : "把问题翻译成英文。",
                  question);
    char *text = hd_buf_take(&out);
    hd_buf_dispose(&out);
    return text;
}

enum hd_err hd_kb__translator_init(struct hd_kb__translator *t, const char *question,
                                   const char *model, const struct hd_principal *who,
                                   double timeout_s)
{
    const bool into_chinese = !hd_kb__is_chinese(question);
    size_t n = 0;
    memset(t, 0, sizeof *t);
    hd_buf_init(&t->text, TEXT_MAX);
    if (strlen(question) > QUESTION_MAX)
        return HD_ERR_INVALID;
    for (size_t i = 0; i < 3; i++) {
        const struct pair *pair = i < 2 ? &shown[i] : NULL;
        t->said[i] = ask(!pair          ? question
                         : into_chinese ? pair->english
                                        : pair->chinese,
                         into_chinese);
        if (!t->said[i])
            return HD_ERR_NOMEM;
        t->messages[n++] = (struct hd_message){.role = "user", .content = t->said[i]};
        if (pair)
            t->messages[n++] = (struct hd_message){
                .role = "assistant", .content = into_chinese ? pair->chinese : pair->english};
    }
    t->request = (struct hd_request){.model = model,
                                     .principal = who,
                                     .messages = t->messages,
                                     .n_message = n,
                                     .no_think = true,
                                     .sampling = HD_SAMPLING_GREEDY,
                                     .n_max = TOKENS,
                                     .timeout_s = timeout_s};
    return HD_OK;
}

void hd_kb__translator_feed(struct hd_kb__translator *t, const char *text, size_t len)
{
    hd_buf_append(&t->text, text, len);
}

const char *hd_kb__translator_text(struct hd_kb__translator *t)
{
    if (t->text.err || !t->text.len)
        return "";
    char *line = t->text.data + strspn(t->text.data, " \t\r\n");
    line[strcspn(line, "\r\n")] = '\0';
    return line;
}

void hd_kb__translator_dispose(struct hd_kb__translator *t)
{
    for (size_t i = 0; i < 3; i++)
        free(t->said[i]);
    hd_buf_dispose(&t->text);
    memset(t, 0, sizeof *t);
}
