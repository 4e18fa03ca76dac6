/**
 * How the picture lies on the stage: place on the stage, in CSS pixels, = place in the picture * scale + offset.
 */

/** CSS pixels per pixel of the picture, at most. */
const CLOSEST = 32;
/** CSS pixels between the picture and the edge of the stage. */
const MARGIN = 12;

export class View {
	scale = 1;
	left = 0;
	top = 0;
	#stage = { width: 1, height: 1 };
	#picture = { width: 1, height: 1 };

	/** Scale at which all of the picture is seen. */
	get fitting() {
		const across = (this.#stage.width - 2 * MARGIN) / this.#picture.width;
		const down = (this.#stage.height - 2 * MARGIN) / this.#picture.height;
		return Math.max(Math.min(across, down, CLOSEST), 0.001);
	}

	get isFitted() {
		return this.scale <= this.fitting;
	}

	/** Shows all of another picture. */
	show(picture) {
		this.#picture = picture;
		this.fit();
	}

	/** The stage has another size; its middle stays in the middle. */
	resize(width, height) {
		const wasFitted = this.isFitted;
		const middle = this.toPicture(this.#stage.width / 2, this.#stage.height / 2);
		this.#stage = { width, height };
		if (wasFitted) this.fit();
		else this.centre(middle);
	}

	fit() {
		this.scale = this.fitting;
		this.#keepOnStage();
	}

	/** Brings a place of the picture to the middle. */
	centre({ x, y }) {
		this.left = this.#stage.width / 2 - x * this.scale;
		this.top = this.#stage.height / 2 - y * this.scale;
		this.#keepOnStage();
	}

	/** Zooms; what is at (x, y) of the stage, by default its middle, stays there. */
	zoom(factor, x = this.#stage.width / 2, y = this.#stage.height / 2) {
		const fixed = this.toPicture(x, y);
		this.scale = Math.max(Math.min(this.scale * factor, CLOSEST), this.fitting);
		this.left = x - fixed.x * this.scale;
		this.top = y - fixed.y * this.scale;
		this.#keepOnStage();
	}

	/** Moves the picture by pixels of the stage. */
	move(across, down) {
		this.left += across;
		this.top += down;
		this.#keepOnStage();
	}

	toPicture(x, y) {
		return { x: (x - this.left) / this.scale, y: (y - this.top) / this.scale };
	}

	toStage({ x, y }) {
		return { x: x * this.scale + this.left, y: y * this.scale + this.top };
	}

	#keepOnStage() {
		this.left = kept(this.left, this.#picture.width * this.scale, this.#stage.width);
		this.top = kept(this.top, this.#picture.height * this.scale, this.#stage.height);
	}
}

/** The offset nearest to this one at which no edge is inside the margins; what is shorter is centred. */
function kept(offset, length, room) {
	if (length <= room - 2 * MARGIN) return (room - length) / 2;
	return Math.min(Math.max(offset, room - MARGIN - length), MARGIN);
}
