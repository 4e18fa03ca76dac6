"use strict";

const pictures = JSON.parse(document.getElementById("pictures").textContent);
const form = document.getElementById("filters");
const main = document.getElementById("cards");
const dialog = document.getElementById("large");
const inside = document.getElementById("inside");
const searchBox = form.elements.text;

const cards = [...main.children].map((element, place) => ({
  element,
  place,
  verdict: element.dataset.verdict,
  faults: JSON.parse(element.dataset.faults),
  groups: JSON.parse(element.dataset.groups),
  value: Number(element.dataset.value),
  distance: element.dataset.distance === "" ? null : Number(element.dataset.distance),
  text: [...element.querySelectorAll(".prompt, .response, .error, summary, pre")].map((part) => part.textContent).join("\n").toLowerCase(),
}));
let visible = cards;

// Pictures are decoded when they come into view: a page may hold hundreds.
const show = (image) => { image.src = pictures[image.dataset.picture]; };
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      show(entry.target);
      watcher.unobserve(entry.target);
    }
  }
}, { rootMargin: "600px" });
document.querySelectorAll("img[data-picture]").forEach((image) => watcher.observe(image));

const checked = (name) => [...form.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value);

function readFilters() {
  const groups = {};
  for (const select of form.querySelectorAll("select[data-key]")) {
    if (select.value) groups[select.dataset.key] = select.value;
  }
  return { text: searchBox.value.trim().toLowerCase(), groups, verdict: checked("verdict"), fault: checked("fault"), sort: form.elements.sort.value };
}

// Each test answers for one filter, so that counters can leave their own filter out.
const tests = {
  text: (card, filters) => card.text.includes(filters.text),
  verdict: (card, filters) => !filters.verdict.length || filters.verdict.includes(card.verdict),
  fault: (card, filters) => !filters.fault.length || filters.fault.some((fault) => card.faults.includes(fault)),
};
const inGroup = (card, key, value) => (card.groups[key] || []).includes(value);
const inGroups = (card, filters, except) =>
  Object.entries(filters.groups).every(([key, value]) => key === except || inGroup(card, key, value));
const passing = (filters, except, exceptGroup) =>
  cards.filter((card) => Object.keys(tests).every((name) => name === except || tests[name](card, filters)) && inGroups(card, filters, exceptGroup));

const unknownLast = (left, right, order) =>
  left === null || right === null ? (left === null) - (right === null) : order(left, right);
const orders = {
  data: () => 0,
  worst: (left, right) => left.value - right.value,
  far: (left, right) => unknownLast(left.distance, right.distance, (one, other) => other - one),
  // Points that hit are no misses.
  near: (left, right) => unknownLast(left.distance || null, right.distance || null, (one, other) => one - other),
};

function updateCounters(filters) {
  for (const name of ["verdict", "fault"]) {
    const left = passing(filters, name);
    for (const box of form.querySelectorAll(`input[name="${name}"]`)) {
      const count = left.filter((card) => (name === "verdict" ? card.verdict === box.value : card.faults.includes(box.value))).length;
      const output = box.parentElement.querySelector("output");
      output.value = count;
      output.toggleAttribute("data-none", count === 0);
    }
  }
  for (const select of form.querySelectorAll("select[data-key]")) {
    const left = passing(filters, null, select.dataset.key);
    for (const option of select.querySelectorAll("option[data-name]")) {
      option.textContent = `${option.dataset.name} (${left.filter((card) => inGroup(card, select.dataset.key, option.value)).length})`;
    }
  }
}

function update() {
  const filters = readFilters();
  const kept = new Set(passing(filters));
  const order = orders[filters.sort];
  visible = [...cards].sort((left, right) => order(left, right) || left.place - right.place).filter((card) => kept.has(card));
  for (const card of cards) card.element.hidden = !kept.has(card);
  main.append(...visible.map((card) => card.element));
  document.getElementById("shown").textContent = visible.length;
  document.getElementById("nothing").hidden = visible.length > 0;
  for (const name of ["truth", "points"]) document.body.classList.toggle(`hide-${name}`, !document.getElementById(name).checked);
  updateCounters(filters);
  keep(filters);
}

// The address remembers the filters, so that a view can be sent to someone.
function keep(filters) {
  const words = new URLSearchParams();
  if (filters.text) words.set("text", filters.text);
  if (filters.sort !== "data") words.set("sort", filters.sort);
  for (const [key, value] of Object.entries(filters.groups)) words.set(`group:${key}`, value);
  for (const name of ["verdict", "fault"]) for (const value of filters[name]) words.append(name, value);
  history.replaceState(null, "", `#${words}`);
}

function restore() {
  const words = new URLSearchParams(location.hash.slice(1));
  searchBox.value = words.get("text") || "";
  form.elements.sort.value = [...form.elements.sort.options].some((option) => option.value === words.get("sort")) ? words.get("sort") : "data";
  for (const select of form.querySelectorAll("select[data-key]")) {
    const wanted = words.get(`group:${select.dataset.key}`) || "";
    select.value = [...select.options].some((option) => option.value === wanted) ? wanted : "";
  }
  for (const name of ["verdict", "fault"]) {
    for (const box of form.querySelectorAll(`input[name="${name}"]`)) box.checked = words.getAll(name).includes(box.value);
  }
}

let open = null;

function enlarge(card) {
  open = card;
  const copy = card.element.cloneNode(true);
  copy.removeAttribute("tabindex");
  copy.hidden = false;
  copy.querySelector("details").open = true;
  copy.querySelectorAll("img[data-picture]").forEach(show);
  for (const canvas of copy.querySelectorAll(".canvas")) {
    const [width, height] = canvas.style.aspectRatio.split("/").map(Number);
    canvas.style.setProperty("--ratio", width / height);
  }
  inside.replaceChildren(copy);
  if (!dialog.open) dialog.showModal();
}

function step(by) {
  if (!visible.length) return;
  const here = dialog.open ? open.element : document.activeElement.closest?.("#cards > .card");
  const place = visible.findIndex((card) => card.element === here);
  const next = visible[Math.min(Math.max(place + by, 0), visible.length - 1)];
  if (dialog.open) enlarge(next);
  else next.element.focus();
}

const keys = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=search], select")) return;
  const card = event.target.closest("#cards > .card");
  if (event.key === "/" && !dialog.open) searchBox.focus();
  else if (event.key in keys && (dialog.open || event.key.length === 1)) step(keys[event.key]);
  else if (event.key === "Enter" && card === event.target) enlarge(cards.find((each) => each.element === card));
  else return;
  event.preventDefault();
});

main.addEventListener("click", (event) => {
  const clicked = event.target.closest(".pictures");
  if (clicked) enlarge(cards.find((card) => card.element === clicked.closest(".card")));
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => { open?.element.focus(); });
document.getElementById("close").addEventListener("click", () => dialog.close());
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", update);
form.addEventListener("reset", () => setTimeout(update));
window.addEventListener("hashchange", () => { restore(); update(); });
restore();
update();
