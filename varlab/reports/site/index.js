// The filters and the sorting of the index. Without this script the page shows everything.
"use strict";

const form = document.querySelector("form.filters");
const filtered = [...document.querySelectorAll("[data-filter]")].map((item) => [item, JSON.parse(item.dataset.filter)]);
const order = new Intl.Collator("en", { numeric: true });

// --- filters: kept in the address, so that a view can be sent to someone -------------------------------------

function asked() {
  return Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
}

function passes(record, { model, method, verdict, claim = "", from = "", to = "9999" }) {
  return (!model || record.models.includes(model)) && (!method || record.methods.includes(method))
    && (!verdict || record.verdicts.includes(verdict)) && record.text.toLowerCase().includes(claim.toLowerCase())
    && record.date >= from && record.date <= to;
}

function filter() {
  const wanted = asked();
  for (const [item, record] of filtered) item.hidden = !passes(record, wanted);
  for (const row of document.querySelectorAll("[data-group]")) row.hidden = !row.querySelector("[data-filter]:not([hidden])");
  const all = document.querySelectorAll("article"), shown = [...all].filter((article) => !article.hidden);
  form.querySelector("output").value = `${shown.length} of ${all.length} reports`;
  for (const button of document.querySelectorAll("button[data-verdict]"))
    button.setAttribute("aria-pressed", String(button.dataset.verdict === wanted.verdict));
}

function remember() {
  const address = new URLSearchParams(asked()).toString();
  history.replaceState(null, "", address ? `#${address}` : location.pathname + location.search);
  filter();
}

function readAddress() {
  if (location.hash && !location.hash.includes("=")) return; // a report's own place on the page
  const given = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) if (field.name) field.value = given.get(field.name) ?? "";
  filter();
}

// --- sorting -------------------------------------------------------------------------------------------------

function sort(head) {
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  const body = head.closest("table").tBodies[0], column = head.cellIndex;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const key = (row) => row.cells[column].textContent.trim();
  const rows = [...body.rows].sort((a, b) => order.compare(key(a), key(b)) * (ascending ? 1 : -1));
  body.append(...rows);
}

for (const head of document.querySelectorAll("table.sortable th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  button.addEventListener("click", () => sort(head));
  head.append(button);
}

if (form) {
  form.hidden = false;
  form.addEventListener("input", remember);
  form.addEventListener("reset", () => setTimeout(remember));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of document.querySelectorAll("button[data-verdict]"))
    button.addEventListener("click", () => {
      form.elements.verdict.value = button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.verdict;
      remember();
    });
  addEventListener("hashchange", readAddress);
  readAddress();
  filter();
}
