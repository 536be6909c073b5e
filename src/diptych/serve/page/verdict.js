// Shows a verdict. Texts of strangers become text nodes and never markup.

const SVG = "http://www.w3.org/2000/svg";
const SHOWN = 6; // regions that are drawn; all are in the table
const LEAST = 0.05; // log-odds below which a part counts as neutral

export function make(name, attributes = {}, ...children) {
  const svg = ["svg", "rect", "path", "text", "title"].includes(name);
  const made = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

const number = (value, digits = 2) => value.toFixed(digits);
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
const probability = (odds) => 1 / (1 + Math.exp(-odds));
const side = (value) => (Math.abs(value) < LEAST ? "" : value > 0 ? "for" : "against");

export function table(caption, head, rows) {
  const cell = (value, tag) => make(tag, typeof value === "number" ? { class: "number" } : {},
    typeof value === "number" ? number(value, 3) : String(value));
  return make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...head.map((one, at) => make("th",
      { scope: "col", class: rows.some((row) => typeof row[at] === "number") ? "number" : null }, one)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((one) => cell(one, "td"))))));
}

// The words of a decision, and where the score lies between the thresholds.
export function decided(answer, card) {
  const decision = answer.decision;
  if (!decision) {
    return make("div", { class: "verdict" }, make("h2", { tabindex: -1 }, `Answer: ${answer.answer}`),
      make("p", {}, "This model has no policy, so its score decides nothing."));
  }
  const names = { allow: "✓ Allow", review: "? Review", block: "✕ Block" };
  const rule = card?.policy?.labels[decision.label];
  return make("div", { class: `verdict ${decision.action}` },
    make("h2", { tabindex: -1 }, names[decision.action]),
    make("p", {}, `Probability of ${decision.label}: ${number(decision.probability)} (calibrated). `,
      decision.audit ? "It was drawn for people to look at. " : null),
    make("p", { class: "note" }, `${decision.why}. Policy ${decision.policy}.`),
    rule && answer.raw ? band(rule, answer.raw[decision.label], decision.label, answer.memory) : null);
}

function band(rule, score, label, memory) {
  const allow = rule.allow ?? 0, block = rule.block ?? 1, width = 400;
  const whose = memory ? "the score with the memory" : "the model's own score";
  const said = `By ${whose} of ${label}, ${number(score, 3)}: ` +
    (rule.allow == null ? "none is allowed unseen, " : `allowed below ${number(allow, 3)}, `) +
    (rule.block == null ? "none is blocked unseen." : `blocked above ${number(block, 3)}.`);
  const part = (name, from, to) => to > from
    ? make("rect", { class: name, x: from * width, y: 16, width: (to - from) * width, height: 14 }) : null;
  const mark = Math.min(1, Math.max(0, score)) * width;
  const name = (value) => value == null ? null
    : make("text", { x: value * width, y: 43, "text-anchor": "middle" }, number(value));
  return make("figure", {}, make("svg", { class: "band", role: "img", "aria-label": said, viewBox: `-4 0 ${width + 8} 46` },
    part("allow", 0, allow), part("review", allow, block), part("block", block, 1),
    make("path", { d: `M${mark - 6} 4h12l-6 11z M${mark - 1} 14h2v17h-2z` }),
    name(rule.allow), name(rule.block)), make("figcaption", { class: "note" }, said));
}

// What the memory adds to the model's score, and which judged memes say so.
export function because(answer, card) {
  const votes = answer.memory;
  if (!votes) return null;
  const voting = votes.cases.filter((one) => one.contribution);
  const many = voting.length === 1 ? "this case" : `these ${voting.length} cases`;
  const said = card?.memory && !card.memory.fitted ? "The memory is not fitted: its cases change no score."
    : voting.length ? `Because of ${many}` : "No case of the memory is near enough to vote.";
  const label = answer.decision?.label ?? Object.keys(votes.before).at(-1);
  return make("section", { class: "because" }, make("h3", {}, said),
    votes.cases.length ? table("The nearest judged memes, and the log-odds that each adds for its label",
      ["text", "label", "policy", "similarity", "adds"], votes.cases.map((one) =>
        [one.text || one.picture || one.id, one.label, one.policy, one.similarity, one.contribution])) : null,
    make("p", { class: "note" }, `The model alone: ${label} ${number(votes.before[label], 3)}. Memory ${votes.version}.`));
}

// A picture, with the regions that count most drawn into it.
export function look(url, size, regions = []) {
  if (!url) return null;
  const picture = make("img", { src: url, alt: "The picture of the meme" });
  const wide = size.width || 1, high = size.height || 1, letter = Math.max(wide, high) / 22;
  const drawn = regions.flatMap((part, at) => part.boxes.slice(0, 1).map(([x1, y1, x2, y2]) => {
    const box = { x: x1 * wide, y: y1 * high, width: (x2 - x1) * wide, height: (y2 - y1) * high };
    return [make("rect", { class: "halo", ...box }), make("rect", { class: part.contribution < 0 ? "against" : "for", ...box }),
      make("text", { x: box.x + letter / 4, y: Math.max(letter, box.y + letter), "font-size": letter }, String(at + 1))];
  })).flat();
  return make("figure", { class: "look" }, picture, drawn.length
    ? make("svg", { viewBox: `0 0 ${wide} ${high}`, "aria-hidden": "true" }, ...drawn) : null);
}

// `size`: of the picture in pixels.
export function evidence(answer, url, size) {
  const why = answer.evidence;
  const strong = [...why.parts].sort((one, other) => Math.abs(other.contribution) - Math.abs(one.contribution));
  const regions = strong.filter((part) => part.kind === "regions").slice(0, SHOWN);
  const named = (part) => regions.includes(part) ? `${regions.indexOf(part) + 1} ${part.name}` : part.name;
  const whole = why.parts.find((part) => part.kind === "pixels");
  const sides = why.sides;
  return make("section", { class: "evidence" },
    make("h3", {}, `What speaks for “${why.explained}” (+, solid line) and against it (−, dashed line)`),
    make("div", { class: "columns" },
      make("div", {}, look(url, size, regions),
        regions.length ? make("ol", {}, ...regions.map((part) =>
          make("li", {}, `${part.name || "a region"} ${signed(part.contribution)}`))) : null,
        whole ? make("p", {}, `The picture as a whole: ${signed(whole.contribution)}`) : null),
      make("div", {}, words(why),
        table(`Probability of ${why.explained} when a part is hidden`, ["shown", "probability"], [
          ["text and picture", probability(sides.both)], ["text alone", probability(sides.text_only)],
          ["picture alone", probability(sides.picture_only)], ["neither", probability(sides.none)]]),
        make("details", {}, make("summary", {}, "All words and regions"),
          table(`Log-odds that each adds; a mean of ${why.permutations || "all"} orders`,
            ["part", "kind", "adds", "± error"], strong.map((part) =>
              [named(part) || "a region", part.kind, part.contribution, part.standard_error ?? 0]))),
        make("p", { class: "note" }, why.model.member ? `Of the member ${why.model.member}. ` : null,
          why.limits.join(" ")))));
}

// The text with what each word adds below it. Places are characters, of which JavaScript's strings have others.
function words(why) {
  const letters = Array.from(why.text), shown = make("p", { class: "words", dir: "auto" });
  const places = why.parts.flatMap((part) => part.kind === "word"
    ? part.spans.filter(([text]) => text === 0).map(([, start, stop]) => ({ part, start, stop })) : []);
  let end = 0;
  for (const { part, start, stop } of places.sort((one, other) => one.start - other.start)) {
    if (start < end) continue;
    const weight = Math.abs(part.contribution) >= 0.5 ? " strong" : "";
    shown.append(letters.slice(end, start).join(""), make("span", { class: `word ${side(part.contribution)}${weight}` },
      make("b", {}, letters.slice(start, stop).join("")), make("small", {}, signed(part.contribution))));
    end = stop;
  }
  shown.append(letters.slice(end).join(""));
  return shown;
}
