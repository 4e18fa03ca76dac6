/** Dark or light: as the system is, until somebody chooses. */

const CHOICE = "molmopoint-theme";

/** @param {HTMLButtonElement} button that changes it. */
export function useTheme(button) {
	const system = matchMedia("(prefers-color-scheme: dark)");
	const isDark = () => (localStorage.getItem(CHOICE) ?? String(system.matches)) === "true";
	const show = () => {
		document.documentElement.classList.toggle("dark", isDark());
		button.ariaPressed = String(isDark());
	};
	system.onchange = show;
	button.onclick = () => {
		localStorage.setItem(CHOICE, String(!isDark()));
		show();
	};
	show();
}
