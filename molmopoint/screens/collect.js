// Finds the elements of a page and of its frames and shadow trees, and asks the browser which parts of them can be seen.
//
// Runs in a world of its own, so that nothing the page did to the built-in objects is met here. Needs access to frames of other
// origins in the same process. Roles, names and states come from the accessibility tree: options.told has an entry
// [number, role, name, states] for each element that means something, numbered in the order in which they are found here, and
// options.tags the names of all elements in this order. Returns null if the page has changed since.
(options) => {
  const WIDTH = innerWidth, HEIGHT = innerHeight;
  const KINDS = new Set(["button", "link", "textbox", "searchbox", "textField", "combobox", "ComboBoxSelect", "listbox", "checkbox", "radio",
    "switch", "slider", "spinbutton", "progressbar", "meter", "tab", "menuitem", "menuitemcheckbox", "menuitemradio", "option", "image",
    "img", "heading", "treeitem", "PopUpButton", "ToggleButton", "DisclosureTriangle", "summary", "Date", "DateTime", "InputTime",
    "ColorWell", "columnheader"]);
  const AREAS = new Set(["dialog", "alertdialog", "toolbar", "menu", "menubar", "navigation", "banner", "contentinfo", "table", "grid",
    "tablist", "form", "list", "listbox", "radiogroup", "tree", "complementary", "main", "search", "alert", "group", "region"]);
  const ROWS = "tr, li, article, [role=row], [role=listitem], [role=article], [data-row]";
  const SERIES = "ul, ol, table, tbody, [role=list], [role=toolbar], [role=tablist], [role=menu], [role=menubar], [role=radiogroup], " +
    "[role=grid], [role=listbox], [role=group], nav, fieldset, [data-series]";
  const REPLACED = new Set(["IMG", "VIDEO", "CANVAS", "IFRAME", "OBJECT", "EMBED", "INPUT", "SELECT", "TEXTAREA", "PROGRESS", "METER"]);
  const numbers = new Map();
  const numberOf = (node) => {
    if (!node) return null;
    if (!numbers.has(node)) numbers.set(node, numbers.size);
    return numbers.get(node);
  };

  // ---- Frames and shadow trees: every root with its place on the screen.
  const found = [];
  const solid = [];
  let missed = 0;
  const styleOf = (element) => element.ownerDocument.defaultView.getComputedStyle(element);
  const composedParent = (node) => node.assignedSlot || node.parentElement || (node.getRootNode() && node.getRootNode().host) || null;
  const composedContains = (outer, inner) => {
    for (let node = inner; node; node = composedParent(node)) if (node === outer) return true;
    return false;
  };

  const visit = (root, frames) => {
    for (const element of root.querySelectorAll("*")) {
      found.push({ element, frames });
      if (element.shadowRoot) visit(element.shadowRoot, frames);
      if (element.tagName === "IFRAME" || element.tagName === "FRAME") {
        let inside = null;
        try { inside = element.contentDocument; } catch (refused) { inside = null; }
        if (inside && inside.documentElement) visit(inside, [...frames, element]);
      }
    }
  };
  visit(document, []);
  if (found.map(({ element }) => element.nodeName).join(" ") !== options.tags) return null;
  const told = new Map(options.told.map(([number, role, name, states]) => [found[number].element, { role, name, states }]));
  const roleOf = (element) => (told.has(element) ? told.get(element).role : "");
  // Hit tests must also find what lets clicks through.
  for (const { element } of found) {
    if (styleOf(element).pointerEvents !== "none" || !element.style) continue;
    solid.push([element, element.getAttribute("style")]);
    element.style.setProperty("pointer-events", "auto", "important");
  }

  // ---- Places: from a frame's own pixels to those of the screen.
  const inset = (frame) => {
    const rect = frame.getBoundingClientRect();
    const style = styleOf(frame);
    const scale = frame.offsetWidth ? rect.width / frame.offsetWidth : 1;
    return {
      x: rect.left + scale * (frame.clientLeft + parseFloat(style.paddingLeft)),
      y: rect.top + scale * (frame.clientTop + parseFloat(style.paddingTop)),
      scale,
    };
  };
  const offsets = new Map();
  const offsetOf = (frames) => {
    const key = frames[frames.length - 1];
    if (!key) return { x: 0, y: 0, scale: 1 };
    if (!offsets.has(key)) {
      const outer = offsetOf(frames.slice(0, -1));
      const own = inset(key);
      offsets.set(key, { x: outer.x + outer.scale * own.x, y: outer.y + outer.scale * own.y, scale: outer.scale * own.scale });
    }
    return offsets.get(key);
  };

  // ---- Sight.
  const alphaOf = (colour) => {
    const parts = colour.match(/[\d.]+%?/g);
    if (!parts) return colour === "transparent" ? 0 : 1;
    if (parts.length < 4) return 1;
    return parts[3].endsWith("%") ? parseFloat(parts[3]) / 100 : parseFloat(parts[3]);
  };
  const opacities = new Map();
  const opacityOf = (element) => {
    if (!element) return 1;
    if (!opacities.has(element)) opacities.set(element, parseFloat(styleOf(element).opacity) * opacityOf(composedParent(element)));
    return opacities.get(element);
  };
  const SHAPES = new Set(["path", "rect", "circle", "ellipse", "polygon", "polyline", "line", "use", "image", "text"]);
  const clear = new Map();
  // Whether what lies behind an element can be seen through it.
  const seeThrough = (element) => {
    if (clear.has(element)) return clear.get(element);
    const style = styleOf(element);
    let answer;
    if (opacityOf(element) < 0.3) answer = true;
    else if (REPLACED.has(element.tagName) || SHAPES.has(element.tagName)) answer = false;
    else answer = alphaOf(style.backgroundColor) < 0.5 && style.backgroundImage === "none" && style.backdropFilter === "none";
    clear.set(element, answer);
    return answer;
  };
  // Whether the target is what the eye meets at a place of its document; x and y in pixels of that document's frame.
  const meets = (target, x, y) => {
    const links = [target];
    for (let root = target.getRootNode(); root.host; root = root.host.getRootNode()) links.unshift(root.host);
    let root = target.ownerDocument;
    for (const link of links) {
      let met = false;
      for (const element of root.elementsFromPoint(x, y)) {
        met = composedContains(link, element);
        if (met || composedContains(element, link) || !seeThrough(element)) break;
      }
      if (!met) return false;
      root = link.shadowRoot;
    }
    return true;
  };
  const meetsThroughFrames = (entry, x, y) => {
    const chain = [...entry.frames, entry.element];
    for (let i = 0; i < chain.length; i++) {
      const place = offsetOf(entry.frames.slice(0, i));
      if (!meets(chain[i], (x - place.x) / place.scale, (y - place.y) / place.scale)) return false;
    }
    return true;
  };
  // A rectangle of the screen, cut at its edges, with a grid of places at which the element is seen.
  const look = (entry, rect, frames) => {
    const place = offsetOf(frames);
    const left = place.x + place.scale * rect.left, top = place.y + place.scale * rect.top;
    const right = left + place.scale * rect.width, bottom = top + place.scale * rect.height;
    const box = [Math.max(0, left), Math.max(0, top), Math.min(WIDTH, right), Math.min(HEIGHT, bottom)];
    if (box[2] - box[0] < 1 || box[3] - box[1] < 1) return null;
    const whole = (right - left) * (bottom - top);
    const across = Math.min(9, Math.max(3, Math.ceil((box[2] - box[0]) / 8)));
    const down = Math.min(9, Math.max(3, Math.ceil((box[3] - box[1]) / 8)));
    const seen = [];
    for (let i = 0; i < down; i++) {
      let row = "";
      for (let j = 0; j < across; j++) {
        const x = box[0] + (box[2] - box[0]) * (j + 0.5) / across, y = box[1] + (box[3] - box[1]) * (i + 0.5) / down;
        row += meetsThroughFrames(entry, x, y) ? "1" : "0";
      }
      seen.push(row);
    }
    return { box, whole, seen };
  };

  // ---- What an element says about itself.
  const isIconLike = (element) => {
    if (element.tagName === "svg" || element.tagName === "SVG") return true;
    if (element.tagName === "IMG") return element.getBoundingClientRect().width <= 48;
    if (element.tagName !== "I" && element.tagName !== "SPAN") return false;
    const names = typeof element.className === "string" ? element.className : "";
    const named = /(^|\s)(icon|bi|fa|fas|far|mdi|ti|ri|ph|material-icons|material-symbols-\w+|glyphicon|feather|lucide)([\s-]|$)/.test(names);
    return (named && element.children.length === 0) || element.hasAttribute("data-icon");
  };
  const iconHints = (element) => {
    const hints = [];
    for (const name of ["data-icon", "data-lucide", "data-feather", "icon", "name"]) {
      if (element.hasAttribute(name)) hints.push(element.getAttribute(name));
    }
    if (/material-(icons|symbols)/.test(element.getAttribute("class") || "")) hints.push(element.textContent.trim());
    const use = element.querySelector ? element.querySelector("use") : null;
    const href = use && (use.getAttribute("href") || use.getAttribute("xlink:href"));
    if (href) hints.push(href.split("#").pop());
    if (element.tagName === "IMG") hints.push((element.getAttribute("src") || "").split("/").pop());
    hints.push(...(element.getAttribute("class") || "").split(/\s+/).filter(Boolean));
    const title = element.querySelector ? element.querySelector("title") : null;
    for (const said of [element.getAttribute("aria-label"), title && title.textContent, element.getAttribute("title")]) {
      if (said) hints.push(said);
    }
    return hints.slice(0, 12).map((hint) => String(hint).slice(0, 60));
  };
  const ownText = (element) => {
    let text = "";
    for (const node of element.childNodes) if (node.nodeType === 3) text += node.nodeValue;
    return text.replace(/\s+/g, " ").trim();
  };
  const letters = (element) => {
    const rects = [];
    for (const node of element.childNodes) {
      if (node.nodeType !== 3 || !node.nodeValue.trim()) continue;
      const range = element.ownerDocument.createRange();
      range.selectNodeContents(node);
      rects.push(...range.getClientRects());
    }
    return rects;
  };
  const seenText = (element) => {
    if (element.tagName === "INPUT" || element.tagName === "TEXTAREA") {
      if (["checkbox", "radio", "range", "color", "file"].includes(element.type)) return "";
      if (element.type === "password") return "";
      return element.value || element.placeholder || "";
    }
    if (element.tagName === "SELECT") return element.selectedOptions[0] ? element.selectedOptions[0].label : "";
    return (element.innerText || "").replace(/\s+/g, " ").trim();
  };
  const states = (element) => {
    const own = { ...(told.has(element) ? told.get(element).states : {}) };
    if (["checkbox", "radio"].includes(element.type) && !("checked" in own)) own.checked = element.checked;
    if (element.tagName === "SUMMARY") own.expanded = element.parentElement.open === true;
    const current = element.getAttribute("aria-current");
    if (current !== null && current !== "false") own.selected = true;
    if (["INPUT", "TEXTAREA"].includes(element.tagName)) own.empty = element.value === "";
    return own;
  };
  const CONTROL = "button, a[href], [role=button], [role=link], [role=tab], [role=menuitem], summary";

  // A check box that is drawn by its neighbour is seen where the neighbour is.
  const standIn = (element) => {
    if (element.tagName !== "INPUT" || !["checkbox", "radio"].includes(element.type)) return null;
    const rect = element.getBoundingClientRect();
    if (rect.width >= 8 && rect.height >= 8 && opacityOf(element) >= 0.3) return null;
    let node = element.nextElementSibling;
    for (; node; node = node.nextElementSibling) {
      const place = node.getBoundingClientRect();
      if (place.width >= 8 && place.height >= 8 && place.width <= 90 && !ownText(node)) return node;
    }
    return rect.width >= 8 && rect.height >= 8 ? element : null;
  };

    const elements = [];
  let leftOut = 0;
  for (const entry of found) {
    const element = entry.element;
    if (["HTML", "HEAD", "BODY", "SCRIPT", "STYLE", "META", "LINK", "TITLE", "BR", "WBR", "TEMPLATE", "SLOT"].includes(element.tagName)) continue;
    if (element.ownerSVGElement) continue;
        const role = roleOf(element);
        const icon = isIconLike(element);
    const leaf = ownText(element);
    if (!KINDS.has(role) && !icon && !leaf) continue;
    if (elements.length >= options.most) { missed += 1; continue; }
    const control = element.parentElement ? element.parentElement.closest(CONTROL) : null;
    if (!KINDS.has(role) && !icon && control) continue;  // the words on a button are those of the button
    const shown = standIn(element) || element;
    const hidden = styleOf(shown).visibility !== "visible" || (shown !== element ? opacityOf(shown) < 0.3 : opacityOf(element) < 0.3);
    const ownOpacity = shown === element && standIn(element) === element;
    if (hidden && !ownOpacity) { leftOut += 1; continue; }
        const sight = { element: shown, frames: entry.frames };
    // Words are where their letters are, not all over the block they stand in.
    const parts = [...(leaf && (role === "heading" || !KINDS.has(role)) && !icon ? letters(shown) : shown.getClientRects())].map((rect) => look(sight, rect, entry.frames)).filter(Boolean);
        if (!parts.length) { leftOut += 1; continue; }
    const inner = icon ? element : [...element.querySelectorAll("svg, img, i, span")].find(isIconLike);
    const areas = [];
    for (let node = composedParent(element); node && areas.length < 6; node = composedParent(node)) {
      const kind = roleOf(node);
      if (AREAS.has(kind)) areas.push(kind);
    }
    const row = element.parentElement ? element.closest(ROWS) : null;
    elements.push({
      role, tag: element.tagName, type: element.type || "", parts,
      name: told.has(element) ? told.get(element).name : "",
      text: (KINDS.has(role) ? seenText(element) : leaf).slice(0, 200),
      states: states(element),
      icon: icon, hints: inner ? iconHints(inner) : [], within: control ? numberOf(control) : null, number: numberOf(element),
      row: numberOf(row), series: numberOf(element.parentElement ? element.parentElement.closest(SERIES) : null), areas,
      classes: typeof element.className === "string" ? element.className.slice(0, 200) : "",
      popup: element.getAttribute("aria-haspopup") || "",
    });
  }
  for (const [element, style] of solid) {
    element.style.cssText = style || "";  // not the attribute: the page's policy may forbid that
    element.getAttribute("style");  // is written down now; else it comes back after it was taken away
    if (style === null) element.removeAttribute("style");
  }
  return { width: WIDTH, height: HEIGHT, elements, leftOut, missed, tall: document.documentElement.scrollHeight };
}
