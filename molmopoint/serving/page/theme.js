/** Dark or light: as the system is, until somebody chooses. */

/** @param {HTMLButtonElement} button that changes it. */
export function useTheme(button) {
	const system = matchMedia("(prefers-color-scheme: dark)");
	const show = (isDark) => {
		document.documentElement.style.colorScheme = isDark ? "dark" : "light";
		button.ariaPressed = String(isDark);
	};
	system.onchange = () => show(system.matches);
	button.onclick = () => show(button.ariaPressed === "false");
	show(system.matches);
}
