// One sample: the source image with the boxes of both runs, the turns of both side by side, and what was read in them.
const SVG_LABEL = 12;
const hue = turn => `t${turn % 6}`;

function showNothing() {
  find("detail").replaceChildren(make("p", { class: "note" }, "No sample is left by these filters."));
}

async function showSample(sample) {
  const wanted = sample;
  const chunk = await unpack(`chunk-${Math.floor(sample.place / index.chunk)}`);
  if (current() !== wanted) return;
  try {
    fillDetail(sample, chunk[sample.place % index.chunk]);
  } catch (error) {
    find("detail").replaceChildren(make("p", { class: "note" }, `This sample's record cannot be shown: ${error.message}.`));
  }
}

function fillDetail(sample, whole) {
  const sides = chosen().filter(number => whole.episodes[number] && whole.episodes[number].length).map(number => ({
    number, label: index.entrants[number].label, round: number > 0, episodes: whole.episodes[number],
    episode: whole.episodes[number].find(one => one.key === state[`repeat${number}`]) || whole.episodes[number][0],
  }));
  find("detail").replaceChildren(
    head(sample, sides),
    make("h3", { class: "question", tabindex: whole.question.length > 500 ? "0" : null }, whole.question),
    choices(whole, sides),
    ...stages(whole, sides),
    strips(sides),
    panels(sample, whole, sides),
  );
  light(state.turn);
  root.dataset.sample = sample.id;
}

function head(sample, sides) {
  const place = shown.indexOf(sample);
  const step = by => () => { const next = shown[place + by]; if (next) go({ sample: next.id }); };
  const copy = make("button", { type: "button", onclick: () => copyText(location.href.split("#")[0] + address({ sample: sample.id }), copy) }, "Copy link");
  return make("div", { class: "head" },
    make("span", { class: "id" }, sample.id),
    make("span", {}, [sample.category, ...sample.slices].filter(Boolean).join(" · ")),
    ...sides.map(one => {
      const [sign, style, words] = MARK[side(sample.cells[one.number])];
      return make("span", { class: style }, tag(one), " ", make("span", {}, `${words} ${sign}`));
    }),
    make("span", { class: "spread" }, copy,
      make("button", { type: "button", onclick: step(-1), disabled: place <= 0, "aria-label": "Previous sample" }, "←"),
      make("button", { type: "button", onclick: step(1), disabled: place < 0 || place >= shown.length - 1, "aria-label": "Next sample" }, "→")));
}

function choices(whole, sides) {
  if (!whole.choices.length) return make("p", { class: "note" }, `Accepted: ${whole.gold.join(" · ")}`);
  return make("ol", { class: "choices" }, ...whole.choices.map((text, at) => {
    const letter = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[at];
    const gold = whole.gold.includes(letter);
    const by = sides.filter(one => (one.episode.answer || "").trim() === letter);
    return make("li", { class: gold ? "gold" : null }, make("b", {}, letter), make("span", {}, text),
      gold ? make("small", {}, "✓ accepted") : null, ...by.map(one => tag(one)));
  }));
}

const tag = one => make("span", { class: `tag run-${one.number % 5}`, role: "img", "aria-label": one.label, title: one.label }, SHAPES[one.number % 5]);
const chip = (one, turn) => make("span", { class: one.round ? "chip round" : "chip", title: `${one.label}, turn ${turn}` }, String(turn));
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function stages(whole, sides) {
  const items = whole.media.length ? whole.media : [];
  return items.map(item => make("div", { class: "stages" }, item.kind === "video" ? video(item, whole, sides) : stage(item, whole, sides),
    item.kind === "video" ? null : legend(item, whole, sides)));
}

function shownSize([width, height], most = 560, tall = 470, least = 260) {
  const scale = Math.min(most / width, tall / height, Math.max(1, least / Math.max(width, height)));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

function picture(key, label, size) {
  const held = key && find(`picture-${key}`);
  if (!held) return make("div", { class: "blank", role: "img", "aria-label": `${label}: not in this file` });
  return make("img", { src: held.textContent, alt: label, width: size[0], height: size[1], decoding: "async" });
}

function stage(item, whole, sides) {
  const size = shownSize(item.size);
  const unit = item.size[0] / size[0];
  const overlay = overlaid(item);
  for (const one of whole.evidence) if (one.media === item.index && one.box) {
    overlay.append(rectangle(one.box, "truth-halo"), rectangle(one.box, "truth"));
  }
  for (const { box, one } of boxesOf(item, sides)) overlay.append(drawn(box, one, unit));
  const shown = picture(item.picture, `Source image ${item.name}`, size);
  const holder = make("div", { class: "stage", "data-width": item.size[0], "data-height": item.size[1] }, shown, overlay);
  if (shown.tagName !== "IMG") { shown.style.width = `${size[0]}px`; shown.style.aspectRatio = `${size[0]} / ${size[1]}`; }
  return holder;
}

// A drawing over a picture of the item, in the item's own pixels.
function overlaid(item) {
  return draw("svg", { viewBox: `0 0 ${item.size[0]} ${item.size[1]}`, preserveAspectRatio: "none", class: "overlay", "aria-hidden": "true" });
}

function boxesOf(item, sides) {
  return sides.flatMap(one => one.episode.boxes.filter(box => box.root === item.index).map(box => ({ box, one })));
}

function rectangle([left, top, right, bottom], style) {
  return draw("rect", { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top), class: style });
}

function outlined(box, one) {
  const off = box.state === "cut" ? "" : " off";
  const group = draw("g", { class: `box ${hue(box.turn)}`, "data-run": one.number, "data-turn": box.turn, "data-state": box.state });
  if (box.cut) group.append(rectangle(box.cut, "area"));
  group.append(rectangle(box.asked, "halo"), rectangle(box.asked, `edge${off}`));
  return group;
}

function drawn(box, one, unit) {
  const group = outlined(box, one);
  const text = String(box.turn), wide = (text.length * 7 + 11) * unit, high = (SVG_LABEL + 6) * unit;
  const x = one.round ? box.asked[2] - wide : box.asked[0], y = Math.max(0, box.asked[1] - high);
  const plate = draw("rect", { x, y, width: wide, height: high, rx: one.round ? high / 2 : 2 * unit, class: "plate" });
  plate.style.fill = "var(--turn)";
  const label = draw("text", { x: x + wide / 2, y: y + high * 0.74, "text-anchor": "middle" }, text);
  label.style.fontSize = `${SVG_LABEL * unit}px`;
  group.append(plate, label);
  return group;
}

function legend(item, whole, sides) {
  const truth = whole.evidence.some(one => one.media === item.index && one.box);
  const seen = item.seen.join(" × "), size = item.size.join(" × ");
  return make("ul", { class: "legend" },
    make("li", { class: "note" }, `${item.name} · ${size}, seen at ${seen}`),
    truth ? make("li", { class: "note" }, "Dotted: where the answer is to be seen") : null,
    ...boxRows(item, sides));
}

function boxRows(item, sides) {
  const rows = boxesOf(item, sides).map(({ box, one }) => {
    const facts = [`${box.frame ? `frame ${box.frame}: ` : ""}${box.asked.map(edge => Math.round(edge)).join(", ")}`];
    if (box.iou !== null) facts.push(`IoU ${box.iou.toFixed(2)}`);
    if (box.cause) facts.push(box.cause.replaceAll("_", " "));
    return make("li", { class: hue(box.turn), "data-run": one.number, "data-turn": box.turn, ...hover(box.turn) },
      chip(one, box.turn), make("span", { class: "num" }, facts.join(" · ")));
  });
  return rows.length ? [make("li", { class: "note" }, "Outline: what was asked for; tint: what was cut; dashed: refused or clipped"), ...rows] : [];
}

function video(item, whole, sides) {
  const frames = item.count || 1;
  const truth = new Set(whole.evidence.filter(one => one.media === item.index).flatMap(one => one.frames));
  const picks = sides.flatMap(one => one.episode.frames.map(frames => ({ ...frames, one })));
  const boxes = boxesOf(item, sides);
  const cells = Array.from({ length: frames }, (_, at) => cell(item, at + 1, truth, picks, boxes.filter(({ box }) => box.frame === at + 1)));
  const faults = picks.filter(pick => pick.cause || new Set(pick.picked).size < pick.picked.length || pick.picked.some(n => n < 1 || n > frames));
  return make("div", { class: "video" },
    make("p", { class: "note" }, `${item.name} · ${frames} frames of ${item.size.join(" × ")}, seen at ${item.seen.join(" × ")}${truth.size ? " · dotted: where the answer is to be seen" : ""}`),
    make("div", { class: "frames", role: "group", "aria-label": `${frames} frames` }, ...cells),
    ruler(frames, truth, sides),
    make("ul", { class: "legend" }, ...faults.map(pick => make("li", { class: hue(pick.turn) },
      chip(pick.one, pick.turn), make("span", {}, `${pick.picked.join(", ")}: ${trouble(pick, frames)}`))), ...boxRows(item, sides)));
}

function trouble(pick, last) {
  const found = [];
  const twice = [...new Set(pick.picked.filter((n, at) => pick.picked.indexOf(n) !== at))];
  const outside = pick.picked.filter(n => n < 1 || n > last);
  if (twice.length) found.push(`${twice.join(", ")} picked more than once`);
  if (outside.length) found.push(`${outside.join(", ")} outside 1 to ${last}`);
  if (pick.cause) found.push(pick.cause.replaceAll("_", " "));
  return found.join("; ");
}

function cell(item, number, truth, picks, boxes) {
  const own = picks.filter(pick => pick.picked.includes(number));
  const by = (verb, all) => all.length ? `, ${verb} by ${all.map(([one, turn]) => `${one.label} in turn ${turn}`).join(" and ")}` : "";
  const overlay = boxes.length ? overlaid(item) : null;
  for (const { box, one } of boxes) overlay.append(outlined(box, one));
  const node = make("div", {
    class: "cell", role: "img", "data-frame": number, "data-shown": truth.has(number) ? "yes" : null,
    "aria-label": `Frame ${number}${by("picked", own.map(pick => [pick.one, pick.turn]))}${by("boxed", boxes.map(({ box, one }) => [one, box.turn]))}`,
  }, overlay, make("span", {}, String(number)),
  make("span", { class: "picks" }, ...own.map(pick => make("i", { class: `${hue(pick.turn)}${pick.one.round ? " round" : ""}`, "data-turn": pick.turn }, String(pick.turn)))));
  const held = item.picture && find(`picture-${item.picture}`);
  node.style.setProperty("--shape", `${item.size[0]} / ${item.size[1]}`);
  if (held) {
    const columns = Number(held.dataset.columns) || 1, rows = Math.ceil(Number(held.dataset.frames) / columns) || 1, at = number - 1;
    node.style.backgroundImage = `url("${held.textContent}")`;
    node.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
    node.style.backgroundPosition = `${columns > 1 ? (at % columns) / (columns - 1) * 100 : 0}% ${rows > 1 ? Math.floor(at / columns) / (rows - 1) * 100 : 0}%`;
  }
  return node;
}

function ruler(last, truth, sides) {
  const high = 38 + 22 * sides.length;
  const svg = draw("svg", { viewBox: `0 0 700 ${high}`, class: "ruler", role: "img", "aria-label": "Which frames were picked" });
  const at = number => number < 1 ? 40 : number > last ? 675 : last > 1 ? 70 + (number - 1) * 570 / (last - 1) : 355;
  svg.append(draw("line", { x1: 70, x2: 640, y1: 14, y2: 14, class: "line" }));
  for (let number = 1; number <= last; number++) {
    const mark = draw("text", { x: at(number), y: 10, "text-anchor": "middle" }, truth.has(number) ? `(${number})` : String(number));
    svg.append(draw("line", { x1: at(number), x2: at(number), y1: 14, y2: 19, class: "line" }), mark);
  }
  sides.forEach((one, row) => {
    const y = 34 + 22 * row, stacked = {};
    svg.append(draw("text", { x: 4, y: y + 4 }, SHAPES[one.number % 5]));
    for (const pick of one.episode.frames) for (const number of pick.picked) {
      const outside = number < 1 || number > last, key = at(number);
      const offset = (stacked[key] = (stacked[key] ?? -1) + 1) * 5;
      const shape = one.round ? draw("circle", { cx: key + offset, cy: y, r: 6 }) : draw("rect", { x: key + offset - 5.5, y: y - 5.5, width: 11, height: 11 });
      shape.setAttribute("class", `${hue(pick.turn)} mark${outside || pick.cause ? " outside" : ""}`);
      shape.dataset.turn = pick.turn; shape.dataset.frame = number;
      if (outside) svg.append(draw("text", { x: key + offset, y: y + 17, "text-anchor": "middle" }, String(number)));
      svg.append(shape);
    }
  });
  return svg;
}

const hover = turn => ({ onmouseenter: () => light(turn), onmouseleave: () => light(state.turn) });

function light(turn) {
  const wanted = String(turn || "");
  for (const node of find("detail").querySelectorAll("[data-turn]")) {
    const same = wanted && node.dataset.turn === wanted;
    node.classList.toggle("lit", Boolean(same));
    if (node.closest("svg")) node.classList.toggle("dim", Boolean(wanted && !same));
  }
}

function strips(sides) {
  const most = Math.max(0, ...sides.map(one => one.episode.turns.length));
  const longest = Math.max(...sides.map(one => timed(one.episode)));
  const grid = make("div", { class: sides.length > 1 ? "strips two" : "strips" }, ...sides.map(one => stripHead(one, longest)));
  for (let turn = 1; turn <= most; turn++) for (const one of sides) {
    const own = one.episode.turns[turn - 1];
    grid.append(own ? turnCard(own, turn, one) : make("div", { class: "turn absent" }, `${one.label} had ended`));
  }
  return grid;
}

function stripHead(one, longest) {
  const { episode } = one, total = episode.seconds.total;
  const picker = one.episodes.length < 2 ? null : make("select", {
    "aria-label": `Repeat of ${one.label}`, onchange: event => go({ [`repeat${one.number}`]: event.target.value }, { keep: true }),
  }, ...one.episodes.map(other => make("option", { value: other.key, selected: other === episode }, other.key)));
  return make("div", { class: `strip-head in-${one.number % 5}` }, tag(one), make("span", {}, one.label), picker,
    make("small", { class: "num" }, `${count(episode.tokens, "token")}${total ? ` · ${total.toFixed(2)} s` : ""} · ${episode.end.replaceAll("_", " ")}`), timeline(one, longest));
}

const lasted = seconds => `${seconds < 0.1 ? seconds.toFixed(3) : seconds.toFixed(2)} s`;

function cost(turn) {
  return [
    turn.tokens === null ? "" : count(turn.tokens, "token"),
    turn.seconds === null ? "" : lasted(turn.seconds),
    turn.operating === null ? "" : `operations ${lasted(turn.operating)}`,
  ].filter(Boolean).join(" · ");
}

// A bar as long as the turns and operations of an episode took, next to those of the other run; the rest is no turn's.
function timeline(one, longest) {
  const turns = one.episode.turns, parts = turns.flatMap((turn, at) => [[at + 1, turn.seconds, "engine"], [at + 1, turn.operating, "operating"]]);
  const shown = parts.filter(([, seconds]) => seconds > 0);
  if (!shown.length) return null;
  const words = turns.map((turn, at) => `turn ${at + 1}: ${cost(turn)}`).join("; ");
  const bar = make("div", { class: "timeline", role: "img", "aria-label": `Time of ${one.label}: ${words}`, title: words });
  for (const [turn, seconds, kind] of shown) {
    const part = make("i", { class: `${hue(turn)} ${kind}`, "data-turn": turn, ...hover(turn) });
    part.style.width = `${100 * seconds / longest}%`;
    bar.append(part);
  }
  return bar;
}

const timed = episode => episode.turns.reduce((sum, turn) => sum + (turn.seconds || 0) + (turn.operating || 0), 0);

function turnCard(own, turn, one) {
  const said = own.text.replace(/<tool_call>[\s\S]*?(<\/tool_call>|$)/g, "").trim();
  const long = said.length > 700;
  const words = make("div", { class: "said", dir: "auto", tabindex: long ? "0" : null }, said);
  return make("div", { class: `turn ${hue(turn)}`, "data-turn": turn, "data-run": one.number, ...hover(turn) },
    make("div", { class: "bar-line" }, chip(one, turn), make("span", {}, `turn ${turn}`),
      cost(own) && make("span", { class: "num" }, cost(own)), own.finish && own.finish !== "stop" ? make("span", {}, own.finish) : null),
    !said ? null : long ? make("details", {}, make("summary", {}, `Thought, ${said.length.toLocaleString("en")} characters`), words) : words,
    ...own.operations.map(operation),
    own.told && own.operations.some(one => one.error) ? make("details", {}, make("summary", {}, "What it was told"), make("pre", { tabindex: "0" }, own.told)) : null,
    own.shown.length ? make("div", { class: "shown" }, ...own.shown.map(item => crop(item))) : null);
}

function operation(one) {
  const rows = [make("pre", { tabindex: "0" }, `${one.name || "unreadable call"} ${one.arguments}`)];
  if (one.error) rows.push(make("span", { class: "fault" }, one.error.replaceAll("_", " ")), make("span", {}, one.message));
  return make("div", {}, ...rows);
}

function crop(item) {
  const size = shownSize(item.size, 210, 190, 110);
  const label = item.kind === "frame" ? `Frame ${item.frame}` : `Image ${item.index}${item.parent ? `, from image ${item.parent}` : ""}`;
  const figure = make("figure", {}, picture(item.picture, label, size),
    make("figcaption", { class: "num" }, `${label} · ${item.size.join(" × ")}, seen at ${item.seen.join(" × ")}${item.picture ? "" : ` · ${item.file}`}`));
  figure.style.width = `${Math.max(size[0], 120)}px`;
  return figure;
}

function panels(sample, whole, sides) {
  return make("div", { class: "panels" }, ...sides.map(one => {
    const { episode } = one, last = episode.turns.length ? episode.turns[episode.turns.length - 1].text : "";
    const command = `${index.tasks[task().number].commands[one.number][episode.run] || ""} --sample-id ${sample.quoted || sample.id}${episode.repeat ? ` --repeats ${episode.repeat + 1}` : ""} --out runs/check`;
    const copy = make("button", { type: "button", class: "copy", onclick: () => copyText(command, copy) }, "Copy");
    const scores = Object.entries(episode.scores).map(([name, value]) => `${name} ${Number(value.toFixed(3))}`).join(" · ");
    return make("div", {},
      make("h3", {}, tag(one), " ", "Reading of the reply"),
      make("dl", {},
        make("dt", {}, "raw"), make("dd", { class: "mono", tabindex: "0", dir: "auto" }, last || "nothing"),
        make("dt", {}, "read"), make("dd", { dir: "auto" }, episode.answer ?? "no answer"),
        make("dt", {}, "rule"), make("dd", {}, episode.rule || "–"),
        make("dt", {}, "accepted"), make("dd", { dir: "auto" }, whole.gold.join(" · ")),
        make("dt", {}, "score"), make("dd", { class: "num" }, scores || `none: ${episode.end.replaceAll("_", " ")}`),
        ...(sure(sample, one) ? [make("dt", {}, "confidence"), make("dd", { class: "num" }, sure(sample, one))] : []),
        ...(episode.error ? [make("dt", {}, "error"), make("dd", {}, episode.error)] : [])),
      make("details", {}, make("summary", {}, "Prompt"), make("pre", { class: "raw", tabindex: "0" }, index.systems[episode.system] || ""), make("pre", { class: "raw", tabindex: "0" }, episode.prompt ?? whole.prompt)),
      make("pre", { class: "shell", tabindex: "0" }, copy, command),
      make("p", { class: "note" }, `manifest ${index.tasks[task().number].manifests[one.number][episode.run]} · repeat ${episode.repeat}`));
  }));
}

function sure(sample, one) {
  const found = sample.cells[one.number][6], { episode } = one;
  const said = found === null || one.episodes.length < 2 ? "" : `${found.toFixed(2)}: share of its repeats that gave its commonest answer`;
  const likely = episode.sure === null ? "" : `${episode.sure.toFixed(2)}: probability of a token of the last turn, geometric mean`;
  return [said, likely].filter(Boolean).join("; ");
}

async function copyText(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.parentElement);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = before; }, 1200);
}
