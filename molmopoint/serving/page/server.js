/** What the page asks of the server. Addresses are relative, so the page works below any path. */

const KEY = "molmopoint-key";

/** A request that was not answered; the message says what to do. */
export class ServerError extends Error {
	/** @param {number} [status] of HTTP, none without an answer. */
	constructor(message, status) {
		super(message);
		this.status = status;
	}
}

export class Server {
	get key() {
		return sessionStorage.getItem(KEY);
	}

	set key(key) {
		sessionStorage.setItem(KEY, key);
	}

	addressOf(path) {
		return new URL(path, document.baseURI).href;
	}

	/** @returns {Promise<string[]>} names of the models, the default one first. */
	async models() {
		const { data } = await (await this.#fetch("v1/models")).json();
		return data.map((model) => model.id);
	}

	/** Asks, and gives the events of the answer as they come; the signal ends it, on the server as well. */
	async *stream(path, body, signal) {
		const request = { method: "POST", body: JSON.stringify({ ...body, stream: true }), signal };
		const response = await this.#fetch(path, request);
		for await (const line of linesOf(response.body)) {
			if (line === "data: [DONE]") return;
			if (!line.startsWith("data:")) continue;
			const event = JSON.parse(line.slice(5));
			if (event.error) throw new ServerError(event.error.message, event.error.code);
			yield event;
		}
		throw new ServerError("The answer broke off. Ask again, or see the log of the server.");
	}

	/** The same for a clip, whose events are the progress of a job and its result. */
	async *work(path, body, signal) {
		const request = { method: "POST", body: JSON.stringify({ ...body, background: true }), signal };
		let job = await (await this.#fetch(path, request)).json();
		const place = `v1/jobs/${job.id}`;
		signal.onabort = () => this.#fetch(place, { method: "DELETE" });
		while (["queued", "running"].includes(job.status)) {
			if (job.progress) yield { type: "progress", ...job.progress };
			await new Promise((done) => setTimeout(done, 200));
			job = await (await this.#fetch(place, { signal })).json();
		}
		if (job.error) throw new ServerError(job.error.message, job.error.code);
		yield { type: "result", ...job.result };
	}

	async #fetch(path, request = {}) {
		const headers = { "content-type": "application/json" };
		if (this.key) headers.authorization = `Bearer ${this.key}`;
		let response;
		try {
			response = await fetch(this.addressOf(path), { ...request, headers });
		} catch (error) {
			if (error.name === "AbortError") throw error;
			throw new ServerError("The server cannot be reached. See whether “molmopoint serve” runs, then ask again.");
		}
		if (!response.ok) throw await refusal(response);
		return response;
	}
}

async function refusal(response) {
	let message = `The server answered with status ${response.status}. Ask again, or see its log.`;
	try {
		message = (await response.json()).error.message;
	} catch {
		// A proxy in between answers in its own form.
	}
	return new ServerError(message, response.status);
}

async function* linesOf(body) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	while (true) {
		const { value, done } = await reader.read();
		if (done) return;
		const lines = (rest + value).split("\n");
		rest = lines.pop();
		yield* lines;
	}
}
