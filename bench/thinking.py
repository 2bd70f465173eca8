#!/usr/bin/env python3
"""Thinking under control on real text: asks Qwen2.5-Coder models, which think only when asked, to think about questions in
English and Chinese, greedy, and checks every answer: content never blank and never with a tag in it, the thought within its
budget, nothing that goes round in circles, the reason said.

    bench/thinking.py [--models 0.5b,1.5b] [--count N] [--out FILE.md] [--lines FILE.jsonl] [BINARY]

--count: questions per model (default: all, 27 in each language). Answers that --lines holds already are not asked again.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import re
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench", "answers"))
sys.dont_write_bytecode = True
import common  # noqa: E402

QUESTIONS = [
    "A farmer has 17 sheep. All but 9 run away. How many are left?",
    "小明有12个苹果，吃了3个，又买了5个，现在有几个？",
    "Why is the sky blue?",
    "为什么天空是蓝色的？",
    "Which is larger, 9.11 or 9.9?",
    "9.11和9.9哪个更大？",
    "How many times does the letter r occur in strawberry?",
    "“人工智能”这个词有几个字？",
    "A train leaves at 14:40 and arrives at 17:05. How long does it take?",
    "火车14点40分开，17点05分到，一共走了多长时间？",
    "Is 91 a prime number?",
    "91是质数吗？",
    "What is the difference between a list and a tuple in Python?",
    "Python里的列表和元组有什么区别？",
    "Write a function in Python that reverses a string.",
    "用Python写一个反转字符串的函数。",
    "If all cats are animals and some animals are black, are some cats black?",
    "如果所有的猫都是动物，有些动物是黑色的，那么有些猫是黑色的吗？",
    "Explain how a binary search works.",
    "解释一下二分查找的原理。",
    "What is 15 percent of 240?",
    "240的百分之十五是多少？",
    "My brother is twice as old as I am. In ten years he will be 40. How old am I?",
    "哥哥的年龄是我的两倍，十年后他四十岁，我今年几岁？",
    "Why do we have seasons?",
    "地球上为什么有四季？",
    "Give three reasons to learn a second language.",
    "说出学习第二门语言的三个理由。",
    "What does HTTP status 404 mean?",
    "HTTP状态码404是什么意思？",
    "Sort these numbers: 42, 7, 19, 3, 88.",
    "把这些数从小到大排列：42、7、19、3、88。",
    "Two coins make 30 cents, and one of them is not a nickel. Which coins are they?",
    "一个笼子里有鸡和兔共8只，腿22条，鸡兔各几只？",
    "What are the tags <think> and </think> used for in language models?",
    "语言模型里的<think>和</think>标签有什么用？",
    "Translate to Chinese: Good morning, how are you?",
    "翻译成英文：今天天气很好，我们去公园吧。",
    "Hello!",
    "你好！",
    "What is the capital of Australia?",
    "澳大利亚的首都是哪里？",
    "How would you explain recursion to a child?",
    "怎样向孩子解释递归？",
    "A rectangle has an area of 48 and one side of 6. What is its perimeter?",
    "长方形的面积是48，一条边长6，它的周长是多少？",
    "Write an SQL query that counts the orders of each customer.",
    "写一条SQL语句，统计每个客户的订单数。",
    "Is it better to get up early or to stay up late?",
    "早起好还是晚睡好？",
    "How does a hash table deal with collisions?",
    "哈希表如何处理冲突？",
    # these go round in circles on purpose
    "Think by writing the sentence 'I am thinking.' again and again, a hundred times.",
    "请在思考时一遍又一遍地写“我在思考。”这句话，写一百遍。",
]
# What questions are asked with, in turn: most tokens of the thought, most tokens in all.
SHAPES = [({"max_thinking_tokens": 160}, 160, 400), ({"max_thinking_tokens": 64}, 64, 240),
          ({"reasoning_effort": "low"}, 512, 720), ({"thinking": {"type": "enabled"}}, 2048, 200)]
TAG = re.compile(r"<\s*/?\s*(think|thought|thinking|final[ _]?answer|answer|最终答案)\b[^>]*>", re.I)
STOPS = ("closed", "budget", "length", "loop", "ended")


def rounds_at_end(text):
    """The longest repetition that the text ends with: (characters in all, rounds)."""
    best = (0, 1)
    for period in range(1, len(text) // 2 + 1):
        n = period
        while n < len(text) and text[-1 - n] == text[-1 - n + period]:
            n += 1
        if n >= 2 * period and n > best[0]:
            best = (n, n // period)
    return best


def faults(row):
    """What is wrong with an answer: a list of sentences."""
    found = []
    if row["status"] != 200:
        return ["status %s: %s" % (row["status"], row["error"])]
    content, thought = row["content"], row["reasoning"]
    if not content or not content.strip():
        found.append("content is blank")
    if TAG.search(content or ""):
        found.append("a tag in content: " + TAG.search(content).group())
    if re.search(r"</?think>", thought):
        found.append("a marker in reasoning_content")
    if row["reasoning_tokens"] > row["budget"]:
        found.append("%d tokens of thought, %d allowed" % (row["reasoning_tokens"], row["budget"]))
    if row["completion_tokens"] > row["max_tokens"]:
        found.append("more tokens than max_tokens")
    if row["reasoning_stop"] not in STOPS:
        found.append("reasoning_stop is %r" % row["reasoning_stop"])
    for name, text, most in (("thought", thought, 6), ("content", content or "", 9)):
        n, rounds = rounds_at_end(text)
        if rounds > most and n > 1600:
            found.append("%s ends with %d rounds of the same, %d characters" % (name, rounds, n))
    if row.get("streamed") is False:
        found.append("the stream says something else")
    return found


def ask(server, i, stream):
    extra, budget, most = SHAPES[i // 2 % len(SHAPES)]
    body = {"messages": [{"role": "user", "content": QUESTIONS[i]}], "temperature": 0, "max_tokens": most, **extra}
    status, reply = server.call("POST", "/v1/chat/completions", body)
    row = {"i": i, "question": QUESTIONS[i], "asked": extra, "budget": budget, "max_tokens": most, "status": status}
    if status != 200:
        row["error"] = reply
        return row
    choice, usage = reply["choices"][0], reply["usage"]
    row.update(content=choice["message"]["content"], reasoning=choice["message"].get("reasoning_content") or "",
               reasoning_stop=choice.get("reasoning_stop"), finish_reason=choice["finish_reason"],
               stop_reason=choice.get("stop_reason"), completion_tokens=usage["completion_tokens"],
               reasoning_tokens=usage["completion_tokens_details"]["reasoning_tokens"])
    if stream:
        row["streamed"] = streamed_alike(server, body, row)
    return row


def streamed_alike(server, body, row):
    _, text = server.call("POST", "/v1/chat/completions", {**body, "stream": True})
    content = reasoning = ""
    stop = None
    for line in text.split("\n"):
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:]).get("choices", []):
            content += choice["delta"].get("content") or ""
            reasoning += choice["delta"].get("reasoning_content") or ""
            stop = choice.get("reasoning_stop") or stop
    return (content, reasoning, stop) == (row["content"], row["reasoning"], row["reasoning_stop"])


def ask_all(binary, model, indices, lines, streams, at_once=8):
    rows = []
    with tempfile.TemporaryDirectory(prefix="holdfast-thinking-") as folder, \
            common.Server(binary, model, folder, ("--ctx", "4096")) as server, \
            concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        jobs = [pool.submit(ask, server, i, i % streams == 0) for i in indices]
        for job in concurrent.futures.as_completed(jobs):
            rows.append(job.result())
            lines(rows[-1])
    return rows


def report(results, seconds):
    """A table of all models, and every fault."""
    out = ["# Thinking under control", "",
           "%s, `bench/thinking.py`: questions in English and Chinese, asked to think, greedy; budgets of 64, 160 and 512 tokens, and"
           % time.strftime("%Y-%m-%d"),
           "`max_tokens` 200 without a budget. %.0f seconds, the machine was busy with other work." % seconds, "",
           "| model | questions | blank content | tags in content | over budget | loops left | reason missing | closed | budget | length | loop | ended | answers cut as loops | streams compared | median tokens of thought |",
           "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    wrong = []
    for name, rows in results.items():
        all_faults = [(row, fault) for row in rows for fault in faults(row)]
        wrong += ["%s, %s: %s" % (name, row["question"], fault) for row, fault in all_faults]

        def count(word):
            return sum(word in fault for _, fault in all_faults)

        stops = collections.Counter(row.get("reasoning_stop") for row in rows)
        tokens = sorted(row.get("reasoning_tokens", 0) for row in rows)
        figures = [len(rows), count("is blank"), count("a tag in"), count("tokens of thought"), count("rounds of the same"),
                   count("reasoning_stop"), *(stops[stop] for stop in STOPS),
                   sum(row.get("stop_reason") == "loop" for row in rows),
                   sum("streamed" in row for row in rows), tokens[len(tokens) // 2]]
        out.append("| %s | %s |" % (name, " | ".join(str(figure) for figure in figures)))
    out += ["", "Faults: %d." % len(wrong)] + ["- " + line for line in wrong]
    return "\n".join(out) + "\n", len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("binary", nargs="?")
    parser.add_argument("--models", default="0.5b,1.5b")
    parser.add_argument("--count", type=int, default=len(QUESTIONS))
    parser.add_argument("--out")
    parser.add_argument("--lines")
    args = parser.parse_args()
    binary, began, results = common.find_binary(args.binary), time.time(), {}
    for name in args.models.split(","):
        model = common.find_model("qwen2.5-coder-" + name)
        if not model:
            sys.exit("no qwen2.5-coder:%s in %s (holdfast pull brings it)" % (name, common.models_folder()))
        path = args.lines and "%s.%s" % (args.lines, name)
        rows = [json.loads(line) for line in open(path)] if path and os.path.exists(path) else []
        done = {row["i"] for row in rows}

        def note(row):
            if path:
                with open(path, "a") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            print("%s %2d %-7s %s" % (name, row["i"], row.get("reasoning_stop"), "; ".join(faults(row))), flush=True)

        rows += ask_all(binary, model, [i for i in range(args.count) if i not in done], note, 8)
        results["Qwen2.5-Coder " + name.upper()] = sorted(rows, key=lambda row: row["i"])
    text, n_wrong = report(results, time.time() - began)
    print(text)
    if args.out:
        with open(args.out, "w") as file:
            file.write(text)
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
