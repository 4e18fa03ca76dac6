// The panel of a glasshouse: nine pages. What is on them follows the day in the address: ?page=beds&day=3
"use strict";

const asked = new URLSearchParams(location.search);
let state = (Number(asked.get("day")) || 1) * 2654435761 % 4294967296;
for (const letter of asked.get("page") || "beds") state = (state * 31 + letter.charCodeAt(0)) % 4294967296;

function chance() {
  state = (state * 1664525 + 1013904223) % 4294967296;
  return state / 4294967296;
}
const pick = (list) => list[Math.floor(chance() * list.length)];
function some(list, number) {
  const left = [...list], chosen = [];
  while (left.length && chosen.length < number) chosen.push(left.splice(Math.floor(chance() * left.length), 1)[0]);
  return chosen;
}

const DRAWN = {
  search: '<circle cx="10" cy="10" r="6"/><path d="M15 15l6 6"/>',
  bell: '<path d="M5 17h14l-2-3V9a5 5 0 0 0-10 0v5zM10 20h4"/>',
  gear: '<circle cx="12" cy="12" r="4"/><path d="M12 2v4M12 18v4M2 12h4M18 12h4M5 5l3 3M16 16l3 3M5 19l3-3M16 8l3-3"/>',
  trash: '<path d="M4 7h16M9 7V4h6v3M6 7l1 14h10l1-14M10 11v6M14 11v6"/>',
  pencil: '<path d="M4 20l1-5L16 4l4 4L9 19zM14 6l4 4"/>',
  plus: '<path d="M12 4v16M4 12h16"/>',
  cross: '<path d="M5 5l14 14M19 5L5 19"/>',
  check: '<path d="M4 13l5 5L20 6"/>',
  heart: '<path d="M12 20S3 14 3 8a4.5 4.5 0 0 1 9-1 4.5 4.5 0 0 1 9 1c0 6-9 12-9 12z"/>',
  star: '<path d="M12 3l3 6 6 1-4.5 4.5 1 6.5-5.5-3-5.5 3 1-6.5L3 10l6-1z"/>',
  clock: '<circle cx="12" cy="12" r="9"/><path d="M12 6v6l4 3"/>',
  calendar: '<path d="M4 6h16v14H4zM4 10h16M8 3v5M16 3v5"/>',
  download: '<path d="M12 3v12M7 10l5 5 5-5M4 20h16"/>',
  upload: '<path d="M12 16V4M7 9l5-5 5 5M4 20h16"/>',
  lock: '<path d="M5 11h14v10H5zM8 11V7a4 4 0 0 1 8 0v4"/>',
  house: '<path d="M3 11l9-8 9 8M6 9v11h12V9"/>',
  person: '<circle cx="12" cy="8" r="4"/><path d="M4 21c1-6 15-6 16 0"/>',
  envelope: '<path d="M3 6h18v12H3zM3 7l9 7 9-7"/>',
  camera: '<path d="M3 7h5l2-3h4l2 3h5v12H3z"/><circle cx="12" cy="13" r="4"/>',
  eye: '<path d="M2 12c5-8 15-8 20 0-5 8-15 8-20 0z"/><circle cx="12" cy="12" r="3"/>',
  refresh: '<path d="M20 5v6h-6M4 19v-6h6M5 10a8 8 0 0 1 15 1M19 14a8 8 0 0 1-15-1"/>',
  printer: '<path d="M7 9V3h10v6M7 18H4V9h16v9h-3M7 14h10v7H7z"/>',
  play: '<path d="M7 4l13 8-13 8z"/>',
  pause: '<path d="M8 4v16M16 4v16"/>',
};
const ACTIONS = {
  search: "Search", bell: "Alarms", gear: "Settings", trash: "Delete", pencil: "Edit", plus: "Add", cross: "Close", check: "Done",
  heart: "Favourite", star: "Star", clock: "History", calendar: "Calendar", download: "Download", upload: "Upload", lock: "Lock",
  house: "Home", person: "Profile", envelope: "Messages", camera: "Camera", eye: "Show", refresh: "Reload", printer: "Print",
  play: "Start", pause: "Pause",
};
const PLANTS = ["Tomato", "Basil", "Pepper", "Lettuce", "Cucumber", "Mint", "Chard", "Radish", "Thyme", "Kale", "Spinach", "Leek"];
const PARTS = ["Roof vent", "Side vent", "Fan", "Heater", "Lamp", "Pump", "Misting", "Shade", "Drip line", "Night blind"];
const PEOPLE = ["Ana", "Bo", "Chen", "Dara", "Eli", "Fatou", "Goran", "Hana"];
const WORDS = ["Water", "Apply", "Save", "Reset", "Harvest", "Plan", "Report", "Order", "Archive", "Repeat", "Skip", "Test"];
const COLOURS = ["leaf", "clay", "sky", ""];

const icon = (name) => `<svg viewBox="0 0 24 24" class="icon-${name}" aria-hidden="true">${DRAWN[name]}</svg>`;
const tool = (name) => `<button class="bare" aria-label="${ACTIONS[name]}">${icon(name)}</button>`;
const tools = (number) => some(Object.keys(DRAWN), number).map(tool).join("");
const push = (word) => `<button class="${pick(COLOURS)}"${chance() < 0.15 ? " disabled" : ""}>${word}</button>`;
const pushes = (number) => `<div class="bar">${some(WORDS, number).map(push).join("")}</div>`;
const flag = (name, kind) => `<input type="checkbox"${kind ? ` role="${kind}"` : ""} aria-label="${name}"${chance() < 0.5 ? " checked" : ""}>`;
const tick = (name) => `<label class="tick">${flag(name)}${name}</label>`;
const field = (name, value) => `<label class="field">${name}<input type="text" aria-label="${name}" value="${value}"></label>`;
const choice = (name, options) => `<label class="field">${name}<select aria-label="${name}">${options.map((one) => `<option>${one}</option>`).join("")}</select></label>`;
const row = (...parts) => `<div class="row">${parts.map((part) => `<span>${part}</span>`).join("")}</div>`;
const number = (low, high) => String(Math.floor(low + chance() * (high - low)));
const maybe = (value) => (chance() < 0.4 ? "" : value);

const PAGES = {
  beds: () => some(PLANTS, 4).map((plant) => row(plant, number(3, 40) + " days", tool("pencil"), tool(pick(["trash", "eye", "clock"])))).join("") + pushes(3),
  climate: () => some(PARTS, 5).map((part) => row(part, flag(part, "switch"))).join("") + pushes(2),
  water: () => some(PARTS, 3).map((part) => row(part, `<input type="range" aria-label="${part}" value="${number(5, 95)}">`, flag(part + " on", "switch"))).join("") + `<div class="wide">${some(PLANTS, 2).map(tick).join("")}</div>` + pushes(2),
  plan: () => `<div class="wide">${some(PLANTS, 6).map(tick).join("")}</div>` + pushes(3),
  order: () => `<div class="wide">${field("Name", maybe(pick(PEOPLE)))}${field("Amount", maybe(number(1, 90)))}${choice("Plant", some(PLANTS, 3))}${choice("Unit", ["Tray", "Bag", "Box"])}${field("Note", maybe(pick(WORDS)))}${field("Code", maybe(number(100, 999)))}</div>` + pushes(3),
  people: () => `<div class="wide">${some(PEOPLE, 4).map((person) => `<div class="card"><h2>${person}</h2>${tool(pick(["envelope", "person"]))}${tool(pick(["lock", "star"]))}${push(pick(WORDS))}</div>`).join("")}</div>`,
  mode: () => some(PARTS, 4).map((part, index) => `<label class="tick"><input type="radio" name="mode" aria-label="${part}"${index === 1 ? " checked" : ""}>${part}</label>`).join("") + pushes(3),
  // The next two are kept for the test.
  alarms: () => some(PARTS, 4).map((part) => row(icon(pick(["bell", "clock", "check"])) + " " + part, push(pick(WORDS)), tool("cross"))).join("") + `<div class="wide">${some(PARTS, 2).map((part) => tick("Mute " + part)).join("")}</div>`,
  account: () => `<div class="wide">${field("Person", maybe(pick(PEOPLE)))}${field("Phone", maybe(number(1000, 9999)))}${choice("Bed", some(PLANTS, 3))}<div class="card"><h2>${pick(PEOPLE)}</h2>${tool("camera")}${tool("upload")}</div></div>` + some(PARTS, 2).map((part) => row(part, flag(part, "switch"))).join("") + pushes(2),
};

const page = PAGES[asked.get("page")] ? asked.get("page") : "beds";
const title = (name) => name[0].toUpperCase() + name.slice(1);
document.querySelector("h1").textContent = title(page) + " " + number(1, 9);
document.querySelector("#tools").innerHTML = tools(4);
document.querySelector("main").innerHTML = PAGES[page]();
const tabs = some(Object.keys(PAGES).filter((name) => name !== page), 4);
tabs.splice(Math.floor(chance() * 5), 0, page);
document.querySelector("nav").innerHTML = tabs
  .map((name) => `<a href="?page=${name}&day=${asked.get("day") || 1}"${name === page ? ' aria-current="page"' : ""}>${title(name)}</a>`)
  .join("");
