"""Opens reports in headless Chromium, does what a reader does, and says what happened.

    drive.py hostile FILE      nothing runs, nothing is fetched, every text is text; prints how many texts were read
    drive.py use FILE          search, filters, keys, pictures, print, no script; prints findings as the report shows them
    drive.py findings FILE     prints the findings of all hosts only
    drive.py large FILE        a fleet of many hosts becomes usable; prints how long what took
    drive.py shots FILE DIR    screenshots: light, dark, narrow, one host

`tests/it/report.rs` runs it. Exits with 1 and one line for each thing that is wrong. Chromium is the one of Debian, on
PATH; it ends with this program, and this program with the one that started it.
"""

import ctypes
import json
import re
import shutil
import signal
import sys
import time

from playwright.sync_api import sync_playwright

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

# What must never reach a screen: controls, bidirectional marks, zero width. The script's own text has none either.
DECEIVES = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

# Before the page's own script: notes what a page may not do, and what takes long.
WATCH = """
window.violations = [];
window.tasks = [];
new PerformanceObserver((list) => list.getEntries().forEach((one) => tasks.push(Math.round(one.duration))))
    .observe({ type: 'longtask', buffered: true });
addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective + ' ' + event.blockedURI));
"""

problems = []


def check(is_right, what):
    if not is_right:
        problems.append(what)


class Reader:
    """A page, and everything that it did beside being shown."""

    def __init__(self, browser, file, **context):
        context.setdefault("viewport", {"width": 1440, "height": 1000})
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)
        self.strange = []
        self.page.on("dialog", lambda dialog: (self.strange.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("console", lambda message: self.strange.append(f"console {message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.strange.append(f"error {error}"))
        self.page.on("popup", lambda popup: self.strange.append(f"popup {popup.url}"))
        self.page.on("request", self.note_request)
        self.url = f"file://{file}"
        if context.get("java_script_enabled", True):
            self.page.add_init_script(WATCH)
        self.page.goto(self.url, timeout=120_000)
        if context.get("java_script_enabled", True):
            self.page.wait_for_selector("html[data-ready]", state="attached")

    def note_request(self, request):
        if request.url.split("#")[0] != self.url:
            self.strange.append(f"request {request.url}")

    def js(self, script, *args):
        return self.page.evaluate(script, *args)

    def until(self, condition, *args):
        """Waits until an expression or function says yes. The page's policy forbids playwright's own way to wait."""
        deadline = time.monotonic() + 120
        while not self.js(condition, *args):
            if time.monotonic() > deadline:
                sys.exit(f"waited in vain for {condition} {args}")
            time.sleep(0.02)

    def go(self, host):
        """Opens a host by its address."""
        self.js("(hash) => { location.hash = hash; }", f"#h{host}")
        self.until("(host) => document.querySelector('.row.on .rank')?.textContent === String(host)", host)

    def close(self):
        self.context.close()


def open_all(reader):
    """Opens whatever can be opened on the page, until nothing is left."""
    for _ in range(60):
        left = reader.js("""() => {
            const closed = [...document.querySelectorAll('#detail details:not([open]), .campaigns details:not([open])')];
            closed.forEach((one) => { one.open = true; });
            const buttons = [...document.querySelectorAll('#detail .long, #detail .more, #detail button.quiet')];
            buttons.forEach((one) => one.click());
            return closed.length + buttons.length;
        }""")
        if left == 0:
            return


def harmless(reader, place):
    """The page has what we made, and nothing that a host made of it."""
    found = reader.js("""() => {
        const all = [...document.querySelectorAll('*')];
        const links = [...document.querySelectorAll('a')].map((a) => a.getAttribute('href'));
        return {
            owned: typeof window.owned,
            violations: window.violations,
            strangers: all.map((one) => one.localName).filter((name) =>
                ['img', 'iframe', 'object', 'embed', 'base', 'video', 'audio', 'link', 'frame', 'marquee', 'math', 'template', 'style']
                    .includes(name)).slice(1),
            scripts: document.scripts.length - document.getElementsByClassName('block').length,
            handlers: all.flatMap((one) => one.getAttributeNames()).filter((name) => name.startsWith('on')),
            styled: all.filter((one) => one.hasAttribute('style') && !one.style.cssText).length,
            links: links.filter((href) => !/^#/.test(href) && !/^https:\\/\\/attack\\.mitre\\.org\\/techniques\\/T\\d{4}(\\/\\d{3})?\\/$/.test(href)),
            text: document.body.innerText,
        };
    }""")
    check(found["owned"] == "undefined", f"{place}: something of a host ran")
    check(not found["violations"], f"{place}: the policy was hit: {found['violations']}")
    check(not found["strangers"], f"{place}: elements {found['strangers'][:5]}")
    check(found["scripts"] == 2, f"{place}: {found['scripts']} scripts")
    check(not found["handlers"], f"{place}: handlers {found['handlers'][:5]}")
    check(not found["links"], f"{place}: links {found['links'][:5]}")
    deceiving = DECEIVES.findall(found["text"])
    check(not deceiving, f"{place}: characters {deceiving[:5]!r}")
    return found["text"]


def hostile(browser, file):
    reader = Reader(browser, file)
    page = reader.page
    texts = harmless(reader, "start")
    total = reader.js("JSON.parse(document.getElementById('index').textContent).names.length")
    for host in range(1, total + 1):
        reader.go(host)
        open_all(reader)
        texts += harmless(reader, f"host {host}")
    # What hosts say is searched for and marked; a table is chosen; pictures say what is below the pointer.
    for word in ["<img", "</script>", "onload", "javascript:", "{{", "u{202e}", "zzzz"]:
        page.fill("#search", word)
        page.wait_for_timeout(250)
        texts += harmless(reader, f"search {word}")
    page.keyboard.press("Escape")
    for option in reader.js("[...document.querySelectorAll('#table option')].map((one) => one.value)"):
        page.select_option("#table", option)
        texts += harmless(reader, f"table {option}")
    for square in page.locator("#heat a rect").all()[:40]:
        square.hover(force=True)
    texts += harmless(reader, "heat map")
    page.emulate_media(media="print")
    texts += harmless(reader, "print")
    check(not reader.strange, f"strange: {reader.strange[:5]}")
    reader.close()
    plain = Reader(browser, file, java_script_enabled=False)
    texts += plain.page.inner_text("body")
    check(not plain.strange, f"strange without a script: {plain.strange[:5]}")
    plain.close()
    return {"texts": texts}


def selected(reader):
    return reader.js("document.querySelector('.row.on .name')?.textContent ?? null")


def count(reader):
    return reader.page.inner_text("#count")


def searched(reader, word):
    reader.page.keyboard.press("/")
    check(reader.js("document.activeElement.id") == "search", "`/` goes to the search")
    reader.page.keyboard.type(word)
    reader.page.wait_for_timeout(300)
    return count(reader)


def use_search(reader):
    page = reader.page
    everything = count(reader)
    some = searched(reader, "crontab new")
    check(some != everything and " of " in some, f"a search finds some hosts: {some}")
    check(page.locator("#detail mark").count() > 0, "what is found is marked")
    none = searched(reader, "nothing-has-this-word")
    check(none.startswith("0 of "), f"a search may find nothing: {none}")
    check("No host fits" in page.inner_text("#detail"), "nothing found is said")
    page.keyboard.press("Escape")
    check(count(reader) == everything, "Esc takes the search away")
    check(page.input_value("#search") == "", "Esc empties the field")


def use_keys(reader):
    page = reader.page
    page.focus("#list")
    page.keyboard.press("Home")
    first = selected(reader)
    page.keyboard.press("j")
    second = selected(reader)
    page.keyboard.press("k")
    check(first != second and selected(reader) == first, "j and k move through the hosts")
    check(page.inner_text("#detail h3") == first, "the host that is chosen is shown")
    page.keyboard.press("End")
    check(selected(reader) not in (first, second), "End is the last host")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    check(reader.js("document.activeElement.id") == "detail", "Enter reads the host")
    page.keyboard.press("n")
    check(page.locator(".finding.on").get_attribute("data-number") == "1", "n is the first finding")
    page.keyboard.press("n")
    check(reader.js("location.hash") == "#h1-f2", "n is the next finding")
    page.keyboard.press("p")
    check(reader.js("location.hash") == "#h1-f1", "p is the one before")
    page.keyboard.press("Escape")
    check(reader.js("document.activeElement.id") == "list", "Esc is back at the list")
    page.keyboard.press("?")
    check(page.locator("#help").is_visible(), "? shows the keys")
    page.keyboard.press("Escape")
    check(not page.locator("#help").is_visible(), "Esc closes them")


def use_filters(reader):
    page = reader.page
    everything = count(reader)
    boxes = page.locator("#verdicts input")
    for box in (1, 2, 3):
        boxes.nth(box).uncheck(force=True)
    signs = reader.js("[...document.querySelectorAll('.row .sign')].map((one) => one.textContent.trim())")
    check(set(signs) == {"▲"}, f"only outliers: {signs}")
    for box in (1, 2, 3):
        boxes.nth(box).check(force=True)
    check(count(reader) == everything, "all verdicts again")
    table = page.locator("#table option").nth(1).inner_text().split(" ")[0]
    page.select_option("#table", index=1)
    check(count(reader) != everything, "a table filters")
    check(page.locator("#detail .finding h4 .table").first.inner_text() == table, "its findings come first")
    page.select_option("#table", "")
    button = page.locator("[data-campaign]").first
    if button.count() > 0:
        hosts = reader.js("JSON.parse(document.getElementById('index').textContent).campaigns[0].length")
        button.click()
        check(count(reader).startswith(f"{hosts} of"), f"the hosts of a campaign: {count(reader)}")
        page.click("#only")
    check(count(reader) == everything, "all hosts again")


def use_pictures(reader):
    page = reader.page
    square = page.locator("#heat a").nth(3)
    title = square.locator("title").text_content()
    square.locator("rect").click()
    host, rest = title.split(", ", 1)
    check(selected(reader) == host, f"a click on the heat map opens {host}, not {selected(reader)}")
    if "finding" in rest:
        table = rest.split(":")[0]
        now = page.locator(".finding.on h4 .table").inner_text()
        check(now == table, f"and goes to {table}, not {now}")
    mark = page.locator("#map .mark").nth(1)
    name = mark.get_attribute("aria-label").split(", ")[0]
    mark.click()
    check(selected(reader) == name, f"a click on the map opens {name}, not {selected(reader)}")
    # A quiet host is a dot; where it is, is in the data.
    reader.js("document.getElementById('map').scrollIntoView({ block: 'center' })")
    page.wait_for_timeout(300)
    place = reader.js("""() => {
        const index = JSON.parse(document.getElementById('index').textContent);
        const host = index.verdicts.indexOf(2);
        const point = new DOMPoint(index.places[host][0] / 10, index.places[host][1] / 10).matrixTransform(document.getElementById('map').getScreenCTM());
        return { name: index.names[host], x: point.x, y: point.y };
    }""")
    page.mouse.move(place["x"], place["y"])
    check(place["name"] in page.inner_text("#tip"), "the map says which host is below the pointer")
    page.mouse.click(place["x"], place["y"])
    check(selected(reader) == place["name"], f"a dot opens {place['name']}, not {selected(reader)}")


def use_theme(reader):
    page = reader.page
    color = "getComputedStyle(document.body).backgroundColor"
    light = reader.js(color)
    page.click("#theme")
    page.click("#theme")
    check(reader.js("document.documentElement.dataset.theme") == "dark", "the colours can be dark")
    check(reader.js(color) != light, "dark is another colour")
    page.click("#theme")
    page.emulate_media(color_scheme="dark")
    check(reader.js(color) != light, "the system may ask for dark")
    page.emulate_media(color_scheme="light")


def use_print(reader):
    page = reader.page
    reason = page.locator("#static .finding .reason").first.text_content()
    check(not page.locator("#static").is_visible(), "on a screen the script's view is shown")
    page.emulate_media(media="print")
    check(page.locator("#static").is_visible(), "the findings are printed")
    check(not page.locator("#list").is_visible(), "what needs a click is not")
    check(reason in page.locator("#static").text_content(), "with their reasons")
    check(len(page.pdf()) > 10_000, "a PDF can be made")
    page.emulate_media(media="screen")


def use_without_script(browser, file):
    plain = Reader(browser, file, java_script_enabled=False)
    page = plain.page
    check(page.locator("h1").is_visible(), "the answer needs no script")
    check(page.locator("#static .finding .reason").first.is_visible(), "the findings need no script")
    check(page.locator("#static .cells td").first.is_visible(), "nor do their rows")
    check(page.locator("#static .names").first.is_visible(), "nor do the quiet hosts")
    check(not page.locator("#list").is_visible(), "what needs a script is not shown")
    page.locator(".first a").first.click()
    check(page.url.endswith("#h1") and page.locator("#h1").is_visible(), "links lead to hosts")
    check(not plain.strange, f"strange without a script: {plain.strange[:5]}")
    plain.close()


def use_narrow(browser, file):
    reader = Reader(browser, file, viewport={"width": 390, "height": 844})
    width = reader.js("document.documentElement.scrollWidth")
    check(width <= 390, f"a phone scrolls sideways: {width}")
    reader.close()


def shown_findings(reader):
    """Findings as a reader sees them, with what they could copy."""
    return reader.js("""() => [...document.querySelectorAll('#detail .finding')].map((one) => ({
        host: document.querySelector('#detail h3').textContent,
        id: one.querySelector('.facts > .muted > .mono').textContent,
        table: one.querySelector('h4 .table').textContent,
        kind: one.querySelector('h4 .kind').textContent,
        cells: Object.fromEntries([...one.querySelectorAll('.cells tbody tr')].map((row) =>
            [row.querySelector('th').lastChild.textContent, row.querySelector('td').classList.contains('absent') ? null : row.querySelector('td').textContent])),
        queries: [...one.querySelectorAll('pre[data-what=sql]')].map((pre) => pre.textContent),
        suppression: one.querySelector('pre[data-what=toml]').textContent,
    }))""")


def findings_of(reader, hosts):
    all_of = []
    for host in hosts:
        reader.go(host)
        open_all(reader)
        all_of += shown_findings(reader)
    return all_of


def use(browser, file):
    reader = Reader(browser, file)
    for step in (use_search, use_keys, use_filters, use_pictures, use_theme, use_print):
        step(reader)
    total = reader.js("JSON.parse(document.getElementById('index').textContent).names.length")
    findings = findings_of(reader, range(1, total + 1))
    check(not reader.strange, f"strange: {reader.strange[:5]}")
    reader.close()
    use_without_script(browser, file)
    use_narrow(browser, file)
    return {"findings": findings}


def findings(browser, file):
    reader = Reader(browser, file)
    total = reader.js("JSON.parse(document.getElementById('index').textContent).names.length")
    found = findings_of(reader, range(1, total + 1))
    reader.close()
    return {"findings": found}


def large(browser, file):
    begun = time.monotonic()
    reader = Reader(browser, file)
    page = reader.page
    times = {"usable_ms": round((time.monotonic() - begun) * 1000), "long_tasks_ms": reader.js("tasks")}
    times["elements"] = reader.js("document.querySelectorAll('*').length")
    check(times["elements"] < 40_000, f"the page has {times['elements']} elements")
    check(page.locator(".row").count() < 100, "only the rows in view are there")
    total = reader.js("JSON.parse(document.getElementById('index').textContent).names.length")

    def timed(name, action, condition):
        begun = time.monotonic()
        action()
        reader.until(condition)
        times[name] = round((time.monotonic() - begun) * 1000)

    page.focus("#list")
    timed("end_ms", lambda: page.keyboard.press("End"), f"document.querySelector('.row.on .rank')?.textContent === '{total}'")
    timed("search_ms", lambda: page.fill("#search", "needle"), "/^1 of/.test(document.getElementById('count').textContent)")
    timed("clear_ms", lambda: page.fill("#search", ""), "!/ of /.test(document.getElementById('count').textContent)")
    reader.js("() => { const heat = document.getElementById('heat-scroll'); heat.scrollIntoView(); heat.scrollLeft = 40000; }")
    reader.until("document.getElementById('heat-scroll').scrollLeft === 40000")
    box = page.locator("#heat-scroll canvas").bounding_box()
    page.mouse.click(box["x"] + 40, box["y"] + 8)
    at = int(reader.js("document.querySelector('.row.on .rank').textContent"))
    check(at == 2503, f"a click on the heat map opens host {at}")
    check(not reader.strange, f"strange: {reader.strange[:5]}")
    reader.close()
    return times


def shots(browser, file, folder):
    views = [
        ("light", {"width": 1440, "height": 1000}, "light", ""),
        ("dark", {"width": 1440, "height": 1000}, "dark", ""),
        ("narrow", {"width": 390, "height": 844}, "light", ""),
        ("host", {"width": 1440, "height": 1000}, "light", "#h1-f1"),
        ("host-dark", {"width": 1440, "height": 1000}, "dark", "#h2-f1"),
        ("host-narrow", {"width": 390, "height": 844}, "dark", "#h1-f1"),
    ]
    for name, viewport, scheme, at in views:
        reader = Reader(browser, file, viewport=viewport, color_scheme=scheme)
        if at:
            reader.js("(hash) => { location.hash = hash; }", at)
            reader.page.wait_for_timeout(700)
        reader.page.screenshot(path=f"{folder}/{name}.png")
        check(not reader.strange, f"{name}: {reader.strange[:3]}")
        reader.close()
    return {"shots": [view[0] for view in views]}


def main():
    # PR_SET_PDEATHSIG: whoever kills the test ends this, and with it Chromium.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    what, *args = sys.argv[1:]
    program = shutil.which("chromium")
    if not program:
        sys.exit("chromium is missing; `tests/setup-debian chromium` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            answer = {"hostile": hostile, "use": use, "findings": findings, "large": large, "shots": shots}[what](browser, *args)
        finally:
            browser.close()
    if problems:
        sys.exit("\n".join(problems))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
