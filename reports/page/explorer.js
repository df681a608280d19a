// The state of the explorer is the address: what is shown can be sent to somebody else as a link.
const root = document.documentElement;
const find = id => document.getElementById(id);
const SHOWN = {
  lost: "Lost", won: "Won", neither: "Both wrong", both: "Both right", error: "Errors", wrong: "Wrong", right: "Right",
};
const MARK = { right: ["●", "is-right", "right"], wrong: ["○", "is-wrong", "wrong"], error: ["△", "is-failed", "error"], none: ["–", "", "not run"] };
// With the repeat of each entrant that is shown, as `repeat0`, once it is known who they are.
const DEFAULTS = {
  task: "", vs: "1", outcome: "", category: "", slice: "", error: "", ops: "", turns: "", end: "", q: "", sort: "", sample: "", turn: "",
};
const SHAPES = "■●◆▲▼";
const ROW = 50;
const state = { ...DEFAULTS };
let index = null;
let shown = [];
const decoded = new Map();

function make(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined && child !== ""));
  return node;
}

function draw(name, props = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

async function unpack(id) {
  if (!decoded.has(id)) {
    decoded.set(id, (async () => {
      const bytes = Uint8Array.from(atob(find(id).textContent), letter => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
      return JSON.parse(await new Response(stream).text());
    })());
    if (decoded.size > 40) decoded.delete([...decoded.keys()].find(key => key !== "index"));
  }
  return decoded.get(id);
}

// An entrant's episodes of a sample are [score, ends, operations, turns, faults, answer, confidence]; null where it has none.
const side = cell => !cell ? "none" : cell[0] === null ? "error" : cell[0] >= 0.5 ? "right" : "wrong";

function outcome(sample) {
  const before = side(sample.cells[0]);
  if (index.entrants.length === 1) return before;
  const after = side(sample.cells[candidate()]);
  if (before === "error" || after === "error") return "error";
  if (before === "none" || after === "none") return "none";
  if (before === "right") return after === "right" ? "both" : "lost";
  return after === "right" ? "won" : "neither";
}

const candidate = () => Math.min(Math.max(1, Number(state.vs) || 1), index.entrants.length - 1) || 0;
const chosen = () => index.entrants.length > 1 ? [0, candidate()] : [0];
const outcomes = () => index.entrants.length > 1 ? ["lost", "won", "neither", "both", "error"] : ["wrong", "right", "error"];
const task = () => index.tasks.find(one => one.name === state.task) || index.tasks[0];

function readAddress() {
  const text = location.hash.slice(1);
  if (text && !text.includes("=")) return false;
  const given = new URLSearchParams(text);
  for (const key of Object.keys(DEFAULTS)) state[key] = given.get(key) ?? DEFAULTS[key];
  return true;
}

function address(changes = {}) {
  const wanted = { ...state, ...changes };
  const kept = Object.entries(wanted).filter(([key, value]) => value && value !== DEFAULTS[key]);
  return "#" + new URLSearchParams(kept.length ? kept : [["task", task().name]]).toString();
}

function go(changes, { keep = false } = {}) {
  const target = address({ turn: "", ...changes });
  if (keep) history.replaceState(null, "", target); else history.pushState(null, "", target);
  readAddress();
  show();
}

function matcher(text) {
  const pattern = /^\/(.*)\/$/s.exec(text);
  if (pattern) {
    try {
      const wanted = new RegExp(pattern[1], "iu");
      return sample => wanted.test(sample.text);
    } catch {
      return () => false;
    }
  }
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return sample => words.every(word => sample.text.includes(word));
}

const least = (wanted, value) => wanted.endsWith("+") ? value >= Number(wanted.slice(0, -1)) : value === Number(wanted);

function filter() {
  const matches = state.q ? matcher(state.q) : null;
  const kinds = index.faults.indexOf(state.error), end = index.ends.indexOf(state.end);
  const sides = chosen();
  const any = test => sample => sides.some(number => sample.cells[number] && test(sample.cells[number]));
  const tests = [
    state.outcome && (sample => sample.outcome === state.outcome),
    state.category && (sample => sample.category === state.category),
    state.slice && (sample => sample.slices.includes(state.slice)),
    state.error && any(cell => kinds < 0 ? cell[4] > 0 : cell[4] & (1 << kinds)),
    state.end && any(cell => cell[1] & (1 << end)),
    state.ops && any(cell => least(state.ops, cell[2])),
    state.turns && any(cell => least(state.turns, cell[3])),
    matches,
  ].filter(Boolean);
  shown = task().samples.filter(sample => tests.every(test => test(sample)));
  const most = number => sample => Math.max(...sides.map(one => sample.cells[one] ? sample.cells[one][number] : 0));
  const surely = sample => {
    const cell = sample.cells[candidate()];
    return side(cell) === "wrong" ? cell[6] ?? -0.5 : -1;
  };
  const by = { ops: most(2), turns: most(3), sure: surely }[state.sort];
  if (by) shown.sort((a, b) => by(b) - by(a) || a.place - b.place);
  else if (state.sort !== "id") shown.sort((a, b) => a.ranks[candidate()] - b.ranks[candidate()] || a.place - b.place);
}

function show() {
  const start = performance.now();
  for (const sample of task().samples) sample.outcome = outcome(sample);
  filter();
  syncFilters();
  find("count").textContent = `${shown.length} of ${task().samples.length} samples`;
  for (const panel of document.querySelectorAll(".task")) panel.classList.toggle("on", panel.dataset.task === String(task().number));
  for (const tab of document.querySelectorAll(".tabs button")) tab.setAttribute("aria-pressed", String(tab.dataset.task === String(task().number)));
  find("list").scrollTop = Math.max(0, Math.min(find("list").scrollTop, shown.length * ROW));
  renderList();
  root.dataset.filterMs = (performance.now() - start).toFixed(1);
  const sample = current();
  reveal(sample);
  return sample ? showSample(sample) : showNothing();
}

const current = () => shown.find(sample => sample.id === state.sample)
  || (state.sample && task().samples.find(sample => sample.id === state.sample)) || shown[0];

function renderList() {
  const list = find("list"), room = find("room");
  room.style.height = `${shown.length * ROW}px`;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 6);
  const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / ROW) + 14);
  const now = current();
  const rows = [];
  for (let place = first; place < last; place++) rows.push(listRow(shown[place], place, now));
  room.replaceChildren(...rows);
}

function listRow(sample, place, now) {
  const marks = chosen().map(number => {
    const [sign, style, words] = MARK[side(sample.cells[number])];
    return make("span", { class: style, title: `${index.entrants[number].label}: ${words}` }, sign);
  });
  const operations = chosen().map(number => sample.cells[number] ? sample.cells[number][2] : "–").join(" · ");
  const row = make("a", {
    href: address({ sample: sample.id, turn: "" }), "aria-current": sample === now ? "true" : null,
    "aria-label": `${sample.id}, ${chosen().map(number => `${index.entrants[number].label} ${MARK[side(sample.cells[number])][2]}`).join(", ")}`,
    onclick: event => { if (!event.metaKey && !event.ctrlKey) { event.preventDefault(); go({ sample: sample.id }); } },
  },
  make("span", { class: "marks", "aria-hidden": "true" }, ...marks),
  make("span", { class: "id" }, sample.id),
  make("span", { class: "ops", title: "operations" }, operations),
  make("span", { class: "what" }, sample.question));
  row.style.top = `${place * ROW}px`;
  return row;
}

function reveal(sample) {
  const list = find("list"), place = shown.indexOf(sample);
  if (place < 0) return;
  const top = place * ROW;
  if (top < list.scrollTop || top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = Math.max(0, top - list.clientHeight / 3);
  renderList();
}

function fill(id, first, values, label = value => value) {
  const select = find(id);
  const options = [make("option", { value: "" }, first), ...values.map(value => make("option", { value }, label(value)))];
  if (select.options.length !== options.length || [...select.options].some((one, at) => one.value !== options[at].value)) select.replaceChildren(...options);
  select.value = state[id];
  if (select.value !== state[id]) { select.append(make("option", { value: state[id] }, state[id])); select.value = state[id]; }
}

function syncFilters() {
  const own = task();
  fill("category", "all", own.categories);
  fill("slice", "all", own.slices);
  fill("error", "all", ["any", ...index.faults], value => value.replaceAll("_", " "));
  fill("ops", "any", ["0", "1", "2", "3+", "1+"]);
  fill("turns", "any", ["1", "2", "3", "4+"]);
  fill("end", "all", index.ends, value => value.replaceAll("_", " "));
  const sorts = { sure: "surest errors", id: "id", ops: "most operations", turns: "most turns" };
  fill("sort", "most instructive", Object.keys(sorts), value => sorts[value]);
  const against = find("vs");
  against.closest("label").hidden = index.entrants.length < 3;
  against.replaceChildren(...index.entrants.slice(1).map((one, at) => make("option", { value: String(at + 1) }, one.label)));
  against.value = String(candidate());
  if (document.activeElement !== find("q")) find("q").value = state.q;
  const counts = {};
  for (const sample of own.samples) counts[sample.outcome] = (counts[sample.outcome] || 0) + 1;
  find("outcomes").replaceChildren(...["", ...outcomes()].map(name => make("button", {
    type: "button", "aria-pressed": String(state.outcome === name), "data-outcome": name || "all",
    onclick: () => go({ outcome: name }, { keep: true }),
  }, name ? `${SHOWN[name]} ${counts[name] || 0}` : "All")));
}
