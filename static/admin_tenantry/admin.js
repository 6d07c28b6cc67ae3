"use strict";

// Times in the reader's zone, pages that follow work as it goes on, secrets to copy, uploads that are dropped and watched.

// Written as the server writes them, so that nothing moves when they change.
const moments = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "short" });
const exactly = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const shown = {
  time: new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" }),
  day: new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short" }),
};

function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    time.title = exactly.format(moment);
    time.textContent = moments.format(moment);
  }
  for (const text of root.querySelectorAll("text[data-moment]")) {
    text.textContent = shown[text.dataset.shows].format(new Date(text.dataset.moment));
  }
}

// What scrolls sideways can be scrolled by the keyboard, too.
function reachable(root) {
  for (const box of root.querySelectorAll(".tny-scroll, .tny-plot-frame, .tny-card, .tny-text")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) {
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", box.closest(".tny-part")?.querySelector("h2")?.textContent || "Content");
    }
  }
}

function copyable(root) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    });
  }
}

// What was scrolled stays where it was; who reads a log's end goes on reading it.
function putInPlace(old, fresh) {
  const before = [...old.querySelectorAll(".tny-text, .tny-scroll")].map((box) => ({
    left: box.scrollLeft,
    top: box.scrollTop,
    atEnd: box.scrollTop > 0 && box.scrollTop + box.clientHeight >= box.scrollHeight - 4,
  }));
  old.replaceWith(fresh);
  fresh.querySelectorAll(".tny-text, .tny-scroll").forEach((box, place) => {
    const was = before[place];
    if (was) {
      box.scrollTo(was.left, was.atEnd ? box.scrollHeight : was.top);
    }
  });
}

// While work goes on, its page's blocks are fetched again and put in place; when it has ended, the whole page is,
// for what can be done with it has changed.
function follow() {
  const waiting = document.querySelector("[data-refresh-s]");
  if (!waiting) {
    return;
  }
  const again = async () => {
    if (document.hidden) {
      window.setTimeout(again, 1000);
      return;
    }
    try {
      const answer = await fetch(window.location.href, { headers: { Accept: "text/html" } });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(".tny-parts");
      if (!answer.ok || !fresh || !fresh.dataset.refreshS) {
        window.location.reload();
        return;
      }
      localise(fresh);
      copyable(fresh);
      putInPlace(document.querySelector("[data-refresh-s]"), fresh);
    } catch {
      // the server is away for a moment: the next look may find it
    }
    follow();
  };
  window.setTimeout(again, Number(waiting.dataset.refreshS) * 1000);
}

function sizeOf(bytes) {
  const units = ["bytes", "KB", "MB", "GB"];
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), units.length - 1);
  return `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

function chosen(input) {
  const files = Array.from(input.files);
  const list = document.createElement("ul");
  list.className = "tny-chosen";
  for (const file of files.slice(0, 20)) {
    const item = document.createElement("li");
    item.textContent = `${file.webkitRelativePath || file.name} · ${sizeOf(file.size)}`;
    list.append(item);
  }
  if (files.length > 20) {
    const item = document.createElement("li");
    item.textContent = `and ${files.length - 20} more`;
    list.append(item);
  }
  input.parentElement.querySelector(".tny-chosen")?.remove();
  if (files.length) {
    input.after(list);
  }
}

function droppable(form) {
  for (const input of form.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => chosen(input));
    input.addEventListener("dragover", () => input.classList.add("tny-over"));
    for (const end of ["dragleave", "drop"]) {
      input.addEventListener(end, () => input.classList.remove("tny-over"));
    }
  }
  for (const folder of form.querySelectorAll("input[webkitdirectory]")) {
    const paths = form.elements.namedItem(folder.dataset.paths);
    folder.addEventListener("change", () => {
      paths.value = JSON.stringify(Array.from(folder.files, (file) => file.webkitRelativePath));
    });
  }
}

function refusal(form, words) {
  form.querySelector(".tny-refusal")?.remove();
  const box = document.createElement("div");
  box.className = "tny-refusal";
  box.setAttribute("role", "alert");
  box.textContent = words;
  form.querySelector("h2").after(box);
}

// Sends the form's files with a bar that shows how far they are; the page that answers is then shown.
function upload(form) {
  const bar = document.createElement("p");
  bar.className = "tny-progress tny-upload";
  bar.setAttribute("role", "status");
  const progress = document.createElement("progress");
  progress.max = 100;
  const words = document.createElement("span");
  words.textContent = "Sending…";
  bar.append(progress, words);
  form.querySelector(".tny-buttons").before(bar);

  const request = new XMLHttpRequest();
  const leaving = (event) => event.preventDefault();
  window.addEventListener("beforeunload", leaving);
  const ended = (fault) => {
    window.removeEventListener("beforeunload", leaving);
    if (fault) {
      bar.remove();
      release(form);
      refusal(form, fault);
    }
  };
  request.upload.addEventListener("progress", (event) => {
    const percent = event.total ? (100 * event.loaded) / event.total : 0;
    progress.value = percent;
    words.textContent =
      percent < 100 ? `${sizeOf(event.loaded)} of ${sizeOf(event.total)}` : "Sent. Waiting until it is stored…";
  });
  request.addEventListener("load", () => {
    if (request.responseURL !== window.location.href && request.status < 400) {
      ended();
      window.location.assign(request.responseURL);
      return;
    }
    const page = new DOMParser().parseFromString(request.responseText, "text/html");
    const faults = [...page.querySelectorAll(".tny-refusal, .errorlist, [data-error], .text-red-600")];
    const said = faults.map((node) => node.textContent.trim()).filter(Boolean);
    ended(said.join(" ") || page.querySelector("main, body")?.textContent.trim().slice(0, 300) || "It was refused.");
  });
  request.addEventListener("error", () => ended("The connection broke. Nothing was stored; send it again."));
  request.open("POST", form.action || window.location.href);
  request.send(new FormData(form));
}

function release(form) {
  delete form.dataset.sent;
  for (const button of form.querySelectorAll("button")) {
    button.disabled = false;
  }
}

// Some choices decide which other fields a form has: it is opened anew with what was written into it so far.
function reloads(form) {
  for (const choice of form.querySelectorAll("[data-reload]")) {
    choice.addEventListener("change", () => {
      const said = new FormData(form);
      said.delete("csrfmiddlewaretoken");
      window.location.assign(`?${new URLSearchParams(said)}`);
    });
  }
}

// A second click sends nothing twice.
function sendOnce(form) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    const files = [...form.querySelectorAll("input[type=file]")].some((input) => input.files.length);
    if (files) {
      event.preventDefault();
      upload(form);
    }
    window.setTimeout(() => {
      for (const button of form.querySelectorAll("button")) {
        button.disabled = true;
      }
    });
  });
}

document.addEventListener("DOMContentLoaded", () => {
  localise(document);
  copyable(document);
  reachable(document);
  follow();
  for (const form of document.querySelectorAll("form.tny-ask")) {
    droppable(form);
    reloads(form);
    sendOnce(form);
  }
});
window.addEventListener("pageshow", () => document.querySelectorAll("form.tny-ask").forEach(release));
