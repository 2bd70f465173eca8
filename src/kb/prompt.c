/* See prompt.h. */
#include "kb/prompt.h"

static const char rules_zh[] =
    "以上是从资料库中检索到的段落，每段都有编号。请只根据这些段落回答下面的问题，并遵守：\n"
    "- 先判断哪些段落与问题有关，无关的不要使用。\n"
    "- 凡是依据某一段写出的句子，在句末用[citation:编号]标明，例如[citation:2]；依据几段就都写出，"
    "例如[citation:1][citation:3]。不要把标记集中放在最后。\n"
    "- 数字、日期和名称照段落原样写，不要推测，不要补充段落里没有的内容。\n"
    "- 段落里没有答案时，只写：资料中未找到。\n"
    "- 用问题所用的语言，简明作答。\n\n问题：";
static const char rules_en[] =
    "Above are passages found in the document store, each with its number. Answer the question "
    "below from these passages alone:\n"
    "- First decide which passages bear on the question; leave the others aside.\n"
    "- End every sentence that rests on a passage with [citation:number], for example "
    "[citation:2]; name all of them where there are several, as in [citation:1][citation:3]. Do "
    "not gather the marks at the end.\n"
    "- Give numbers, dates and names exactly as the passages do; do not guess and do not add what "
    "they do not say.\n"
    "- If the passages do not hold the answer, write only: not found in the documents.\n"
    "- Answer briefly, in the language of the question.\n\nQuestion: ";

enum hd_err hd_kb__prompt_search_form(struct hd_buf *out, const struct hd_kb__passages *passages,
                                      const char *question)
{
    for (size_t i = 0; i < passages->n; i++) {
        const struct hd_kb_hit *hit = &passages->items[i].hit;
        hd_buf_printf(out, "[webpage %zu begin]\n%s", i + 1, hit->document.name);
        if (hit->heading[0])
            hd_buf_printf(out, " — %s", hit->heading);
        hd_buf_printf(out, "\n%s\n[webpage %zu end]\n", hit->text, i + 1);
    }
    hd_buf_puts(out, "\n");
    hd_buf_puts(out, hd_kb__is_chinese(question) ? rules_zh : rules_en);
    return hd_buf_puts(out, question);
}

const char *hd_kb__say_not_found(const char *question)
{
    if (!hd_kb__is_chinese(question))
        return "The documents do not answer this question.";
    return hd_kb__is_traditional(question) ? "資料中未找到這個問題的答案。"
                                           : "资料中未找到这个问题的答案。";
}

const char *hd_kb__say_quoted(const char *question)
{
    if (!hd_kb__is_chinese(question))
        return "(No language model was used; these are the documents' own words.)";
    return hd_kb__is_traditional(question) ? "（未使用語言模型，以下為資料原文。）"
                                           : "（未使用语言模型，以下为资料原文。）";
}
