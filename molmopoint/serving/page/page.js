/** The page: what its parts tell each other. */

import { Answers, placeText } from "./answers.js";
import { Clip } from "./clip.js";
import { byId, counted, make } from "./dom.js";
import { History } from "./history.js";
import { listenToKeys } from "./keys.js";
import { Picture } from "./picture.js";
import { Server } from "./server.js";
import { Session } from "./session.js";
import { fromCamera, fromExample, fromTab, givenBy } from "./sources.js";
import { Stage } from "./stage.js";
import { useTheme } from "./theme.js";

const server = new Server();
const session = new Session();
const stage = new Stage(byId("canvas"), { active: showActive, moved: showZoom, cursor: showCursor });
const history = new History((board) => {
	session.board = board;
	attempt(showBoard);
});
const answers = new Answers(server, {
	look: (question, point) => stage.look(point && { question, point }),
	again(question) {
		session.remove(question);
		answer(session.ask(question.kind, question.fields));
	},
	remove(question) {
		session.remove(question);
		refresh();
	},
	toggle(question) {
		question.shown = !question.shown;
		refresh();
	},
	attempt,
	medium: () => session.board.medium,
});
/** What has its pixels in memory. */
let onStage = null;

// What is shown

async function showBoard() {
	const medium = session.board?.medium ?? null;
	if (medium !== onStage) {
		leave();
		await medium?.open();
		onStage = medium;
		for (const id of ["canvas", "tools", "more"]) byId(id).hidden = !medium;
		byId("empty").hidden = medium !== null;
		byId("kinds").classList.toggle("clip", medium instanceof Clip);
		byId("kinds").querySelector("input").checked = true;
		byId(medium ? "more" : "empty").append(byId("sources"));
		byId("canvas").ariaLabel = medium ? `${medium.name}, ${medium.width} by ${medium.height} pixels` : "No picture";
		stage.show(medium);
	}
	refresh();
}

/** Takes off what is on the stage. */
function leave() {
	stage.show(null);
	onStage?.close();
	onStage = null;
}

/** Shows the questions, their points and the history as they are now. */
function refresh() {
	const { questions, board } = session;
	answers.show(questions);
	stage.place(questions);
	history.show(session);
	byId("no-answers").hidden = questions.length > 0;
	byId("undo").disabled = !board;
}

function showActive(place) {
	answers.mark(place);
	if (!place) {
		showReadout("");
		return;
	}
	const { question, point } = place;
	const score = point.score == null ? "" : ` · score ${point.score.toFixed(2)}`;
	showReadout(`${question.prompt} ${point.object_id} · ${placeText(point)}${score}`);
}

function showCursor(place) {
	if (!stage.active) showReadout(place ? placeText(place) : "");
}

function showReadout(text) {
	byId("readout").hidden = !text;
	byId("readout").textContent = text;
}

function showZoom() {
	byId("zoom").textContent = `${Math.round(stage.view.scale * 100)} %`;
}

/** Tells those who listen. */
function say(text) {
	byId("status").textContent = text;
}

/** Shows what went wrong until it is closed. */
function complain(text) {
	byId("notice").hidden = !text;
	byId("notice-text").textContent = text;
}

/** Does what somebody has asked for, and shows what goes wrong. */
async function attempt(action) {
	try {
		complain("");
		await action();
	} catch (error) {
		complain(error.message);
	}
}

// Pictures

async function open(given) {
	if (!given) return;
	const medium = new (given.file.type.startsWith("video/") ? Clip : Picture)(given.file, given.name);
	leave();
	try {
		await medium.open();
		history.keep(medium);
		session.add(medium);
	} finally {
		medium.close();
		await showBoard();
	}
	byId("prompt").focus();
}

const sources = {
	file: () => byId("file").click(),
	camera: async () => open(await fromCamera()),
	tab: async () => open(await fromTab()),
	example: async () => open(await fromExample()),
};

// Questions

async function ask() {
	const prompt = byId("prompt").value.trim();
	if (!session.board) throw new Error("There is no picture yet. Drop one here, paste one, or choose a file.");
	if (!prompt) throw new Error("There is no question yet. Write what to find, such as “the red circles”.");
	byId("prompt").select();
	const { value } = byId("kinds").querySelector(":checked");
	const kind = session.board.medium instanceof Clip ? `video/${value}` : value;
	await answer(session.ask(kind, fieldsOf(kind, prompt)));
}

/** A request without its picture; what nobody chose is left to the server. */
function fieldsOf(kind, prompt) {
	const fields = byId("models").hidden ? {} : { model: byId("model").value };
	if (kind === "query") return { ...fields, question: prompt };
	fields.prompt = prompt;
	if (kind.endsWith("point") && byId("single").checked) fields.single = true;
	for (const name of ["min_score", "max_points"]) if (byId(name).value) fields[name] = Number(byId(name).value);
	return fields;
}

/** Follows an answer until it is whole. */
async function answer(question) {
	const { medium } = session.board;
	refresh();
	try {
		const body = { ...question.fields, [medium.field]: await medium.sent() };
		if (["point", "count"].includes(question.kind)) body.heatmap = true;
		const events = medium instanceof Clip ? server.work : server.stream;
		for await (const event of events.call(server, `v1/${question.kind}`, body, question.ending.signal)) {
			question.take(event);
			refresh();
		}
		say(question.kind === "query" ? question.text : `${counted(question.count, "point")} for ${question.prompt}`);
	} catch (error) {
		question.fail(error.name === "AbortError" ? "Stopped." : error.message);
		say(question.fault);
		if (error.status === 401) askForKey();
	}
	refresh();
}

async function readModels() {
	try {
		const names = await server.models();
		byId("model").replaceChildren(...names.map((name) => make("option", {}, name)));
		byId("models").hidden = names.length < 2;
	} catch (error) {
		if (error.status !== 401) throw error;
		askForKey();
	}
}

function askForKey() {
	byId("key-form").hidden = false;
	byId("key").focus();
}

// What people do

async function undo() {
	session.undo();
	await showBoard();
	say("Taken back.");
}

function stop() {
	for (const { state, ending } of session.questions) if (state === "running") ending.abort();
	stage.look(null);
}

function listen() {
	const presses = {
		undo,
		"notice-close": () => {},
		"show-keys": () => byId("keys").showModal(),
		"zoom-in": () => stage.press("+"),
		"zoom-out": () => stage.press("-"),
		"zoom-fit": () => stage.press("0"),
	};
	for (const [id, action] of Object.entries(presses)) byId(id).onclick = () => attempt(action);
	for (const button of byId("sources").children) button.onclick = () => attempt(sources[button.dataset.source]);
	byId("file").onchange = () => attempt(() => open(givenBy(byId("file"))));
	byId("file").onclick = () => (byId("file").value = "");
	byId("clip").ontimeupdate = byId("clip").onseeked = () => stage.redraw();
	byId("ask").onsubmit = (event) => {
		event.preventDefault();
		attempt(ask);
	};
	byId("key-form").onsubmit = (event) => {
		event.preventDefault();
		server.key = byId("key").value;
		byId("key-form").hidden = true;
		attempt(readModels);
	};

	const mark = (isOver) => byId("stage").classList.toggle("over", isOver);
	document.onpaste = (event) => attempt(() => open(givenBy(event.clipboardData)));
	document.ondragover = (event) => {
		event.preventDefault();
		mark(true);
	};
	document.ondragleave = (event) => mark(event.relatedTarget !== null);
	document.ondrop = (event) => {
		event.preventDefault();
		mark(false);
		const given = givenBy(event.dataTransfer);
		attempt(() => open(given));
		if (!given) complain("That was no picture and no clip. Drop a PNG, JPEG, WebP or MP4 file.");
	};

	useTheme(byId("theme"));
	listenToKeys([
		["/", "to the question", () => byId("prompt").focus()],
		["Enter", "in the question: ask"],
			["O", "choose a file", () => attempt(sources.file)],
		["C", "camera", () => attempt(sources.camera)],
		["T", "screenshot of a tab", () => attempt(sources.tab)],
		["N", "next point", () => stage.step(1)],
		["P", "point before", () => stage.step(-1)],
		["+ - 0", "on the picture: zoom, show all"],
		["← →", "on the picture: move it"],
		["U Ctrl+Z", "undo", () => attempt(undo)],
		["D", "dark or light", () => byId("theme").click()],
		["Escape", "stop what runs", stop],
		["?", "this list", () => byId("keys").showModal()],
	]);
}

listen();
attempt(readModels);
