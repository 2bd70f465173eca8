"""Texts of our own for the comparison on real models: English, Chinese, code, and mixtures."""

TEXTS = {
    "en-handbook": (
        "Every employee receives twenty-five days of paid leave in a calendar year. Leave that is not taken by the end of "
        "March of the following year expires, unless the head of the department has agreed in writing to carry it over. "
        "A request is made in the personnel system at least ten working days before the first day of leave; it counts as "
        "approved when the system says so, not when the form has been sent. In the first six months of employment, one "
        "twelfth of the yearly leave is earned per full month of service."),
    "en-story": (
        "The lighthouse had been dark for eleven years when Marta found the key under the third stone. She had not been "
        "looking for it. The dog had run ahead, the tide was coming in, and the stone was simply where she put her foot. "
        "\"You are not meant to have that,\" said the old man from the harbour, who had followed her without a sound. He "
        "was smiling, but he held out his hand all the same, and behind him the first drops of rain began to fall."),
    "zh-handbook": (
        "员工每年享有二十五天带薪年假。未在次年三月底之前休完的年假自动失效，除非部门负责人书面同意顺延。请假须至少提前十个工作日在人事系统中提出申请；"
        "以系统显示批准为准，提交表单并不代表已经批准。入职前六个月内，每满一个月可获得全年年假的十二分之一。出差期间的住宿费标准为：一线城市每晚不超过六百元，"
        "其他城市每晚不超过四百五十元，超出部分由个人承担。"),
    "zh-science": (
        "水在标准大气压下的沸点是一百摄氏度，但在海拔四千米的高原上，由于气压较低，水在八十七度左右就会沸腾，因此煮饭需要更长的时间，或者使用高压锅。"
        "同样的道理，医院里的消毒锅提高压力，使水在一百二十度时仍不沸腾，从而杀死耐热的细菌。换句话说，沸点并不是水的固有性质，而是水与周围环境共同决定的结果。"),
    "code-c": (
        "#include <stddef.h>\n#include <stdint.h>\n\n/* Sum of the n values at x, or 0 where there are none. */\n"
        "static int64_t sum(const int32_t *x, size_t n)\n{\n    int64_t total = 0;\n    for (size_t i = 0; i < n; i++) {\n"
        "        total += x[i];\n    }\n    return total;\n}\n\nint main(void)\n{\n    int32_t values[] = {3, 1, 4, 1, 5, 9, 2, 6};\n"
        "    return sum(values, sizeof values / sizeof values[0]) == 31 ? 0 : 1;\n}\n"),
    "code-python": (
        "import csv\nfrom collections import defaultdict\n\n\ndef totals_by_month(path):\n    \"\"\"Returns {month: total} for a "
        "CSV file with the columns date and amount.\"\"\"\n    totals = defaultdict(float)\n    with open(path, newline=\"\") as "
        "file:\n        for row in csv.DictReader(file):\n            month = row[\"date\"][:7]\n            totals[month] += "
        "float(row[\"amount\"])\n    return dict(sorted(totals.items()))\n\n\nif __name__ == \"__main__\":\n    for month, total "
        "in totals_by_month(\"expenses.csv\").items():\n        print(f\"{month}: {total:.2f}\")\n"),
    "chat-mixed": (
        "<|im_start|>system\nYou answer from the documents only.<|im_end|>\n<|im_start|>user\n资料：The warranty of the "
        "pump P-200 is 36 months from delivery. 过保后每次上门维修收费 480 元。\n问题：P-200 水泵的保修期是多久？"
        "<|im_end|>\n<|im_start|>assistant\nP-200 水泵的保修期是自交货之日起 36 个月。过保后每次上门维修收费 480 元。<|im_end|>\n"),
}
SPECIAL = ("<|im_start|>", "<|im_end|>")
