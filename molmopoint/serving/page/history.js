/** Earlier pictures, in memory alone, and earlier prompts, which the tab keeps. */

import { byId, counted, make } from "./dom.js";

const PROMPTS = "molmopoint-prompts";
const MOST_PROMPTS = 50;
/** Pixels along the longer side of a small picture. */
const SIDE = 144;

export class History {
	/** @type {WeakMap<import("./session.js").Medium, HTMLCanvasElement>} */
	#small = new WeakMap();
	#open;

	/** @param {(board: import("./session.js").Board) => void} open what a click on a board does. */
	constructor(open) {
		this.#open = open;
		const field = byId("prompt");
		/** How far one has gone back. */
		let back = 0;
		field.oninput = () => (back = 0);
		field.onkeydown = (event) => {
			const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
			if (!step) return;
			event.preventDefault();
			const prompts = readPrompts();
			back = Math.min(Math.max(back + step, 0), prompts.length);
			field.value = back ? prompts.at(-back) : "";
		};
	}

	/** @param {string} prompt */
	add(prompt) {
		const others = readPrompts().filter((each) => each !== prompt);
		sessionStorage.setItem(PROMPTS, JSON.stringify([...others, prompt].slice(-MOST_PROMPTS)));
	}

	/** Keeps a small picture of an open medium. */
	keep(medium) {
		const scale = SIDE / Math.max(medium.width, medium.height);
		const canvas = make("canvas", {});
		canvas.width = Math.ceil(medium.width * scale);
		canvas.height = Math.ceil(medium.height * scale);
		medium.draw(canvas.getContext("2d"), { left: 0, top: 0, scale });
		this.#small.set(medium, canvas);
	}

	/** Shows the boards of a session, the newest first. */
	show({ boards, board: shown }) {
		byId("history").hidden = boards.length < 2;
		const buttons = boards.map((board) => {
			const label = `${board.medium.name}, ${counted(board.questions.length, "question")}`;
			const button = make("button", { "aria-label": label, title: label }, this.#small.get(board.medium));
			button.ariaCurrent = String(board === shown);
			button.onclick = () => this.#open(board);
			return make("li", {}, button);
		});
		byId("boards").replaceChildren(...buttons.reverse());
	}
}

/** @returns {string[]} oldest first. */
const readPrompts = () => JSON.parse(sessionStorage.getItem(PROMPTS) ?? "[]");
