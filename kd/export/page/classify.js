// Classify texts with the files of this folder, in a browser or in Node.js.
import * as ort from "./onnxruntime.js";
import { Tokenizer } from "./tokenizers.js";

// runs: [first, last, replacement] of code points. "\0" in a replacement is the character; null is its NFD.
function replacer(runs) {
  const known = new Map();
  const replacement = (character) => {
    const code = character.codePointAt(0);
    const run = runs.find(([first, last]) => first <= code && code <= last);
    if (run === undefined) return character;
    return run[2] === null ? character.normalize("NFD") : run[2].replace("\0", character);
  };
  return (text) => {
    let replaced = "";
    for (const character of text) {
      if (!known.has(character)) known.set(character, replacement(character));
      replaced += known.get(character);
    }
    return replaced;
  };
}

// Return a function from a text to token ids. The arguments are the contents of export.json, tokenizer.json and
// characters.json. The last one replaces Unicode's properties, which differ between browsers.
export function tokeniser(about, content, characters) {
  const tokenizer = new Tokenizer(content, { unk_token: content.model.unk_token });
  if (characters.replaced) tokenizer.normalizer.normalize = replacer(characters.replaced);
  if (characters.punctuation) {
    const { space, punctuation } = characters;
    const word = new RegExp(`[^${space}${punctuation}]+|[${punctuation}]`, "gu");
    tokenizer.pre_tokenizer.pre_tokenize_text = (text) => text.match(word) ?? [];
  }
  const { before, after } = about.special_tokens;
  const room = about.max_length - before.length - after.length;
  return (text) => [...before, ...tokenizer.encode(text, { add_special_tokens: false }).ids.slice(0, room), ...after];
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = powers.reduce((total, power) => total + power);
  return powers.map((power) => power / sum);
}

// read: (file name) -> bytes. Returns a Classifier.
export async function open(read) {
  const json = async (name) => JSON.parse(new TextDecoder().decode(await read(name)));
  const contents = await Promise.all(["export.json", "tokenizer.json", "characters.json"].map(json));
  ort.env.wasm.numThreads = 1; // more threads need HTTP headers that a plain file server does not send
  ort.env.wasm.wasmBinary = await read("onnxruntime.wasm");
  const session = await ort.InferenceSession.create(new Uint8Array(await read("model.onnx")), {
    executionProviders: ["wasm"],
  });
  return new Classifier(contents[0], tokeniser(...contents), session);
}

class Classifier {
  constructor(about, tokenise, session) {
    Object.assign(this, { about, tokenise, session });
  }

  // Return the probabilities of each text, in the order of about.labels.
  async probabilities(texts) {
    return this.run(texts.map(this.tokenise));
  }

  async run(rows) {
    const length = Math.max(1, ...rows.map((row) => row.length));
    const ids = new BigInt64Array(rows.length * length).fill(BigInt(this.about.padding));
    const mask = new BigInt64Array(rows.length * length);
    rows.forEach((row, number) => {
      ids.set(row.map(BigInt), number * length);
      mask.fill(1n, number * length, number * length + row.length);
    });
    const tensor = (values) => new ort.Tensor("int64", values, [rows.length, length]);
    const { logits } = await this.session.run({ input_ids: tensor(ids), attention_mask: tensor(mask) });
    const classes = this.about.labels.length;
    return rows.map((_, number) => softmax(logits.data.slice(number * classes, (number + 1) * classes)));
  }
}
