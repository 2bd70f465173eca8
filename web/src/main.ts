// The page: choices above, the conversation, the composer.

import { AnswerView } from "./answer";
import { Trouble, chat, listBases, listModels, setKey } from "./api";
import type { Message, Usage } from "./api";
import { byId, h } from "./dom";
import { fill, isChinese, words } from "./words";

const log = byId<HTMLElement>("log");
const status = byId<HTMLElement>("status");
const form = byId<HTMLFormElement>("composer");
const question = byId<HTMLTextAreaElement>("question");
const send = byId<HTMLButtonElement>("send");
const stop = byId<HTMLButtonElement>("stop");
const modelChoice = byId<HTMLSelectElement>("model");
const baseChoice = byId<HTMLSelectElement>("base");

let history: Message[] = [];
let running: AbortController | null = null;

// --- scrolling: follows the answer unless the reader has scrolled away ----------------------------

let follow = true;
log.addEventListener("scroll", () => {
  follow = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
});
function grew(): void {
  if (follow) log.scrollTop = log.scrollHeight;
}

// --- choices -------------------------------------------------------------------------------------

function remember(select: HTMLSelectElement): void {
  localStorage.setItem("holdfast-" + select.id, select.value);
}

function choose(select: HTMLSelectElement, fallback: string): void {
  const wanted = localStorage.getItem("holdfast-" + select.id) ?? fallback;
  select.value = [...select.options].some((o) => o.value === wanted) ? wanted : fallback;
}

async function loadChoices(): Promise<void> {
  const [models, bases] = await Promise.all([listModels(), listBases()]);
  modelChoice.replaceChildren(
    ...(models.length ? models.map((m) => h("option", { value: m.id }, m.id)) : [h("option", { value: "none" }, words.noModel)]),
  );
  baseChoice.replaceChildren(
    h("option", { value: "" }, words.noBase),
    ...bases.map((b) => h("option", { value: b.id }, b.id + " (" + b.documents + ")")),
  );
  choose(modelChoice, models[0]?.id ?? "none");
  choose(baseChoice, bases[0]?.id ?? "");
  welcome(!models.length && !bases.length);
}

function welcome(nothing = false): void {
  if (history.length) return;
  log.replaceChildren(
    h("div", { class: "welcome" }, h("h2", {}, words.welcome),
      h("p", {}, nothing ? words.welcomeNothing : baseChoice.value ? words.welcomeBase : words.welcomePlain)),
  );
}

function askForKey(): void {
  const input = h("input", { type: "password", id: "key", autocomplete: "off", required: "" });
  const keyForm = h("form", { class: "key" }, h("label", { for: "key" }, words.keyNeeded), input,
    h("button", { type: "submit" }, words.keySave));
  input.setAttribute("aria-label", words.key);
  keyForm.addEventListener("submit", (e) => {
    e.preventDefault();
    setKey(input.value);
    void begin();
  });
  log.replaceChildren(keyForm);
  input.focus();
}

async function begin(): Promise<void> {
  try {
    await loadChoices();
    question.focus();
  } catch (e) {
    if (e instanceof Trouble && e.needsKey) {
      askForKey();
      return;
    }
    const again = h("button", { type: "button" }, words.retry);
    again.addEventListener("click", () => void begin());
    const message = e instanceof Trouble ? e.message : fill(words.errorOther, String(e));
    log.replaceChildren(h("div", { class: "welcome trouble", role: "alert" }, h("p", {}, message), again));
  }
}

// --- asking --------------------------------------------------------------------------------------

function setRunning(controller: AbortController | null): void {
  running = controller;
  send.hidden = controller !== null;
  stop.hidden = controller === null;
}

async function answer(): Promise<void> {
  const controller = new AbortController();
  const view = new AnswerView(modelChoice.value === "none" ? "Holdfast" : modelChoice.value, grew);
  let usage: Usage | null = null;
  let reason = "stop";
  setRunning(controller);
  status.textContent = words.answering;
  log.append(view.element);
  follow = true;
  grew();
  try {
    await chat(modelChoice.value, baseChoice.value, history, {
      onText: (text) => view.addText(text),
      onThought: (text) => view.addThought(text),
      onGrounds: (grounds) => view.setGrounds(grounds),
      onUsage: (u) => (usage = u),
      onFinish: (r) => (reason = r),
    }, controller.signal);
    finish(view, reason, usage);
    status.textContent = words.done;
  } catch (e) {
    if (e instanceof DOMException && e.name === "AbortError") {
      finish(view, "stopped", null);
      status.textContent = words.stopped;
    } else {
      const message = e instanceof Trouble ? e.message : fill(words.errorOther, String(e));
      view.fail(message, () => {
        view.element.remove();
        void answer();
      });
      if (e instanceof Trouble && e.needsKey) askForKey();
    }
  } finally {
    setRunning(null);
    question.focus();
  }
}

function finish(view: AnswerView, reason: string, usage: Usage | null): void {
  view.finish(reason, usage);
  history.push({ role: "assistant", content: view.history() });
}

function ask(): void {
  const text = question.value.trim();
  if (!text || running) return;
  if (!history.length) log.replaceChildren();
  // A question that failed is asked anew together with the next one only if it was answered.
  if (history[history.length - 1]?.role === "user") history.pop();
  history.push({ role: "user", content: text });
  log.append(h("article", { class: "ask" }, h("h2", {}, words.you), h("p", {}, text)));
  question.value = "";
  grow();
  void answer();
}

function grow(): void {
  question.style.height = "auto";
  question.style.height = Math.min(question.scrollHeight, 200) + "px";
}

// --- wiring --------------------------------------------------------------------------------------

function setWords(): void {
  document.documentElement.lang = isChinese ? "zh" : "en";
  byId("skip").textContent = words.skip;
  byId("model-label").textContent = words.model;
  byId("base-label").textContent = words.base;
  byId("new").textContent = words.newChat;
  byId("question-label").textContent = words.question;
  byId("note").textContent = words.note;
  question.placeholder = words.placeholder;
  send.textContent = words.send;
  stop.textContent = words.stop;
}

form.addEventListener("submit", (e) => {
  e.preventDefault();
  ask();
});
question.addEventListener("input", grow);
question.addEventListener("keydown", (e) => {
  // While an input method composes, Enter picks a candidate.
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing && e.keyCode !== 229) {
    e.preventDefault();
    ask();
  }
});
stop.addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (e) => {
  if (e.key === "Escape") running?.abort();
});
byId("new").addEventListener("click", () => {
  running?.abort();
  history = [];
  welcome();
  question.focus();
});
modelChoice.addEventListener("change", () => remember(modelChoice));
baseChoice.addEventListener("change", () => {
  remember(baseChoice);
  welcome();
});

setWords();
void begin();
