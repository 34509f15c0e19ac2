// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// The search runs in the page. The script loads the index once a person begins to search, and writes
// results as text, never as HTML. Without JavaScript the page has no search.
(function () {
  "use strict";

  var most = 20; // results on the screen
  var around = 60; // characters of text on each side of a word
  var base = document.currentScript.src.replace(/search\.js$/, "");
  var box = document.getElementById("search");
  var input = document.getElementById("words");
  var found = document.getElementById("found");
  var count = document.getElementById("count");
  var results = document.getElementById("results");
  var requested = false;
  var pressed = false;

  function load() {
    if (requested) return;
    requested = true;
    var script = document.createElement("script");
    script.src = base + "search-index.js";
    script.onload = show;
    script.onerror = function () { requested = false; found.hidden = false; count.textContent = "The index of the search is missing."; };
    document.head.appendChild(script);
  }

  // begins reports whether a word of the text begins with the argument: "lease" fits "leases", and not "release".
  function begins(text, word) {
    for (var at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + 1)) {
      if (at === 0 || !/[\p{L}\p{N}]/u.test(text[at - 1])) return true;
    }
    return false;
  }

  // whole reports whether each word stands in the text as it is: "kind" does not stand in "kinds".
  function whole(text, words) {
    var all = text.split(/[^\p{L}\p{N}]+/u);
    return words.every(function (word) { return all.indexOf(word) >= 0; });
  }

  // score returns how well a section fits, or 0. Each word must be in the section. A word in a heading or in the title of
  // the page counts most, and a page outside the menu (evidence, decisions) half.
  function score(section, words) {
    var title = section.t.toLowerCase(), heading = section.h.toLowerCase(), text = section.x.toLowerCase();
    var sum = 0;
    for (var i = 0; i < words.length; i++) {
      var word = words[i];
      var fits = (begins(heading, word) ? 12 : heading.indexOf(word) >= 0 ? 6 : 0) +
        (begins(title, word) ? 8 : title.indexOf(word) >= 0 ? 4 : 0) +
        (begins(text, word) ? 2 : 0) + Math.min(3, text.split(word).length - 1);
      if (fits === 0) return 0;
      sum += fits;
    }
    var all = words.join(" ");
    if (heading === all || title === all) sum += 30;
    if (words.length > 1) sum += heading.indexOf(all) >= 0 ? 15 : text.indexOf(all) >= 0 ? 6 : 0;
    if (heading === title) sum += 10; // the beginning of a page leads to the rest
    if (section.x.toLowerCase().indexOf(all) >= 0 || heading.indexOf(all) >= 0) sum += whole(heading + " " + title, words) ? 8 : 0;
    return section.o ? sum / 2 : sum;
  }

  // excerpt returns the text around all words, or else around the first that it has, and marks them.
  function excerpt(text, words) {
    var p = document.createElement("p");
    for (var i = 0; i < words.length; i++) {
      var at = text.toLowerCase().indexOf(words[i]);
      if (at < 0) continue;
      var end = at + words[i].length;
      var mark = document.createElement("mark");
      mark.textContent = text.slice(at, end);
      p.append((at > around ? "…" : "") + text.slice(Math.max(0, at - around), at), mark, text.slice(end, end + around) + "…");
      return p;
    }
    p.textContent = text.slice(0, 2 * around);
    return p;
  }

  function item(section, words) {
    var li = document.createElement("li"), a = document.createElement("a");
    a.href = base + section.p + "#" + section.a;
    a.textContent = section.t === section.h ? section.t : section.t + ": " + section.h;
    li.append(a, excerpt(section.x, [words.join(" ")].concat(words)));
    return li;
  }

  function show() {
    var words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    results.replaceChildren();
    count.textContent = "";
    found.hidden = words.length === 0 || typeof searchIndex === "undefined";
    if (found.hidden) return;
    var fitting = searchIndex.map(function (section, i) { return { section: section, score: score(section, words), i: i }; })
      .filter(function (f) { return f.score > 0; })
      .sort(function (a, b) { return b.score - a.score || a.i - b.i; });
    results.append.apply(results, fitting.slice(0, most).map(function (f) { return item(f.section, words); }));
    count.textContent = fitting.length === 1 ? "1 result" : fitting.length + " results" + (fitting.length > most ? ", the best " + most : "");
  }

  input.addEventListener("focus", function () { load(); show(); });
  input.addEventListener("input", function () { load(); show(); });
  input.addEventListener("keydown", function (event) {
    var first = results.querySelector("a");
    if (event.key === "Enter" && first) first.click();
  });
  // The results lie over the page, so they vanish once the focus or a click goes elsewhere.
  box.addEventListener("focusout", function (event) {
    if (event.relatedTarget && !box.contains(event.relatedTarget)) found.hidden = true;
  });
  document.addEventListener("click", function (event) {
    found.hidden = !box.contains(event.target) || event.target.closest("#results a") !== null || input.value.trim() === "";
  });
  document.addEventListener("keydown", function (event) {
    var typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      pressed = true;
    } else if (event.key === "Escape" && box.contains(document.activeElement)) {
      input.value = "";
      show();
      input.focus();
    }
  });
  // The key goes up after its character, which must not become a part of the words.
  document.addEventListener("keyup", function (event) {
    if (pressed && event.key === "/") input.focus();
    pressed = false;
  });
  box.hidden = false;
})();
