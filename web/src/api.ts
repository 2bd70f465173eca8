// The server's API as this page uses it.

import { words, fill } from "./words";

export interface Citation {
  n: number;
  document?: { id?: number; name?: string };
  page?: number | null;
  quote?: string;
  confidence?: number;
  verdict?: string;
}
export interface Passage {
  document?: { id?: number; name?: string };
  page?: number | null;
  heading?: string;
  text?: string;
}
export interface Grounds {
  found?: boolean;
  quoted?: boolean;
  confidence?: number;
  citations?: Citation[];
  nearest?: Passage[];
}
export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
}
export interface Message {
  role: "user" | "assistant";
  content: string;
}
export interface Model {
  id: string;
}
export interface Base {
  id: string;
  documents: number;
}

// An error in words for people; `needsKey` asks for the API key.
export class Trouble extends Error {
  constructor(message: string, readonly needsKey = false) {
    super(message);
  }
}

const KEY = "holdfast-api-key";
export function setKey(key: string): void {
  sessionStorage.setItem(KEY, key);
}
function headers(): Record<string, string> {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: "Bearer " + key } : {};
}

interface ErrorBody {
  error?: { message?: string; code?: string | null };
}

function inWords(status: number, error: ErrorBody["error"], retryAfter: string | null): Trouble {
  const message = error?.message ?? "HTTP " + status;
  switch (error?.code) {
    case "context_length_exceeded":
      return new Trouble(words.errorLong);
    case "loading":
      return new Trouble(words.errorLoading);
    case "draining":
      return new Trouble(words.errorDraining);
    case "timeout":
      return new Trouble(words.errorSlow);
  }
  if (status === 401) return new Trouble(words.errorKey, true);
  if (status === 403) return new Trouble(fill(words.errorForbidden, message));
  if (status === 429) return new Trouble(fill(words.errorBusy, retryAfter ?? "5"));
  return new Trouble(fill(words.errorOther, message));
}

async function call(path: string, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers: { ...headers(), ...(init.headers ?? {}) } });
  } catch (e) {
    if (e instanceof DOMException && e.name === "AbortError") throw e;
    throw new Trouble(words.errorNetwork);
  }
  if (response.ok) return response;
  const body = (await response.json().catch(() => ({}))) as ErrorBody;
  throw inWords(response.status, body.error, response.headers.get("Retry-After"));
}

export async function listModels(): Promise<Model[]> {
  const body = (await (await call("/v1/models")).json()) as {
    data: (Model & { knowledge_base?: string; type?: string })[];
  };
  return body.data.filter((m) => !m.knowledge_base && (m.type ?? "language") === "language");
}

export async function listBases(): Promise<Base[]> {
  return ((await (await call("/v1/knowledge_bases")).json()) as { data: Base[] }).data;
}

interface Chunk extends ErrorBody, Grounds {
  choices?: { delta?: { content?: string; reasoning_content?: string }; finish_reason?: string | null }[];
  usage?: Usage;
}

export interface Listener {
  onText(text: string): void;
  onThought(text: string): void;
  onGrounds(grounds: Grounds): void;
  onUsage(usage: Usage): void;
  onFinish(reason: string): void;
}

function take(chunk: Chunk, listener: Listener): void {
  if (chunk.error) throw inWords(500, chunk.error, null);
  const choice = chunk.choices?.[0];
  if (choice?.delta?.reasoning_content) listener.onThought(choice.delta.reasoning_content);
  if (choice?.delta?.content) listener.onText(choice.delta.content);
  if (chunk.citations) listener.onGrounds(chunk);
  if (chunk.usage) listener.onUsage(chunk.usage);
  if (choice?.finish_reason) listener.onFinish(choice.finish_reason);
}

// Server-sent events: blocks separated by an empty line; only their data lines matter here.
export async function chat(
  model: string,
  base: string,
  messages: Message[],
  listener: Listener,
  signal: AbortSignal,
): Promise<void> {
  const body: Record<string, unknown> = { messages, stream: true, stream_options: { include_usage: true } };
  if (model) body.model = model;
  if (base) body.knowledge_base = base;
  const response = await call("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  if (!reader) throw new Trouble(words.errorBroken);
  for (;;) {
    let part: ReadableStreamReadResult<Uint8Array>;
    try {
      part = await reader.read();
    } catch (e) {
      if (e instanceof DOMException && e.name === "AbortError") throw e;
      throw new Trouble(words.errorBroken);
    }
    if (part.done) throw new Trouble(words.errorBroken);
    buffer += decoder.decode(part.value, { stream: true });
    let end: number;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const event = buffer.slice(0, end);
      buffer = buffer.slice(end + 2);
      for (const line of event.split("\n")) {
        if (!line.startsWith("data: ")) continue;
        if (line === "data: [DONE]") return;
        take(JSON.parse(line.slice(6)) as Chunk, listener);
      }
    }
  }
}
