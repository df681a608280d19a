// Starts the explorer and answers keys.
function read(raw) {
  raw.tasks.forEach((one, number) => {
    one.number = number;
    one.samples = one.samples.map((row, at) => {
      const [id, category, slices, question, gold, cells, ranks, quoted] = row;
      const answers = cells.map(cell => cell ? cell[5] : "").join(" ");
      return {
        id, question, gold, cells, ranks, quoted, place: one.first + at, category: one.categories[category] || "",
        slices: slices.map(number => one.slices[number]), text: `${id} ${one.categories[category] || ""} ${question} ${gold} ${answers}`.toLowerCase(),
      };
    });
  });
  return raw;
}

function listen() {
  for (const id of ["vs", "category", "slice", "error", "ops", "turns", "end", "sort"]) {
    find(id).addEventListener("change", event => go({ [id]: event.target.value }, { keep: true }));
  }
  let waiting = 0;
  find("q").addEventListener("input", event => {
    clearTimeout(waiting);
    waiting = setTimeout(() => go({ q: event.target.value }, { keep: true }), 60);
  });
  find("filters").addEventListener("submit", event => event.preventDefault());
  find("clear").addEventListener("click", () => go({ ...DEFAULTS, task: state.task, vs: state.vs, sample: state.sample }));
  find("list").addEventListener("scroll", () => requestAnimationFrame(renderList), { passive: true });
  for (const tab of document.querySelectorAll(".tabs button")) {
    tab.addEventListener("click", () => go({ ...DEFAULTS, vs: state.vs, task: index.tasks[Number(tab.dataset.task)].name }));
  }
  find("help-open").addEventListener("click", () => find("help").showModal());
  addEventListener("hashchange", () => { if (readAddress()) { show(); jump(); } });
  addEventListener("popstate", () => { if (readAddress()) show(); });
  addEventListener("resize", () => requestAnimationFrame(renderList));
  addEventListener("keydown", key);
}

// A link of a chart or a matrix asks for samples, which stand further down; one that names a task alone does not.
function jump() {
  const asked = [...new URLSearchParams(location.hash.slice(1)).keys()];
  if (location.hash.includes("=") && asked.some(key => key !== "task" && key !== "vs")) find("samples").scrollIntoView();
}

function key(event) {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.metaKey || event.ctrlKey || event.altKey || find("help").open) return;
  const step = by => { const next = shown[shown.indexOf(current()) + by]; if (next) go({ sample: next.id }); };
  const actions = {
    j: () => step(1), k: () => step(-1), "/": () => find("q").focus(), "?": () => find("help").showModal(),
    ArrowRight: () => turn(1), ArrowLeft: () => turn(-1), 0: () => go({ outcome: "" }, { keep: true }),
    t: () => go({ ...DEFAULTS, vs: state.vs, task: index.tasks[(task().number + 1) % index.tasks.length].name }),
    Escape: () => { if (state.turn) go({ turn: "" }, { keep: true }); },
  };
  outcomes().forEach((name, at) => { actions[at + 1] = () => go({ outcome: name }, { keep: true }); });
  const action = actions[event.key];
  if (action) { event.preventDefault(); action(); }
}

function turn(by) {
  const turns = [...new Set([...find("detail").querySelectorAll(".turn[data-turn]")].map(node => Number(node.dataset.turn)))].sort((a, b) => a - b);
  if (!turns.length) return;
  const now = turns.indexOf(Number(state.turn));
  const next = turns[now < 0 ? (by > 0 ? 0 : turns.length - 1) : Math.min(Math.max(now + by, 0), turns.length - 1)];
  state.turn = String(next);
  history.replaceState(null, "", address({ sample: current().id, turn: state.turn }));
  light(next);
}

async function start() {
  const theme = find("theme");
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  root.classList.add("js");
  if (!find("index")) { find("help-open")?.remove(); return; }
  index = read(await unpack("index"));
  for (const number of index.entrants.keys()) DEFAULTS[`repeat${number}`] = "";
  readAddress();
  listen();
  await show();
  jump();
  root.dataset.readyMs = performance.now().toFixed(0);
}

start();
