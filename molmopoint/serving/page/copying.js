/** What can be copied from an answer: the answer itself, and commands that give it again. */

/** Methods of the client that are called otherwise than their routes. */
const METHODS = { query: "ask", "video/point": "point_video", "video/track": "track" };

/** The answer, without what only the page asks for. */
export const asJson = ({ answer }) =>
	JSON.stringify(answer, (name, value) => (name === "heatmap" ? undefined : value), 2);

/** @param {import("./session.js").Question} question @param {import("./server.js").Server} server */
export function asCurl({ kind, fields }, server, medium) {
	const start = JSON.stringify(fields).replace(/}$/, `,"${medium.field}":"`);
	// Through a pipe, for a picture is too long for an argument.
	const body = `{ printf %s ${quoted(start)}; base64 < ${quoted(medium.name)} | tr -d '\\n'; echo '"}'; }`;
	const parts = [`${body} |`, `curl -sS ${quoted(server.addressOf(`v1/${kind}`))} --data-binary @-`];
	parts.push("-H 'content-type: application/json'");
	if (server.key) parts.push(`-H "authorization: Bearer $MOLMOPOINT_KEY"`);
	return `${parts.join(" \\\n  ")}\n`;
}

export function asPython({ kind, fields }, server, medium) {
	const { prompt, question, model, ...options } = fields;
	const client = [written(server.addressOf("."))];
	if (server.key) client.push(`key=os.environ["MOLMOPOINT_KEY"]`);
	if (model) client.push(`model=${written(model)}`);
	const given = [written(medium.name), written(prompt ?? question)];
	for (const [name, value] of Object.entries(options)) given.push(`${name}=${written(value)}`);
	return `${server.key ? "import os\n\n" : ""}import molmopoint

with molmopoint.Client(${client.join(", ")}) as pointer:
    print(pointer.${METHODS[kind] ?? kind}(${given.join(", ")}))
`;
}

/** For a shell, which takes everything in single quotes as it is, but for the quote. */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** For Python, which reads JSON's texts and numbers. */
const written = (value) => (value === true ? "True" : JSON.stringify(value));

/** @param {string} text */
export async function copy(text) {
	if (!navigator.clipboard) {
		throw new Error("Browsers let pages copy on localhost and over HTTPS only. Open the page there.");
	}
	await navigator.clipboard.writeText(text);
}
