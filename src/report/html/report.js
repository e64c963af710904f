// What makes a report interactive: a list of all hosts, one host at a time, search and filters, the pictures.
//
// Whatever hosts said is in data blocks and comes onto the page as text: nothing here makes markup of text, and the
// policy of the page (Trusted Types) forbids it. Everything else works without this script.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const index = JSON.parse($("index").textContent);
  const total = index.names.length;
  const KINDS = ["new", "variant", "missing", "changed", "coverage"];
  const VERDICTS = [
    { class: "v-outlier", name: "outlier", sign: "▲" },
    { class: "v-review", name: "review", sign: "◆" },
    { class: "v-normal", name: "no look needed", sign: "●" },
    { class: "v-no_peers", name: "not judged", sign: "○" },
  ];
  const ROW_HEIGHT = 52;
  // A value longer than this is cut in the middle until somebody asks for it.
  const LONG = 220;
  // Findings that are shown at once.
  const PAGE = 25;
  const HELP = "Say why in reason, append it to a file, and give that to diffy analyze --suppress FILE.";

  const state = {
    verdicts: new Set([0, 1, 2, 3]), table: -1, campaign: -1, words: [],
    hosts: [], at: -1, open: -1, finding: 0, hits: null, shown: 0,
  };

  /** An element with attributes and children; text becomes a text node. */
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function drawn(tag, attributes, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  const plural = (number, thing) => `${number.toLocaleString("en")} ${thing}${number === 1 ? "" : "s"}`;
  const points = (score) => score.toFixed(1);
  const step = (score) => Math.max(0, Math.min(9, Math.floor(score / 10)));
  const isVisible = (element) => element.getClientRects().length > 0;

  // ---------------------------------------------------------------- data

  const blocks = [];
  let allBlocks = false;

  /** Reads the blocks that the parser has come to; a block is parsed when it is first asked for. */
  function findBlocks() {
    const elements = document.getElementsByClassName("block");
    while (blocks.length < elements.length) {
      const before = blocks[blocks.length - 1];
      const element = elements[blocks.length];
      const from = Number(/^\{"from":(\d+)/.exec(element.firstChild.data.slice(0, 40))[1]);
      if (before) before.end = from;
      blocks.push({ element, from, end: total, data: null });
    }
  }

  function parsed(block) {
    if (!block.data) {
      block.data = JSON.parse(block.element.textContent);
      block.data.low = null;
    }
    return block.data;
  }

  /** Failures and findings of a host; null while the page is still loading. */
  function hostData(host) {
    if (!allBlocks) findBlocks();
    const block = blocks.find((one) => host >= one.from && host < one.end);
    // The last block that is there may end later than it seems.
    if (!block || (!allBlocks && block === blocks[blocks.length - 1])) return null;
    const data = parsed(block);
    const [failures, findings] = data.hosts[host - data.from];
    return { failures, findings: findings.map((finding) => unpack(data, finding)), data };
  }

  function unpack(data, packed) {
    const [id, table, kind, score, reason, counts, first, attack, priors, method, here, there, rows, given, queries, lines] = packed;
    const text = (number) => data.texts[number];
    const maybe = (number) => (number === 0 ? null : data.texts[number - 1]);
    const list = (number) => data.lists[number];
    const [names, mine, theirs, marks] = rows.map(list);
    const cells = names.map((name, at) => ({
      name: text(name), here: maybe(mine[at]), there: maybe(theirs[at]), mark: marks[at] & 3, isFirst: (marks[at] & 4) > 0,
    }));
    const links = list(attack);
    const techniques = [];
    for (let at = 0; at < links.length; at += 2) techniques.push({ id: text(links[at]), url: text(links[at + 1]) });
    const shows = [];
    for (let at = 0; at < queries.length; at += 2) {
      shows.push({ label: text(queries[at]), query: list(queries[at + 1]).map(text).join(" AND ") });
    }
    return {
      id: text(id), table, tableName: table === null ? "" : index.tables[table], kind: KINDS[kind], score, reason: text(reason), with: counts[0], of: counts[1],
      first: maybe(first), techniques, priors: list(priors).map(text), method: text(method), here: text(here),
      there: maybe(there), cells, given: maybe(given), shows, suppression: list(lines).map(text).join("\n"),
    };
  }

  // ---------------------------------------------------------------- search and filters

  /** Which texts of a block have a word. */
  function textsWith(data, word) {
    if (!data.low) data.low = data.texts.map((text) => text.toLowerCase());
    const found = new Uint8Array(data.low.length);
    let any = false;
    for (let at = 0; at < found.length; at += 1) {
      if (data.low[at].includes(word)) { found[at] = 1; any = true; }
    }
    return any ? found : null;
  }

  /** Whether a packed finding says a word: in its own values and sentences, not in the row beside it. */
  function says(data, packed, word, found) {
    const table = packed[1] === null ? "" : index.tables[packed[1]].toLowerCase();
    if (table.includes(word) || KINDS[packed[2]] === word) return true;
    if (!found) return false;
    if (found[packed[0]] || found[packed[4]] || found[packed[9]]) return true;
    if (data.lists[packed[7]].some((text) => found[text])) return true;
    return data.lists[packed[12][1]].some((text) => text > 0 && found[text - 1]);
  }

  /** For each host that has all words, how many of its findings have one. */
  function search(words) {
    findBlocks();
    const hits = new Map();
    const low = search.low || (search.low = index.names.map((name) => name.toLowerCase()));
    for (const block of blocks) {
      const data = parsed(block);
      const found = words.map((word) => textsWith(data, word));
      data.hosts.forEach(([failures, findings], number) => {
        const host = data.from + number;
        const missing = new Set(words.keys());
        let count = 0;
        words.forEach((word, at) => {
          const failed = failures.some((text) => found[at] && found[at][text]);
          if (failed || low[host].includes(word) || index.texts[index.coverage[host]].includes(word)) missing.delete(at);
        });
        for (const packed of findings) {
          let here = false;
          words.forEach((word, at) => {
            if (says(data, packed, word, found[at])) { missing.delete(at); here = true; }
          });
          if (here) count += 1;
        }
        if (missing.size === 0) hits.set(host, count);
      });
    }
    return hits;
  }

  function hasTable(host, table) {
    const cells = index.cells[host];
    for (let at = 0; at < cells.length; at += 4) if (cells[at] === table) return true;
    return false;
  }

  function apply() {
    state.hits = state.words.length > 0 ? search(state.words) : null;
    const members = state.campaign < 0 ? null : new Set(index.campaigns[state.campaign].map((rank) => rank - 1));
    const hosts = [];
    for (let host = 0; host < total; host += 1) {
      if (!state.verdicts.has(index.verdicts[host])) continue;
      if (state.table >= 0 && !hasTable(host, state.table)) continue;
      if (members && !members.has(host)) continue;
      if (state.group !== undefined && index.groups[host] !== state.group) continue;
      if (state.hits && !state.hits.has(host)) continue;
      hosts.push(host);
    }
    state.hosts = hosts;
    state.at = Math.max(hosts.indexOf(state.open), hosts.length > 0 ? 0 : -1);
    $("count").textContent = hosts.length === total ? plural(total, "host") : `${hosts.length.toLocaleString("en")} of ${plural(total, "host")}`;
    const only = $("only");
    const parts = [];
    if (state.campaign >= 0) parts.push("one campaign");
    if (state.group !== undefined) parts.push("one peer group");
    only.hidden = parts.length === 0;
    only.textContent = `× only ${parts.join(" and ")}`;
    $("rows").style.height = `${hosts.length * ROW_HEIGHT}px`;
    if (state.at >= 0) reveal();
    else drawRows(true);
    if (state.at >= 0 && hosts[state.at] !== state.open) open(hosts[state.at], { quiet: true });
    else if (state.open >= 0) drawDetail();
    if (hosts.length === 0) nothing();
  }

  function nothing() {
    $("detail").replaceChildren(make("p", { class: "none-found" }, "No host fits. Esc takes the filters away."));
    state.open = -1;
  }

  function clearFilters() {
    state.words = [];
    $("search").value = "";
    state.verdicts = new Set([0, 1, 2, 3]);
    for (const box of $("verdicts").querySelectorAll("input")) box.checked = true;
    state.table = -1;
    $("table").value = "";
    state.campaign = -1;
    state.group = undefined;
    apply();
  }

  // ---------------------------------------------------------------- the list

  let drawnFrom = -1;
  let drawnTo = -1;

  function drawRows(again) {
    const list = $("list");
    const from = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - 6);
    const to = Math.min(state.hosts.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_HEIGHT) + 6);
    if (!again && from === drawnFrom && to === drawnTo) return;
    drawnFrom = from;
    drawnTo = to;
    const rows = [];
    for (let at = from; at < to; at += 1) rows.push(row(at));
    $("rows").replaceChildren(...rows);
    if (state.at >= 0) list.setAttribute("aria-activedescendant", `r${state.hosts[state.at]}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function row(at) {
    const host = state.hosts[at];
    const verdict = VERDICTS[index.verdicts[host]];
    const isOn = at === state.at;
    const element = make("div", {
      class: `row ${verdict.class}${isOn ? " on" : ""}`, role: "option", id: `r${host}`, "aria-selected": String(isOn),
      "aria-posinset": at + 1, "aria-setsize": state.hosts.length,
      "aria-label": `${index.names[host]}, ${verdict.name}, score ${points(index.scores[host])}`,
    },
    make("span", { class: "rank" }, String(host + 1)),
    make("span", { class: "name", title: index.names[host] }, ...marked(index.names[host])),
    make("span", { class: "points" }, make("span", { class: "sign", "aria-hidden": "true" }, `${verdict.sign} `), points(index.scores[host])),
    make("span", { class: "what" }, what(host)));
    element.style.transform = `translateY(${at * ROW_HEIGHT}px)`;
    element.addEventListener("click", () => { state.at = at; open(host); });
    return element;
  }

  /** What a host shows, in a few words. */
  function what(host) {
    if (state.hits) {
      const count = state.hits.get(host);
      return count > 0 ? `${plural(count, "finding")} of ${index.findings[host]} found` : "found by its name or coverage";
    }
    if (index.findings[host] === 0) return index.texts[index.coverage[host]];
    const cells = index.cells[host];
    const tables = [];
    for (let at = 0; at < cells.length; at += 4) if (cells[at + 1] > 0) tables.push([cells[at + 2], index.tables[cells[at]]]);
    tables.sort((a, b) => b[0] - a[0]);
    return `${plural(index.findings[host], "finding")}: ${tables.map((one) => one[1]).join(", ")}`;
  }

  function move(by) {
    if (state.hosts.length === 0) return;
    state.at = Math.max(0, Math.min(state.hosts.length - 1, state.at + by));
    open(state.hosts[state.at]);
  }

  function reveal() {
    const list = $("list");
    const top = state.at * ROW_HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
    drawRows(true);
  }

  // ---------------------------------------------------------------- one host

  function open(host, how = {}) {
    state.open = host;
    state.at = state.hosts.indexOf(host);
    if (state.at < 0) {
      // Somebody asks for a host that the filters leave out.
      clearFilters();
      state.at = state.hosts.indexOf(host);
      state.open = host;
    }
    state.finding = 0;
    state.shown = PAGE;
    reveal();
    drawDetail();
    pointAt(host);
    if (!how.quiet) history.replaceState(null, "", `#h${host + 1}`);
  }

  function drawDetail() {
    const host = state.open;
    const detail = $("detail");
    const found = hostData(host);
    if (!found) {
      detail.replaceChildren(make("p", { class: "none-found" }, "Loading…"));
      return;
    }
    const verdict = VERDICTS[index.verdicts[host]];
    const group = index.groups[host];
    const facts = [index.texts[index.coverage[host]]];
    if (group !== null) facts.push(index.texts[group]);
    if (index.suppressed[host] > 0) facts.push(`${plural(index.suppressed[host], "finding")} suppressed`);
    const parts = [
      make("header", { class: verdict.class },
        make("h3", {}, ...marked(index.names[host])),
        make("span", { class: "badge" }, make("span", { "aria-hidden": "true" }, `${verdict.sign} `), `${verdict.name} ${points(index.scores[host])}`),
        make("span", { class: "muted" }, `rank ${host + 1} of ${total.toLocaleString("en")}`)),
      make("p", { class: "muted" }, facts.join("; ")),
    ];
    if (found.failures.length > 0) parts.push(failureList(found));
    if (found.findings.length === 0) parts.push(make("p", { class: "none-found" }, "Nothing was found on this host."));
    const findings = ordered(found.findings);
    for (const finding of findings.slice(0, state.shown)) parts.push(section(host, finding));
    if (findings.length > state.shown) parts.push(moreButton(findings.length - state.shown));
    detail.replaceChildren(...parts);
    detail.setAttribute("aria-label", `Host ${index.names[host]}`);
    markFinding();
  }

  /** Findings of the table that is filtered by come first. */
  function ordered(findings) {
    findings.forEach((finding, number) => { finding.number = number + 1; });
    if (state.table < 0) return findings;
    return [...findings.filter((one) => one.table === state.table), ...findings.filter((one) => one.table !== state.table)];
  }

  function failureList({ failures, data }) {
    const items = [];
    for (let at = 0; at < failures.length; at += 3) {
      const [table, status, error] = [0, 1, 2].map((of) => data.texts[failures[at + of]]);
      items.push(make("li", {}, make("span", { class: "table" }, table), ` ${status}${error ? ": " : ""}`, ...value(error)));
    }
    const label = `${plural(items.length, "table")} not answered in full`;
    if (items.length <= 3) return make("ul", { class: "failures", "aria-label": label }, ...items);
    return make("details", { class: "failures" }, make("summary", {}, label), make("ul", {}, ...items));
  }

  function moreButton(count) {
    const button = make("button", { type: "button", class: "more" }, `Show ${plural(count, "more finding")}`);
    button.addEventListener("click", () => { state.shown += 200; drawDetail(); });
    return button;
  }

  function section(host, finding) {
    const isOther = state.table >= 0 && finding.table !== state.table;
    const facts = make("p", { class: "facts" });
    if (finding.kind !== "coverage") facts.append(prevalence(finding));
    if (finding.first) facts.append(make("span", {}, `first seen ${finding.first}`));
    for (const { id, url } of finding.techniques) {
      const link = { class: "attack", href: url, target: "_blank", rel: "noopener noreferrer external", title: `MITRE ATT&CK ${id}` };
      facts.append(url ? make("a", link, id) : make("span", { class: "attack" }, id));
    }
    facts.append(make("span", { class: "muted" }, `${finding.method} · `, make("span", { class: "mono" }, ...marked(finding.id))));
    const parts = [
      make("h4", {},
        make("span", { class: `score s${step(finding.score)}` }, points(finding.score)),
        make("span", { class: "table" }, ...marked(finding.tableName)),
        make("span", { class: "kind" }, finding.kind)),
      make("p", { class: "reason" }, ...sentence(finding.reason)),
      facts,
    ];
    if (finding.given) parts.push(make("p", { class: "given" }, ...value(finding.given)));
    if (finding.cells.length > 0) parts.push(...cellTable(finding));
    const actions = [sql(finding), suppression(finding)].filter(Boolean);
    if (actions.length > 0) parts.push(make("div", { class: "actions" }, ...actions));
    return make("section", { class: `finding${isOther ? " dim" : ""}`, id: `d${host + 1}-f${finding.number}`, "data-number": finding.number }, ...parts);
  }

  function prevalence(finding) {
    const share = finding.with === 0 ? 0 : Math.max(2, Math.round((finding.with * 100) / Math.max(1, finding.of)));
    const bar = drawn("svg", { width: 80, height: 8, viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("rect", { class: "track", width: 100, height: 8 }), drawn("rect", { class: "fill", width: Math.min(100, share), height: 8 }));
    return make("span", { class: "prevalence" }, bar, ` on ${finding.with.toLocaleString("en")} of ${plural(finding.of, "host")}`);
  }

  function cellTable(finding) {
    const signs = [["", ""], ["≠", "differs: "], ["!", "unusual: "]];
    const line = (cell) => make("tr", { class: cell.mark ? "marked" : null },
      make("th", { scope: "row" }, make("span", { class: "mark", "aria-hidden": "true" }, signs[cell.mark][0]), make("span", { class: "sr" }, signs[cell.mark][1]), cell.name),
      filled(cell.here), finding.there === null ? null : filled(cell.there));
    const body = make("tbody", {}, ...finding.cells.filter((cell) => cell.isFirst).map(line));
    const head = make("tr", {}, make("th", { scope: "col" }, "column"), make("th", { scope: "col" }, finding.here), finding.there === null ? null : make("th", { scope: "col" }, finding.there));
    const parts = [make("table", { class: "cells" }, make("thead", {}, head), body)];
    const rest = finding.cells.filter((cell) => !cell.isFirst);
    if (rest.length === 0) return parts;
    const button = make("button", { type: "button", class: "quiet", "aria-expanded": "false" }, plural(rest.length, "more column"));
    button.addEventListener("click", () => { body.append(...rest.map(line)); button.remove(); });
    return [...parts, make("p", {}, button)];
  }

  function filled(text) {
    if (text === null) return make("td", { class: "absent" }, "not there");
    return text === "" ? make("td", { class: "absent" }, "empty") : make("td", {}, ...value(text));
  }

  /** A text as nodes, cut in the middle where it is long, with a button for all of it. */
  function value(text, long = LONG) {
    if (text.length <= long) return marked(text);
    const half = Math.floor(long / 2) - 10;
    const span = make("span", {}, ...marked(text.slice(0, half)), "…", ...marked(text.slice(-half)));
    const button = make("button", { type: "button", class: "long" }, `all ${text.length.toLocaleString("en")} characters`);
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      span.replaceChildren(...marked(text));
      button.remove();
    });
    return [span, button];
  }

  /** A sentence in which values are quoted by backticks. */
  function sentence(text) {
    return text.split("`").flatMap((part, at) => {
      if (part === "") return [];
      return at % 2 === 1 ? [make("code", {}, ...value(part))] : value(part);
    });
  }

  /** A text as nodes, with what is searched for marked. */
  function marked(text) {
    if (state.words.length === 0) return [text];
    const low = text.toLowerCase();
    // A few letters change their length in lower case; then places do not fit.
    if (low.length !== text.length) return [text];
    const nodes = [];
    let from = 0;
    for (;;) {
      let next = -1;
      let length = 0;
      for (const word of state.words) {
        const at = low.indexOf(word, from);
        if (at >= 0 && (next < 0 || at < next)) { next = at; length = word.length; }
      }
      if (next < 0 || nodes.length > 400) break;
      nodes.push(text.slice(from, next), make("mark", {}, text.slice(next, next + length)));
      from = next + length;
    }
    nodes.push(text.slice(from));
    return nodes;
  }

  function sql(finding) {
    if (finding.shows.length === 0) return null;
    const parts = finding.shows.flatMap(({ label, query }) => [make("p", { class: "muted" }, label), copyable(query, "sql")]);
    return make("details", {}, make("summary", {}, "Show it with SQL"), ...parts);
  }

  function suppression(finding) {
    if (finding.suppression === "") return null;
    return make("details", {}, make("summary", {}, "It is harmless: suppress it"), make("p", { class: "muted" }, HELP), copyable(finding.suppression, "toml"));
  }

  function copyable(text, what) {
    const pre = make("pre", { class: "command", "data-what": what }, text);
    const button = make("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      const range = document.createRange();
      range.selectNodeContents(pre);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      let isDone = false;
      try {
        await navigator.clipboard.writeText(text);
        isDone = true;
      } catch {
        isDone = document.execCommand("copy");
      }
      button.textContent = isDone ? "Copied" : "Ctrl-C";
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
    return make("div", { class: "copied" }, pre, button);
  }

  function moveFinding(by) {
    const sections = [...$("detail").querySelectorAll(".finding")];
    if (sections.length === 0) return;
    const now = sections.findIndex((one) => Number(one.dataset.number) === state.finding);
    const next = sections[Math.max(0, Math.min(sections.length - 1, now + by))];
    showFinding(next);
  }

  function showFinding(element) {
    state.finding = Number(element.dataset.number);
    markFinding();
    element.scrollIntoView({ block: "start" });
    history.replaceState(null, "", `#h${state.open + 1}-f${state.finding}`);
  }

  function markFinding() {
    for (const element of $("detail").querySelectorAll(".finding")) {
      element.classList.toggle("on", Number(element.dataset.number) === state.finding);
    }
  }

  /** Goes to a host, and to its first finding in a table or to one of a number. */
  function goTo(host, { table = -1, number = 0 } = {}) {
    open(host, { quiet: true });
    const found = hostData(host);
    if (found && number === 0 && table >= 0) number = found.findings.findIndex((one) => one.table === table) + 1;
    if (number > state.shown) { state.shown = number; drawDetail(); }
    const element = number > 0 ? $(`d${host + 1}-f${number}`) : null;
    if (element) showFinding(element);
    else {
      history.replaceState(null, "", `#h${host + 1}`);
      $("detail").scrollIntoView({ block: "start" });
    }
    $("detail").focus({ preventScroll: true });
  }

  /** `#h3`, `#h3-t7` (its findings in a table), `#h3-f2` (its second finding). */
  function goToHash(hash) {
    const found = /^#h(\d+)(?:-(t|f)(\d+))?$/.exec(hash);
    if (!found || Number(found[1]) < 1 || Number(found[1]) > total) return false;
    const place = Number(found[3]);
    goTo(Number(found[1]) - 1, found[2] === "t" ? { table: place } : found[2] === "f" ? { number: place } : {});
    return true;
  }

  // ---------------------------------------------------------------- the pictures

  const CELL = 16;
  let canvas = null;
  let colors = null;

  function tip(text, event) {
    const element = $("tip");
    element.hidden = !text;
    if (!text) return;
    element.textContent = text;
    const { width, height } = element.getBoundingClientRect();
    const left = Math.min(event.clientX + 12, innerWidth - width - 8);
    const top = event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18;
    element.style.transform = `translate(${Math.max(8, left)}px, ${top}px)`;
  }

  /** Where a fleet is too large to be drawn as elements, the part in view is painted. */
  function startCanvas() {
    const scroll = $("heat-scroll");
    if (!scroll || index.names.length * CELL <= $("heat").width.baseVal.value) return;
    document.documentElement.classList.add("big");
    canvas = make("canvas", { "aria-hidden": "true" });
    const wide = make("div", { class: "wide" });
    wide.style.width = `${total * CELL}px`;
    wide.append(canvas);
    scroll.append(wide);
    scroll.addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });
    new ResizeObserver(paint).observe(scroll);
    canvas.addEventListener("pointermove", (event) => {
      const at = cellAt(event);
      tip(at && cellText(at.host, at.table), event);
    });
    canvas.addEventListener("pointerleave", () => tip(""));
    canvas.addEventListener("click", (event) => {
      const at = cellAt(event);
      if (at) goTo(at.host, { table: at.table });
    });
    scroll.addEventListener("keydown", (event) => {
      const by = { ArrowRight: CELL * 4, ArrowLeft: -CELL * 4, Home: -1e9, End: 1e9 }[event.key];
      if (by) { scroll.scrollLeft += by; event.preventDefault(); event.stopPropagation(); }
    });
    paint();
  }

  function cellAt(event) {
    const box = canvas.getBoundingClientRect();
    const host = Math.floor((event.clientX - box.left + $("heat-scroll").scrollLeft) / CELL);
    const table = Math.floor((event.clientY - box.top) / CELL);
    return host >= 0 && host < total && table >= 0 && table < index.rows ? { host, table } : null;
  }

  function cellText(host, table) {
    const cells = index.cells[host];
    let text = "nothing";
    for (let at = 0; at < cells.length; at += 4) {
      if (cells[at] !== table) continue;
      text = cells[at + 1] > 0 ? `${plural(cells[at + 1], "finding")}, strongest ${points(cells[at + 2])}` : "not answered in full";
    }
    return `${index.names[host]}, ${index.tables[table]}: ${text}`;
  }

  function readColors() {
    const swatch = [...document.querySelectorAll("#ramp rect")].map((one) => getComputedStyle(one).fill);
    colors = { steps: [swatch[0], ...swatch], cell: getComputedStyle(document.querySelector("#grid .cell")).fill,
      failed: getComputedStyle(document.querySelector(".legend .failed")).stroke, here: getComputedStyle($("map-here")).stroke };
  }

  function paint() {
    if (!canvas) return;
    if (!colors) readColors();
    const scroll = $("heat-scroll");
    const [width, height] = [Math.min(scroll.clientWidth, total * CELL), index.rows * CELL];
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const brush = canvas.getContext("2d");
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    const first = Math.floor(scroll.scrollLeft / CELL);
    const last = Math.min(total, Math.ceil((scroll.scrollLeft + width) / CELL));
    for (let host = first; host < last; host += 1) paintHost(brush, host, host * CELL - scroll.scrollLeft, height);
  }

  function paintHost(brush, host, x, height) {
    brush.fillStyle = colors.cell;
    for (let y = 0; y < height; y += CELL) brush.fillRect(x + 1, y + 1, 14, 14);
    const cells = index.cells[host];
    for (let at = 0; at < cells.length; at += 4) {
      if (cells[at] >= index.rows) continue;
      const y = cells[at] * CELL;
      if (cells[at + 1] > 0) {
        const strength = step(cells[at + 2]);
        const side = 5 + strength;
        brush.fillStyle = colors.steps[strength];
        brush.fillRect(x + (CELL - side) / 2, y + (CELL - side) / 2, side, side);
      } else {
        brush.strokeStyle = colors.failed;
        brush.setLineDash([2.5, 2]);
        brush.strokeRect(x + 3, y + 3, 10, 10);
      }
    }
    if (host === state.open) {
      brush.setLineDash([]);
      brush.strokeStyle = colors.here;
      brush.lineWidth = 2;
      brush.strokeRect(x + 1, 1, 14, height - 2);
      brush.lineWidth = 1;
    }
  }

  /** The nearest host to a place on the map, if one is near. */
  function hostAt(event) {
    const map = $("map");
    const box = map.getBoundingClientRect();
    const view = map.viewBox.baseVal;
    const scale = Math.min(box.width / view.width, box.height / view.height);
    const x = (event.clientX - box.left - (box.width - view.width * scale) / 2) / scale;
    const y = (event.clientY - box.top - (box.height - view.height * scale) / 2) / scale;
    let best = -1;
    let nearest = 10;
    for (let host = 0; host < total; host += 1) {
      const [left, top] = index.places[host];
      const distance = Math.hypot(left / 10 - x, top / 10 - y);
      if (distance < nearest) { nearest = distance; best = host; }
    }
    return best;
  }

  /** Shows on the pictures which host is open. */
  function pointAt(host) {
    const [x, y] = index.places[host];
    $("map-here").setAttribute("cx", x / 10);
    $("map-here").setAttribute("cy", y / 10);
    paint();
  }

  function startMap() {
    const map = $("map");
    map.addEventListener("pointermove", (event) => {
      const host = hostAt(event);
      tip(host < 0 ? "" : `${index.names[host]}, ${VERDICTS[index.verdicts[host]].name} ${points(index.scores[host])}`, event);
    });
    map.addEventListener("pointerleave", () => tip(""));
    map.addEventListener("click", (event) => {
      if (event.target.closest("a")) return;
      const host = hostAt(event);
      if (host >= 0) return void goTo(host);
      const disc = event.target.closest(".disc");
      if (disc) onlyGroup(disc);
    });
    const heat = $("heat");
    if (heat) {
      heat.addEventListener("pointermove", (event) => {
        const title = event.target.closest("a")?.querySelector("title");
        tip(title ? title.textContent : "", event);
      });
      heat.addEventListener("pointerleave", () => tip(""));
    }
    // Both have tips of their own.
    for (const title of document.querySelectorAll("#heat title")) title.parentNode.setAttribute("aria-label", title.textContent);
  }

  function onlyGroup(disc) {
    const near = index.groups.findIndex((group, host) => group !== null && isIn(disc, host));
    if (near < 0) return;
    state.group = index.groups[near];
    apply();
    $("hosts").scrollIntoView({ block: "start" });
  }

  function isIn(disc, host) {
    const rim = disc.querySelector(".rim");
    const [x, y] = index.places[host];
    return Math.hypot(x / 10 - rim.cx.baseVal.value, y / 10 - rim.cy.baseVal.value) <= rim.r.baseVal.value;
  }

  // ---------------------------------------------------------------- colours, keys, start

  const THEMES = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" };

  function setTheme(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    $("theme").textContent = THEMES[theme];
    $("theme").setAttribute("aria-label", `Colours: ${theme === "auto" ? "as the system" : theme}`);
    colors = null;
    paint();
  }

  function startTheme() {
    // A file in a mail may have no storage.
    let theme = "auto";
    try { theme = localStorage.getItem("diffy-theme") || "auto"; } catch { /* as the system */ }
    if (!(theme in THEMES)) theme = "auto";
    setTheme(theme);
    $("theme").addEventListener("click", () => {
      const names = Object.keys(THEMES);
      theme = names[(names.indexOf(theme) + 1) % names.length];
      setTheme(theme);
      try { localStorage.setItem("diffy-theme", theme); } catch { /* for this time only */ }
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colors = null; paint(); });
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const isTyping = event.target.matches("input[type=search], select, textarea");
    if (event.key === "Escape") return escape(event);
    if (isTyping) {
      if (event.target.id === "search" && (event.key === "Enter" || event.key === "ArrowDown")) {
        event.preventDefault();
        $("list").focus();
      }
      return;
    }
    const inList = event.target === $("list");
    const keys = {
      "/": () => { $("search").focus(); $("search").select(); },
      "?": () => $("help").showModal(),
      j: () => move(1), k: () => move(-1),
      n: () => moveFinding(1), p: () => moveFinding(-1),
    };
    if (inList) {
      const page = Math.max(1, Math.floor($("list").clientHeight / ROW_HEIGHT) - 1);
      Object.assign(keys, { ArrowDown: keys.j, ArrowUp: keys.k, PageDown: () => move(page), PageUp: () => move(-page),
        Home: () => move(-total), End: () => move(total) });
    }
    if (event.key === "Enter" && (inList || event.target === document.body)) keys.Enter = read;
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    action();
    if (event.key === "j" || event.key === "k") showList();
  }

  /** Keys move through the list, so it must be in view. */
  function showList() {
    const box = $("list").getBoundingClientRect();
    if (box.bottom < 80 || box.top > innerHeight - 80) $("hosts").scrollIntoView({ block: "start" });
    if (document.activeElement !== $("list")) $("list").focus({ preventScroll: true });
  }

  function read() {
    if (state.open < 0) return;
    $("detail").scrollIntoView({ block: "start" });
    $("detail").focus({ preventScroll: true });
  }

  function escape(event) {
    event.preventDefault();
    if (document.activeElement === $("list") || document.activeElement === $("search")) clearFilters();
    $("list").focus({ preventScroll: true });
    showList();
  }

  function startFilters() {
    let timer = 0;
    $("search").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        state.words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean).slice(0, 8);
        apply();
      }, 120);
    });
    $("verdicts").addEventListener("change", () => {
      state.verdicts = new Set([...$("verdicts").querySelectorAll("input:checked")].map((box) => Number(box.value)));
      apply();
    });
    $("table").addEventListener("change", () => {
      state.table = $("table").value === "" ? -1 : Number($("table").value);
      apply();
    });
    $("only").addEventListener("click", () => { state.campaign = -1; state.group = undefined; apply(); });
    document.addEventListener("click", (event) => {
      const button = event.target.closest("[data-campaign]");
      if (button) {
        state.campaign = Number(button.dataset.campaign);
        state.group = undefined;
        apply();
        $("hosts").scrollIntoView({ block: "start" });
        return;
      }
      const link = event.target.closest("a[href^='#h']");
      if (link && goToHash(link.getAttribute("href"))) event.preventDefault();
    });
    addEventListener("hashchange", () => goToHash(location.hash));
  }

  /** What is printed is the document without a script: its details are all open. */
  function startPrint() {
    let closed = [];
    addEventListener("beforeprint", () => {
      closed = [...$("static").querySelectorAll("details:not([open])")];
      for (const one of closed) one.open = true;
    });
    addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
  }

  document.documentElement.classList.remove("plain");
  startTheme();
  startFilters();
  startMap();
  startPrint();
  $("list").addEventListener("scroll", () => requestAnimationFrame(() => drawRows(false)), { passive: true });
  new ResizeObserver(() => drawRows(true)).observe($("list"));
  document.addEventListener("keydown", onKey);
  $("help-open").addEventListener("click", () => $("help").showModal());
  startCanvas();
  state.hosts = index.names.map((_, host) => host);
  state.at = total > 0 ? 0 : -1;
  document.addEventListener("DOMContentLoaded", () => {
    findBlocks();
    allBlocks = true;
    apply();
    if (!goToHash(location.hash) && total > 0) open(0, { quiet: true });
    document.documentElement.dataset.ready = "yes";
  });
})();
