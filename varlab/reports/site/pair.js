// The viewer of compared pictures: layers in a frame, and the chosen pair in the large.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (name) => document.getElementById(name);
const tools = document.querySelector(".tools"), rows = byId("rows");
const FIRST = { prompt: 0, method: Math.min(1, data.methods.length - 1), mode: "side", gain: "1", map: "", stage: "", zoom: 1,
  split: 50, find: "" };
const MODES = ["side", "slider", "blink", "difference"];
const state = { ...FIRST };
const place = { x: 0, y: 0 };
let blinking;

function element(name, className, ...children) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
}

// A name of a method in pieces between which a line may end; elsewhere it ends only where a piece is too long.
const broken = (name) => name.split(/(?<=[:,+/])/).flatMap((piece) => [piece, document.createElement("wbr")]);

// --- pictures: layers in a frame -----------------------------------------------------------------------------

const shownStages = (prompt, method) => data.methods[method].previews?.[prompt] ?? [];

function source(prompt, method, stage) {
  const own = data.methods[method], name = String(prompt).padStart(data.digits, "0");
  const before = shownStages(prompt, method).filter((k) => k <= Number(stage)).at(-1); // a method may leave stages out
  return stage && before ? `${own.previewFolder}/${name}-${String(before).padStart(2, "0")}.png` : `${own.folder}/${name}.png`;
}

function picture(prompt, method, stage, words) {
  const image = element("img", "");
  image.src = source(prompt, method, stage);
  image.alt = words;
  image.loading = "lazy";
  image.draggable = false;
  return image;
}

function overlay(prompt, method) {
  const found = data.methods[method].maps.find((map) => `${map.kind}, stage ${map.stage}` === state.map);
  if (!found) return [];
  const made = element("div", "map"), column = prompt % found.columns, row = Math.floor(prompt / found.columns);
  const share = (at, count) => (count > 1 ? `${(100 * at) / (count - 1)}%` : "0");
  made.style.backgroundImage = `url("${found.source}")`;
  made.style.backgroundSize = `${100 * found.columns}% ${100 * found.rows}%`;
  made.style.backgroundPosition = `${share(column, found.columns)} ${share(row, found.rows)}`;
  made.role = "img";
  made.ariaLabel = `${found.kind} at stage ${found.stage}`;
  return [made];
}

function layer(prompt, method, { stage = state.stage, difference = false, plain = false } = {}) {
  const name = data.methods[method].name, after = stage ? ` after stage ${stage}` : "";
  const words = `${difference ? "What differs from dense: " : ""}${name}${after}: ${data.prompts[prompt]}`;
  const shown = element("div", "pixels", picture(prompt, method, stage, words));
  if (difference) {
    const dense = picture(prompt, 0, stage, "");
    dense.className = "minus";
    shown.append(dense);
    shown.style.filter = `brightness(${state.gain})`;
  }
  return element("div", "layer", element("div", "zoomed", shown, ...(plain ? [] : overlay(prompt, method))));
}

const frame = (...layers) => element("div", "frame", ...layers);
const isDifferent = (method) => state.mode === "difference" && method > 0;

// --- the pair ------------------------------------------------------------------------------------------------

function figure(caption, ...layers) {
  const box = frame(...layers);
  if (state.zoom > 1) box.classList.add("movable");
  return element("figure", "", box, element("figcaption", "", caption));
}

function drawPair() {
  const { prompt, method, mode } = state, name = data.methods[method].name, own = () => layer(prompt, method);
  clearInterval(blinking);
  let made;
  if (mode === "side" || method === 0) {
    made = [...(method > 0 ? [figure(data.methods[0].name, layer(prompt, 0))] : []), figure(name, own())];
  } else if (mode === "difference") {
    made = [figure(`${name}: what differs from dense, ${state.gain} times`, layer(prompt, method, { difference: true }))];
  } else {
    const dense = layer(prompt, 0);
    made = [figure(mode === "slider" ? `dense | ${name}` : name, own(), dense)];
    if (mode === "slider") dense.classList.add("left");
    else blink(dense, made[0].querySelector("figcaption"), name);
  }
  byId("frames").replaceChildren(...made);
  document.querySelector(".split").hidden = mode !== "slider" || method === 0;
  byId("prompt").replaceChildren(`${prompt}: `, element("bdi", "", data.prompts[prompt]));
  byId("about").textContent = [name, data.methods[method].about, score(prompt, method)].filter(Boolean).join(" · ");
  drawStrip();
}

function blink(dense, caption, name) {
  const turn = () => {
    dense.hidden = !dense.hidden;
    caption.textContent = dense.hidden ? name : "dense";
  };
  turn();
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) blinking = setInterval(turn, 600);
  else byId("frames").onclick = turn;
}

function score(prompt, method) {
  const value = data.methods[method].ssim?.[prompt];
  return value === undefined || value === null ? "" : `SSIM of this picture ${value.toFixed(3)}`;
}

function drawStrip() {
  const { prompt, method } = state, last = data.stages.length;
  const lines = [...new Set([0, method])].filter((m) => shownStages(prompt, m).length).map((m) => {
    const buttons = data.stages.map((_, i) => {
      const stage = String(i + 1), button = element("button", "", frame(layer(prompt, m, { stage, plain: true })));
      button.type = "button";
      button.disabled = !shownStages(prompt, m).includes(i + 1);
      button.ariaPressed = String(state.stage === stage || (!state.stage && i + 1 === last));
      button.title = `stage ${stage}, ${data.stages[i]}`;
      button.addEventListener("click", () => change({ stage }));
      return button;
    });
    return element("div", "", element("span", "", m ? "method" : "dense"), ...buttons);
  });
  byId("strip").replaceChildren(...lines);
}
