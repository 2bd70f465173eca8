// One measurement of llama.cpp through node-llama-cpp's prebuilt library; driven by engines.py.
//     node llama_node.mjs MODEL PROMPT GENERATED THREADS
// Prints {"prefill_tps", "decode_tps"}. The prompt is a fixed sequence of ordinary ids; one warm-up pass first.
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const [model_path, n_prompt, n_gen, threads] = [process.argv[2], ...process.argv.slice(3, 6).map(Number)];
const llama = await getLlama({gpu: false, build: "never", maxThreads: threads, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: model_path});
const context = await model.createContext({contextSize: n_prompt + n_gen + 64, batchSize: 512, threads: {ideal: threads, min: threads}});
const sequence = context.getSequence();
const prompt = Array.from({length: n_prompt}, (_, i) => 1000 + (i * 7919) % 20000);

async function pass() {
    await sequence.clearHistory();
    let start = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(prompt.slice(0, -1));
    // The last prompt token goes with the first generated one, so that its logits are part of the prefill.
    const tokens = sequence.evaluate([prompt.at(-1)], {temperature: 0, yieldEogToken: true});
    await tokens.next();
    const prefill = performance.now() - start;
    start = performance.now();
    for (let i = 0; i < n_gen; i++)
        await tokens.next();
    const decode = performance.now() - start;
    await tokens.return();
    return {prefill_tps: n_prompt / prefill * 1000, decode_tps: n_gen / decode * 1000};
}

await pass();
console.log(JSON.stringify(await pass()));
process.exit(0);
