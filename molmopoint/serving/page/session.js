/** What is on the page: boards, each a picture or a clip with the questions about it, and the way back. */

/**
 * @typedef {object} Point
 * @property {number} x in pixels of the displayed picture.
 * @property {number} y
 * @property {number} object_id
 * @property {number | null} [score] 0..1, once the answer is whole.
 * @property {number} [seconds] in a clip.
 *
 * @typedef {import("./picture.js").Picture} Medium
 * @typedef {{medium: Medium, questions: Question[]}} Board is replaced, never changed.
 */

/** A question and its answer, as far as it has come. */
export class Question {
	/** @type {"running" | "done" | "failed"} */
	state = "running";
	/** @type {Point[]} */
	points = [];
	text = "";
	/** The answer of the server, once it is whole. */
	answer = null;
	/** Why there is no answer. */
	fault = "";
	/** How much of a clip was looked at. */
	progress = "";
	/** Whether the points are drawn. */
	shown = true;
	/** Ends it early. */
	ending = new AbortController();

	/**
	 * @param {string} kind route below v1/.
	 * @param {object} fields of the request, without the picture.
	 * @param {number} colour unlike that of other questions of the board.
	 */
	constructor(kind, fields, colour) {
		this.kind = kind;
		this.fields = fields;
		this.colour = colour;
	}

	get prompt() {
		return this.fields.prompt ?? this.fields.question;
	}

	get count() {
		return this.answer?.count ?? new Set(this.points.map((point) => point.object_id)).size;
	}

	/** Takes an event of the answer. */
	take({ type, ...event }) {
		if (type === "text") this.text += event.text;
		else if (type === "point") this.points.push(event.point);
		else if (type === "progress") this.progress = `${event.done} of ${event.of} parts`;
		else this.#finish(event);
	}

	fail(fault) {
		this.state = "failed";
		this.fault = fault;
	}

	#finish(answer) {
		this.state = "done";
		this.answer = answer;
		this.text = answer.text ?? answer.answer ?? "";
		const onTracks = answer.tracks?.points.map((point) => ({ ...point, seconds: point.time }));
		this.points = answer.points ?? onTracks ?? [];
	}
}

export class Session {
	/** @type {Board[]} oldest first. */
	boards = [];
	/** @type {Board | null} the one that is shown. */
	board = null;
	/** @type {[Board[], Board | null][]} how it was before each step. */
	#past = [];

	get questions() {
		return this.board?.questions ?? [];
	}

	/** Shows a new board. */
	add(medium) {
		const board = { medium, questions: [] };
		this.#step([...this.boards, board], board);
	}

	/** Asks on the board that is shown. @returns {Question} */
	ask(kind, fields) {
		const taken = this.questions.map((question) => question.colour);
		let colour = 0;
		while (taken.includes(colour)) colour += 1;
		const question = new Question(kind, fields, colour);
		this.#replace([...this.questions, question]);
		return question;
	}

	/** Takes a question off its board. */
	remove(question) {
		question.ending.abort();
		this.#replace(this.questions.filter((each) => each !== question));
	}

	/** Takes the last step back. */
	undo() {
		const past = this.#past.pop();
		if (!past) return;
		const { questions } = this;
		[this.boards, this.board] = past;
		for (const question of questions) if (!this.questions.includes(question)) question.ending.abort();
	}

	#replace(questions) {
		const board = { ...this.board, questions };
		this.#step(this.boards.map((each) => (each === this.board ? board : each)), board);
	}

	#step(boards, board) {
		this.#past.push([this.boards, this.board]);
		[this.boards, this.board] = [boards, board];
	}
}
