/* See words.h. The lists are our own choice, kept short: what they miss only weighs little. */
#include <stdlib.h>
#include <string.h>

#include "kb/words.h"

/* Both lists are sorted (strcmp order). */
static const char *const stop_words[] = {
    "a",       "about",  "after", "again", "all",  "also",    "am",    "an",       "and",
    "any",     "are",    "as",    "at",    "be",   "because", "been",  "before",   "being",
    "between", "both",   "but",   "by",    "can",  "could",   "did",   "do",       "does",
    "doing",   "during", "each",  "for",   "from", "further", "had",   "has",      "have",
    "having",  "he",     "her",   "here",  "hers", "herself", "him",   "himself",  "his",
    "i",       "if",     "in",    "into",  "is",   "it",      "its",   "itself",   "just",
    "may",     "me",     "might", "more",  "most", "must",    "my",    "myself",   "no",
    "nor",     "not",    "now",   "of",    "off",  "on",      "once",  "only",     "or",
    "other",   "our",    "ours",  "out",   "over", "own",     "same",  "shall",    "she",
    "should",  "so",     "some",  "such",  "than", "that",    "the",   "their",    "theirs",
    "them",    "then",   "there", "these", "they", "this",    "those", "through",  "to",
    "too",     "under",  "until", "up",    "upon", "very",    "was",   "we",       "were",
    "while",   "will",   "with",  "would", "you",  "your",    "yours", "yourself",
};
static const char *const question_words[] = {
    "called", "describe", "explain", "get",   "give",   "how",  "kind",  "like", "list", "many",
    "much",   "name",     "need",    "one",   "please", "sort", "take",  "tell", "type", "what",
    "whats",  "when",     "where",   "which", "who",    "whom", "whose", "why",
};

static int compare(const void *key, const void *item)
{
    return strcmp(key, *(const char *const *)item);
}

bool hd_kb__is_stop_word(const char *word)
{
    return bsearch(word, stop_words, sizeof stop_words / sizeof *stop_words, sizeof *stop_words,
                   compare);
}

bool hd_kb__is_question_word(const char *word)
{
    return bsearch(word, question_words, sizeof question_words / sizeof *question_words,
                   sizeof *question_words, compare);
}

typedef unsigned char32; /* one code point */

static bool among(unsigned c, const char32 *set)
{
    for (; *set; set++)
        if (*set == c)
            return true;
    return false;
}

bool hd_kb__is_function_char(unsigned c)
{
    static const char32 set[] =
        U"的了是在和与及也就都而着过被把从向对于等之其这那有个为以或并则且很";
    return among(c, set);
}

bool hd_kb__is_function_pair(unsigned a, unsigned b)
{
    return hd_kb__is_function_char(a) && hd_kb__is_function_char(b);
}

bool hd_kb__is_question_pair(unsigned a, unsigned b)
{
    static const char32 asking[] = U"么哪谁吗呢几啥";
    static const char32 pairs[] =
        U"多少多大多长多久多高多远多重多宽多深为何如何何时何地何人何种何处是否请问"
        U"能否可否怎样怎办什么";
    if (among(a, asking) || among(b, asking))
        return true;
    for (const char32 *p = pairs; *p; p += 2)
        if (p[0] == a && p[1] == b)
            return true;
    return false;
}
