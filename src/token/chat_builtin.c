/* Our own templates, one per family: for checkpoints that carry none, and for conversations with
 * tools where the checkpoint's own template has no place for them or is wrong.
 *
 * The forms are the published ones: DeepSeek-R1 and its distills (MIT), Qwen2.5 (Apache-2.0; its
 * tool prompt is quoted, since the model was trained on these words), Llama 3 and 3.1. Variables
 * beyond transformers': `joins` (R1: several system messages are joined by an empty line, else the
 * last one counts), `default_system` (ChatML), `trims` (Llama 3).
 *
 * R1's published tool form is mended in five places. A turn of calls is closed whatever their
 * number; after tool results the assistant's turn is opened; every round of calls and results has
 * its own begin and end marks; arguments are an object or a text; tools are described. */
#include "token/token_impl.h"

/* clang-format off */
/* A system message and the tools behind it. */
#define DEEPSEEK_TOOLS(system, plain) \
    "{{- " system " or '' -}}\n" \
    "{%- if tools -%}\n" \
    "  {{- ('\\n\\n' if " system " else '') + '## Tools\\n\\nYou can call these functions:\\n' -}}\n" \
    "  {%- for tool in tools -%}\n" \
    "    {{- '\\n```json\\n' + tool | tojson + '\\n```\\n' -}}\n" \
    "  {%- endfor -%}\n" \
    "  {{- '\\nTo call functions, write nothing but this, with one begin and end per call, and '\n" \
    "    'arguments that are valid JSON:\\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' -}}\n" \
    "  {{- 'FUNCTION_NAME<｜tool▁sep｜>{\"parameter\": \"value\"}' if " plain " else\n" \
    "    'function<｜tool▁sep｜>FUNCTION_NAME\\n```json\\n{\"parameter\": \"value\"}\\n```' -}}\n" \
    "  {{- '<｜tool▁call▁end｜><｜tool▁calls▁end｜>' -}}\n" \
    "{%- endif -%}\n"
/* clang-format on */

const char hd_token__deepseek_tool_prompt[] = DEEPSEEK_TOOLS("system", "plain");

static const char deepseek[] =
    "{%- set ns = namespace(system='', first=true, outputs=false) -%}\n"
    "{%- for message in messages if message.role == 'system' -%}\n"
    "  {%- set before = ns.system + '\\n\\n' if joins and not ns.first else '' -%}\n"
    "  {%- set ns.system = before + message.content -%}\n"
    "  {%- set ns.first = false -%}\n"
    "{%- endfor -%}\n"
    "{{- bos_token -}}\n" DEEPSEEK_TOOLS(
        "ns.system",
        "plain") "{%- for message in messages -%}\n"
                 "  {%- if ns.outputs and message.role not in ['tool', 'system'] -%}\n"
                 "    {{- '<｜tool▁outputs▁end｜>' -}}\n"
                 "  {%- endif -%}\n"
                 "  {%- if message.role == 'user' -%}\n"
                 "    {{- '<｜User｜>' + message.content -}}\n"
                 "    {%- set ns.outputs = false -%}\n"
                 "  {%- elif message.role == 'assistant' -%}\n"
                 "    {%- if not ns.outputs or message.tool_calls -%}{{- '<｜Assistant｜>' -}}{%- "
                 "endif -%}\n"
                 "    {{- (message.content or '').split('</think>')[-1] -}}\n"
                 "    {%- for call in message.tool_calls -%}\n"
                 "      {{- '<｜tool▁calls▁begin｜>' if loop.first else '\\n' -}}\n"
                 "      {%- set arguments = call.function.arguments -%}\n"
                 "      {{- '<｜tool▁call▁begin｜>' + call.type + '<｜tool▁sep｜>' + "
                 "call.function.name -}}\n"
                 "      {{- '\\n```json\\n' -}}\n"
                 "      {{- arguments if arguments is string else arguments | tojson -}}\n"
                 "      {{- '\\n```<｜tool▁call▁end｜>' -}}\n"
                 "      {%- if loop.last -%}{{- '<｜tool▁calls▁end｜>' -}}{%- endif -%}\n"
                 "    {%- endfor -%}\n"
                 "    {{- '<｜end▁of▁sentence｜>' -}}\n"
                 "    {%- set ns.outputs = false -%}\n"
                 "  {%- elif message.role == 'tool' -%}\n"
                 "    {{- '\\n' if ns.outputs else '<｜tool▁outputs▁begin｜>' -}}\n"
                 "    {{- '<｜tool▁output▁begin｜>' + message.content + '<｜tool▁output▁end｜>' "
                 "-}}\n"
                 "    {%- set ns.outputs = true -%}\n"
                 "  {%- endif -%}\n"
                 "{%- endfor -%}\n"
                 "{%- if ns.outputs -%}{{- '<｜tool▁outputs▁end｜>' -}}{%- endif -%}\n"
                 "{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}\n";

static const char chatml[] =
    "{%- set ns = namespace(system=default_system, skip=false) -%}\n"
    "{%- if messages and messages[0].role == 'system' -%}\n"
    "  {%- set ns.system = messages[0].content -%}\n"
    "  {%- set ns.skip = true -%}\n"
    "{%- endif -%}\n"
    "{%- if tools -%}\n"
    "  {{- '<|im_start|>system\\n' + (ns.system + '\\n\\n' if ns.system else '') -}}\n"
    "  {{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n'\n"
    "    'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' "
    "-}}\n"
    "  {%- for tool in tools -%}{{- '\\n' + tool | tojson -}}{%- endfor -%}\n"
    "  {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and "
    "'\n"
    "    'arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\"name\": '\n"
    "    '<function-name>, \"arguments\": <args-json-object>}\\n</tool_call><|im_end|>\\n' -}}\n"
    "{%- elif ns.system is not none or ns.skip -%}\n"
    "  {{- '<|im_start|>system\\n' + ns.system + '<|im_end|>\\n' -}}\n"
    "{%- endif -%}\n"
    "{%- for message in messages -%}\n"
    "  {%- if message.role == 'tool' -%}\n"
    "    {%- if loop.first or loop.previtem.role != 'tool' -%}\n"
    "      {{- '<|im_start|>user' -}}\n"
    "    {%- endif -%}\n"
    "    {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' -}}\n"
    "    {%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}\n"
    "  {%- elif message.tool_calls -%}\n"
    "    {{- '<|im_start|>' + message.role + ('\\n' + message.content if message.content else '') "
    "-}}\n"
    "    {%- for call in message.tool_calls -%}\n"
    "      {{- '\\n<tool_call>\\n{\"name\": \"' + call.function.name + '\", \"arguments\": ' -}}\n"
    "      {{- call.function.arguments | tojson + '}\\n</tool_call>' -}}\n"
    "    {%- endfor -%}\n"
    "    {{- '<|im_end|>\\n' -}}\n"
    "  {%- elif not (loop.first and ns.skip) -%}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}\n"
    "  {%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}\n";

static const char llama3[] =
    "{%- set ns = namespace(due=tools) -%}\n"
    "{{- bos_token -}}\n"
    "{%- for message in messages -%}\n"
    "  {%- set role = 'ipython' if message.role == 'tool' else message.role -%}\n"
    "  {{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' -}}\n"
    "  {%- if message.role == 'user' and ns.due -%}\n"
    "    {{- 'Given the following functions, please respond with a JSON for a function call with "
    "its '\n"
    "      'proper arguments that best answers the given prompt.\\n\\nRespond in the format "
    "{\"name\": '\n"
    "      'function name, \"parameters\": dictionary of argument name and its value}. Do not use "
    "'\n"
    "      'variables.\\n\\n' -}}\n"
    "    {%- for tool in tools -%}{{- tool | tojson(indent=4) + '\\n\\n' -}}{%- endfor -%}\n"
    "    {%- set ns.due = false -%}\n"
    "  {%- endif -%}\n"
    "  {%- if message.tool_calls -%}\n"
    "    {%- for call in message.tool_calls -%}\n"
    "      {{- '{\"name\": \"' + call.function.name + '\", \"parameters\": ' -}}\n"
    "      {{- call.function.arguments | tojson + '}' + ('' if loop.last else '; ') -}}\n"
    "    {%- endfor -%}\n"
    "  {%- else -%}\n"
    "    {{- message.content | trim if trims else message.content -}}\n"
    "  {%- endif -%}\n"
    "  {{- '<|eot_id|>' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}\n"
    "{%- endif -%}\n";

const char *hd_token__builtin_template(enum hd_chat_form form)
{
    switch (form) {
    case HD_CHAT_DEEPSEEK_R1:
    case HD_CHAT_DEEPSEEK_R1_DISTILL:
    case HD_CHAT_DEEPSEEK_V3:
        return deepseek;
    case HD_CHAT_CHATML:
        return chatml;
    case HD_CHAT_LLAMA3:
        return llama3;
    case HD_CHAT_TEMPLATE:
    case HD_CHAT_NONE:
        break;
    }
    return NULL;
}
