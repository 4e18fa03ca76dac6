/** A picture: its file, and its pixels while it is on the stage. */

/** Longer side of the copy that is drawn where the detail of a large picture cannot be seen. */
const SMALL = 2048;
/** From this scale on pixels are squares, so that one can aim at them. */
const SQUARES = 6;

export class Picture {
	width = 0;
	height = 0;
	#pixels = null;
	#small = null;

	/** @param {Blob} file @param {string} name */
	constructor(file, name) {
		this.file = file;
		this.name = name;
	}

	/** Reads the pixels, turned as the camera says; so does the server. */
	async open() {
		try {
			this.#pixels = await createImageBitmap(this.file);
		} catch {
			throw new Error(`This browser cannot read ${this.name}. Try a PNG, JPEG or WebP picture.`);
		}
		const { width, height } = this.#pixels;
		Object.assign(this, { width, height });
		const shrink = SMALL / Math.max(width, height);
		if (shrink >= 1) return;
		const size = { resizeWidth: Math.ceil(width * shrink), resizeHeight: Math.ceil(height * shrink) };
		this.#small = await createImageBitmap(this.#pixels, { ...size, resizeQuality: "high" });
	}

	/** Frees the pixels; `open` reads them again. */
	close() {
		this.#pixels?.close();
		this.#small?.close();
		this.#pixels = this.#small = null;
	}

	/** @param {CanvasRenderingContext2D} context @param {{left: number, top: number, scale: number}} view */
	draw(context, { left, top, scale }) {
		const isSmall = this.#small && scale * this.width <= this.#small.width;
		context.imageSmoothingEnabled = scale < SQUARES;
		context.imageSmoothingQuality = "high";
		context.drawImage(isSmall ? this.#small : this.#pixels, left, top, this.width * scale, this.height * scale);
	}

	/** The picture as requests have it: its file as a data URL. @returns {Promise<string>} */
	async sent() {
		const reader = new FileReader();
		reader.readAsDataURL(this.file);
		await new Promise((done) => (reader.onloadend = done));
		if (reader.error) throw new Error(`${this.name} cannot be read any more. Choose it again.`);
		return reader.result;
	}

	/** Points of a question that are seen now: all of them. @param {import("./session.js").Question} question */
	pointsOf(question) {
		return question.points;
	}
}
