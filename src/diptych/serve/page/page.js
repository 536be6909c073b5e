import { because, decided, evidence, look, make, table } from "./verdict.js";

const at = (id) => document.getElementById(id);
const UNDO = 4000; // milliseconds in which a decision can be taken back
const POLL = 5000; // milliseconds between two looks at the queue
const state = { key: "", cards: [], service: {}, file: null, url: null };

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

// Asks the service; its problems become errors with the words that it sends.
async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(state.key ? { Authorization: `Bearer ${state.key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The service does not answer.");
  }
  if (response.ok) return response;
  if (response.status === 401) at("login").hidden = false;
  const problem = await response.json().catch(() => ({ detail: `The service answered ${response.status}.` }));
  const where = (problem.errors ?? []).map((one) => one.pointer).filter(Boolean).join(", ");
  throw Object.assign(new Error(`${problem.detail}${where ? ` (${where})` : ""}`), { status: response.status });
}

async function begin() {
  try {
    const service = await (await ask("v1/models")).json();
    Object.assign(state, { cards: service.models, service });
    at("login").hidden = true;
    at("model").replaceChildren(...service.models.map((card) => make("option", { value: card.name }, card.name)));
    at("to-review").hidden = !service.review;
    at("teaching").hidden = !service.models.some((one) => one.memory);
    at("text-hint").textContent = service.reads_words
      ? "What is written in the picture; if empty, it is read from there. Ctrl+Enter checks."
      : "What is written in the picture; empty if nothing is. Ctrl+Enter checks.";
    chosen();
    say("");
    show();
  } catch (error) {
    say(error.message, true);
  }
}

const card = (name) => state.cards.find((one) => one.name === name);

function chosen() {
  const reads = card(at("model").value)?.reads ?? [];
  at("reads").textContent = reads.length ? `reads ${reads.join(", ")}` : "";
  at("by-key").hidden = !reads.includes("regions") && !reads.includes("pixels");
}

// Checking a meme

function take(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) {
    say(`${file.name} is no picture.`, true);
    return;
  }
  if (state.url) URL.revokeObjectURL(state.url);
  Object.assign(state, { file, url: URL.createObjectURL(file) });
  at("preview").src = state.url;
  at("preview").hidden = false;
  at("image-key").value = "";
  say(`The picture is ${file.name}.`);
}

function asked() {
  const text = at("text").value, key = at("image-key").value.trim();
  const request = { model: at("model").value, options: { explain: at("evidence").checked } };
  if (text || !state.service.reads_words || !state.file) request.text = text;
  if (key) request.image = { key };
  return request;
}

async function check(event) {
  event.preventDefault();
  const request = asked(), file = request.image ? null : state.file, url = state.url;
  const body = new FormData();
  body.append("request", new Blob([JSON.stringify(request)], { type: "application/json" }));
  if (file) body.append("image", file);
  at("send").disabled = true;
  say("Checking.");
  try {
    const answer = await (await ask("v1/score", { method: "POST", body })).json();
    // A picture that is exchanged meanwhile takes its address with it.
    const shown = url && url === state.url ? url : null;
    at("result").replaceChildren(...results(answer, shown, curl(request, file)));
    say(answer.decision ? `The decision is ${answer.decision.action}.` : `The answer is ${answer.answer}.`);
    at("result").querySelector("h2").focus();
  } catch (error) {
    at("result").replaceChildren();
    say(error.message, true);
  } finally {
    at("send").disabled = false;
  }
}

function results(answer, url, line) {
  const read = { given: "given", ocr: "read from the picture", none: "none" }[answer.read.text_source];
  const time = answer.timing_ms, regions = answer.read.regions, seen = at("preview");
  const size = { width: answer.read.width ?? seen.naturalWidth, height: answer.read.height ?? seen.naturalHeight };
  return [
    decided(answer, card(answer.model.name)),
    make("p", { class: "note" }, `Text (${read}): `, make("span", { dir: "auto" }, answer.read.text || "none"),
      regions == null ? "" : `, ${regions} regions`, answer.read.animated ? ", the first frame" : "",
      `. ${Math.round(time.total)} ms, of which the evidence took ${Math.round(time.explain)}.`),
    because(answer, card(answer.model.name)),
    teacher(answer, card(answer.model.name)),
    answer.evidence ? evidence(answer, url, size) : look(url, size),
    table("Scores", ["class", "calibrated", answer.memory ? "with the memory" : "of the model"], Object.entries(answer.raw).map(([name, raw]) =>
      [name, answer.decision ? (answer.scores[name] ?? "") : "", raw])),
    answer.members.length ? table(`Members: probability of ${Object.keys(answer.raw).at(-1)}`, ["member", "score"],
      answer.members.map((one) => [one.name, one.score])) : null,
    make("details", { id: "json" }, make("summary", {}, "JSON"), make("pre", { tabindex: 0 }, JSON.stringify(answer, null, 1))),
    make("details", { id: "curl" }, make("summary", {}, "The same with curl"), make("pre", { tabindex: 0 }, line), copier(line)),
  ].filter(Boolean);
}

// A form that makes a case of the meme; the service says whether the key may.
function teacher(answer, model) {
  if (!model?.memory) return null;
  const label = make("select", { id: "lesson" }, ...model.labels.map((one) => make("option", { value: one }, one)));
  const rule = make("input", { id: "lesson-rule", value: "main", maxlength: 256, size: 12, autocomplete: "off" });
  const form = make("form", { class: "teach" }, make("label", { for: "lesson" }, "This meme is"), label,
    make("label", { for: "lesson-rule" }, "by the policy"), rule, make("button", {}, "Teach"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    // What a policy decides about, or without one the last class, is what is blocked.
    const bad = model.policy ? label.value in model.policy.labels : label.value === model.labels.at(-1);
    try {
      await tell({ request_id: answer.request_id, action: bad ? "block" : "allow", label: label.value, teach: true,
        policy: rule.value.trim() || "main" });
      say("Taught. It counts from now on; check the meme again to see it.");
    } catch (error) {
      say(error.message, true);
    }
  });
  return form;
}

// Writes what a person says; sent twice, it counts once.
async function tell(said, options = {}) {
  const key = [said.request_id, said.action, said.label, said.policy, said.teach].map(encodeURIComponent).join(" ");
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  return (await ask("v1/feedback", { method: "POST", body: JSON.stringify(said), headers, ...options })).json();
}

function copier(line) {
  // Browsers give the clipboard to encrypted pages and this machine only.
  if (!navigator.clipboard) return null;
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", () => navigator.clipboard.writeText(line).then(() => say("Copied."), () => say("Select and copy it.", true)));
  return button;
}

function curl(request, file) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const words = ["curl"];
  if (state.key) words.push('-H "Authorization: Bearer $KEY"');
  // Of -F, curl takes a semicolon for the end of the value.
  words.push(`--form-string ${quoted(`request=${JSON.stringify(request)}`)}`);
  if (file) words.push(`-F ${quoted(`image=@"${file.name.replaceAll(/["\\]/g, "\\$&")}"`)}`);
  words.push(quoted(new URL("v1/score", location.href.split("#")[0]).href));
  return words.join(" ");
}

// The review queue

// `decided` has what was decided here, which the service may still list.
const queue = { items: [], total: 0, shown: null, later: new Set(), decided: new Set(), pending: null, timer: 0 };

async function refresh() {
  clearTimeout(queue.timer);
  if (!state.service.review || at("review").hidden) return;
  try {
    const found = await (await ask("v1/review")).json();
    queue.items = found.items.filter((one) => !queue.decided.has(one.request_id));
    queue.total = found.total - (found.items.length - queue.items.length);
    at("waiting").textContent = `(${queue.total})`;
    if (!queue.shown || !queue.items.some((one) => one.request_id === queue.shown.request_id)) await next();
  } catch (error) {
    say(error.message, true);
  }
  if (!at("review").hidden) queue.timer = setTimeout(refresh, POLL);
}

async function next() {
  const waiting = queue.items.filter((one) => !queue.later.has(one.request_id));
  if (!waiting.length) queue.later.clear(); // whoever has put off all begins again
  await open(waiting[0] ?? queue.items[0] ?? null);
}

async function open(item) {
  queue.shown = item;
  if (queue.url) URL.revokeObjectURL(queue.url);
  queue.url = queue.bytes = null;
  if (!item) {
    at("item").replaceChildren(make("p", {}, "Nothing waits."));
    return;
  }
  if (item.picture) {
    const path = `v1/review/${encodeURIComponent(item.request_id)}/picture`;
    queue.bytes = await ask(path).then((response) => response.blob()).catch(() => null);
    if (queue.shown !== item) return;
    queue.url = queue.bytes && URL.createObjectURL(queue.bytes);
  }
  const button = (name, text, act) => {
    const made = make("button", { type: "button", class: name }, text);
    made.addEventListener("click", act);
    return made;
  };
  at("item").replaceChildren(
    make("p", { class: "meme-text", dir: "auto" }, item.text || "(no text)"),
    look(queue.url, {}) ?? make("p", { class: "note" }, item.image_key ? `Picture ${item.image_key}` : "No picture."),
    make("div", { class: "keys" },
      button("allow", "Allow (A)", () => decide("allow")), button("block", "Block (B)", () => decide("block")),
      button("", "Later (S)", later), button("", "Evidence (E)", explain), button("", "Undo (U)", undo)),
    decided(item, card(item.model)),
    because(item, card(item.model)) ?? "",
    make("p", { class: "note" }, `${item.time}, request ${item.request_id}`,
      ...Object.entries(item.tags).map(([name, value]) => `, ${name}: ${value}`)),
    make("div", { id: "why" }));
  at("item").focus({ preventScroll: true });
}

async function decide(action) {
  const item = queue.shown;
  if (!item) return;
  await flush();
  queue.pending = { item, said: spoken(item, action), timer: setTimeout(flush, UNDO) };
  queue.decided.add(item.request_id);
  queue.items = queue.items.filter((one) => one !== item);
  queue.total -= 1;
  at("waiting").textContent = `(${queue.total})`;
  say(`${action === "allow" ? "Allowed" : "Blocked"}; ${queue.total} wait. U takes it back.`);
  await next();
}

// What is written of a decision: with the box, also the class that it gives the meme.
function spoken(item, action) {
  const said = { request_id: item.request_id, action, label: item.decision.label };
  const labels = card(item.model)?.labels ?? [];
  if (!at("teach").checked || !card(item.model)?.memory) return said;
  // Of more than two classes, what is allowed may be any other one.
  if (action === "allow" && labels.length !== 2) return said;
  const label = action === "block" ? said.label : labels.find((one) => one !== said.label);
  return { ...said, label, teach: true, policy: at("rule").value.trim() || "main" };
}

// A decision is written when it can no longer be taken back: at the next one, after seconds, or with the page.
async function flush(leaving = false) {
  const pending = queue.pending;
  if (!pending) return;
  queue.pending = null;
  clearTimeout(pending.timer);
  try {
    await tell(pending.said, { keepalive: leaving === true });
  } catch (error) {
    restore(pending.item);
    say(`The decision was not written: ${error.message}`, true);
  }
}

function restore(item) {
  queue.decided.delete(item.request_id);
  queue.items.unshift(item);
  queue.total += 1;
  at("waiting").textContent = `(${queue.total})`;
}

async function undo() {
  const pending = queue.pending;
  if (!pending) {
    say("Nothing can be taken back any more.", true);
    return;
  }
  queue.pending = null;
  clearTimeout(pending.timer);
  restore(pending.item);
  say("Taken back.");
  await open(pending.item);
}

async function later() {
  if (!queue.shown) return;
  queue.later.add(queue.shown.request_id);
  await next();
}

async function explain() {
  const item = queue.shown;
  if (!item) return;
  const request = { text: item.text, model: item.model, options: { explain: true } };
  if (!queue.bytes && item.image_key) request.image = { key: item.image_key };
  const body = new FormData();
  body.append("request", new Blob([JSON.stringify(request)], { type: "application/json" }));
  if (queue.bytes) body.append("image", new File([queue.bytes], "picture"));
  say("Looking for evidence.");
  try {
    const answer = await (await ask("v1/score", { method: "POST", body })).json();
    if (queue.shown !== item) return;
    at("why").replaceChildren(evidence(answer, queue.url, answer.read));
    say("The evidence is below the meme.");
  } catch (error) {
    say(error.message, true);
  }
}

const KEYS = { a: () => decide("allow"), b: () => decide("block"), s: later, e: explain, u: undo };

// Both views

function show() {
  if (location.hash === "#main") return; // of the link that skips to the content
  const reviewing = location.hash === "#review" && Boolean(state.service.review);
  at("check").hidden = reviewing;
  at("review").hidden = !reviewing;
  for (const [link, current] of [["to-check", !reviewing], ["to-review", reviewing]]) {
    if (current) at(link).setAttribute("aria-current", "page");
    else at(link).removeAttribute("aria-current");
  }
  if (reviewing) refresh();
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = at("key").value;
  at("key").value = "";
  begin();
});
at("meme").addEventListener("submit", check);
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("meme").requestSubmit();
});
at("model").addEventListener("change", chosen);
at("file").addEventListener("change", () => take(at("file").files[0]));
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  // The whole window: a picture that misses the field would replace the page.
  addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", over);
    if (name === "drop") take(event.dataTransfer?.files[0]);
  });
}
addEventListener("paste", (event) => take(event.clipboardData?.files[0]));
at("blur").addEventListener("change", () => at("item").classList.toggle("blurred", at("blur").checked));
at("item").addEventListener("keydown", (event) => {
  // Only while the meme has the focus: somebody who dictates or types elsewhere decides nothing.
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const act = KEYS[event.key.toLowerCase()];
  if (act) {
    event.preventDefault();
    act();
  }
});
addEventListener("pagehide", () => flush(true));
addEventListener("hashchange", show);
begin();
