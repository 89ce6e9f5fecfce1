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

const SCALES = { p: ["--low", "--middle", "--high"], part: ["--less", "--hardly", "--more"], step: ["--early", "--late"] };
const CELL = 16;  // pixels of a token as it is drawn, whatever its size on the page

function colourOf(names) {
  const style = getComputedStyle(document.documentElement);
  const stops = names.map((name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
  return (value) => {
    const at = Math.min(1, Math.max(0, value)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(at));
    return `rgb(${stops[i].map((low, k) => Math.round(low + (stops[i + 1][k] - low) * (at - i))).join(" ")})`;
  };
}

function paint(canvas, film, now, fill, inks) {
  const rows = Math.ceil(film.step.length / film.columns), pen = canvas.getContext("2d");
  canvas.width = film.columns * CELL;
  canvas.height = rows * CELL;
  film.step.forEach((step, i) => {
    const x = (i % film.columns) * CELL, y = Math.floor(i / film.columns) * CELL;
    if (fill || step >= now) {
      pen.fillStyle = step < now ? fill(i) : inks.veil;
      pen.fillRect(x, y, CELL, CELL);
    }
    pen.lineWidth = 1.5;
    pen.strokeStyle = step < now ? inks.frame : inks.hatch;
    if (step === now - 1) pen.strokeRect(x + 1, y + 1, CELL - 2, CELL - 2);
    if (step >= now) { pen.beginPath(); pen.moveTo(x, y + CELL); pen.lineTo(x + CELL, y); pen.stroke(); }
  });
}

function project(reel) {
  const slider = reel.querySelector("input[type=range]"), shown = reel.querySelector("output"), last = Number(slider.max);
  const figures = [...reel.querySelectorAll(".film")], films = figures.map((figure) => JSON.parse(figure.dataset.film));
  const reach = Math.max(...films.flatMap((film) => (film.part ?? [0]).map(Math.abs))) || 1;
  const mean = (values) => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
  const digits = (value) => value.toPrecision(2).replace("-", "\u2212"), signed = (value) => (value > 0 ? "+" : "") + digits(value);
  const scaled = {
    p: (film, i) => film.p[i],
    part: (film, i) => (film.part ? 0.5 + film.part[i] / reach / 2 : 0.5),
    step: (film, i) => film.step[i] / Math.max(1, last - 1),
  };
  const ends = { p: ["0", "1"], part: [`less probable, ${digits(-reach)}`, `more probable, ${signed(reach)}`], step: ["first", "last"] };
  const show = () => {
    const now = Number(slider.value), by = reel.querySelector("input[type=radio]:checked").value;
    const style = getComputedStyle(document.documentElement), colour = colourOf(SCALES[by]);
    const inks = Object.fromEntries(["frame", "veil", "hatch"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
    shown.textContent = now ? `step ${now} of ${last}` : "all is masked";
    slider.setAttribute("aria-valuetext", shown.textContent);
    reel.querySelector(".scale i").style.background = `linear-gradient(90deg, ${SCALES[by].map((name) => `var(${name})`).join(", ")})`;
    reel.querySelector(".scale .low").textContent = ends[by][0];
    reel.querySelector(".scale .high").textContent = ends[by][1];
    figures.forEach((figure, k) => {
      const film = films[k], over = figure.querySelector(".veil"), tokens = figure.querySelector(".tokens");
      const fresh = film.step.flatMap((step, i) => (step === now - 1 ? [i] : []));
      if (over) paint(over, film, now, null, inks);
      paint(tokens, film, now, (i) => colour(scaled[by](film, i)), inks);
      const part = film.part ? `, part ${signed(mean(fresh.map((i) => film.part[i])))}` : "";
      const says = fresh.length ? `${fresh.length} ${fresh.length === 1 ? "token" : "tokens"}: confidence ${digits(mean(fresh.map((i) => film.p[i])))}${part}` : "nothing yet";
      figure.querySelector(".says").textContent = says;
      tokens.setAttribute("aria-label", `Its tokens at ${shown.textContent}: ${says}`);
    });
  };
  reel.querySelectorAll("input").forEach((input) => input.addEventListener("input", show));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}

function ready(root) {
  root.querySelectorAll(".slides").forEach(slide);
  root.querySelectorAll(".films").forEach(project);
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
