/** Earlier pictures and clips with their answers, in memory alone. */

import { byId, counted, make } from "./dom.js";

/** Pixels along the longer side of a small picture. */
const SIDE = 144;

export class History {
	#open;

	/** @param {(board: import("./session.js").Board) => void} open what a click on a board does. */
	constructor(open) {
		this.#open = open;
	}

	/** Keeps a small picture of an open medium. */
	keep(medium) {
		const scale = SIDE / Math.max(medium.width, medium.height);
		const canvas = make("canvas", {});
		canvas.width = Math.ceil(medium.width * scale);
		canvas.height = Math.ceil(medium.height * scale);
		medium.draw(canvas.getContext("2d"), { left: 0, top: 0, scale });
		medium.small = canvas;
	}

	/** Shows the boards of a session, the newest first. */
	show({ boards, board: shown }) {
		byId("history").hidden = boards.length < 2;
		const buttons = boards.map((board) => {
			const label = `${board.medium.name}, ${counted(board.questions.length, "question")}`;
			const button = make("button", { "aria-label": label, title: label }, board.medium.small);
			button.ariaCurrent = String(board === shown);
			button.onclick = () => this.#open(board);
			return make("li", {}, button);
		});
		byId("boards").replaceChildren(...buttons.reverse());
	}
}
