/** A clip: its video, and the points of the moment that it shows. */

import { byId } from "./dom.js";
import { Picture } from "./picture.js";

/** Seconds for which a point is seen before and after its moment. */
const NEAR = 0.6;

export class Clip extends Picture {
	field = "video";
	#video = byId("clip");

	async open() {
		const video = this.#video;
		video.src = URL.createObjectURL(this.file);
		await new Promise((done, failed) => {
			video.addEventListener("seeked", done, { once: true });
			video.onloadeddata = () => (video.currentTime = 0); // only now its frame can be drawn
			video.onerror = () => failed(new Error(`This browser cannot play ${this.name}. Try an MP4 or WebM clip.`));
		});
		Object.assign(this, { width: video.videoWidth, height: video.videoHeight });
	}

	close() {
		URL.revokeObjectURL(this.#video.src);
		this.#video.onerror = null;
		this.#video.removeAttribute("src");
	}

	draw(context, { left, top, scale }) {
		context.drawImage(this.#video, left, top, this.width * scale, this.height * scale);
	}

	/** Of each object the point nearest to the moment. */
	pointsOf({ points }) {
		const nearest = new Map();
		for (const point of points) {
			const apart = Math.abs(point.seconds - this.#video.currentTime);
			if (apart < (nearest.get(point.object_id)?.apart ?? NEAR)) nearest.set(point.object_id, { apart, point });
		}
		return [...nearest.values()].map(({ point }) => point);
	}

	/** Goes to the moment of a point. */
	seek({ seconds }) {
		this.#video.currentTime = seconds;
	}
}
