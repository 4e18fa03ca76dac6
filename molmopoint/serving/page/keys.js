/** Keyboard shortcuts, and the list of them. */

import { byId, make } from "./dom.js";

/** Where letters are written, or mean something else. */
const FIELDS = "input:not([type=radio], [type=checkbox], [type=range]), select, dialog *";

/** @param {[keys: string, does: string, run?: () => void][]} shortcuts those without `run` are heard elsewhere. */
export function listenToKeys(shortcuts) {
	const runs = {};
	for (const [keys, does, run] of shortcuts) {
		const caps = keys.split(" ").map((key) => make("kbd", {}, key));
		byId("key-list").append(make("dt", {}, ...caps), make("dd", {}, does));
		if (run) for (const key of keys.split(" ")) runs[key] = run;
	}
	document.addEventListener("keydown", (event) => {
		if (event.defaultPrevented || event.altKey || event.target.matches(FIELDS)) return;
		const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
		const run = runs[event.ctrlKey || event.metaKey ? `Ctrl+${key}` : key];
		if (!run) return;
		event.preventDefault();
		run();
	});
}
