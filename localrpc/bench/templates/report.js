"use strict";
(() => {
  // {baseline, peers, measures: {key: {title, unit, more}},
  //  scenarios: [{name, title, unit, main, peers: {peer: {failure, figures: {key: [median, low,
  //  high]}, percentiles: [[percent, seconds]]}}}], sizes and clients: [{title, parameter,
  //  members: [[value, index of scenario]]}]}
  const data = JSON.parse(document.getElementById("figures").textContent);
  const state = {
    shown: new Set(data.peers),
    scenario: data.scenarios.length ? 0 : -1, // -1: all of them
    baseline: data.peers.includes(data.baseline) ? data.baseline : data.peers[0],
    every: false, // true if the table has all scenarios
    sort: null, // {column, down}
  };
  const $ = (selector) => document.querySelector(selector);

  // ---- elements ----

  const SVG = "http://www.w3.org/2000/svg";
  const build = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    element.append(...children.flat(9).filter((child) => child != null));
    return element;
  };
  const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
  const s = (tag, attributes, ...children) =>
    build(document.createElementNS(SVG, tag), attributes, children);

  // ---- figures as text ----

  const three = (value) =>
    value >= 99.95 ? Math.round(value).toLocaleString("en-US") : value.toFixed(value >= 9.995 ? 1 : 2);
  const scaled = (value, steps) => {
    const [unit, factor] = steps.find(([, at]) => value >= at) || steps[steps.length - 1];
    return [value / factor, unit];
  };
  const STEPS = {
    "s": [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9]],
    "/s": [["G/s", 1e9], ["M/s", 1e6], ["k/s", 1e3], ["/s", 1]],
    "B/s": [["GB/s", 1e9], ["MB/s", 1e6], ["kB/s", 1e3], ["B/s", 1]],
    "B": [["GB", 1e9], ["MB", 1e6], ["kB", 1e3], ["B", 1]],
    "": [["k", 1e3], ["", 1]],
  };
  const text = (value, unit) => {
    const [number, name] = scaled(value, STEPS[unit]);
    return `${three(number)} ${name}`.trim();
  };
  const round = (value, unit) => {
    const [number, name] = scaled(value * 1.0000001, STEPS[unit]);
    return `${Number(number.toPrecision(3))} ${name}`;
  };
  const bytes = (value) => {
    const [unit, shift] = [["GiB", 30], ["MiB", 20], ["KiB", 10], ["B", 0]].find(([, n]) => value >= 2 ** n) || ["B", 0];
    return `${Number((value / 2 ** shift).toPrecision(3))} ${unit}`;
  };
  const times = (ratio) => `${three(ratio)}×`;
  const spread = ([, low, high], unit) =>
    low === high ? "" : `${text(low, unit)} – ${text(high, unit)}`;

  // ---- peers ----

  const others = data.peers.filter((peer) => peer !== data.baseline);
  const look = (peer) => {
    const number = others.indexOf(peer);
    return number < 0
      ? { color: "var(--c7)", shape: 0, dash: null }
      : { color: `var(--c${number % 7})`, shape: number % 4, dash: [null, "6 4", "2 4"][Math.floor(number / 7) % 3] };
  };
  const SHAPES = [
    (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
    (r) => `M${-r * 0.9},${-r * 0.9}h${r * 1.8}v${r * 1.8}h${-r * 1.8}z`,
    (r) => `M0,${-r * 1.25}L${r * 1.25},0L0,${r * 1.25}L${-r * 1.25},0z`,
    (r) => `M0,${-r * 1.15}L${r * 1.15},${r * 0.95}H${-r * 1.15}z`,
  ];
  const marker = (peer, r, attributes) =>
    s("path", { d: SHAPES[look(peer).shape](r), style: `fill:${look(peer).color}`, ...attributes });
  const swatch = (peer) =>
    s("svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" }, marker(peer, 4.6));
  const shown = (scenario) =>
    data.peers.filter((peer) => state.shown.has(peer) && scenario.peers[peer]);
  const median = (scenario, peer, key) => {
    const figure = scenario.peers[peer] && scenario.peers[peer].figures[key];
    return figure ? figure[0] : null;
  };
  const ratio = (scenario, peer, key) => {
    const ours = median(scenario, peer, key);
    const base = median(scenario, state.baseline, key);
    if (!ours || !base) return null;
    return data.measures[key].more ? ours / base : base / ours;
  };

  // ---- tooltip ----

  const tip = $("#tip");
  const place = (x, y) => {
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth - 8 ? x - box.width - 14 : x + 14;
    const top = y + 14 + box.height > innerHeight - 8 ? y - box.height - 14 : y + 14;
    tip.style.transform = `translate(${Math.round(Math.max(8, Math.min(left, innerWidth - box.width - 8)))}px,${Math.round(Math.max(8, top))}px)`;
  };
  const tell = (title, rows, x, y) => {
    tip.replaceChildren(
      h("b", {}, title),
      h("table", {}, rows.map(([name, ...values]) => h("tr", {}, h("td", {}, name), values.map((v) => h("td", {}, v))))),
    );
    tip.hidden = false;
    place(x, y);
  };
  const hush = () => { tip.hidden = true; };
  // A mark that tells `rows()` to a pointer, a finger and the keyboard.
  const telling = (title, rows) => ({
    class: "mark",
    tabindex: 0,
    "aria-label": `${title}: ${rows().map((row) => row.join(" ")).join("; ")}`,
    onpointermove: (event) => tell(title, rows(), event.clientX, event.clientY),
    onpointerdown: (event) => { tell(title, rows(), event.clientX, event.clientY); event.stopPropagation(); },
    onpointerleave: (event) => { if (event.pointerType === "mouse") hush(); },
    onfocus: (event) => {
      const box = event.target.getBoundingClientRect();
      tell(title, rows(), box.right, box.bottom);
    },
    onblur: hush,
  });
  document.addEventListener("pointerdown", (event) => { if (!event.target.closest("svg")) hush(); });
  // The keyboard scrolls to the mark that it reaches, whose tooltip goes along.
  addEventListener("scroll", () => {
    const mark = document.activeElement;
    if (!mark || !mark.matches(".mark:focus-visible")) return hush();
    const box = mark.getBoundingClientRect();
    place(box.right, box.bottom);
  }, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });

  // ---- scales ----

  const scale = (map) => (from, to, start, end) => {
    const a = map(from), b = map(to);
    return (value) => start + (b === a ? 0.5 : (map(value) - a) / (b - a)) * (end - start);
  };
  const logarithmic = scale(Math.log10);
  // 0 at 0 %, 1 at 90, 2 at 99: how many nines.
  const nines = scale((percent) => -Math.log10(1 - percent / 100));
  const around = (values, slack) => {
    const low = Math.min(...values), high = Math.max(...values);
    return [low / slack, high * slack];
  };
  // 1, 2, 5, 10..., or fewer of them, so that they are `gap` apart on the scale.
  const ticks = ([low, high], map, gap) => {
    const all = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      for (const m of [1, 2, 5]) all.push([m * 10 ** e, m]);
    const inside = all.filter(([v]) => v >= low * 0.999 && v <= high * 1.001);
    const sets = [[1, 2, 5], [1, 5], [1]].map((steps) => inside.filter(([, m]) => steps.includes(m)).map(([v]) => v));
    const apart = (set) => set.every((v, i) => !i || Math.abs(map(v) - map(set[i - 1])) >= gap);
    let fit = sets.find((set) => set.length && apart(set)) || sets.find((set) => set.length) || [];
    while (!apart(fit)) fit = fit.filter((_, i) => i % 2 === 0);
    return fit;
  };
  // Moves labels apart, each as little as it can be, within top and bottom.
  const apart = (labels, gap, top, bottom) => {
    labels.sort((a, b) => a.y - b.y);
    labels.forEach((label, i) => { label.y = Math.max(label.y, i ? labels[i - 1].y + gap : top); });
    let floor = bottom;
    for (const label of [...labels].reverse()) {
      label.y = Math.min(label.y, floor);
      floor = label.y - gap;
    }
    return labels;
  };
  const longest = (names, size) => Math.max(0, ...names.map((name) => name.length)) * size;

  // The axes of a plot: `x` and `y` have scale, ticks, label and text.
  const frame = ({ width, height, margin, x, y, title }, ...marks) => {
    const [left, right, top, bottom] = [margin.left, width - margin.right, margin.top, height - margin.bottom];
    return s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title },
      y.ticks.map((value) => [
        s("line", { class: "grid", x1: left, x2: right, y1: y.scale(value), y2: y.scale(value) }),
        s("text", { x: left - 8, y: y.scale(value) + 4, "text-anchor": "end" }, y.text(value)),
      ]),
      x.ticks.map((value) => [
        s("line", { class: "grid", x1: x.scale(value), x2: x.scale(value), y1: top, y2: bottom }),
        s("text", { x: x.scale(value), y: bottom + 18, "text-anchor": "middle" }, x.text(value)),
      ]),
      s("text", { class: "axis", x: left, y: 12 }, y.label),
      s("text", { class: "axis", x: right, y: bottom + 36, "text-anchor": "end" }, x.label),
      marks);
  };

  // ---- plots: each takes a width and returns an svg, or null without data ----

  const percentilePlot = (scenario, width) => {
    const lines = shown(scenario)
      .map((peer) => ({ peer, points: scenario.peers[peer].percentiles.filter(([p]) => p < 100), max: median(scenario, peer, "max") }))
      .filter(({ points }) => points.length > 1);
    if (!lines.length) return null;
    const wide = width > 560;
    const margin = { left: 62, right: wide ? 20 + longest(lines.map((l) => l.peer), 7) : 12, top: 26, bottom: 46 };
    const height = wide ? Math.min(460, Math.max(360, lines.length * 20 + 120)) : 320;
    const last = Math.max(...lines.map(({ points }) => points[points.length - 1][0]));
    const xs = nines(0, last, margin.left, width - margin.right);
    const range = around(lines.flatMap(({ points }) => points.map(([, v]) => v)), 1.15);
    const ys = logarithmic(...range, height - margin.bottom, margin.top);
    const grid = [...new Set(lines.flatMap(({ points }) => points.map(([p]) => p)))].sort((a, b) => a - b);
    const cross = s("g", {});
    const at = (event) => {
      const box = event.currentTarget.ownerSVGElement.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * width;
      const percent = grid.reduce((best, p) => (Math.abs(xs(p) - x) < Math.abs(xs(best) - x) ? p : best));
      const here = lines
        .map(({ peer, points }) => [peer, (points.find(([p]) => p === percent) || [])[1]])
        .filter(([, v]) => v != null)
        .sort((a, b) => a[1] - b[1]);
      cross.replaceChildren(
        s("line", { class: "cross", x1: xs(percent), x2: xs(percent), y1: margin.top, y2: height - margin.bottom }),
        ...here.map(([peer, v]) => marker(peer, 4, { transform: `translate(${xs(percent)},${ys(v)})`, "pointer-events": "none" })),
      );
      const base = (here.find(([peer]) => peer === state.baseline) || [])[1];
      tell(`p${percent}`, here.map(([peer, v]) => [peer, text(v, "s"), base && peer !== state.baseline ? times(base / v) : ""]), event.clientX, event.clientY);
    };
    const leave = () => { cross.replaceChildren(); hush(); };
    const names = apart(lines.map(({ peer, points }) => ({ peer, y: ys(points[points.length - 1][1]), x: xs(points[points.length - 1][0]) })), 15, margin.top + 4, height - margin.bottom);
    return frame({
      width, height, margin, title: `Latency by percentile: ${scenario.title}`,
      x: { scale: xs, ticks: [0, 50, 90, 99, 99.9, 99.99, 99.999].filter((p) => p <= last && !(p === 50 && !wide)), text: (p) => (p ? `p${p}` : "min"), label: "percentile" },
      y: { scale: ys, ticks: ticks(range, ys, 22), text: (v) => round(v, "s"), label: "latency" },
    },
    lines.map(({ peer, points }) => [
      s("polyline", { class: "curve", "data-peer": peer, points: points.map(([p, v]) => `${xs(p).toFixed(1)},${ys(v).toFixed(1)}`).join(" "), style: `stroke:${look(peer).color}`, "stroke-dasharray": look(peer).dash }),
      marker(peer, 3.6, { transform: `translate(${xs(points[points.length - 1][0])},${ys(points[points.length - 1][1])})` }),
    ]),
    wide ? names.map(({ peer, y }) => s("text", { class: "name", x: width - margin.right + 9, y: y + 4, style: `fill:${look(peer).color}` }, peer)) : null,
    cross,
    s("rect", { class: "catch", x: margin.left, y: margin.top, width: width - margin.left - margin.right, height: height - margin.top - margin.bottom, onpointermove: at, onpointerdown: at, onpointerleave: (event) => { if (event.pointerType === "mouse") leave(); } }));
  };

  const ratioPlot = (key) => (scenario, width) => {
    const unit = data.measures[key].unit;
    const bars = shown(scenario)
      .map((peer) => ({ peer, value: ratio(scenario, peer, key) }))
      .filter(({ peer, value }) => value && peer !== state.baseline)
      .sort((a, b) => b.value - a.value);
    if (!bars.length) return null;
    const margin = { left: Math.min(width * 0.4, 14 + longest(bars.map((bar) => bar.peer), 7.1)), right: 52, top: 6, bottom: 26 };
    const height = margin.top + margin.bottom + bars.length * 26;
    const values = bars.map((bar) => bar.value);
    const range = [Math.min(1, ...values.map((v) => v / 1.1)), Math.max(1.5, ...values)];
    const xs = logarithmic(...range, margin.left, width - margin.right);
    const bottom = height - margin.bottom;
    return s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Times better than ${state.baseline}, ${data.measures[key].title}: ${scenario.title}` },
      ticks(range, xs, 36).map((value) => [
        s("line", { class: value === 1 ? "rule" : "grid", x1: xs(value), x2: xs(value), y1: margin.top, y2: bottom }),
        s("text", { x: xs(value), y: bottom + 17, "text-anchor": "middle" }, `${Number(value.toPrecision(2))}×`),
      ]),
      bars.map(({ peer, value }, i) => {
        const y = margin.top + i * 26;
        const [from, to] = [Math.min(xs(1), xs(value)), Math.max(xs(1), xs(value))];
        const rows = () => [
          [peer, text(median(scenario, peer, key), unit)],
          ["rounds", spread(scenario.peers[peer].figures[key], unit) || "all the same"],
          [state.baseline, text(median(scenario, state.baseline, key), unit)],
        ];
        return [
          s("text", { class: "name", x: margin.left - 10, y: y + 17, "text-anchor": "end" }, peer),
          s("rect", { x: from, y: y + 4, width: Math.max(1.5, to - from), height: 18, rx: 3, style: `fill:${look(peer).color}`, "data-peer": peer, ...telling(`${times(value)} in ${data.measures[key].title}`, rows) }),
          s("text", { x: to + 6, y: y + 17 }, times(value)),
        ];
      }));
  };

  const cpuPlot = (scenario, width) => {
    const points = shown(scenario)
      .map((peer) => ({ peer, x: scenario.peers[peer].figures.p50, y: scenario.peers[peer].figures.cpu }))
      .filter(({ x, y }) => x && y);
    if (!points.length) return null;
    const margin = { left: 62, right: 26, top: 26, bottom: 46 };
    const height = width > 560 ? 380 : 320;
    const rangeX = around(points.flatMap(({ x }) => [x[1], x[2]]), 1.25);
    const rangeY = around(points.flatMap(({ y }) => [y[1], y[2]]), 1.25);
    const xs = logarithmic(...rangeX, margin.left, width - margin.right);
    const ys = logarithmic(...rangeY, height - margin.bottom, margin.top);
    // A name goes to the first side of its mark where it covers neither name nor mark.
    const taken = points.map(({ x, y }) => [xs(x[0]) - 7, ys(y[0]) - 7, xs(x[0]) + 7, ys(y[0]) + 7]);
    const clear = (box) => box[0] > margin.left && box[2] < width && box[1] > margin.top - 8 && box[3] < height - margin.bottom
      && !taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3]);
    const names = points.map(({ peer, x, y }) => {
      const [cx, cy, w] = [xs(x[0]), ys(y[0]), peer.length * 7];
      const sides = [["start", 10, 0], ["end", -10, -w], ["middle", 0, -w / 2]];
      for (const dy of [4, -11, 19, -24, 32])
        for (const [anchor, dx, from] of sides) {
          const box = [cx + dx + from, cy + dy - 11, cx + dx + from + w, cy + dy + 2];
          if (!clear(box)) continue;
          taken.push(box);
          return s("text", { class: "name", x: cx + dx, y: cy + dy, "text-anchor": anchor, style: `fill:${look(peer).color}` }, peer);
        }
      return null;
    });
    return frame({
      width, height, margin, title: `CPU against latency: ${scenario.title}`,
      x: { scale: xs, ticks: ticks(rangeX, xs, 56), text: (v) => round(v, "s"), label: "median latency" },
      y: { scale: ys, ticks: ticks(rangeY, ys, 22), text: (v) => round(v, "s"), label: "CPU for each call" },
    },
    points.map(({ peer, x, y }) => [
      s("line", { x1: xs(x[1]), x2: xs(x[2]), y1: ys(y[0]), y2: ys(y[0]), style: `stroke:${look(peer).color}`, "stroke-opacity": 0.45 }),
      s("line", { x1: xs(x[0]), x2: xs(x[0]), y1: ys(y[1]), y2: ys(y[2]), style: `stroke:${look(peer).color}`, "stroke-opacity": 0.45 }),
    ]),
    names,
    points.map(({ peer, x, y }) => marker(peer, 6, {
      transform: `translate(${xs(x[0])},${ys(y[0])})`, "data-peer": peer,
      ...telling(peer, () => [["p50", text(x[0], "s"), spread(x, "s")], ["CPU", text(y[0], "s"), spread(y, "s")], ["busy", `${three(y[0] / x[0])} cores`]]),
    })));
  };

  // One line for each peer over what a family's scenarios differ in.
  const familyPlot = (key, label, form) => (family, width) => {
    const unit = data.measures[key].unit;
    const lines = data.peers.filter((peer) => state.shown.has(peer))
      .map((peer) => ({ peer, points: family.members.map(([value, i]) => [value, (data.scenarios[i].peers[peer] || { figures: {} }).figures[key]]).filter(([, f]) => f) }))
      .filter(({ points }) => points.length);
    if (!lines.length) return null;
    const wide = width > 520;
    const margin = { left: 70, right: wide ? 20 + longest(lines.map((l) => l.peer), 7) : 14, top: 26, bottom: 46 };
    const height = wide ? Math.max(340, lines.length * 18 + 110) : 300;
    const values = family.members.map(([value]) => value);
    const xs = logarithmic(Math.min(...values), Math.max(...values), margin.left + 8, width - margin.right - 8);
    const range = around(lines.flatMap(({ points }) => points.map(([, f]) => f[0])), 1.3);
    const ys = logarithmic(...range, height - margin.bottom, margin.top);
    const names = apart(lines.map(({ peer, points }) => ({ peer, y: ys(points[points.length - 1][1][0]) })), 15, margin.top, height - margin.bottom);
    return frame({
      width, height, margin, title: `${label} by ${family.parameter}: ${family.title}`,
      x: { scale: xs, ticks: [...new Set(values)], text: form, label: family.parameter === "size" ? "message size" : family.parameter },
      y: { scale: ys, ticks: ticks(range, ys, 22), text: (v) => round(v, unit), label },
    },
    lines.map(({ peer, points }) => s("polyline", { class: "curve", points: points.map(([v, f]) => `${xs(v)},${ys(f[0])}`).join(" "), style: `stroke:${look(peer).color}`, "stroke-dasharray": look(peer).dash })),
    lines.map(({ peer, points }) => points.map(([v, f]) => marker(peer, 4.6, {
      transform: `translate(${xs(v)},${ys(f[0])})`, "data-peer": peer,
      ...telling(`${peer}, ${form(v)}${family.parameter === "size" ? "" : ` ${family.parameter}`}`, () => [[label, text(f[0], unit)], ["rounds", spread(f, unit) || "all the same"]]),
    }))),
    wide ? names.map(({ peer, y }) => s("text", { class: "name", x: width - margin.right + 4, y: y + 4, style: `fill:${look(peer).color}` }, peer)) : null);
  };

  // ---- what is on the page ----

  const chosen = () => (state.scenario < 0 ? data.scenarios : [data.scenarios[state.scenario]]).filter(Boolean);

  // Captions and plots into a section; the plots are drawn for the width that they get.
  const fill = (id, plots, empty) => {
    const section = document.getElementById(id);
    const room = section.querySelector(".plots");
    section.hidden = !plots.length && !empty;
    room.classList.toggle("several", plots.length > 1 && !/quarters|thirds/.test(room.className));
    const figures = plots.map(({ caption, draw }) => {
      const figure = h("figure", {}, caption && h("figcaption", {}, caption));
      return { figure, draw };
    });
    room.replaceChildren(...figures.map(({ figure }) => figure));
    let drawn = 0;
    for (const { figure, draw } of figures) {
      const svg = draw(Math.max(260, Math.floor(figure.clientWidth)));
      if (svg) { figure.append(svg); drawn++; } else figure.remove();
    }
    if (!drawn && empty) room.replaceChildren(h("p", { class: "empty" }, empty));
    if (!drawn && !empty) section.hidden = true;
  };

  const perScenario = (plot) => chosen().map((scenario) => ({ caption: scenario.title, draw: (width) => plot(scenario, width) }));

  const drawPlots = () => {
    hush();
    const latency = "No latency of single calls here: messages of a stream are counted, not timed. Choose another scenario.";
    fill("percentiles", perScenario(percentilePlot), latency);
    fill("cpu", perScenario(cpuPlot), latency);
    const several = state.scenario < 0;
    fill("ratios", (several ? ["main"] : ["p50", "p99", "rate", "cpu"]).flatMap((key) => chosen().map((scenario) => {
      const which = key === "main" ? scenario.main : key;
      return { caption: several ? `${scenario.title}: ${data.measures[which].title}` : data.measures[which].title, draw: (width) => ratioPlot(which)(scenario, width) };
    })), `Nothing to compare: ${state.baseline} has no figures here, or no other peer is shown.`);
    fill("sizes", data.sizes.map((family) => ({ caption: family.title, draw: (width) => familyPlot("bytes", "payload per second", bytes)(family, width) })));
    fill("clients", data.clients.flatMap((family) => [["rate", "calls per second"], ["p99", "p99 latency"], ["cpu", "CPU for each call"]].map(([key, label]) => ({
      caption: `${label}: ${family.title}`, draw: (width) => familyPlot(key, label, String)(family, width),
    }))));
  };

  // shm?wakeup=futex may continue in the next line.
  const breakable = (peer) => peer.split(/(?<=[?&])/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));
  const name = (peer) => h("span", { class: "key" }, swatch(peer), h("span", {}, breakable(peer)));

  const drawOverview = () => {
    const peers = data.peers.filter((peer) => state.shown.has(peer));
    const shade = (value) => {
      const part = Math.min(1, Math.abs(Math.log10(value)) / 2);
      return `background:rgb(var(--${value >= 1 ? "good" : "bad"}) / ${(0.05 + 0.4 * part).toFixed(2)})`;
    };
    const cell = (scenario, peer) => {
      const measured = scenario.peers[peer];
      if (!measured || !measured.figures[scenario.main]) return h("td", { title: measured && measured.failure }, measured && measured.failure ? "failed" : "–");
      const value = peer === state.baseline ? null : ratio(scenario, peer, scenario.main);
      return h("td", { style: value ? shade(value) : null },
        text(measured.figures[scenario.main][0], data.measures[scenario.main].unit),
        h("small", { class: "times" }, value ? times(value) : "\u00a0"));
    };
    $("#overview .scroll").replaceChildren(h("table", {},
      h("thead", {}, h("tr", {}, h("th", { class: "left wrap" }, "scenario"), peers.map((peer) => h("th", { class: "peer" }, breakable(peer))))),
      h("tbody", {}, data.scenarios.map((scenario, i) => h("tr", { class: i === state.scenario ? "chosen" : null },
        h("td", { class: "left wrap" }, h("button", { type: "button", onclick: () => choose(i) }, scenario.title)),
        peers.map((peer) => cell(scenario, peer)))))));
  };

  const drawTable = () => {
    const measures = Object.keys(data.measures).filter((key) => data.scenarios.some((sc) => data.peers.some((p) => median(sc, p, key) != null)));
    const several = state.every || state.scenario < 0;
    const columns = [
      several && { title: "scenario", of: (row) => row.index, left: true, wrap: true },
      { title: "peer", of: (row) => data.peers.indexOf(row.peer), left: true },
      ...measures.map((key) => ({ title: data.measures[key].title, key, of: (row) => median(row.scenario, row.peer, key) })),
    ].filter(Boolean);
    const rows = (state.every ? data.scenarios : chosen()).flatMap((scenario) =>
      shown(scenario).map((peer) => ({ scenario, peer, index: data.scenarios.indexOf(scenario) })));
    if (state.sort) {
      const { column, down } = state.sort;
      const of = columns[column].of;
      // What has no figure stays at the end either way.
      rows.sort((a, b) => {
        const [x, y] = [of(a), of(b)];
        if (x == null || y == null) return (x == null) - (y == null);
        return down ? y - x : x - y;
      });
    }
    const sorted = (i) => (state.sort && state.sort.column === i ? (state.sort.down ? "descending" : "ascending") : "none");
    const body = rows.map((row, i) => {
      const measured = row.scenario.peers[row.peer];
      const repeated = !state.sort && i && rows[i - 1].scenario === row.scenario;
      const head = [several && h("td", { class: "left wrap" }, repeated ? "" : row.scenario.title), h("td", { class: "left peer" }, name(row.peer))].filter(Boolean);
      if (measured.failure && !Object.keys(measured.figures).length)
        return h("tr", {}, head, h("td", { class: "failed", colspan: columns.length - head.length }, `failed: ${measured.failure}`));
      return h("tr", {}, head, columns.slice(head.length).map((column) => {
        const value = column.of(row);
        if (value == null) return h("td", {}, "–");
        const unit = data.measures[column.key].unit;
        const better = row.peer === state.baseline ? null : ratio(row.scenario, row.peer, column.key);
        return h("td", {}, text(value, unit),
          h("small", {}, spread(measured.figures[column.key], unit)),
          h("small", { class: "times" }, better ? times(better) : ""));
      }));
    });
    $("#table .scroll").replaceChildren(h("table", {},
      h("thead", {}, h("tr", {}, columns.map((column, i) => h("th", { class: `${column.left ? "left" : ""} ${column.wrap ? "wrap" : ""}`, "aria-sort": sorted(i) },
        h("button", { type: "button", onclick: () => sortBy(i, columns[i]) }, column.title))))),
      h("tbody", {}, body)));
  };

  const sortBy = (column, { left, key }) => {
    // First what is best, then the other way round, then as it was.
    const first = left ? false : data.measures[key].more;
    if (!state.sort || state.sort.column !== column) state.sort = { column, down: first };
    else if (state.sort.down === first) state.sort.down = !first;
    else state.sort = null;
    drawTable();
  };

  const draw = () => {
    for (const place of document.querySelectorAll("[data-baseline]")) place.textContent = state.baseline;
    for (const button of document.querySelectorAll("#peers button")) button.setAttribute("aria-pressed", state.shown.has(button.value));
    $("#scenario").value = state.scenario;
    drawOverview();
    drawPlots();
    drawTable();
  };
  const choose = (index) => { state.scenario = index; state.sort = null; draw(); };

  $("#peers").append(...data.peers.map((peer) => h("button", {
    type: "button", value: peer, title: `Show or hide ${peer}; double click: only ${peer}`,
    onclick: () => { if (!state.shown.delete(peer)) state.shown.add(peer); draw(); },
    ondblclick: () => { state.shown = state.shown.size === 1 ? new Set(data.peers) : new Set([peer]); draw(); },
  }, swatch(peer), peer)));
  $("#scenario").append(...data.scenarios.map((scenario, i) => h("option", { value: i }, scenario.title)), h("option", { value: -1 }, "all of them"));
  $("#baseline").append(...data.peers.map((peer) => h("option", { value: peer }, peer)));
  $("#baseline").value = state.baseline;
  $("#filters").addEventListener("submit", (event) => event.preventDefault());
  $("#scenario").addEventListener("change", (event) => choose(Number(event.target.value)));
  $("#baseline").addEventListener("change", (event) => { state.baseline = event.target.value; draw(); });
  $("#every").addEventListener("change", (event) => { state.every = event.target.checked; state.sort = null; drawTable(); });
  draw();

  let width = innerWidth;
  addEventListener("resize", () => {
    // A phone's address bar changes the height only.
    if (innerWidth !== width) { width = innerWidth; drawPlots(); }
  });
})();
