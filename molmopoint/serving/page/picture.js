/** A picture: its file, and its pixels while it is on the stage. */

/** From this scale on pixels are squares, so that one can aim at them. */
const SQUARES = 6;

export class Picture {
	/** Of requests, in which it is sent. */
	field = "image";
	width = 0;
	height = 0;
	#pixels = null;

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
		({ width: this.width, height: this.height } = this.#pixels);
	}

	/** Frees the pixels; `open` reads them again. */
	close() {
		this.#pixels?.close();
		this.#pixels = null;
	}

	/** @param {{left: number, top: number, scale: number}} view */
	draw(context, { left, top, scale }) {
		context.imageSmoothingEnabled = scale < SQUARES;
		context.imageSmoothingQuality = "high";
		context.drawImage(this.#pixels, left, top, this.width * scale, this.height * scale);
	}

	/** The file as requests have it: a data URL. */
	async sent() {
		const reader = new FileReader();
		reader.readAsDataURL(this.file);
		await new Promise((done) => (reader.onloadend = done));
		if (reader.error) throw new Error(`${this.name} cannot be read any more. Choose it again.`);
		return reader.result;
	}

	/** Points of a question that are seen now: all of them. */
	pointsOf({ points }) {
		return points;
	}

	/** Shows the moment of a point: a picture has one. */
	seek() {}
}
