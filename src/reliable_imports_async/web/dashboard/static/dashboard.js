// Follows running batches, and opens confirmation pages in a dialog. Pages also work without this
// script: they do not update by themselves, and confirmations are separate pages.
"use strict";

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const MOST_STREAMS = 4; // browsers allow six connections to a server
const REFRESH = 3000; // milliseconds between two refreshes of the parts that events do not contain

function span(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

function percent(part, total) {
  if (!total) return "–";
  if (part === total) return "100 %";
  return `${Math.min(99.9, (100 * part) / total).toFixed(1).replace(".0", "")} %`;
}

function show(root, name, text) {
  for (const element of root.querySelectorAll(`[data-live="${name}"]`)) element.textContent = text;
}

function paint(root, batch) {
  const settled = batch.total_items - batch.pending_items;
  const rate = batch.items_per_second;
  const remaining = rate && batch.pending_items ? span(batch.pending_items / rate) : "";
  let x = 0;
  for (const kind of ["completed", "skipped", "failed"]) {
    const width = (100 * batch[`${kind}_items`]) / Math.max(1, batch.total_items);
    const part = root.querySelector(`.bar .${kind}`);
    part.setAttribute("x", x);
    part.setAttribute("width", width);
    x += width;
    show(root, `${kind}_items`, whole.format(batch[`${kind}_items`]));
  }
  show(root, "pending_items", whole.format(batch.pending_items));
  show(root, "deferred_items", whole.format(batch.deferred_items));
  show(root, "percent", percent(settled, batch.total_items));
  show(root, "rate", rate === null ? "–" : `${whole.format(rate)}/s`);
  show(root, "left", remaining || "–");
  show(root, "eta", remaining ? ` · ${remaining} left` : "");
  show(root, "outstanding", `${whole.format(batch.outstanding_items)} outstanding`);
  root.querySelector(".bar").setAttribute("aria-label", `${whole.format(settled)} of ${whole.format(batch.total_items)} ${batch.total_items === 1 ? "item" : "items"} finished, ${whole.format(batch.failed_items)} failed`);
  for (const badge of document.querySelectorAll("h1 .badge")) relabel(badge, root, batch.status);
  for (const badge of root.querySelectorAll(".badge")) relabel(badge, root, batch.status);
  if (!root.hasAttribute("data-reload")) return;
  for (const part of document.querySelectorAll("[data-while]")) part.hidden = part.dataset.while !== batch.status;
}

function relabel(badge, root, status) {
  if (!badge.closest('[data-live="status"]')) return;
  if (badge.closest("h1") && !root.hasAttribute("data-reload")) return;
  badge.className = `badge ${status}`;
  badge.textContent = status;
}

// Replaces the failures, timeline and log on this page with those of the current page.
async function refresh() {
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (!answer.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-refresh]")) {
    const now = page.getElementById(old.id);
    if (!now || old.contains(document.activeElement) || old.innerHTML === now.innerHTML) continue;
    old.replaceChildren(...now.childNodes);
    listen(old);
  }
}

function follow(root) {
  const stream = new EventSource(root.dataset.events);
  let last = Date.now(), due = 0;
  stream.addEventListener("progress", (event) => {
    paint(root, JSON.parse(event.data));
    if (!root.hasAttribute("data-reload") || due || document.querySelector("dialog[open]")) return;
    due = setTimeout(async () => {
      await refresh().catch(() => {});
      last = Date.now();
      due = 0;
    }, Math.max(0, last + REFRESH - Date.now()));
  });
  stream.addEventListener("finished", (event) => {
    stream.close();
    paint(root, JSON.parse(event.data));
    if (root.hasAttribute("data-reload") && !document.querySelector("dialog[open]")) location.reload();
  });
  addEventListener("pagehide", () => stream.close());
}

async function ask(event) {
  const link = event.currentTarget;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  try {
    const answer = await fetch(link.href, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const question = page.querySelector("[data-question]");
    if (!answer.ok || !question) throw new Error("no question");
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-label", question.querySelector("h1").textContent);
    dialog.append(document.adoptNode(question));
    dialog.querySelector("[data-close]").addEventListener("click", (click) => {
      click.preventDefault();
      dialog.close();
    });
    dialog.querySelector("form[data-stays]")?.addEventListener("submit", () => setTimeout(() => dialog.close()));
    dialog.addEventListener("close", () => { dialog.remove(); link.focus(); });
    document.body.append(dialog);
    dialog.showModal();
  } catch {
    location.assign(link.href);
  }
}

function listen(place) {
  for (const link of place.querySelectorAll("a[data-dialog]")) link.addEventListener("click", ask);
}

const watched = [...document.querySelectorAll("[data-events]")];
watched.sort((a, b) => (a.dataset.status === "pending") - (b.dataset.status === "pending"));
watched.slice(0, MOST_STREAMS).forEach(follow);
listen(document);
