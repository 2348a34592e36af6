// The viewer: all prompts x methods in the small, and one state that is shown everywhere and kept in the address.

// --- all prompts: a row is filled when it comes near the window, and emptied when it is far ---------------------

function fillRow(row) {
  const prompt = Number(row.dataset.prompt);
  const cells = data.methods.map((method, m) => {
    const value = data.methods[m].ssim?.[prompt], label = m && value != null ? `${method.name} · SSIM ${value.toFixed(3)}` : method.name;
    const cell = element("button", "cell", frame(layer(prompt, m, { difference: isDifferent(m) })), element("span", "", ...broken(label)));
    cell.type = "button";
    cell.ariaPressed = String(prompt === state.prompt && m === state.method);
    cell.addEventListener("click", () => change({ prompt, method: m }));
    return cell;
  });
  row.querySelector(".cells").replaceChildren(...cells);
}

const near = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    if (isIntersecting) fillRow(target);
    else if (target.dataset.near) {
      target.style.minHeight = `${target.offsetHeight}px`; // so that nothing jumps
      target.querySelector(".cells").replaceChildren();
    }
    target.dataset.near = isIntersecting ? "yes" : "";
  }
}, { rootMargin: "800px" });

function makeRows() {
  rows.append(...data.prompts.map((text, prompt) => {
    const words = element("p", "", `${prompt}: `, element("bdi", "", text));
    const row = element("li", "", words, element("div", "cells"));
    row.dataset.prompt = prompt;
    near.observe(row);
    return row;
  }));
}

function drawRows() {
  const words = state.find.toLowerCase();
  let count = 0;
  for (const row of rows.children) {
    row.hidden = !data.prompts[row.dataset.prompt].toLowerCase().includes(words);
    count += !row.hidden;
    if (row.dataset.near && !row.hidden) fillRow(row);
  }
  byId("count").value = `${count} of ${data.prompts.length} prompts`;
}

// --- one state, shown everywhere and kept in the address -------------------------------------------------------

function show() {
  document.documentElement.style.setProperty("--zoom", state.zoom);
  document.documentElement.style.setProperty("--split", `${state.split}%`);
  move(0, 0);
  for (const name of ["mode", "gain", "map", "stage"]) tools.elements[name].value = state[name];
  tools.elements.gain.disabled = state.mode !== "difference";
  byId("split").value = state.split;
  byId("find").value = state.find;
  drawPair();
  drawRows();
}

function change(next) {
  const held = document.activeElement?.closest(".cell, .strip button");
  Object.assign(state, next);
  const kept = Object.entries(state).filter(([name, value]) => String(value) !== String(FIRST[name]));
  history.replaceState(null, "", kept.length ? `#${new URLSearchParams(kept)}` : location.pathname + location.search);
  show();
  if (held) (document.querySelector(".cell[aria-pressed=true]") ?? byId("find")).focus({ preventScroll: true });
}

function readAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const whole = (text, first, most) => Math.min(most, Math.max(0, Number.parseInt(text ?? first, 10) || 0));
  const known = (name, text) => ([...tools.elements[name].options].some((option) => option.value === text) ? text : FIRST[name]);
  Object.assign(state, {
    prompt: whole(given.prompt, FIRST.prompt, data.prompts.length - 1),
    method: whole(given.method, FIRST.method, data.methods.length - 1),
    mode: MODES.includes(given.mode) ? given.mode : FIRST.mode,
    gain: known("gain", given.gain), map: known("map", given.map), stage: known("stage", given.stage),
    zoom: Math.min(16, Math.max(1, Number(given.zoom) || 1)),
    split: whole(given.split, FIRST.split, 100), find: given.find ?? "",
  });
  show();
}

function move(x, y) {
  const most = 50 * (1 - 1 / state.zoom), within = (value) => Math.min(most, Math.max(-most, value));
  place.x = within(place.x + x);
  place.y = within(place.y + y);
  document.documentElement.style.setProperty("--x", `${place.x}%`);
  document.documentElement.style.setProperty("--y", `${place.y}%`);
}

const zoom = (factor) => change({ zoom: Math.min(16, Math.max(1, state.zoom * factor)) });
const step = (value, by, count) => Math.min(count - 1, Math.max(0, value + by));
const choices = (name) => [...tools.elements[name].options].map((option) => option.value);
const next = (name, by = 1) => {
  const all = choices(name);
  return { [name]: all[(all.indexOf(state[name]) + by + all.length) % all.length] };
};

function goTo(prompt) {
  change({ prompt });
  rows.children[prompt].scrollIntoView({ block: "nearest" });
}

const KEYS = {
  ArrowLeft: () => change({ method: step(state.method, -1, data.methods.length) }),
  ArrowRight: () => change({ method: step(state.method, 1, data.methods.length) }),
  ArrowUp: () => goTo(step(state.prompt, -1, data.prompts.length)),
  ArrowDown: () => goTo(step(state.prompt, 1, data.prompts.length)),
  n: () => change({ mode: "side" }),
  s: () => change({ mode: "slider" }),
  b: () => change({ mode: "blink" }),
  d: () => change(state.mode === "difference" ? next("gain") : { mode: "difference" }),
  o: () => change(next("map")),
  "[": () => change(next("stage", -1)),
  "]": () => change(next("stage")),
  "+": () => zoom(2),
  "-": () => zoom(1 / 2),
  0: () => change({ zoom: 1 }),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
tools.addEventListener("input", () => change(Object.fromEntries(new FormData(tools))));
tools.addEventListener("submit", (event) => event.preventDefault());
for (const button of tools.querySelectorAll("[data-zoom]"))
  button.addEventListener("click", () => ({ in: () => zoom(2), out: () => zoom(1 / 2), one: () => change({ zoom: 1 }) })[button.dataset.zoom]());
byId("split").addEventListener("input", ({ target }) => change({ split: Number(target.value) }));
byId("find").addEventListener("input", ({ target }) => change({ find: target.value }));
byId("frames").addEventListener("pointermove", (event) => {
  const box = event.target.closest(".movable");
  if (box && event.buttons === 1)
    move((100 * event.movementX) / box.clientWidth / state.zoom, (100 * event.movementY) / box.clientHeight / state.zoom);
});
addEventListener("hashchange", readAddress);

const maps = data.methods.flatMap((method) => method.maps).sort((one, other) => one.stage - other.stage);
const kinds = new Set(maps.map(({ kind, stage }) => `${kind}, stage ${stage}`));
tools.elements.map.append(...[...kinds].map((text) => new Option(text)));
tools.elements.map.disabled = !kinds.size;
const previewed = data.methods.some(({ previews }) => previews);
tools.elements.stage.append(new Option("the last", ""), ...(previewed ? data.stages.map((side, i) => new Option(`${i + 1} · ${side}`, i + 1)) : []));
tools.elements.stage.disabled = !previewed;
document.documentElement.style.setProperty("--ratio", data.ratio);
makeRows();
readAddress();
