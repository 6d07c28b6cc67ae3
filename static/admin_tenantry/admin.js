"use strict";

// Times in the reader's zone, pages that look again while work goes on, secrets to copy, folders that keep their paths.
document.addEventListener("DOMContentLoaded", () => {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
  }

  const waiting = document.querySelector("[data-refresh-s]");
  if (waiting) {
    const again = () => (document.hidden ? window.setTimeout(again, 1000) : window.location.reload());
    window.setTimeout(again, Number(waiting.dataset.refreshS) * 1000);
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    });
  }

  for (const folder of document.querySelectorAll("input[webkitdirectory]")) {
    const paths = folder.form.elements.namedItem(folder.dataset.paths);
    folder.addEventListener("change", () => {
      paths.value = JSON.stringify(Array.from(folder.files, (file) => file.webkitRelativePath));
    });
  }
});
