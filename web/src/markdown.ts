// A small Markdown renderer that makes DOM nodes. Whatever it does not know stays text: no raw
// HTML, no images, and links show where they point but lead nowhere, so that a document in the
// knowledge base cannot make this page load or open anything.

import { h, copyText } from "./dom";
import { words } from "./words";

type Cite = (n: number) => Node;

// --- inline ------------------------------------------------------------------------------------

const INLINE =
  /(`+)([\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*|\*(?=[^\s*])([^*\n]*?[^\s*])\*(?!\*)|~~(?=\S)([\s\S]*?\S)~~|!?\[([^\]\n]*)\]\(([^()\s]+)(?:\s+"[^"\n]*")?\)|\[citation:\s*(\d+)\]|\\([\\`*_{}[\]()#+\-.!~|>])|(\n)/;

export function inline(text: string, cite: Cite, depth = 0): Node[] {
  const out: Node[] = [];
  let rest = text;
  while (rest) {
    const m = depth < 8 ? INLINE.exec(rest) : null;
    if (!m) {
      out.push(document.createTextNode(rest));
      break;
    }
    if (m.index) out.push(document.createTextNode(rest.slice(0, m.index)));
    rest = rest.slice(m.index + m[0].length);
    const inner = (s: string) => inline(s, cite, depth + 1);
    if (m[2] !== undefined) out.push(h("code", {}, m[2].trim() || m[2]));
    else if (m[3] !== undefined) out.push(h("strong", {}, ...inner(m[3])));
    else if (m[4] !== undefined) out.push(h("em", {}, ...inner(m[4])));
    else if (m[5] !== undefined) out.push(h("s", {}, ...inner(m[5])));
    else if (m[7] !== undefined) out.push(...link(m[6] ?? "", m[7], inner));
    else if (m[8] !== undefined) out.push(cite(Number(m[8])));
    else if (m[9] !== undefined) out.push(document.createTextNode(m[9]));
    else out.push(h("br"));
  }
  return out;
}

function link(label: string, target: string, inner: (s: string) => Node[]): Node[] {
  if (label === target || !label) return [h("span", { class: "link" }, target)];
  return [...inner(label), h("span", { class: "link" }, " (" + target + ")")];
}

// --- blocks ------------------------------------------------------------------------------------

interface Block {
  kind: "code" | "heading" | "rule" | "quote" | "list" | "table" | "text";
  lines: string[];
  open?: boolean; // a code block without its end: still streaming
}

const FENCE = /^\s*(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const ROW = /^\s*\|.*\|\s*$/;
const DIVIDER = /^\s*\|?(\s*:?-+:?\s*\|)+(\s*:?-+:?\s*)?\s*$/;

function startsBlock(line: string): boolean {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || ITEM.test(line) || /^\s*>/.test(line);
}

export function splitBlocks(text: string): Block[] {
  const lines = text.split("\n");
  const blocks: Block[] = [];
  let i = 0;
  const take = (kind: Block["kind"], test: (line: string, n: number) => boolean): void => {
    const block: Block = { kind, lines: [lines[i++] ?? ""] };
    while (i < lines.length && test(lines[i] ?? "", i)) block.lines.push(lines[i++] ?? "");
    blocks.push(block);
  };
  while (i < lines.length) {
    const line = lines[i] ?? "";
    const fence = FENCE.exec(line);
    if (!line.trim()) i++;
    else if (fence) {
      const mark = fence[1] ?? "```";
      const end = new RegExp("^\\s*" + mark[0] + "{" + mark.length + ",}\\s*$");
      take("code", (next) => !end.test(next));
      const block = blocks[blocks.length - 1] as Block;
      block.open = i >= lines.length;
      i++;
    } else if (RULE.test(line)) take("rule", () => false);
    else if (HEADING.test(line)) take("heading", () => false);
    else if (/^\s*>/.test(line)) take("quote", (next) => /^\s*>/.test(next));
    else if (ITEM.test(line))
      // A blank line goes on with the list only if an item or an indented line follows.
      take("list", (next, n) => {
        const after = lines[n + 1] ?? "";
        if (!next.trim()) return ITEM.test(after) || /^\s{2,}\S/.test(after);
        return ITEM.test(next) || /^\s+\S/.test(next) || (!startsBlock(next) && !!(lines[n - 1] ?? "").trim());
      });
    else if (ROW.test(line) && DIVIDER.test(lines[i + 1] ?? "")) take("table", (next) => ROW.test(next));
    else take("text", (next) => !!next.trim() && !startsBlock(next));
  }
  return blocks;
}

function codeBlock(block: Block): HTMLElement {
  const language = FENCE.exec(block.lines[0] ?? "")?.[2] ?? "";
  const code = block.lines.slice(1).join("\n");
  const button = h("button", { type: "button", class: "small" }, words.copy);
  button.addEventListener("click", async () => {
    if (!(await copyText(code))) return;
    button.textContent = words.copied;
    setTimeout(() => (button.textContent = words.copy), 1500);
  });
  return h(
    "figure",
    { class: "code" },
    h("figcaption", {}, h("span", {}, language), button),
    h("pre", { tabindex: "0" }, h("code", {}, code)),
  );
}

function listBlock(lines: string[], cite: Cite, depth: number): HTMLElement {
  const first = ITEM.exec(lines[0] ?? "");
  const indent = (first?.[1] ?? "").length;
  const ordered = /\d/.test(first?.[2] ?? "");
  const items: string[][] = [];
  for (const line of lines) {
    const m = ITEM.exec(line);
    if (m && (m[1] ?? "").length <= indent) items.push([m[3] ?? ""]);
    else items[items.length - 1]?.push(line);
  }
  const list = h(ordered ? "ol" : "ul");
  if (ordered) list.setAttribute("start", String(parseInt(first?.[2] ?? "1", 10)));
  for (const item of items) {
    const rest = item.slice(1);
    const strip = Math.min(...rest.filter((l) => l.trim()).map((l) => l.search(/\S/)), 8);
    const body = [item[0] ?? "", ...rest.map((l) => l.slice(Math.min(strip, l.length)))].join("\n");
    list.appendChild(h("li", {}, ...renderBlocks(body, cite, depth + 1, true)));
  }
  return list;
}

function tableBlock(lines: string[], cite: Cite): HTMLElement {
  const cells = (line: string) =>
    line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((c) => c.trim().replace(/\\\|/g, "|"));
  const row = (line: string, tag: "th" | "td") =>
    h("tr", {}, ...cells(line).map((c) => h(tag, {}, ...inline(c, cite))));
  return h(
    "div",
    { class: "table", tabindex: "0" },
    h(
      "table",
      {},
      h("thead", {}, row(lines[0] ?? "", "th")),
      h("tbody", {}, ...lines.slice(2).map((line) => row(line, "td"))),
    ),
  );
}

function render(block: Block, cite: Cite, depth: number, tight: boolean): Node[] {
  const text = block.lines.join("\n");
  switch (block.kind) {
    case "code":
      return [codeBlock(block)];
    case "rule":
      return [h("hr")];
    case "heading": {
      const m = HEADING.exec(text);
      // The page's own headings are h1 and h2.
      const level = Math.min((m?.[1] ?? "#").length + 2, 6) as 3 | 4 | 5 | 6;
      return [h(`h${level}`, {}, ...inline(m?.[2] ?? "", cite))];
    }
    case "quote":
      return [h("blockquote", {}, ...renderBlocks(text.replace(/^\s*> ?/gm, ""), cite, depth + 1, false))];
    case "list":
      return [listBlock(block.lines, cite, depth)];
    case "table":
      return [tableBlock(block.lines, cite)];
    default:
      return tight ? inline(text.trim(), cite) : [h("p", {}, ...inline(text.trim(), cite))];
  }
}

function renderBlocks(text: string, cite: Cite, depth: number, tight: boolean): Node[] {
  if (depth > 8) return [document.createTextNode(text)];
  return splitBlocks(text).flatMap((block) => render(block, cite, depth, tight));
}

// Shows a growing text: blocks that did not change keep their nodes (and the reader's selection).
export class MarkdownView {
  readonly element = h("div", { class: "markdown" });
  private shown: { source: string; nodes: Node[] }[] = [];

  constructor(private readonly cite: Cite) {}

  update(text: string): void {
    const blocks = splitBlocks(text);
    let same = 0;
    const source = (b: Block) => b.kind + "\n" + b.lines.join("\n");
    while (same < this.shown.length && same < blocks.length &&
           this.shown[same]?.source === source(blocks[same] as Block)) same++;
    for (const old of this.shown.splice(same)) for (const node of old.nodes) node.parentNode?.removeChild(node);
    for (const block of blocks.slice(same)) {
      const nodes = render(block, this.cite, 0, false);
      for (const node of nodes) this.element.appendChild(node);
      this.shown.push({ source: source(block), nodes });
    }
  }
}
