// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Buttons that copy code, and menus that close. Without JavaScript a page has no copy buttons, and a menu closes with
// Escape or a click beside it.
(function () {
  "use strict";

  // commands returns what a reader wants of a block: of a console session, only the commands, without their prompts.
  function commands(code) {
    var text = code.textContent.replace(/\n$/, "");
    if (!code.classList.contains("language-console")) return text;
    var goesOn = false;
    return text.split("\n").filter(function (line) {
      var command = goesOn || line.indexOf("$ ") === 0;
      goesOn = command && /\\$/.test(line);
      return command;
    }).map(function (line) { return line.replace(/^\$ /, ""); }).join("\n");
  }

  if (navigator.clipboard) {
    document.querySelectorAll(".code").forEach(function (block) {
      var code = block.querySelector("code"), button = document.createElement("button"), timer;
      if (!commands(code)) return;
      button.className = "copy";
      button.textContent = "Copy";
      button.addEventListener("click", function () {
        navigator.clipboard.writeText(commands(code)).then(function () { return "Copied"; }, function () { return "Not copied"; }).then(function (said) {
          button.textContent = said;
          clearTimeout(timer);
          timer = setTimeout(function () { button.textContent = "Copy"; }, 2000);
        });
      });
      block.append(button);
    });
  }

  document.querySelectorAll("[popover]").forEach(function (menu) {
    menu.addEventListener("click", function (event) {
      if (event.target.closest("a") && menu.matches(":popover-open")) menu.hidePopover();
    });
  });
})();
