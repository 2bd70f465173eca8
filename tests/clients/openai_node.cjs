// The official Node client against a running server: node openai_node.cjs BASE_URL MODEL ENCODER
const OpenAI = require("openai");
const assert = require("assert");

const [base, model, encoder] = process.argv.slice(2);
const client = new OpenAI({ baseURL: base + "/v1", apiKey: "k3y", maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];
const common = { model, messages, temperature: 0, max_tokens: 12 };

async function chat() {
  const whole = await client.chat.completions.create(common);
  assert.equal(whole.choices[0].finish_reason, "length");
  assert.equal(whole.usage.completion_tokens, 12);
  let text = "";
  const stream = await client.chat.completions.create({ ...common, stream: true });
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(text, whole.choices[0].message.content);
}

async function responses() {
  const fields = { model, input: "hello", temperature: 0, max_output_tokens: 12 };
  const whole = await client.responses.create(fields);
  assert.equal(whole.status, "incomplete");
  assert.equal(whole.incomplete_details.reason, "max_output_tokens");
  let text = "", last;
  for await (const event of await client.responses.create({ ...fields, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.equal(last.type, "response.incomplete");
  assert.equal(text, whole.output_text);
  assert.equal(last.response.output[0].content[0].text, text);
}

async function embeddings() {
  if (!encoder) return;
  const reply = await client.embeddings.create({ model: encoder, input: ["one", "two"] });
  assert.equal(reply.data.length, 2);
  assert.ok(reply.data[0].embedding.every((x) => typeof x === "number"));
}

async function models() {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.ok(ids.includes(model));
}

async function errors() {
  await assert.rejects(client.chat.completions.create({ ...common, model: "absent" }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ ...common, surprise: 1 }),
    (e) => e instanceof OpenAI.BadRequestError && e.param === "surprise");
  const wrong = new OpenAI({ baseURL: base + "/v1", apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(wrong.models.list(), OpenAI.AuthenticationError);
}

(async () => {
  for (const step of [chat, responses, embeddings, models, errors]) {
    await step();
    console.log("ok", step.name);
  }
})().catch((error) => { console.error(error); process.exit(1); });
