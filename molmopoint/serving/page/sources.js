/** Where pictures and clips come from: files, the clipboard, a camera, a tab, the page itself. */

import { byId, make } from "./dom.js";

/** @typedef {{file: Blob, name: string}} Given a file, and what it is called in commands. */

/** @param {{files: FileList}} data of a drop, the clipboard or a field. */
export function givenBy({ files }) {
	const file = [...files].find((each) => /^(image|video)\//.test(each.type));
	return file && { file, name: file.name };
}

/** What the camera sees when the button is pressed; undefined where somebody thinks better of it. */
export async function fromCamera() {
	const stream = await open("getUserMedia", "The camera", { facingMode: "environment", width: { ideal: 1920 } });
	const dialog = byId("camera");
	const video = byId("camera-picture");
	video.srcObject = stream;
	dialog.returnValue = "";
	dialog.showModal();
	await new Promise((done) => (dialog.onclose = done));
	const file = dialog.returnValue && (await frameOf(video, "image/jpeg"));
	close(stream);
	return file ? { file, name: "camera.jpg" } : undefined;
}

/** What a tab or a window shows. */
export async function fromTab() {
	const stream = await open("getDisplayMedia", "The screen", { displaySurface: "browser" });
	const video = make("video", {});
	video.srcObject = stream;
	await video.play();
	const file = await frameOf(video, "image/png");
	close(stream);
	return { file, name: "screenshot.png" };
}

/** Colour, middle, size and roundness of what the example shows. */
const EXAMPLE = [
	["#e0282c", 90, 90, 42, 42],
	["#2a5bd7", 215, 95, 38, 0],
	["#e0282c", 130, 245, 40, 0],
	["#e0282c", 265, 250, 44, 44],
];

/** Some shapes to try it on. */
export async function fromExample() {
	const canvas = new OffscreenCanvas(370, 330);
	const context = canvas.getContext("2d");
	context.fillStyle = "#b9b8b4";
	context.fillRect(0, 0, 370, 330);
	for (const [colour, x, y, size, round] of EXAMPLE) {
		context.fillStyle = colour;
		context.beginPath();
		context.roundRect(x - size, y - size, 2 * size, 2 * size, round);
		context.fill();
	}
	return { file: await canvas.convertToBlob(), name: "example.png" };
}

async function open(method, what, video) {
	if (!navigator.mediaDevices?.[method]) {
		throw new Error(`${what} cannot be used here: browsers allow it on localhost and over HTTPS only. Choose a file.`);
	}
	try {
		return await navigator.mediaDevices[method]({ video });
	} catch (error) {
		throw new Error(`${what} was not opened (${error.message}). Allow it in the browser, or choose a file.`);
	}
}

function frameOf(video, type) {
	const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
	canvas.getContext("2d").drawImage(video, 0, 0);
	return canvas.convertToBlob({ type, quality: 0.92 });
}

function close(stream) {
	for (const track of stream.getTracks()) track.stop();
}
