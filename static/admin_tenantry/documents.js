"use strict";

// The viewer of a document's page: pages are turned by the arrow keys, detections hidden by score and by label, and the
// row and the box of one detection point at each other.

function viewer(root) {
  const slider = root.querySelector("[data-least-score]");
  const found = [...root.querySelectorAll("[data-place]")];
  const count = root.querySelector("[data-shown]");
  const hidden = new Set();

  const show = () => {
    const least = Number(slider.value);
    slider.nextElementSibling.textContent = least.toFixed(2);
    for (const one of found) {
      one.classList.toggle("tny-left-out", Number(one.dataset.score) < least || hidden.has(one.dataset.label));
    }
    const boxes = found.filter((one) => one.tagName === "g");
    const shown = boxes.filter((one) => !one.classList.contains("tny-left-out")).length;
    count.textContent = `${shown} of ${boxes.length} shown`;
  };

  const point = (place, isOn) => {
    for (const one of found) {
      one.classList.toggle("tny-pointed", isOn && one.dataset.place === place);
    }
  };

  for (const one of found) {
    for (const [begin, end] of [["pointerenter", "pointerleave"], ["focus", "blur"]]) {
      one.addEventListener(begin, () => point(one.dataset.place, true));
      one.addEventListener(end, () => point(one.dataset.place, false));
    }
  }

  const labels = root.querySelector("[data-labels]");
  const rows = found.filter((one) => one.tagName === "TR");
  for (const name of new Set(rows.map((row) => row.dataset.label))) {
    const row = rows.find((one) => one.dataset.label === name);
    const choice = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => {
      box.checked ? hidden.delete(name) : hidden.add(name);
      show();
    });
    const words = document.createElement("span");
    words.textContent = `${name} (${rows.filter((one) => one.dataset.label === name).length})`;
    choice.append(box, row.querySelector(".tny-swatch").cloneNode(), words);
    labels.append(choice);
  }
  slider?.addEventListener("input", show);
}

document.addEventListener("DOMContentLoaded", () => {
  const root = document.querySelector("[data-viewer]");
  if (!root) {
    return;
  }
  viewer(root);
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
    const way = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    if (way && !isTyping && !event.altKey && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      root.querySelector(`a[rel=${way}]`)?.click();
    }
  });
});
