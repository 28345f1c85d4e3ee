// What the pages do beyond HTML: copying, pausing the stream of refusals, and leaving open forms alone.
// Everything can be read without it.
(() => {
  "use strict";

  const MAX_ROWS = 500;

  // A part of a page that is loaded again every few seconds waits while somebody uses a form in it.
  document.addEventListener("htmx:before:request", (event) => {
    const figures = document.getElementById("figures");
    if (figures && event.target === figures && (figures.querySelector("details[open]") || figures.contains(document.activeElement))) {
      event.preventDefault();
    }
  });

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
    });
  }

  // A link to a form opens it.
  const open = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", open);
  open();

  const rows = document.getElementById("refusals"), pause = document.getElementById("pause");
  if (!rows || !pause || !rows.hasAttribute("hx-sse:connect")) return;
  const waiting = document.getElementById("waiting"), held = [];
  let paused = false;
  pause.hidden = false;

  rows.addEventListener("htmx:sse:before:message", (event) => {
    document.getElementById("none")?.remove();
    if (!paused) return;
    held.push(event.detail.message.data);
    waiting.textContent = `${held.length} more`;
    event.preventDefault();
  });
  rows.addEventListener("htmx:sse:after:message", () => {
    while (rows.rows.length > MAX_ROWS) rows.deleteRow(-1);
  });
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.setAttribute("aria-pressed", String(paused));
    if (paused) return;
    for (const row of held.splice(0)) rows.insertAdjacentHTML("afterbegin", row);
    htmx.process(rows);
    waiting.textContent = "";
  });
})();
