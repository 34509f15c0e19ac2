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
    script.onerror = function () { requested = false; count.textContent = "The index of the search is missing."; };
    document.head.appendChild(script);
  }

  // score returns how well a section fits, or 0. Each word must be in the section.
  function score(section, words) {
    var title = section.t.toLowerCase(), heading = section.h.toLowerCase(), text = section.x.toLowerCase();
    var sum = 0;
    for (var i = 0; i < words.length; i++) {
      var word = words[i];
      var fits = (heading.indexOf(word) >= 0 ? 10 : 0) + (title.indexOf(word) >= 0 ? 5 : 0) +
        Math.min(4, text.split(word).length - 1);
      if (fits === 0) return 0;
      sum += fits;
    }
    return sum;
  }

  // excerpt returns the text around the first word, with that word marked.
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
    li.append(a, excerpt(section.x, words));
    return li;
  }

  function show() {
    var words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    results.replaceChildren();
    count.textContent = "";
    if (words.length === 0 || typeof searchIndex === "undefined") return;
    var fitting = searchIndex.map(function (section, i) { return { section: section, score: score(section, words), i: i }; })
      .filter(function (f) { return f.score > 0; })
      .sort(function (a, b) { return b.score - a.score || a.i - b.i; });
    results.append.apply(results, fitting.slice(0, most).map(function (f) { return item(f.section, words); }));
    count.textContent = fitting.length === 1 ? "1 result" : fitting.length + " results" + (fitting.length > most ? ", the best " + most : "");
  }

  input.addEventListener("focus", load);
  input.addEventListener("input", function () { load(); show(); });
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
