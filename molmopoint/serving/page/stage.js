/** The canvas: the picture with its points, and which of them is looked at. */

import { listen } from "./gestures.js";
import { colourOf, drawHalo, drawMarker, glowOf, radiusFor } from "./overlay.js";
import { View } from "./view.js";

/** CSS pixels around a marker that belong to it, for fingers. */
const REACH = 6;

/** @typedef {{question: import("./session.js").Question, point: import("./session.js").Point}} Place */

export class Stage {
	view = new View();
	/** The point that is looked at. @type {Place | null} */
	active = null;
	#isPinned = false;
	#glow = null;
	#medium = null;
	/** @type {import("./session.js").Question[]} */
	#questions = [];
	#isDue = false;
	#canvas;
	#on;

	/** @param {Record<"active" | "moved" | "cursor", Function>} on what follows: a point is looked at, the view moves, the mouse does. */
	constructor(canvas, on) {
		this.#canvas = canvas;
		this.#on = on;
		/** Does what a key does on the stage. @type {(key: string) => void} */
		this.press = listen(canvas, this.view, {
			changed: () => this.#changed(),
			hover: (x, y) => this.#hover(x, y),
			pick: (x, y) => this.look(this.#placeAt(x, y), true),
		});
		new ResizeObserver(() => this.#resize()).observe(canvas);
	}

	/** Shows another picture, or none. */
	show(medium) {
		this.#medium = medium;
		this.#questions = [];
		if (medium) this.view.show(medium);
		this.#resize();
	}

	/** Draws the points of these questions. */
	place(questions) {
		this.#questions = questions;
		const { active } = this;
		if (active && !(questions.includes(active.question) && active.question.points.includes(active.point))) this.look(null);
		this.redraw();
	}

	/** Looks at a point, or at none; pinned, until another one is picked. */
	look(place, isPinned = false) {
		this.#isPinned = isPinned && place !== null;
		if (place?.point === this.active?.point) return;
		this.active = place;
		if (place) this.#medium.seek(place.point);
		this.#on.active(place);
		this.#showGlow();
		this.redraw();
	}

	/** Goes to the next point (1) or the one before (-1). */
	step(by) {
		const places = this.#places();
		if (!places.length) return;
		const now = places.findIndex(({ point }) => point === this.active?.point);
		const place = places.at((now < 0 && by < 0 ? -1 : now + by) % places.length);
		this.look(place, true);
		this.view.centre(place.point);
		this.#changed();
	}

	/** Draws before the next frame. */
	redraw() {
		if (this.#isDue) return;
		this.#isDue = true;
		requestAnimationFrame(() => {
			this.#isDue = false;
			this.#draw();
		});
	}

	#changed() {
		this.#on.moved();
		this.redraw();
	}

	#resize() {
		const { clientWidth: width, clientHeight: height } = this.#canvas;
		if (!width) return;
		this.#canvas.width = Math.round(width * devicePixelRatio);
		this.#canvas.height = Math.round(height * devicePixelRatio);
		this.view.resize(width, height);
		this.#on.moved();
		this.#draw(); // at once: resizing has emptied it
	}

	#hover(x, y) {
		const place = this.#placeAt(x, y);
		this.#canvas.classList.toggle("aims", place !== null);
		if (place || !this.#isPinned) this.look(place);
		const at = this.view.toPicture(x, y);
		const isInside = at.x >= 0 && at.y >= 0 && at.x < this.#medium?.width && at.y < this.#medium?.height;
		this.#on.cursor(isInside ? at : null);
	}

	/** @returns {Place[]} points that are seen, the last one on top. */
	#places() {
		const shown = this.#questions.filter((question) => question.shown);
		return shown.flatMap((question) => this.#medium.pointsOf(question).map((point) => ({ question, point })));
	}

	/** @returns {Place | null} the nearest point, if it is near enough. */
	#placeAt(x, y) {
		const places = this.#places();
		const onStage = places.map(({ point }) => this.view.toStage(point));
		let found = null;
		let least = radiusFor(onStage) + REACH;
		for (const [number, at] of onStage.entries()) {
			const distance = Math.hypot(at.x - x, at.y - y);
			if (distance <= least) [found, least] = [places[number], distance];
		}
		return found;
	}

	async #showGlow() {
		this.#glow = null;
		const { active } = this;
		if (!active?.point.heatmap) return;
		const glow = await glowOf(active.point.heatmap);
		if (this.active === active) this.#glow = glow;
		this.redraw();
	}

	#draw() {
		const { view } = this;
		const context = this.#canvas.getContext("2d");
		context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
		context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
		if (!this.#medium) return;
		const { width, height } = this.#medium;
		this.#medium.draw(context, view);
		context.imageSmoothingEnabled = true;
		if (this.#glow) context.drawImage(this.#glow, view.left, view.top, width * view.scale, height * view.scale);
		const places = this.#places();
		const drawn = places.map(({ point }) => view.toStage(point));
		const radius = radiusFor(drawn);
		for (const [number, { question, point }] of places.entries()) {
			drawMarker(context, drawn[number], radius, colourOf(question.colour), point.object_id);
		}
		if (!this.active) return;
		const { question, point } = this.active;
		drawHalo(context, view.toStage(point), radius, colourOf(question.colour));
	}
}
