/** Mouse, fingers, wheel and keys on the stage, as movements of the view. */

/** CSS pixels that a finger or a mouse may slip and still has clicked. */
const SLIP = 5;
/** CSS pixels that an arrow key moves. */
const STEP = 60;
const ZOOM_STEP = 1.3;

/**
 * @param {HTMLCanvasElement} canvas
 * @param {import("./view.js").View} view
 * @param {Record<"changed" | "hover" | "pick", Function>} on what follows: the view moves, the mouse does, a click.
 */
export function listen(canvas, view, on) {
	/** @type {Map<number, {x: number, y: number}>} fingers, or the mouse, that are down. */
	const down = new Map();
	let slipped = 0;

	const change = (movement) => {
		movement();
		// As long as all is seen, a finger scrolls the page.
		canvas.classList.toggle("zoomed", !view.isFitted);
		on.changed();
	};

	canvas.onpointerdown = (event) => {
		if (event.button !== 0) return;
		if (!down.size) slipped = 0;
		down.set(event.pointerId, placeOf(event));
		canvas.setPointerCapture(event.pointerId);
	};
	canvas.onpointermove = (event) => {
		const now = placeOf(event);
		const before = down.get(event.pointerId);
		if (!before) {
			on.hover(now.x, now.y);
			return;
		}
		down.set(event.pointerId, now);
		slipped += distance(now, before);
		if (slipped <= SLIP) return;
		const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
		const [across, along] = [now.x - before.x, now.y - before.y];
		if (!other) {
			change(() => view.move(across, along));
			return;
		}
		change(() => {
			view.move(across / 2, along / 2);
			view.zoom(distance(now, other) / Math.max(distance(before, other), 1), (now.x + other.x) / 2, (now.y + other.y) / 2);
		});
	};
	canvas.onpointerup = (event) => {
		if (down.delete(event.pointerId) && !down.size && slipped <= SLIP) on.pick(event.offsetX, event.offsetY);
	};
	canvas.onpointercancel = (event) => down.delete(event.pointerId);
	canvas.onpointerleave = () => on.hover(NaN, NaN);
	canvas.onwheel = (event) => {
		event.preventDefault();
		// Pinching comes as a wheel with Ctrl, in small steps; some mice count lines.
		const unit = event.deltaMode ? 30 : 1;
		const factor = Math.exp(-event.deltaY * unit * (event.ctrlKey ? 0.01 : 0.002));
		change(() => view.zoom(factor, event.offsetX, event.offsetY));
	};

	const movements = {
		"+": () => view.zoom(ZOOM_STEP),
		"=": () => view.zoom(ZOOM_STEP),
		"-": () => view.zoom(1 / ZOOM_STEP),
		0: () => view.fit(),
		ArrowLeft: () => view.move(STEP, 0),
		ArrowRight: () => view.move(-STEP, 0),
		ArrowUp: () => view.move(0, STEP),
		ArrowDown: () => view.move(0, -STEP),
	};
	canvas.onkeydown = (event) => {
		if (event.ctrlKey || event.metaKey || !(event.key in movements)) return;
		event.preventDefault();
		change(movements[event.key]);
	};
	/** Does what a key does. @param {string} key */
	return (key) => change(movements[key]);
}

const placeOf = (event) => ({ x: event.offsetX, y: event.offsetY });
const distance = (one, other) => Math.hypot(one.x - other.x, one.y - other.y);
