// One answer on the page: thought, text, citations, and what is said about them.

import { h, copyText } from "./dom";
import { MarkdownView } from "./markdown";
import { words, fill } from "./words";
import type { Citation, Grounds, Passage, Usage } from "./api";

export class AnswerView {
  readonly element: HTMLElement;
  private readonly body = h("div");
  private readonly foot = h("footer");
  private readonly markdown = new MarkdownView((n) => this.mark(n));
  private details: HTMLDetailsElement | null = null;
  private thoughtText = h("div", { class: "thought" });
  private summary = h("summary");
  private thoughtBegan = 0;
  private text = "";
  private grounds: Grounds = {};
  private marks: { n: number; button: HTMLButtonElement }[] = [];
  private quote: HTMLElement | null = null;
  private opener: HTMLButtonElement | null = null;
  private scheduled = false;
  private readonly began = performance.now();

  constructor(who: string, private readonly grew: () => void) {
    this.element = h("article", { class: "answer", "aria-busy": "true" }, h("h2", {}, who), this.body, this.foot);
    this.body.append(this.markdown.element);
    this.element.addEventListener("keydown", (e) => {
      if (e.key === "Escape" && this.quote) {
        e.stopPropagation();
        this.closeQuote();
      }
    });
  }

  addThought(text: string): void {
    if (!this.details) {
      this.thoughtBegan = performance.now();
      this.summary.textContent = words.thinking;
      this.details = h("details", { class: "think" }, this.summary, this.thoughtText);
      this.body.before(this.details);
    }
    this.thoughtText.append(text);
    this.grew();
  }

  addText(text: string): void {
    if (!this.text) this.endThought();
    this.text += text;
    if (this.scheduled) return;
    this.scheduled = true; // one rendering per frame, however fast the tokens come
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.markdown.update(this.text);
      this.grew();
    });
  }

  private endThought(): void {
    if (this.details && this.thoughtBegan)
      this.summary.textContent = fill(words.thought, Math.round((performance.now() - this.thoughtBegan) / 1000));
    this.thoughtBegan = 0;
  }

  // What the next request says of this turn: the text without its marks.
  history(): string {
    return this.text.replace(/\s*\[citation:\s*\d+\]/g, "");
  }

  setGrounds(grounds: Grounds): void {
    this.grounds = grounds;
  }

  finish(reason: string, usage: Usage | null): void {
    this.endThought();
    this.markdown.update(this.text);
    this.element.setAttribute("aria-busy", "false");
    for (const mark of this.marks) this.enableMark(mark.n, mark.button);
    this.showGrounds();
    if (reason === "length") this.foot.append(h("p", { class: "hint" }, words.cut));
    if (reason === "stopped") this.foot.append(h("p", { class: "hint" }, words.stopped));
    this.showTools(usage);
    this.grew();
  }

  fail(message: string, retry: () => void): void {
    this.endThought();
    this.markdown.update(this.text);
    this.element.setAttribute("aria-busy", "false");
    const button = h("button", { type: "button" }, words.retry);
    button.addEventListener("click", retry);
    this.foot.append(h("div", { class: "trouble", role: "alert" }, h("p", {}, message), button));
    this.grew();
  }

  private showTools(usage: Usage | null): void {
    const tools = h("div", { class: "tools" });
    if (this.text) {
      const copy = h("button", { type: "button", class: "small" }, words.copyAnswer);
      copy.addEventListener("click", async () => {
        if (await copyText(this.history())) copy.textContent = words.copied;
      });
      tools.append(copy);
    }
    if (usage && usage.completion_tokens) {
      const seconds = ((performance.now() - this.began) / 1000).toFixed(1);
      tools.append(h("span", { class: "hint" }, fill(words.speed, usage.completion_tokens, seconds)));
    }
    this.foot.append(tools);
  }

  // --- citations ---------------------------------------------------------------------------------

  private citation(n: number): Citation | undefined {
    return this.grounds.citations?.find((c) => c.n === n);
  }

  // [citation:n] in the text. Until the end of the stream there is nothing to show yet.
  private mark(n: number): Node {
    const button = h("button", { type: "button", class: "cite", "aria-label": fill(words.source, n) }, String(n));
    button.disabled = true;
    this.marks.push({ n, button });
    this.enableMark(n, button);
    return h("sup", {}, button);
  }

  private enableMark(n: number, button: HTMLButtonElement): void {
    const citation = this.citation(n);
    if (!citation || !button.disabled) return;
    button.disabled = false;
    button.setAttribute("aria-expanded", "false");
    button.classList.add(citation.verdict ?? "");
    button.addEventListener("click", () => this.toggleQuote(citation, button));
  }

  private closeQuote(): void {
    this.quote?.remove();
    this.opener?.setAttribute("aria-expanded", "false");
    this.opener?.focus();
    this.quote = null;
    this.opener = null;
  }

  private toggleQuote(citation: Citation, button: HTMLButtonElement): void {
    const same = this.opener === button;
    if (this.quote) this.closeQuote();
    if (same) return;
    const close = h("button", { type: "button", class: "small", "aria-label": words.close }, "×");
    close.addEventListener("click", () => this.closeQuote());
    this.quote = h("aside", { class: "quote", tabindex: "-1" }, close, ...this.citationBody(citation));
    this.opener = button;
    button.setAttribute("aria-expanded", "true");
    // Under the block that holds the mark, so that text and source are read together.
    let block: Node = button;
    while (block.parentNode && block.parentNode !== this.markdown.element && block.parentNode !== this.foot)
      block = block.parentNode;
    block.parentNode?.insertBefore(this.quote, block.nextSibling);
    this.quote.focus({ preventScroll: true });
    this.quote.scrollIntoView({ block: "nearest" });
  }

  private citationBody(c: Citation): Node[] {
    const verdicts: Record<string, string> = {
      supported: words.supported,
      reattached: words.reattached,
      unsupported: words.unsupported,
    };
    const verdict = c.verdict ?? "";
    const facts = [h("span", { class: "verdict " + verdict }, verdicts[verdict] ?? verdict)];
    if (typeof c.confidence === "number")
      facts.push(h("span", {}, fill(words.confidence, Math.round(c.confidence * 100))));
    return [
      h("p", { class: "where" }, h("strong", {}, place(c)), ...facts),
      h("blockquote", {}, c.quote ?? ""),
    ];
  }

  private showGrounds(): void {
    const g = this.grounds;
    if (!g.citations) return;
    if (g.found === false) {
      this.element.classList.add("not-found");
      if (!this.text.trim()) this.foot.append(h("p", { class: "badge missing" }, words.notFound));
      if (g.nearest?.length)
        this.foot.append(
          h("details", { class: "near" }, h("summary", {}, words.nearest),
            h("ul", {}, ...g.nearest.slice(0, 5).map((p) =>
              h("li", {}, h("strong", {}, place(p)), h("blockquote", {}, clip(p.text ?? "", 300)))))),
        );
      return;
    }
    const line = h("p", { class: "badge" });
    if (typeof g.confidence === "number") line.append(fill(words.wholeConfidence, Math.round(g.confidence * 100)));
    if (g.quoted) line.append((line.textContent ? " · " : "") + words.quoted);
    if (line.textContent) this.foot.append(line);
    if (!g.citations.length) return;
    const list = h("ol", { class: "sources", "aria-label": words.sources });
    for (const c of g.citations) {
      const button = h("button", { type: "button", class: "source", "aria-expanded": "false" },
        h("span", { class: "number" }, String(c.n)), place(c));
      button.addEventListener("click", () => this.toggleQuote(c, button));
      list.append(h("li", {}, button));
    }
    this.foot.append(list);
  }
}

function place(of: Citation | Passage): string {
  const name = of.document?.name ?? "";
  return of.page ? name + " · " + fill(words.page, of.page) : name;
}

function clip(text: string, n: number): string {
  return text.length > n ? text.slice(0, n) + "…" : text;
}
