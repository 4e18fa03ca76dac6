/** Elements. What people and models write goes in as text, never as HTML. */

/** @param {string} id @returns {any} the element, which index.html has. */
export const byId = (id) => document.getElementById(id);

/** Makes an element; children that are strings become text. */
export function make(tag, attributes, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
	element.append(...children);
	return element;
}

/** @param {number} count @param {string} noun in the singular. */
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
