/** The cards of the questions. */

import { asCurl, asJson, asPython, copy } from "./copying.js";
import { byId, counted, make } from "./dom.js";
import { colourOf } from "./overlay.js";

/**
 * @typedef {import("./session.js").Question} Question
 * @typedef {import("./session.js").Point} Point
 * @typedef {Record<"look" | "again" | "remove" | "toggle" | "attempt" | "medium", Function>} Actions what cards do.
 */

export class Answers {
	/** @type {Map<Question, Card>} */
	#cards = new Map();
	#list = byId("cards");

	constructor(server, actions) {
		this.server = server;
		this.actions = actions;
	}

	/** Shows these questions, the newest first. @param {Question[]} questions */
	show(questions) {
		for (const [question, card] of this.#cards) {
			if (questions.includes(question)) continue;
			card.element.remove();
			this.#cards.delete(question);
		}
		let next = null;
		for (const question of questions) {
			if (!this.#cards.has(question)) this.#cards.set(question, new Card(question, this.server, this.actions));
			const card = this.#cards.get(question);
			// What is in its place stays there, and keeps the focus.
			if (card.element.nextElementSibling !== next || !card.element.parentNode) this.#list.insertBefore(card.element, next);
			next = card.element;
			card.update();
		}
	}

	/** Marks the point that is looked at. */
	mark(place) {
		for (const [question, card] of this.#cards) card.mark(question === place?.question ? place.point : null);
	}
}

/** One question. */
class Card {
	/** Points that have a line. @type {Point[]} */
	#points = [];
	#actions;
	#parts;

	constructor(question, server, actions) {
		this.question = question;
		this.#actions = actions;
		this.element = byId("card").content.firstElementChild.cloneNode(true);
		const part = (selector) => this.element.querySelector(selector);
		const names = ["count", "words", "fault", "points", "stop", "again", "eye", "remove", "copies"];
		this.#parts = Object.fromEntries(names.map((name) => [name, part(`.${name}`)]));
		const { points, stop, again, eye, remove, copies } = this.#parts;
		part("h3").textContent = question.prompt;
		this.element.style.setProperty("--colour", colourOf(question.colour));

		stop.onclick = () => question.ending.abort();
		again.onclick = () => actions.again(question);
		eye.onclick = () => actions.toggle(question);
		remove.onclick = () => actions.remove(question);
		points.onmouseleave = () => actions.look(question, null);
		for (const [place, text] of [asJson, asCurl, asPython].entries()) {
			const button = copies.children[place];
			button.onclick = () => actions.attempt(() => this.#copy(text(question, server, actions.medium()), button));
		}
	}

	update() {
		const { question } = this;
		const { count, words, fault, stop, again, eye, copies } = this.#parts;
		this.element.ariaBusy = String(question.state === "running");
		count.hidden = question.kind === "query";
		count.textContent = question.state === "failed" ? "!" : String(question.count);
		words.textContent = wordsOf(question);
		fault.textContent = question.fault;
		eye.hidden = !question.points.length;
		eye.textContent = question.shown ? "Hide" : "Show";
		stop.hidden = question.state !== "running";
		again.hidden = question.state !== "failed";
		copies.hidden = question.state !== "done";
		this.#list(question.points);
	}

	/** @param {Point | null} point */
	mark(point) {
		for (const [place, each] of this.#points.entries()) {
			const button = this.#buttonOf(place);
			button.classList.toggle("marked", each === point);
			if (each === point) button.scrollIntoView({ block: "nearest" });
		}
	}

	#list(points) {
		const list = this.#parts.points;
		// A whole answer has new points, with scores; until then points are only added.
		if (points !== this.#points) list.replaceChildren();
		this.#points = points;
		for (const point of points.slice(list.children.length)) list.append(make("li", {}, this.#line(point)));
		list.hidden = !points.length;
	}

	#line(point) {
		const button = make("button", { tabindex: "-1" }, make("b", {}, String(point.object_id)), placeText(point));
		if (point.score != null) {
			const score = make("small", { title: "Score from 0 to 1, uncalibrated" }, point.score.toFixed(2));
			score.style.setProperty("--score", point.score);
			button.append(score);
		}
		// One stop for Tab; the page has keys that go on from there.
		if (point === this.#points[0]) button.tabIndex = 0;
		button.onmouseenter = button.onfocus = button.onclick = () => this.#actions.look(this.question, point);
		return button;
	}

	#buttonOf(place) {
		return this.#parts.points.children[place]?.firstElementChild;
	}

	async #copy(text, button) {
		await copy(text);
		const { textContent } = button;
		button.textContent = "Copied";
		setTimeout(() => (button.textContent = textContent), 1500);
	}
}

export function placeText({ x, y, seconds }) {
	const time = seconds === undefined ? "" : `${seconds.toFixed(1)} s · `;
	return `${time}x ${x.toFixed(1)}, y ${y.toFixed(1)}`;
}

/** What a card says beside its points. @param {Question} question */
function wordsOf({ kind, state, text, points, count, answer, progress }) {
	if (state === "failed") return "";
	if (kind === "query") return text || "…";
	if (state === "running") return `Looking … ${progress}`;
	const seconds = answer.usage ? `${counted(count, "point")} in ${answer.usage.seconds.toFixed(2)} s` : "";
	const cut = answer.truncated ? "A limit cut the answer; there may be more." : "";
	return [points.length ? "" : text, seconds, cut, ...(answer.notes ?? [])].filter(Boolean).join(" · ");
}
