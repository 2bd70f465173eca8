/* See read_wording.h. */
#include <stddef.h>

#include "kb/evidence.h"
#include "kb/read_wording.h"

#define LIBRARY                                                                                    \
    "Library rules\nThe library is open from Tuesday to Sunday, 9:00 to 17:00, and closed on "     \
    "Mondays. A card costs 5 euros. Up to 6 books may be borrowed at a time, for 30 days, and "    \
    "renewed once."
#define GEOLOGIST                                                                                  \
    "Anna Lindqvist, born in Uppsala in 1932, studied geology in Lund until 1955 and then worked " \
    "in oil exploration. In 1978 she received the Polhem Prize."
static const struct hd_kb__wording english = {
    false,
    "Passage:\n",
    "Question before: ",
    "Question: ",
    "Does the passage contain the answer to the question? Write only \"yes\" or \"no\".",
    "Answer the question from the passage in one full sentence.",
    {"yes", "Yes"},
    {"no", "No"},
    1,
    0,
    {{LIBRARY, "How many volumes can one person take home?",
      "One person can take home up to 6 books at a time."},
     {LIBRARY, "What is the fine for each day that a book is late?", NULL},
     {GEOLOGIST, "What was the name of Lindqvist's husband?", NULL},
     {GEOLOGIST, "Where does Lindqvist come from?",
      "Lindqvist comes from Uppsala, where she was born in 1932."}},
};

#define LIBRARY_ZH                                                                                                                \
    "图书馆须知\n开放时间为周二至周日 9:00—17:00，周一闭馆。借书证工本费 5 元。每次最多借 6 " \
    "册，借期 30 天，可续借一次。"
#define GEOLOGIST_ZH                                                                                                                       \
    "李明山1932年生于浙江绍兴，1955年毕业于南京大学地质系，此后长期从事石油勘探，1978年获全国科学" \
    "大会奖。"
static const struct hd_kb__wording simplified = {
    true,
    "资料：\n",
    "前一个问题：",
    "问题：",
    "资料里有没有这个问题的答案？只写“有”或“没有”。",
    "请根据资料用一句完整的话回答这个问题。",
    {"有", NULL},
    {"没有", NULL},
    1,
    0,
    {{LIBRARY_ZH, "一个人一趟可以拿走几本书？",
      "一次最多可以借 6 册，也就是一个人一趟可以拿走 6 本书。"},
     {LIBRARY_ZH, "书还晚了每天罚多少钱？", NULL},
     {GEOLOGIST_ZH, "李明山的妻子叫什么名字？", NULL},
     {GEOLOGIST_ZH, "李明山是哪里人？", "李明山是浙江绍兴人，1932年出生在那里。"}},
};

#define LIBRARY_ZHT                                                                                                               \
    "圖書館須知\n開放時間為週二至週日 9:00—17:00，週一閉館。借書證工本費 5 元。每次最多借 6 " \
    "冊，借期 30 天，可續借一次。"
#define GEOLOGIST_ZHT                                                                                                                      \
    "李明山1932年生於浙江紹興，1955年畢業於南京大學地質系，此後長期從事石油勘探，1978年獲全國科學" \
    "大會獎。"
static const struct hd_kb__wording traditional = {
    true,
    "資料：\n",
    "前一個問題：",
    "問題：",
    "資料裡有沒有這個問題的答案？只寫「有」或「沒有」。",
    "請根據資料用一句完整的話回答這個問題。",
    {"有", NULL},
    {"沒有", NULL},
    0.72, /* the same 19 passages asked in both scripts (1.5B) */
    -0.25,
    {{LIBRARY_ZHT, "一個人一趟可以拿走幾本書？",
      "一次最多可以借 6 冊，也就是一個人一趟可以拿走 6 本書。"},
     {LIBRARY_ZHT, "書還晚了每天罰多少錢？", NULL},
     {GEOLOGIST_ZHT, "李明山的妻子叫什麼名字？", NULL},
     {GEOLOGIST_ZHT, "李明山是哪裡人？", "李明山是浙江紹興人，1932年出生在那裡。"}},
};

const struct hd_kb__wording *hd_kb__reading_wording(const char *question)
{
    if (!hd_kb__is_chinese(question))
        return &english;
    return hd_kb__is_traditional(question) ? &traditional : &simplified;
}
