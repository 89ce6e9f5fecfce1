"use strict";

function slide(figure) {
  const slider = figure.querySelector("input"), shown = figure.querySelector("output");
  const images = [...figure.querySelectorAll("img")];
  const show = () => {
    images.forEach((image, i) => { image.hidden = i !== Number(slider.value); });
    shown.textContent = images[slider.value].dataset.label;
    slider.setAttribute("aria-valuetext", shown.textContent);
  };
  slider.addEventListener("input", show);
  show();
}

function point(figure) {
  const lines = JSON.parse(figure.dataset.chart), runs = JSON.parse(figure.dataset.runs);
  const svg = figure.querySelector("svg"), cursor = figure.querySelector(".cursor"), shown = figure.querySelector(":scope > output");
  const longest = lines.reduce((a, b) => (b.length > a.length ? b : a), []);
  let place = longest.length - 1;
  const nearest = (points, x) => points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
  const show = (x) => {
    const [at, , update] = nearest(longest, x);
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    cursor.style.visibility = "visible";
    shown.replaceChildren(...lines.map((points, i) => {
      const line = document.createElement("span");
      line.textContent = `${i ? "" : `update ${update}: `}${points.length ? nearest(points, at)[3] : "–"}`;
      if (lines.length > 1) line.className = `run-${runs[i] % 6}`;
      return line;
    }));
    shown.hidden = false;
  };
  const hide = () => { shown.hidden = true; cursor.style.visibility = "hidden"; };
  if (!longest.length) return;
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    show((event.clientX - box.left) / box.width * svg.viewBox.baseVal.width);
  });
  svg.addEventListener("pointerleave", hide);
  figure.addEventListener("blur", hide);
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    place = Math.min(longest.length - 1, Math.max(0, place + step));
    show(longest[place][0]);
  });
}

function ready(root) {
  root.querySelectorAll(".slides").forEach(slide);
  root.querySelectorAll(".chart").forEach(point);
}

function watch() {
  const sections = (root) => new Map([...root.querySelectorAll("main > section")].map((one) => [one.id, one]));
  let served = new Map([...sections(document)].map(([id, one]) => [id, one.outerHTML])), tag = null;
  const look = async () => {
    try {
      const answer = await fetch("/", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = sections(page), now = new Map([...fresh].map(([id, one]) => [id, one.outerHTML]));
        fresh.forEach((one, id) => {
          if (now.get(id) === served.get(id)) return;
          const old = document.getElementById(id), open = [...old.querySelectorAll("details")].map((d) => d.open);
          one.querySelectorAll("details").forEach((d, i) => { if (i in open) d.open = open[i]; });
          old.replaceWith(one);
          ready(one);
        });
        served = now;
      }
    } catch { /* the server has gone, or not come back yet: the page stays as it is */ }
    setTimeout(look, 5000);
  };
  setTimeout(look, 5000);
}

const live = "live" in document.body.dataset;
if (live) watch();
ready(document);
