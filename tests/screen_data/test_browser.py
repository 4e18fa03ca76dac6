"""Pages in a real browser: what is seen and what is not, faults that end no run, and the command."""

from __future__ import annotations

import asyncio
import http.server
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from molmopoint.cli import app
from molmopoint.data.records import read_records, to_pixels
from molmopoint.errors import MolmoPointError
from molmopoint.screens.browser import Browser, PageFault, View
from molmopoint.screens.dataset import draw_pages
from molmopoint.screens.elements import Element, Screen
from molmopoint.screens.steps import Script, Step

pytestmark = pytest.mark.browser
SMALL = View(400, 300)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip(
        "playwright.async_api", reason="no browser driver is installed: pip install playwright"
    )
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))):
        pytest.skip("no browser is installed: apt install chromium")
    with Browser(seconds=30) as opened:
        yield opened


class Handler(http.server.BaseHTTPRequestHandler):
    """Pages, a download, a page that never ends, redirects, and a place to sign in."""

    pages = {
        "/hanging": b"<button>Here already</button>" + b" " * 2000 + b"<img src=/never>",
        "/login": b"<label>Password <input type=password></label><button onclick=\"document.cookie='in=1';"
        b"document.body.textContent='Welcome'\">Sign in</button>",
    }

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/away", "/away-ip"):
            self.send_response(302)
            self.send_header(
                "Location",
                f"http://{socket.gethostbyname(socket.gethostname()) if path == '/away-ip' else 'example.com'}/",
            )
            self.end_headers()
            return
        if path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header(
            "Content-Type", "application/octet-stream" if path == "/file" else "text/html; charset=utf-8"
        )
        if path == "/file":
            self.send_header("Content-Disposition", "attachment; filename=a.bin")
        self.end_headers()
        if path == "/never":
            threading.Event().wait(60)
        elif path == "/inside":
            signed = "in=1" in (self.headers.get("Cookie") or "")
            self.wfile.write(b"<button>Account</button>" if signed else b"<button>Stranger</button>")
        else:
            self.wfile.write(self.pages.get(path, b"<button>Save</button>"))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server on this machine."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # browsers hang up

    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def see(browser: Browser, body: str, view: View = SMALL) -> Screen:
    browser.write(f"<!doctype html><body style='margin:10px'>{body}</body>")
    return browser.look(view)


def texts(shown: Screen, kind: str = "button") -> list[str]:
    return [element.text for element in shown.elements if element.kind == kind]


def only(shown: Screen, kind: str) -> Element:
    (element,) = [element for element in shown.elements if element.kind == kind]
    return element


@pytest.mark.parametrize(
    "hidden",
    [
        "<button style='display:none'>B</button>",
        "<button style='visibility:hidden'>B</button>",
        "<button style='opacity:0'>B</button>",
        "<div style='opacity:.1'><button>B</button></div>",
        "<button style='position:absolute;left:-500px'>B</button>",
        "<button style='position:absolute;top:2000px'>B</button>",
        "<div style='height:5px;overflow:hidden'><div style='height:30px'></div><button>B</button></div>",
        "<div style='position:relative'><button>B</button><div "
        "style='position:absolute;inset:0;background:#ccc'></div></div>",
        "<div style='position:relative'><button>B</button>"
        "<div style='position:absolute;inset:0;background:#ccc;pointer-events:none'></div></div>",
        "<button style='clip-path:inset(50%)'>B</button>",
        "<button style='transform:scale(0)'>B</button>",
        "<button style='all:unset;color:#fff'>B</button>",
        "<details><summary>More</summary><button>B</button></details>",
        "<div style='position:relative;height:60px'><button>B</button><img "
        "style='position:absolute;inset:0;width:90px;height:50px' "
        "src='data:image/svg+xml,<svg xmlns=\"http://www.w3.org/2000/svg\"/>'></div>",
        "<template><button>B</button></template>",
        "<div style='position:relative;z-index:0'><button style='position:relative;z-index:-1'>B</button>"
        "<div style='position:absolute;inset:0;background:#999'></div></div>",
    ],
)
def test_what_nobody_sees_is_left_out(browser: Browser, hidden: str):
    shown = see(browser, f"<button>A</button><br>{hidden}")
    assert texts(shown)[0] == "A" and "B" not in texts(shown)


@pytest.mark.parametrize(
    "seen",
    [
        "<button style='pointer-events:none'>B</button>",
        "<div style='position:relative'><button>B</button><div "
        "style='position:absolute;inset:0'></div></div>",
        "<div style='position:relative'><button>B</button><div "
        "style='position:absolute;inset:0;background:red;opacity:.05'></div></div>",
        "<button disabled>B</button>",
        "<button style='position:fixed;bottom:5px;right:5px'>B</button>",
        "<button style='transform:rotate(8deg)'>B</button>",
        "<button style='border-radius:50%;width:60px;height:60px'>B</button>",
        "<div style='overflow:auto;height:40px'><button>B</button><div style='height:500px'></div></div>",
        "<iframe srcdoc='<button>B</button>' style='width:200px;height:80px'></iframe>",
        "<div id=h></div><script>h.attachShadow({mode:'open'}).innerHTML='<button>B</button>'</script>",
        "<div id=h><button>B</button></div><script>h.attachShadow({mode:'open'}).innerHTML='<p><slot></slot></p>'</script>",
        "<div id=h></div><script>h.attachShadow({mode:'open'}).innerHTML='<div "
        "id=i></div>';h.shadowRoot.getElementById('i')"
        ".attachShadow({mode:'open'}).innerHTML='<button>B</button>'</script>",
    ],
)
def test_what_is_seen_is_found(browser: Browser, seen: str):
    assert texts(see(browser, f"<button>A</button><br>{seen}")) == ["A", "B"]


def test_frames_and_shadows_are_covered_as_well(browser: Browser):
    lid = "<div style='position:fixed;inset:0;background:#fff'></div>"
    frame = "<iframe srcdoc='<button>B</button>' style='width:200px;height:80px'></iframe>"
    shadow = "<div id=h></div><script>h.attachShadow({mode:'open'}).innerHTML='<button>C</button>'</script>"
    assert texts(see(browser, frame + shadow)) == ["B", "C"]
    assert texts(see(browser, frame + shadow + lid)) == []


def test_places_inside_frames_are_those_on_the_screen(browser: Browser):
    style = "position:absolute;left:10px;top:20px;width:50px;height:24px;background:#d00000;border:0"
    inside = f'<button style="{style}">B</button>'
    place = "position:absolute;left:100px;top:60px;width:200px;height:90px;border:5px solid;padding:3px"
    frame = f"<iframe srcdoc='{inside}' style='{place}'></iframe>"
    button = only(see(browser, frame), "button")
    assert np.allclose(button.box, (118, 88, 168, 112), atol=1) and button.colour == "red"


def test_partly_covered_elements_shrink_to_what_is_seen(browser: Browser):
    body = (
        "<button style='position:absolute;left:20px;top:20px;width:200px;height:40px'>A</button>"
        "<div style='position:absolute;left:150px;top:0;width:200px;height:100px;background:#ccc'></div>"
    )
    left, top, right, bottom = only(see(browser, body), "button").box
    assert (left, top, bottom) == (20, 20, 60) and 135 <= right <= 155


def test_kinds_names_and_states_come_from_the_accessibility_tree(browser: Browser):
    body = """
    <label>Email <input></label><label><input type=checkbox checked> News</label><label><input type=radio> Card</label>
    <div role=switch aria-checked=true tabindex=0 aria-label="Dark mode" style="width:40px;height:20px;background:#2b7de9"></div>
    <select aria-label=Size><option>Large</option></select><progress value=50 max=100 aria-label=Upload></progress>
    <input type=range aria-label=Volume><a href=#>More</a><button aria-label="Delete"><svg data-icon=trash width=16 height=16><rect width=16
    height=16 /></svg></button><div role=tablist><button role=tab aria-selected=true>One</button><button role=tab>Two</button></div>
    <button disabled>Off</button><h2>Head</h2>"""
    shown = see(browser, body)
    found = {(element.kind, element.name or element.text): element for element in shown.elements}
    assert found["text field", "Email"].states == {"empty"}
    assert found["checkbox", "News"].states == {"checked"} and found["radio button", "Card"].states == {
        "empty"
    }
    assert found["switch", "Dark mode"].states == {"on"} and found["switch", "Dark mode"].colour == "blue"
    assert (
        found["dropdown", "Size"].text == "Large"
        and ("progress bar", "Upload") in found
        and ("slider", "Volume") in found
    )
    assert found["button", "Delete"].icon == "trash" and not [
        element for element in shown.elements if element.kind == "icon"
    ]
    assert found["tab", "One"].states == {"selected"} and not found["tab", "Two"].states
    assert (
        found["button", "Off"].states == {"disabled"}
        and ("link", "More") in found
        and ("heading", "Head") in found
    )


def test_links_with_a_surface_may_be_taken_for_buttons(browser: Browser):
    plain, filled = (
        "<a href=#>More</a>",
        "<a href=# style='display:inline-block;padding:8px 20px;background:#0d6efd;color:#fff'>Buy</a>",
    )
    links = [
        element for element in see(browser, f"{plain}<br><br>{filled}").elements if element.kind == "link"
    ]
    assert [element.also for element in links] == [None, "button"] and links[1].colour == "blue"


def test_pages_that_change_the_built_in_objects_are_read_all_the_same(browser: Browser):
    spoilt = (
        "<script>Array.prototype.map = () => 0; Element.prototype.getClientRects = () => []; "
        "window.getComputedStyle = () => null;</script>"
    )
    assert texts(see(browser, spoilt + "<button>A</button>")) == ["A"]


def test_looking_leaves_the_page_as_it_was(browser: Browser):
    browser.write(
        "<body><p style='pointer-events: none;'>x</p><p "
        "class=n>y</p><style>.n{pointer-events:none}</style></body>"
    )
    before = browser.ask_page("() => document.documentElement.outerHTML")
    browser.look(SMALL)
    assert browser.ask_page("() => document.documentElement.outerHTML") == before


def test_policies_of_pages_are_no_obstacle(browser: Browser):
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'none'; script-src 'none'\">"
    browser.write(f"<!doctype html><head>{policy}</head><body><button>A</button><p id=p>x</p></body>")
    browser.ask_page("() => { document.getElementById('p').style.pointerEvents = 'none'; }")
    assert texts(browser.look(SMALL)) == ["A"]
    assert browser.ask_page("() => getComputedStyle(document.getElementById('p')).pointerEvents") == "none"


def test_inside_a_running_loop_the_reason_is_told():
    async def inside() -> None:
        with pytest.raises(MolmoPointError, match="running event loop"), Browser():
            pass

    asyncio.run(inside())


def test_sizes_ratios_themes_and_scrolling(browser: Browser):
    browser.write(
        "<style>body{margin:0;height:2000px} @media "
        "(prefers-color-scheme:dark){body{background:#000}}</style>"
        "<button style='position:absolute;top:0'>Top</button><button "
        "style='position:absolute;bottom:0'>Bottom</button>"
        "<div style='position:absolute;top:1960px'><button "
        "style='position:absolute;top:0'>Bottom</button></div>"
    )
    wide, tall = browser.look(View(400, 300, 2.0)), browser.look(View(200, 300, theme="dark"))
    assert wide.size == (800, 600) and tall.size == (200, 300)
    assert wide.pixels is not None and wide.pixels[-1, -1].tolist() == [255] * 3
    assert tall.pixels is not None and tall.pixels[-1, -1].tolist() == [0] * 3
    assert np.allclose(wide.elements[0].box[2:], 2 * np.array(tall.elements[0].box[2:]), atol=2)
    assert "Bottom" in texts(browser.look(View(400, 300, scroll=1.0))) and "Top" not in texts(
        browser.look(View(400, 300, scroll=1.0))
    )


def test_ten_thousand_elements_are_looked_at_up_to_a_limit():
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))):
        pytest.skip("no browser is installed: apt install chromium")
    with Browser(seconds=120, most=500) as opened:
        style = "<style>button{width:8px;height:8px;padding:0;margin:0;border:1px solid;float:left}</style>"
        shown = see(opened, style + "<button></button>" * 10_000, View(1300, 900))
    assert shown.missed == 9_500 and len(shown.elements) == 500


def test_no_elements_are_no_fault(browser: Browser):
    shown = see(browser, "")
    assert shown.elements == () and shown.missed == 0


# ---- Faults


def test_pages_that_never_finish_loading_are_used_as_they_are(server: str):
    with Browser(seconds=4) as opened:
        opened.open(f"{server}/hanging")
        assert opened.events["page still loading"] == 1
        assert texts(opened.look(SMALL)) == ["Here already"]


def test_pages_that_hang_or_crash_cost_only_themselves(tmp_path: Path):
    pages = {
        "a": "<button>A</button>",
        "b": "<script>for(;;);</script>",
        "c": "<script>location='chrome://crash'</script>",
        "d": "<button>D</button>",
    }
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(text)
    with Browser(seconds=3) as opened:
        drawn = draw_pages(
            [(tmp_path / f"{name}.html").as_uri() for name in pages], tmp_path / "out", opened, [SMALL]
        )
        kinds = {Path(address).stem: kind for address, kind, _ in drawn.faults}
        assert kinds["b"] == "slow" and "a" not in kinds and "d" not in kinds
        with pytest.raises(PageFault) as crash:
            opened.everywhere = True
            opened.open("chrome://crash")
        assert crash.value.kind == "crash"
        opened.everywhere = False
        opened.open((tmp_path / "d.html").as_uri())
        assert texts(opened.look(SMALL)) == ["D"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["faults_by_kind"]["slow"] == 1 and report["pages"] >= 2


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("/file", "download"),
        ("/missing", "unreachable"),
        ("/away", "unreachable"),
        ("/away-ip", "unreachable"),
    ],
)
def test_addresses_without_a_page_are_typed(browser: Browser, server: str, page: str, kind: str):
    with pytest.raises(PageFault) as fault:
        browser.open(server + page)
    assert fault.value.kind == kind
    browser.open(server + "/")
    assert texts(browser.look(SMALL)) == ["Save"], "the next page is drawn"


def test_addresses_outside_are_refused_and_requests_blocked(browser: Browser):
    with pytest.raises(PageFault) as fault:
        browser.open("http://example.com/")
    assert fault.value.kind == "refused"
    before = browser.events["request blocked"]
    assert texts(
        see(
            browser,
            "<img src='http://example.com/a.png'><script "
            "src='http://example.com/a.js'></script><button>A</button>",
        )
    ) == ["A"]
    assert browser.events["request blocked"] >= before + 2


def test_dialogs_windows_and_downloads_are_counted(browser: Browser, server: str):
    before = browser.events.copy()
    see(browser, "<script>alert(1); confirm(2); prompt(3)</script><button>A</button>")
    assert browser.events["dialog dismissed"] == before["dialog dismissed"] + 3
    browser.open(f"{server}/")
    browser.write(f"<a href='{server}/file' download>Get</a>")
    browser.act([Step("click", "Get"), Step("wait", "0.5")])
    assert browser.events["download stopped"] == before["download stopped"] + 1


def test_steps_sign_in_once_and_act_on_every_page(browser: Browser, server: str, tmp_path: Path):
    script = Script(
        (Step("go", f"{server}/login"), Step("fill", "Password", "x"), Step("click", "Sign in")), ()
    )
    drawn = draw_pages([f"{server}/inside", f"{server}/inside?2"], tmp_path, browser, [SMALL], script=script)
    seen = [json.loads(line) for line in (tmp_path / "elements.jsonl").read_text().splitlines()]
    assert drawn.pages == 2 and [row["elements"][0]["text"] for row in seen] == ["Account", "Account"]


def test_steps_that_find_nothing_are_typed(server: str):
    with Browser(seconds=2) as opened:
        opened.open(f"{server}/")
        with pytest.raises(PageFault, match="expected to click 'Nothing'") as fault:
            opened.act([Step("click", "Nothing")])
        assert fault.value.kind == "step"


def test_a_browser_that_is_none_is_named(tmp_path: Path):
    with pytest.raises(MolmoPointError, match="expected Chromium"), Browser(str(tmp_path / "nothing")):
        pass
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(MolmoPointError, match="expected Chromium"), Browser(str(program)):
        pass


# ---- The command


def test_the_command_writes_data_that_the_library_reads(tmp_path: Path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "a.html").write_text(
        "<h1>Shop</h1><button "
        "style='background:#d00000;color:#fff'>Buy</button><button>Edit</button><button>Edit</button>"
        "<input aria-label=Name>"
    )
    (pages / "b.html").write_text("<button>保存</button><a href=#>Löschen</a>")
    out = tmp_path / "out"
    arguments = [
        "data",
        "screens",
        str(pages),
        "--out",
        str(out),
        "--size",
        "320x240",
        "--size",
        "640x400",
        "--ratio",
        "1",
        "--ratio",
        "2",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    records = list(read_records(str(out / "data.jsonl")))
    targets = [json.loads(line) for line in (out / "targets.jsonl").read_text().splitlines()]
    assert len(records) == len(targets) > 20 and len(list((out / "images").iterdir())) == 8
    for record, target in zip(records, targets, strict=True):
        width, height = (640, 480) if "320x240@2" in target["image"] else (1280, 800)
        _, xy = to_pixels(record, [(width, height)], clip=True)
        assert target["image"] == record.images[0] and len(xy) == len(target["boxes"])
        for (x, y), boxes in zip(xy, target["boxes"], strict=True):
            assert any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in boxes)
    assert {"data.jsonl", "targets.jsonl", "elements.jsonl", "sheet.png", "report.json", "images"} == {
        path.name for path in out.iterdir()
    }
    assert CliRunner().invoke(app, ["data", "check", str(out / "data.jsonl")]).exit_code == 0
