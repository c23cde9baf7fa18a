import { open } from "./classify.js";

const MOST_WORDS = 200; // of which each is left out once
const AT_ONCE = 16;
const MOST_LABELS = 10; // that are shown, the most probable first
const SHOWN = 8; // words in the table
const SMALLEST = 0.0005; // change of a probability that is coloured
const byId = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const button = document.querySelector("button");
let classifier;
let asked = 0; // number of the last text; the words of an earlier one are no longer of interest

function element(name, text, attributes = {}) {
  return Object.assign(document.createElement(name), { textContent: text }, attributes);
}

async function read(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer.arrayBuffer();
}

function words(text) {
  const parts = new Intl.Segmenter(undefined, { granularity: "word" }).segment(text);
  return Array.from(parts).filter((part) => part.isWordLike);
}

async function classify() {
  const number = ++asked;
  const text = byId("text").value;
  const { labels, max_length } = classifier.about;
  const start = performance.now();
  const ids = classifier.tokenise(text);
  const middle = performance.now();
  const [probabilities] = await classifier.run([ids]);
  const end = performance.now();
  const best = probabilities.indexOf(Math.max(...probabilities));
  byId("label").textContent = labels[best];
  byId("probability").textContent = percent(probabilities[best]);
  const order = [...labels.keys()].sort((one, other) => probabilities[other] - probabilities[one]);
  byId("labels").replaceChildren(
    ...order.slice(0, MOST_LABELS).map((row) => {
      const line = element("li");
      const bar = element("progress", "", { value: probabilities[row] });
      bar.setAttribute("aria-label", labels[row]);
      const share = element("span", percent(probabilities[row]), { className: "number" });
      line.append(element("span", labels[row]), bar, share);
      return line;
    }),
  );
  const longest = ids.length === max_length ? `; at most ${max_length} tokens are read` : "";
  byId("time").textContent =
    `${(end - start).toFixed(1)} ms: ${(middle - start).toFixed(1)} ms for ${ids.length} tokens, ` +
    `${(end - middle).toFixed(1)} ms for the model${longest}`;
  byId("result").hidden = false;
  await weigh(number, text, best, probabilities[best]);
}

// The weight of a word is what the probability of the label loses without it.
async function weigh(number, text, best, whole) {
  const every = words(text);
  const parts = every.slice(0, MOST_WORDS);
  const weights = [];
  show(text, [], []);
  for (let first = 0; first < parts.length; first += AT_ONCE) {
    byId("legend").textContent = `${first} of ${parts.length} words are done`;
    await new Promise((resolve) => setTimeout(resolve)); // let the browser draw
    if (number !== asked) return;
    const without = parts
      .slice(first, first + AT_ONCE)
      .map(({ index, segment }) => text.slice(0, index) + text.slice(index + segment.length));
    weights.push(...(await classifier.probabilities(without)).map((probabilities) => whole - probabilities[best]));
  }
  if (number !== asked) return;
  show(text, parts, weights);
  const label = classifier.about.labels[best];
  byId("legend").textContent = parts.length
    ? `Green: without this word ${label} is less probable. Orange, dotted: more probable.` +
      (every.length > parts.length ? ` Only the first ${MOST_WORDS} words were left out in turn.` : "")
    : "There is no word in this text.";
  const order = [...parts.keys()].sort((one, other) => Math.abs(weights[other]) - Math.abs(weights[one]));
  byId("weights").replaceChildren(
    ...order.slice(0, SHOWN).map((row) => {
      const line = element("tr");
      const change = `${weights[row] > 0 ? "−" : "+"}${(100 * Math.abs(weights[row])).toFixed(1)}`;
      line.append(
        element("td", parts[row].segment),
        element("td", percent(whole - weights[row]), { className: "number" }),
        element("td", change, { className: "number" }),
      );
      return line;
    }),
  );
  document.querySelector("table").hidden = !parts.length;
  byId("result").dataset.done = number;
}

function show(text, parts, weights) {
  const strongest = Math.max(...weights.map(Math.abs), 0.01);
  const pieces = [];
  let place = 0;
  parts.forEach(({ index, segment }, row) => {
    if (Math.abs(weights[row]) < SMALLEST) return;
    const mark = element("mark", segment, { className: weights[row] < 0 ? "against" : "" });
    mark.style.setProperty("--weight", ((0.6 * Math.abs(weights[row])) / strongest).toFixed(2));
    pieces.push(text.slice(place, index), mark);
    place = index + segment.length;
  });
  byId("words").replaceChildren(...pieces, text.slice(place));
  document.querySelector("table").hidden = true;
}

function report(error) {
  byId("status").textContent = `This does not work: ${error.message}`;
}

document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  classify().catch(report);
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) button.form.requestSubmit(button);
});
try {
  const start = performance.now();
  classifier = await open(read);
  await classifier.probabilities(["a first text takes longer"]);
  const { source = {}, labels } = classifier.about;
  const facts = [source.student, source.method, source.data].filter((fact) => typeof fact === "string");
  byId("about").textContent = [...facts, `labels: ${labels.join(", ")}`].join(" · ");
  byId("status").textContent = `Ready: loaded in ${((performance.now() - start) / 1000).toFixed(1)} s.`;
  button.disabled = false;
} catch (error) {
  report(error);
}
