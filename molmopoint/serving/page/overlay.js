/** What is drawn over a picture: markers of points, and the heat of one of them. */

/** White digits can be read on each, at 4.5 to 1, and neighbours differ clearly. */
const COLOURS = ["#d81b60", "#0b6bcb", "#0f7a4a", "#b45309", "#7c3aed", "#0e7490", "#b91c1c", "#4d5b16"];
/** Radius of markers in CSS pixels: at most, at least, and from where there is room for a number. */
const [LARGEST, SMALLEST, NUMBERED] = [13, 4, 8];
/** Red, green, blue and opacity from no heat to the most. */
const GLOW = [[60, 0, 120, 0], [160, 0, 130, 90], [230, 30, 70, 150], [250, 110, 20, 190], [255, 200, 40, 215]];

/** @param {number} number of a question's colour. */
export const colourOf = (number) => COLOURS[number % COLOURS.length];

/**
 * Radius at which neighbours leave each other room: half of all points have none nearer.
 * @param {{x: number, y: number}[]} places on the stage.
 */
export function radiusFor(places) {
	const nearest = places.map((place) => {
		let least = Infinity;
		for (const other of places) {
			if (other !== place) least = Math.min(least, Math.hypot(place.x - other.x, place.y - other.y));
		}
		return least;
	});
	nearest.sort((one, other) => one - other);
	const spacing = nearest[nearest.length >> 1] ?? Infinity;
	return Math.min(Math.max(spacing * 0.45, SMALLEST), LARGEST);
}

/** A disc in a white ring in a dark one, which stands out on any picture; its number, if there is room. */
export function drawMarker(context, { x, y }, radius, colour, number) {
	const ring = Math.max(radius * 0.16, 1.2);
	for (const [size, fill] of [[radius + ring, "#0009"], [radius, "#fff"], [radius - ring, colour]]) {
		context.beginPath();
		context.arc(x, y, size, 0, 2 * Math.PI);
		context.fillStyle = fill;
		context.fill();
	}
	if (radius < NUMBERED) return;
	context.font = `600 ${radius * (number > 99 ? 0.85 : 1.1)}px system-ui, sans-serif`;
	context.textAlign = "center";
	context.textBaseline = "middle";
	context.fillStyle = "#fff";
	context.fillText(number, x, y + radius * 0.06);
}

/** A ring that says: this one. */
export function drawHalo(context, { x, y }, radius, colour) {
	for (const [width, stroke] of [[6, "#fff"], [3, colour]]) {
		context.beginPath();
		context.arc(x, y, radius + 8, 0, 2 * Math.PI);
		context.lineWidth = width;
		context.strokeStyle = stroke;
		context.stroke();
	}
}

/** Where else a point might have been, in glowing colours. @param {string} heatmap a grey picture. */
export async function glowOf(heatmap) {
	const image = new Image();
	image.src = heatmap;
	await image.decode();
	const canvas = new OffscreenCanvas(image.width, image.height);
	const context = canvas.getContext("2d");
	context.filter = `blur(${image.width / 60}px)`; // hides the edges of patches
	context.drawImage(image, 0, 0);
	const pixels = context.getImageData(0, 0, image.width, image.height);
	for (let place = 0; place < pixels.data.length; place += 4) {
		// The root lifts the second-best places.
		pixels.data.set(colourOfHeat(Math.sqrt(pixels.data[place] / 255)), place);
	}
	context.putImageData(pixels, 0, 0);
	return canvas.transferToImageBitmap();
}

/** @param {number} level from 0 to 1. */
function colourOfHeat(level) {
	const place = level * (GLOW.length - 1);
	const step = Math.min(Math.floor(place), GLOW.length - 2);
	return GLOW[step].map((value, channel) => value + (GLOW[step + 1][channel] - value) * (place - step));
}
