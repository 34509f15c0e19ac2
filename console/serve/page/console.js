// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// The page keeps the slots of the stream, and draws them. All texts of the cluster become text
// nodes: no text is ever parsed as HTML.
"use strict";

(() => {
  // These numbers bound the rows and items that are drawn, so that a large cluster does not freeze the page.
  const most = 200, mostProblems = 50, mostWaits = 10, mostHandovers = 40;
  // silent is the time without a message after which the connection counts as lost. The server
  // sends a message every ten seconds.
  const silent = 35000;
  const by = (id) => document.getElementById(id);

  const slots = new Map(); // the slots of the stream, by key
  const rows = new Map(); // the table's rows, by group
  const open = new Set(); // the groups whose details are shown
  let offset = 0; // the server's clock minus this computer's
  let heard = 0; // when the last message came
  let begun = false; // whether the first state has come
  let known = new Set(); // the handovers that were announced

  // make returns an element with a class, and with children: elements or texts.
  const make = (tag, name, ...children) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children.filter((child) => child !== "" && child !== null && child !== undefined));
    return element;
  };

  const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");

  // age returns the time since an instant, in the words of kubectl.
  const age = (at) => {
    const s = Math.max(0, Math.floor((Date.now() + offset - Date.parse(at)) / 1000));
    if (s < 120) return s + "s";
    if (s < 600) return Math.floor(s / 60) + "m" + (s % 60 ? (s % 60) + "s" : "");
    if (s < 10800) return Math.floor(s / 60) + "m";
    if (s < 172800) return Math.floor(s / 3600) + "h" + (s < 28800 && s % 3600 >= 60 ? Math.floor((s % 3600) / 60) + "m" : "");
    return Math.floor(s / 86400) + "d";
  };

  // when returns an instant in the words of the reader's computer, with the zone. The short form has no date.
  const when = (at, short) => new Date(at).toLocaleString(undefined, {
    ...(short ? {} : {year: "numeric", month: "short", day: "numeric"}), hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short",
  });

  // since returns an element whose age grows.
  const since = (at, before, after) => {
    const element = make("time", "age");
    element.dateTime = at;
    element.title = when(at);
    element.dataset.before = before || "";
    element.dataset.after = after || "";
    tick(element);
    return element;
  };
  const tick = (element) => {
    const text = element.dataset.before + age(element.dateTime) + element.dataset.after;
    if (element.textContent !== text) element.textContent = text;
  };

  // groups returns the slots by group: those of one semaphore, of one lock, of one workload's shards. The worst come first.
  const groups = () => {
    const all = new Map();
    for (const slot of slots.values()) {
      if (!all.has(slot.group)) all.set(slot.group, []);
      all.get(slot.group).push(slot);
    }
    for (const list of all.values()) list.sort((a, b) => a.slot.localeCompare(b.slot, "en", {numeric: true}));
    return [...all.entries()].map(([key, list]) => group(key, list)).map((g) => Object.assign(g, {worst: Math.min(3, ...problems(g).map(rank))}))
      .sort((a, b) => a.worst - b.worst || a.namespace.localeCompare(b.namespace) || a.name.localeCompare(b.name, "en", {numeric: true}));
  };

  // group returns the facts about slots that belong together.
  const group = (key, list) => {
    const first = list[0];
    const name = key.slice(first.namespace.length + 1).trim();
    const standbys = new Map();
    const holders = new Map();
    for (const slot of list) {
      for (const s of slot.standbys) if (!s.beingDeleted) standbys.set(s.pod, s);
      if (!slot.holder) continue;
      const id = slot.holder.identity;
      if (!holders.has(id)) holders.set(id, {...slot.holder, slots: []});
      holders.get(id).slots.push(slot);
    }
    return {
      key, name, list, kind: first.kind, namespace: first.namespace,
      standbys: [...standbys.values()], holders: [...holders.values()],
      handovers: list.flatMap((slot) => slot.handovers.map((h) => ({...h, slot: slot.slot, namespace: slot.namespace}))),
      text: [name, first.namespace, first.kind, ...[...standbys.keys()],
        ...[...holders.values()].flatMap((h) => [h.pod, h.workload || ""])].join("\n").toLowerCase(),
    };
  };

  const chosen = (g) => {
    const namespace = by("namespace").value;
    const words = by("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    return (!namespace || g.namespace === namespace) && words.every((word) => g.text.includes(word));
  };

  // share returns at most n of the items, in their order. The namespaces take turns: from each turn, the first items
  // of all namespaces come before the next items of any. So no tenant pushes another one off the page.
  const share = (items, n, namespaceOf) => {
    const turns = new Map();
    return items.map((item, at) => {
      const namespace = namespaceOf(item), turn = turns.get(namespace) || 0;
      turns.set(namespace, turn + 1);
      return {item, at, turn};
    }).sort((a, b) => a.turn - b.turn || a.at - b.at).slice(0, n).sort((a, b) => a.at - b.at).map((one) => one.item);
  };

  // omit shows how many items of a part have no place.
  const omit = (part, n, word) => {
    const text = n ? plural(n, "more " + word) + ": choose a namespace, or narrow the search." : "";
    const element = by(part + "-left");
    element.hidden = !n;
    if (element.textContent !== text) element.textContent = text;
  };

  // problems returns what a person should look at, the worst first: its severity, a sentence, and the command that mends
  // it or tells more. All slots that a pod claims have the findings of the pod.
  const problems = (g) => {
    const all = new Map();
    for (const slot of g.list) {
      for (const f of slot.findings || []) {
        const text = f.about.startsWith("pod/") ? f.about.replace("/", " ") + ": " + f.says : f.says;
        if (!all.has(text)) all.set(text, {severity: f.severity, text, command: f.run});
      }
    }
    return [...all.values()].sort((a, b) => rank(a) - rank(b));
  };
  const rank = (problem) => ["critical", "warning", "note"].indexOf(problem.severity);

  // problemLine shows a problem, with a button that copies its command.
  const problemLine = (g, problem, i) => {
    const line = make("div", "problem", make("span", "tag " + problem.severity, problem.severity), make("span", "why", problem.text));
    if (!problem.command) return line;
    const button = make("button", "copy", "Copy");
    button.type = "button";
    button.dataset.key = g.key + i;
    button.title = problem.command;
    button.addEventListener("click", () => navigator.clipboard.writeText(problem.command).then(() => "Copied", () => "Not copied").then((said) => {
      by("said").textContent = button.textContent = said;
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    }));
    line.append(make("span", "command", make("code", "", problem.command), navigator.clipboard ? button : ""));
    return line;
  };

  // holderCell fills the cell that answers: who holds, since when.
  const holderCell = (g) => {
    const parts = [];
    if (g.list.length > 1) {
      const held = g.list.filter((slot) => slot.holder).length;
      if (g.kind === "rwlock") {
        const writer = g.holders.find((h) => h.slots.some((slot) => slot.slot.endsWith(".intent")));
        const text = !writer ? (held ? plural(held, "reader") : "nobody reads or writes") : writer.pod + (held === g.list.length ? " writes" : " waits to write");
        parts.push(make("span", "pod", text));
      } else {
        parts.push(make("span", held ? "pod" : "none", held + " of " + g.list.length + " held"));
      }
      const pods = g.holders.slice(0, 3).map((h) => h.pod).join(", ");
      if (pods) parts.push(make("span", "more", pods + (g.holders.length > 3 ? " and " + (g.holders.length - 3) + " more" : "")));
      return parts;
    }
    const slot = g.list[0], h = slot.holder;
    if (!h) {
      parts.push(make("span", slot.healthy ? "more" : "none", g.kind === "mistake" ? "an annotation with a mistake" : slot.missing ? "no Lease yet" : "nobody holds"));
      if (slot.successor) parts.push(make("span", "more", slot.successor.split("_")[0] + " is to hold next"));
    } else {
      parts.push(make("span", "pod", h.pod));
      parts.push(make("span", "more", h.since ? since(h.since, "for ") : "", h.token ? ", token " + h.token : ""));
      if (h.node) parts.push(make("span", "more", "on " + h.node));
      if (h.gone) parts.push(make("span", "tag bad", "pod is gone"));
      if (h.silentSince) parts.push(make("span", "tag bad", since(h.silentSince, "no renewal for ")));
      if (h.beingDeleted) parts.push(make("span", "tag", "being deleted"));
      if (h.starting && slot.healthy) parts.push(make("span", "tag", "starting"));
      if (!slot.healthy && !slot.gaps && !h.gone && !h.silentSince) parts.push(make("span", "tag bad", "does not serve"));
      if (slot.yield) parts.push(make("span", "tag", "asked to yield"));
    }
    if (slot.paused) parts.push(make("span", "tag", "paused (" + slot.paused + ")"));
    if ((slot.gaps || []).some((gap) => gap.ungated)) parts.push(make("span", "tag bad", "ungated pods"));
    if ((slot.gaps || []).some((gap) => gap.notCarried)) parts.push(make("span", "tag bad", "claim not carried"));
    if ((slot.gaps || []).some((gap) => gap.refused)) parts.push(make("span", "tag bad", "refused pods"));
    return parts;
  };

  const waitingCell = (g) => {
    if (!g.standbys.length) return [make("span", "more", "no pod")];
    const parts = [make("span", "", plural(g.standbys.length, "pod"))];
    const reasons = [...new Set(g.standbys.map((s) => s.reason))];
    parts.push(make("span", "more", reasons.slice(0, 2).join(", ") + (reasons.length > 2 ? ", …" : "")));
    return parts;
  };

  // cause returns why a handover happened.
  const cause = (h) => {
    if (h.first) return "first holder";
    if (h.expired) return "took over after the lease of " + h.from + " expired" + (h.reason ? ": " + h.reason : "");
    if (h.from) return h.reason ? h.reason : "released; no Event tells why";
    return "no Event tells of a release before it";
  };
  const gap = (h) => h.seconds === undefined ? "" : h.seconds < 1 ? "within 1s" : h.seconds + "s after the release";

  const handoverItem = (h, name) => {
    const item = make("li", "");
    item.append(make("strong", "pod", h.pod), ...(h.from ? [" from ", make("span", "pod", h.from)] : []));
    if (name) item.append(make("span", "more", h.slot + " in " + h.namespace));
    item.append(make("span", "why", cause(h) + (h.cause ? ": " + h.cause : "")));
    const more = make("span", "more", since(h.at, "", " ago"));
    if (gap(h)) more.append(", " + gap(h));
    more.append(", at " + when(h.at, true));
    item.append(more);
    return item;
  };

  // details fills the row below a slot.
  const details = (g) => {
    const cell = make("td", "");
    cell.colSpan = 3;
    const slot = g.list[0], h = slot.holder;
    if (g.list.length === 1) {
      const facts = make("dl", "facts");
      const fact = (name, value) => { if (value) facts.append(make("dt", "", name), make("dd", "", value)); };
      if (h) {
        fact("workload", h.workload);
        fact("node", h.node);
        fact("held since", h.since && when(h.since));
        fact("serves", h.servingSince ? since(h.servingSince, "for ") : "");
        fact("token", h.token);
        fact("without a renewal", h.takeover);
      }
      fact("done", (slot.done || []).join(" "));
      fact("open for", slot.opened ? plural(slot.opened, "pod") : "");
      fact("handovers", String(slot.transitions));
      cell.append(make("h3", "", "Hold"), facts, ...(slot.why || []).map((text) => make("p", "why", text)));
    } else {
      const list = make("ul", "");
      for (const s of g.list) {
        const item = make("li", "", make("span", "pod", s.slot), " ");
        item.append(s.holder ? make("span", "why", s.holder.pod, s.holder.node ? " on " + s.holder.node : "", s.holder.since ? since(s.holder.since, " for ") : "") : make("span", "why", "free"));
        list.append(item);
      }
      cell.append(make("h3", "", "Slots"), list);
    }
    cell.append(make("h3", "", "Pods that wait, and why"));
    const waiting = make("ul", "");
    for (const s of g.standbys) {
      const item = make("li", "", make("span", "pod", s.pod), s.node ? " on " + s.node : "", s.waitsSince ? since(s.waitsSince, " for ") : "", s.ready ? " (Ready)" : "");
      item.append(make("span", "why", s.reason + ": " + s.message));
      waiting.append(item);
    }
    cell.append(g.standbys.length ? waiting : make("p", "why", "No pod waits."));
    cell.append(make("h3", "", "Handovers"));
    const past = make("ol", "timeline");
    for (const h of g.handovers.sort((a, b) => b.at.localeCompare(a.at)).slice(0, 8)) past.append(handoverItem(h, g.list.length > 1));
    cell.append(g.handovers.length ? past : make("p", "why", "No Event tells of a handover."));
    return cell;
  };

  // row returns the rows of a group. Its button stays the same element, so that the focus stays.
  const row = (g) => {
    let r = rows.get(g.key);
    if (!r) {
      r = {main: make("tr", ""), detail: make("tr", "detail"), name: make("th", ""), holder: make("td", ""), waiting: make("td", ""), button: make("button", "name", g.name), signature: ""};
      r.name.scope = "row";
      r.holder.dataset.label = "Holder"; // where a row is a card
      r.waiting.dataset.label = "Waiting";
      r.button.type = "button";
      r.button.addEventListener("click", () => { toggle(g.key); });
      r.name.append(r.button, make("span", "where", g.kind + " in " + g.namespace));
      r.main.append(r.name, r.holder, r.waiting);
      rows.set(g.key, r);
    }
    const signature = JSON.stringify([g.list, open.has(g.key)]);
    if (signature === r.signature) return r;
    if (begun && r.signature && JSON.stringify(g.holders.map((h) => h.identity)) !== r.holders) {
      r.main.classList.add("fresh");
      setTimeout(() => r.main.classList.remove("fresh"), 2500);
    }
    r.holders = JSON.stringify(g.holders.map((h) => h.identity));
    r.signature = signature;
    r.holder.replaceChildren(...holderCell(g));
    r.waiting.replaceChildren(...waitingCell(g));
    r.button.setAttribute("aria-expanded", String(open.has(g.key)));
    if (open.has(g.key)) r.detail.replaceChildren(details(g));
    return r;
  };

  const toggle = (key, show) => {
    if (open.has(key) && !show) open.delete(key); else open.add(key);
    draw();
  };

  // reveal opens a group, and moves the focus there.
  const reveal = (key) => {
    by("search").value = "";
    by("namespace").value = "";
    toggle(key, true);
    const r = rows.get(key);
    if (r && r.button.isConnected) r.button.focus();
  };

  // place puts children into a parent, and moves only those that are not there yet.
  const place = (parent, children) => {
    children.forEach((child, i) => {
      if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] || null);
    });
    while (parent.children.length > children.length) parent.lastElementChild.remove();
  };

  // fill replaces the items of a list, if they have changed. The focus returns to the same item.
  const fill = (list, items, item) => {
    const signature = JSON.stringify(items.map(([key, facts]) => [key, facts]));
    if (list.dataset.signature === signature) return;
    list.dataset.signature = signature;
    const focused = document.activeElement && list.contains(document.activeElement) ? document.activeElement.dataset.key : "";
    list.replaceChildren(...items.map(([, facts, value]) => item(value, facts)));
    if (focused) for (const b of list.querySelectorAll("button")) if (b.dataset.key === focused) b.focus();
  };

  const link = (g, text) => {
    const button = make("button", "link", text || g.name);
    button.type = "button";
    button.dataset.key = g.key;
    button.addEventListener("click", () => reveal(g.key));
    return button;
  };

  const drawAttention = (all) => {
    const items = all.map((g) => [g.key, problems(g), g]).filter(([, found]) => found.length).sort((a, b) => rank(a[1][0]) - rank(b[1][0]));
    const shown = share(items, mostProblems, ([, , g]) => g.namespace);
    by("attention").hidden = !items.length;
    omit("attention", items.length - shown.length, "row");
    fill(by("attention-list"), shown, (g, found) => make("li", found[0].severity, link(g), make("span", "where", g.kind + " in " + g.namespace), ...found.map((problem, i) => problemLine(g, problem, i))));
    document.title = (items.length ? "(" + items.length + ") " : "") + "Slots – Metaparticle";
  };

  // drawWaits lists the locks by their longest wait. Standbys of a singleton, of an election and of shards wait
  // by design, so such a slot counts only while nobody holds.
  const drawWaits = (all) => {
    const items = [];
    for (const g of all) {
      const held = g.list.some((slot) => slot.holder);
      if (held && ["singleton", "election", "shards"].includes(g.kind)) continue;
      const waiting = g.standbys.filter((s) => s.waitsSince).sort((a, b) => a.waitsSince.localeCompare(b.waitsSince));
      if (waiting.length) items.push([g.key, [waiting[0].waitsSince, waiting[0].pod, waiting.length, g.holders.map((h) => h.pod)], g]);
    }
    items.sort((a, b) => a[1][0].localeCompare(b[1][0]));
    const shown = share(items, mostWaits, ([, , g]) => g.namespace);
    omit("waits", items.length - shown.length, "row");
    fill(by("waits"), shown, (g, [at, pod, n, holders]) => make("li", "", link(g), since(at),
      make("span", "why", pod + (n > 1 ? " and " + plural(n - 1, "other pod") : "") + (holders.length ? ", behind " + holders.slice(0, 3).join(", ") : ", and nobody holds"))));
    by("waits-empty").hidden = !begun || items.length > 0;
  };

  const drawHandovers = (all) => {
    const items = all.flatMap((g) => g.handovers).sort((a, b) => b.at.localeCompare(a.at));
    const last = share(items, mostHandovers, (h) => h.namespace);
    omit("handovers", items.length - last.length, "handover");
    fill(by("handovers"), last.map((h) => [h.namespace + "/" + h.slot + h.at + h.pod, h, h]), (h) => handoverItem(h, true));
    by("handovers-empty").hidden = !begun || last.length > 0;
  };

  // announce tells assistive technology about the latest new handover.
  const announce = (all) => {
    const now = new Map();
    for (const g of all) for (const h of g.handovers) now.set([h.namespace, h.slot, h.at, h.pod].join(" "), h);
    const fresh = [...now.keys()].filter((key) => !known.has(key));
    known = new Set(now.keys());
    if (!begun || !fresh.length) return;
    const h = now.get(fresh[fresh.length - 1]);
    by("said").textContent = h.slot + " is now held by " + h.pod + (h.from ? ", from " + h.from : "") + ". " + cause(h) + ".";
  };

  const drawNamespaces = (all) => {
    const names = [...new Set(all.map((g) => g.namespace))].sort();
    const select = by("namespace");
    const chosen = select.value;
    if ([...select.options].slice(1).map((o) => o.value).join("\n") === names.join("\n")) return;
    if (chosen && !names.includes(chosen)) names.push(chosen);
    select.replaceChildren(select.options[0], ...names.map((name) => { const o = make("option", "", name); o.value = name; return o; }));
    select.value = chosen;
  };

  const draw = () => {
    const all = groups();
    drawNamespaces(all);
    const wanted = all.filter(chosen);
    const shown = share(wanted, most, (g) => g.namespace);
    const keys = new Set(all.map((g) => g.key));
    for (const key of [...rows.keys()]) if (!keys.has(key)) { rows.delete(key); open.delete(key); }
    place(by("rows"), shown.flatMap((g) => { const r = row(g); return open.has(g.key) ? [r.main, r.detail] : [r.main]; }));
    const left = wanted.length - shown.length; // the rows that are not drawn
    by("empty").hidden = !begun || (wanted.length > 0 && !left);
    by("empty").textContent = left ? plural(left, "more row") + ": choose a namespace, or narrow the search." : all.length ? "No slot matches." : "No slot in this cluster: no workload claims one yet.";
    const sum = (some) => some.reduce((n, g) => n + g.list.length, 0);
    const count = (wanted.length === all.length ? "" : sum(wanted) + " of ") + plural(sum(all), "slot");
    if (begun && by("count").textContent !== count) by("count").textContent = count;
    drawAttention(wanted);
    drawWaits(wanted);
    drawHandovers(wanted);
    announce(all);
  };

  const say = (state, text) => {
    const c = by("connection");
    if (c.dataset.state === state && c.textContent === text) return;
    c.dataset.state = state;
    c.textContent = text;
  };

  let source = null;
  let again = 0;
  const connect = () => {
    clearTimeout(again);
    if (source) source.close();
    source = new EventSource("events");
    heard = Date.now();
    const on = (name, take) => source.addEventListener(name, (message) => {
      const data = JSON.parse(message.data);
      heard = Date.now();
      offset = Date.parse(data.now) - heard;
      by("trouble").hidden = !data.trouble;
      if (by("trouble").textContent !== data.trouble) by("trouble").textContent = data.trouble;
      take(data);
      if (data.trouble) say("lost", begun ? "what is shown may be old" : "waiting for the API server");
      else if (begun) say("live", "live");
      else say("wait", "waiting for the API server");
    });
    const update = (data) => {
      for (const slot of data.slots || []) slots.set(slot.key, slot);
      for (const key of data.gone || []) slots.delete(key);
      draw();
    };
    on("state", (data) => {
      slots.clear();
      by("docs").hidden = !data.docs;
      update(data);
      if (!begun) { begun = true; draw(); }
    });
    on("change", update);
    on("alive", () => {});
    source.onerror = () => {
      say("lost", "connection lost; what is shown is old");
      // The browser does not try again after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) again = setTimeout(connect, 3000);
    };
  };

  by("search").addEventListener("input", draw);
  by("namespace").addEventListener("change", draw);
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      by("search").focus();
    }
  });
  setInterval(() => {
    for (const element of document.querySelectorAll("time.age")) tick(element);
    if (heard && Date.now() - heard > silent) {
      say("lost", "connection lost; what is shown is old");
      connect();
    }
  }, 1000);
  connect();
})();
