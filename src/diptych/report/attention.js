"use strict";
// All texts are set as textContent: they come from strangers.
const data = JSON.parse(document.getElementById("data").textContent);
const SIDES = data.sides; // of queries and keys, by view; `all` has none
const MEAN = -1; // in place of the number of a head
const MOST = 5; // boxes whose share is written on the picture
const state = { pair: 0, view: "", layer: 0, head: 0, query: null, special: false, scale: "page" };
const get = (id) => document.getElementById(id);

function make(tag, { text, ...values } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

const pair = () => data.pairs[state.pair];
const percent = (value) => `${value >= 0.095 || value === 0 ? Math.round(100 * value) : (100 * value).toFixed(1)} %`;

function label(place) {
  const name = place.joins ? `-${place.name.replace(/^##/, "")}` : place.name;
  return place.number ? `${place.number} ${name}`.trim() : name;
}

// A byte is 255 times the square root of a weight, which keeps small weights apart.
function valuesOf(layer) {
  layer.values ??= Float32Array.from(atob(layer.data), (letter) => (letter.charCodeAt(0) / 255) ** 2);
  return layer.values;
}

// The part of a layer that the view shows; rows and columns are numbers within the layer's own lists.
function blockOf(layer, number) {
  const { places } = pair();
  const [asks, gives] = SIDES[state.view] ?? [null, null];
  const pick = (list, side) =>
    [...list.keys()].filter((n) => {
      const place = places[list[n]];
      return side === null || (place.side === side && (state.special || !place.special));
    });
  return { layer, number, rows: pick(layer.queries, asks), columns: pick(layer.keys, gives) };
}

function blocks() {
  return pair().layers.map(blockOf).filter((block) => block.rows.length && block.columns.length);
}

function mapOf({ layer, rows, columns }, head) {
  const values = valuesOf(layer);
  const [height, width] = [layer.queries.length, layer.keys.length];
  const heads = head === MEAN ? [...Array(layer.heads).keys()] : [head];
  return rows.map((row) =>
    columns.map((column) => {
      let sum = 0;
      for (const one of heads) sum += values[(one * height + row) * width + column];
      return sum / heads.length;
    }),
  );
}

function rangeOf(some) {
  let [low, high] = [Infinity, 0];
  for (const block of some) {
    for (let head = 0; head < block.layer.heads; head++) {
      for (const row of mapOf(block, head)) {
        for (const value of row) {
          low = Math.min(low, value);
          high = Math.max(high, value);
        }
      }
    }
  }
  return [low, high];
}

const shadeOf = (value, [low, high]) => (high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0);
const heat = (shade) => `rgb(${getComputedStyle(document.body).getPropertyValue("--heat")} / ${shade})`;

function drawThumbnail(map, range) {
  const canvas = make("canvas", { width: map[0].length, height: map.length });
  const image = new ImageData(map[0].length, map.length);
  const color = getComputedStyle(document.body).getPropertyValue("--heat").trim().split(/\s+/).map(Number);
  map.flat().forEach((value, n) => image.data.set([...color, 255 * shadeOf(value, range)], 4 * n));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

let shown = []; // the blocks of the view, each with `range`, what its palest and darkest shade stand for

function drawOverview() {
  shown = blocks();
  const page = [0, rangeOf(shown)[1]];
  for (const block of shown) block.range = state.scale === "page" ? page : rangeOf([block]);
  const most = Math.max(...shown.map((block) => block.layer.heads));
  const grid = get("grid");
  grid.replaceChildren(make("span"));
  grid.style.gridTemplateColumns = `max-content repeat(${most + 1}, minmax(1.1rem, 5.5rem))`;
  for (let head = 0; head < most; head++) grid.append(make("span", { class: "top", text: head + 1 }));
  grid.append(make("span", { class: "top", text: "all" }));
  for (const block of shown) {
    grid.append(make("span", { text: block.layer.title, title: block.layer.name }));
    for (let column = 0; column <= most; column++) {
      const head = column === most ? MEAN : column;
      if (column < most && column >= block.layer.heads) {
        grid.append(make("span"));
        continue;
      }
      const name = `${block.layer.title}, ${head === MEAN ? "mean of heads" : `head ${head + 1}`}`;
      const button = make("button", { type: "button", "aria-label": name, title: name, tabindex: -1 });
      button.append(drawThumbnail(mapOf(block, head), block.range));
      button.dataset.layer = block.number;
      button.dataset.head = head;
      grid.append(button);
    }
  }
  get("legend").textContent =
    state.scale === "page"
      ? `The darkest shade is ${percent(page[1])} of a position's attention, in all layers.`
      : "Shades go from the least to the most of each layer, so they do not compare between layers.";
}

function choose(layer, head, focus) {
  if (layer !== undefined) [state.layer, state.head] = [layer, head];
  const block = shown.find((one) => one.number === state.layer) ?? shown[0];
  state.layer = block.number;
  if (state.head >= block.layer.heads) state.head = MEAN;
  for (const button of get("grid").querySelectorAll("button")) {
    const on = +button.dataset.layer === state.layer && +button.dataset.head === state.head;
    button.setAttribute("aria-pressed", on);
    button.tabIndex = on ? 0 : -1;
    if (on && focus) button.focus();
  }
  drawDetail(block);
}

function walk(event) {
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  const row = shown.findIndex((block) => block.number === state.layer);
  const block = shown[Math.min(shown.length - 1, Math.max(0, row + step[0]))];
  const { heads } = block.layer;
  const column = (state.head === MEAN ? shown[row].layer.heads : state.head) + step[1];
  const last = Math.min(heads, Math.max(0, column));
  choose(block.number, last === heads ? MEAN : last, true);
}

// One button per position, with its share below the name if there are shares.
function chip(number, { value, shade, button }) {
  const place = pair().places[number];
  const names = [place.special && "special", place.joins && "joins", shade > 0.6 && "dark"];
  const element = make(button ? "button" : "span", { class: names.filter(Boolean).join(" ") });
  element.append(make("bdi", { dir: "auto", text: label(place) }));
  if (value !== undefined) {
    element.append(make("small", { text: value >= 0.005 ? percent(value) : "" }));
    element.style.background = heat(shade);
  }
  if (button) {
    element.type = "button";
    element.setAttribute("aria-pressed", state.query === number);
    element.addEventListener("click", () => ask(number));
  }
  return element;
}

function ask(number) {
  state.query = state.query === number ? null : number;
  choose();
}

function drawDetail(block) {
  const { places } = pair();
  const map = mapOf(block, state.head);
  const asking = block.rows.map((row) => block.layer.queries[row]);
  const given = block.columns.map((column) => block.layer.keys[column]);
  if (!asking.includes(state.query)) state.query = null;
  const row = asking.indexOf(state.query);
  const mean = given.map((_, n) => map.reduce((sum, one) => sum + one[n], 0) / map.length);
  const weights = row < 0 ? mean : map[row];
  const top = Math.max(...weights);
  const share = new Map(given.map((number, n) => [number, weights[n]]));
  const head = state.head === MEAN ? "mean of all heads" : `head ${state.head + 1}`;
  get("which").textContent = `${block.layer.title}, ${head}`;
  get("map-title").textContent = `All positions: ${block.layer.title}, ${head}`;
  get("says").textContent = sentence(row < 0 ? null : places[state.query], share);
  get("everyone").setAttribute("aria-pressed", row < 0);
  get("queries").replaceChildren(...asking.map((number) => chip(number, { button: true })));
  get("keys").replaceChildren(
    ...given.map((number) =>
      chip(number, { value: share.get(number), shade: top ? share.get(number) / top : 0 }),
    ),
  );
  get("relative").textContent = top ? `darkest: ${percent(top)}` : "";
  drawPictures(new Set(asking), share, top);
  drawMatrix(block, map, asking, given);
}

function sentence(query, share) {
  const { places } = pair();
  const best = [...share].sort((one, other) => other[1] - one[1]).slice(0, 3).filter(([, value]) => value > 0);
  const who = query === null ? "All on average" : `“${label(query)}”`;
  if (!best.length) return `${who}: no attention here.`;
  const verb = query === null ? "look" : "looks";
  const all = [...share.values()].reduce((sum, value) => sum + value, 0);
  const names = best.map(([number, value]) => `${label(places[number])} (${percent(value)})`);
  return `${who} ${verb} most at ${names.join(", ")}. Shown here: ${percent(all)} of this attention.`;
}

function drawPictures(asking, share, top) {
  const { places, pictures } = pair();
  const best = [...share].filter(([number, value]) => places[number].box && value > 0);
  const least = Math.min(...best.map(([, value]) => value));
  if (best.length) get("relative").append(`, boxes from ${percent(least)}`);
  const most = new Set(best.sort((one, other) => other[1] - one[1]).slice(0, MOST).map(([number]) => number));
  get("pictures").replaceChildren(
    ...pictures.map((picture, n) => {
      const frame = make("div", { class: "picture" });
      if (picture.src) frame.append(make("img", { src: picture.src, alt: `picture ${n + 1}` }));
      else {
        frame.classList.add("missing");
        frame.append(make("p", { text: picture.note }));
      }
      const mine = [...places.keys()].filter((number) => places[number].box && places[number].picture === n);
      if (mine.length > 24) frame.classList.add("crowd");
      // Large boxes first, so that small ones lie above them and can be clicked.
      const area = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
      mine.sort((one, other) => area(places[other]) - area(places[one]));
      frame.append(...mine.map((number) => boxOf(number, asking.has(number), share.get(number), [least, top], most)));
      return frame;
    }),
  );
}

function boxOf(number, asks, value, range, most) {
  const place = pair().places[number];
  const [x1, y1, x2, y2] = place.box;
  const box = make(asks ? "button" : "div", { class: "box", title: label(place) });
  Object.assign(box.style, {
    left: `${100 * x1}%`, top: `${100 * y1}%`, width: `${100 * (x2 - x1)}%`, height: `${100 * (y2 - y1)}%`,
  });
  const written = most.has(number);
  box.classList.toggle("most", written);
  box.append(make("b", { text: written ? `${place.number}: ${percent(value)}` : place.number }));
  // From the least to the most, because a picture under shades that hardly differ could not be seen.
  if (value !== undefined) box.style.background = `rgb(106 27 154 / ${0.55 * shadeOf(value, range)})`;
  if (asks) {
    box.type = "button";
    box.setAttribute("aria-pressed", state.query === number);
    box.addEventListener("click", () => ask(number));
  }
  return box;
}

function drawMatrix(block, map, asking, given) {
  const { places } = pair();
  const names = given.map((number) => {
    const name = make("div", { text: label(places[number]) });
    return make("th", { scope: "col", class: places[number].special ? "special" : "" }, name);
  });
  const rows = map.map((weights, n) => {
    const place = places[asking[n]];
    const button = make("button", { type: "button", text: label(place) });
    button.addEventListener("click", () => ask(asking[n]));
    const header = make("th", { scope: "row", class: place.special ? "special" : "" }, button);
    const cells = weights.map((value, column) => {
      const cell = make("td", { title: `${label(place)} → ${label(places[given[column]])}: ${value.toFixed(3)}` });
      cell.style.background = heat(shadeOf(value, block.range));
      return cell;
    });
    return make("tr", { "aria-selected": asking[n] === state.query }, header, ...cells);
  });
  const head = make("thead", {}, make("tr", {}, make("td"), ...names));
  get("matrix").replaceChildren(make("table", {}, head, make("tbody", {}, ...rows)));
}

function drawViews() {
  const fieldset = get("views");
  for (const label of fieldset.querySelectorAll("label")) label.remove();
  for (const view of pair().views) {
    const input = make("input", { type: "radio", name: "view", value: view });
    input.checked = view === state.view;
    fieldset.append(make("label", {}, input, data.names[view]));
  }
}

function openPair(number) {
  const { view, layer, head, answer, text } = data.pairs[number];
  Object.assign(state, { pair: number, view, layer, head, query: null });
  get("answer").textContent = [text && `“${text}”`, answer && `Answer: ${answer}.`].filter(Boolean).join(" ");
  drawViews();
  drawOverview();
  choose();
}

get("pair").append(...data.pairs.map(({ label }, n) => make("option", { value: n, text: label })));
get("pair-label").hidden = data.pairs.length < 2;
get("pair").addEventListener("change", (event) => openPair(+event.target.value));
get("grid").addEventListener("keydown", walk);
get("grid").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(+button.dataset.layer, +button.dataset.head);
});
get("everyone").addEventListener("click", () => ask(null));
get("controls").addEventListener("submit", (event) => event.preventDefault());
get("controls").addEventListener("change", (event) => {
  if (event.target.id === "pair") return;
  state.view = get("views").querySelector(":checked").value;
  state.special = get("special").checked;
  state.scale = get("scale").value;
  drawOverview();
  choose();
});
document.querySelector("main").hidden = false;
openPair(0);
