// Prints the greedy tokens that transformers.js makes of given inputs.
// node generate.js FOLDER TYPE INPUTS: INPUTS is JSON with input_ids, tokens (how many), tiles, size and
// pixel_values, a file of float32 [tiles, 3, size, size].
import { readFileSync } from "node:fs";
import path from "node:path";
import { AutoModelForImageTextToText, Tensor, env } from "@huggingface/transformers";

const [folder, type, inputsFile] = process.argv.slice(2);
const inputs = JSON.parse(readFileSync(inputsFile, "utf-8"));
const { tiles, size } = inputs;
const bytes = readFileSync(inputs.pixel_values);
const pixels = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const ids = inputs.input_ids.map(BigInt);

env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const model = await AutoModelForImageTextToText.from_pretrained(path.basename(folder), {
  dtype: type,
  device: "cpu",
});
const output = await model.generate({
  input_ids: new Tensor("int64", BigInt64Array.from(ids), [1, ids.length]),
  attention_mask: new Tensor("int64", new BigInt64Array(ids.length).fill(1n), [1, ids.length]),
  pixel_values: new Tensor("float32", pixels, [1, tiles, 3, size, size]),
  pixel_attention_mask: new Tensor("bool", new Uint8Array(tiles * size * size).fill(1), [1, tiles, size, size]),
  max_new_tokens: inputs.tokens,
  min_new_tokens: inputs.tokens,
  do_sample: false,
});
console.log(JSON.stringify(Array.from(output.data, Number).slice(ids.length)));
