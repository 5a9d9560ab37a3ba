// The explorer: draws what `vpcore/report/explorer.py` wrote into the page. The choice lies in native controls and in the
// address; colours are variables of explorer.css, so that a change of theme needs no drawing.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const root = document.getElementById("explorer");
  const form = root.querySelector("form");
  const part = (name) => root.querySelector(`[data-part=${name}]`);
  const METHODS = {
    vp: { name: "visual prompting", colour: "var(--explorer-vp)", symbol: "circle", shift: -3 },
    lp: { name: "linear probing", colour: "var(--explorer-lp)", symbol: "square", shift: 3 },
  };
  const STYLE = { fontSize: "13px", background: "none", overflow: "visible", "--plot-background": "var(--explorer-page)" };
  const titled = (group) => `${group.study}: ${group.compressed}`;
  const number = (value) => String(value).replace("-", "\u2212");
  const network = (group, n) =>
    group.axis.startsWith("bits") ? `${group.networks[n]} bits` : `${group.networks[n]}% of the weights`;
  const budget = (size) => (size === "all" ? "all images" : `${size} image${size === "1" ? "" : "s"} per class`);

  function fill(name, options, wanted) {
    const select = form.elements[name];
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    const values = options.map(([value]) => value);
    select.value = values.includes(wanted) ? wanted : values[0];
  }

  function read() {
    const group = data.groups.find((each) => titled(each) === form.elements.study.value);
    const metric = form.elements.metric.value;
    const place = Object.keys(data.metrics).indexOf(metric);
    const [task, size] = [group.tasks.indexOf(form.elements.task.value), group.budgets.indexOf(form.elements.budget.value)];
    const shown = Object.keys(METHODS).filter((method) => ["both", method].includes(form.elements.method.value));
    const points = group.points
      .filter((p) => p[0] === task && p[1] === size && shown.includes(group.methods[p[2]]))
      .map(([, , m, n, runs, numbers, bins, mapped]) => ({
        method: group.methods[m], n, runs, x: group.networks[n], ends: numbers[place], numbers, bins, mapped,
      }));
    return { group, metric, place, shown, points, chosen: Number(form.elements.network.value), unit: data.metrics[metric] };
  }

  // the options that the study has; a choice that it has, too, is kept
  function offer(wanted) {
    fill("study", data.groups.map((group) => [titled(group), titled(group)]), wanted.study);
    const group = data.groups.find((each) => titled(each) === form.elements.study.value);
    fill("task", group.tasks.map((task) => [task, task]), wanted.task);
    const task = group.tasks.indexOf(form.elements.task.value);
    const sizes = group.budgets.filter((size, b) => group.points.some((p) => p[0] === task && p[1] === b));
    fill("budget", sizes.map((size) => [size, budget(size)]), wanted.budget);
    const known = Object.entries(data.metrics).filter(([, m], n) => group.points.some((p) => p[5][n].length));
    fill("metric", known.map(([name, m]) => [name, `${m.label}, ${m.unit}`]), wanted.metric);
    const last = String(group.networks.length - 1);
    fill("network", group.networks.map((_, n) => [String(n), network(group, n)]), wanted.network ?? last);
    if (wanted.method) form.elements.method.value = METHODS[wanted.method] ? wanted.method : "both";
  }

  const choice = () => Object.fromEntries(new FormData(form));
  const told = ([mean, low, high], unit) =>
    `${number(mean)}${unit === "%" ? "" : " "}${unit} (${number(low)} to ${number(high)})`;

  function draw() {
    const now = read();
    const { group, points, unit, chosen } = now;
    const some = points.filter((p) => p.ends.length);
    curve(now, some);
    detail(now);
    const where = `${titled(group)}, ${form.elements.task.value}, ${budget(form.elements.budget.value)}`;
    const said = now.shown.map((method) => {
      const mine = some.filter((p) => p.method === method && (p.n === chosen || p.n === 0));
      const parts = mine.map((p) => `${told(p.ends, unit.unit)} with ${network(group, p.n)}`);
      return `${METHODS[method].name}, ${parts.join(", ") || "nothing to compare"}`;
    });
    part("said").textContent = `${unit.label} (${where}): ${said.join("; ")}.`;
    table(now, some);
    mapping(now);
  }

  function curve({ group, shown, unit, metric, chosen }, some) {
    const bits = group.axis.startsWith("bits");
    const paired = metric.endsWith("_loss") || metric.endsWith("_rise");
    const box = part("curve");
    const wide = Math.max(280, box.clientWidth);
    const marks = [Plot.gridY({ stroke: "currentColor", strokeOpacity: 0.12 })];
    if (paired) {
      marks.push(Plot.rectY([0], { y1: -1, y2: 1, fill: "currentColor", fillOpacity: 0.08 }), Plot.ruleY([0], { strokeOpacity: 0.6 }));
    }
    marks.push(Plot.ruleX([group.networks[chosen]], { stroke: "currentColor", strokeOpacity: 0.35, strokeDasharray: "3 3" }));
    for (const method of shown) {
      const { colour, symbol, shift, name } = METHODS[method];
      const mine = some.filter((p) => p.method === method);
      const at = { x: "x", y: (p) => p.ends[0], dx: shift };
      marks.push(
        Plot.line(mine, { ...at, stroke: colour, strokeWidth: 2 }),
        Plot.ruleX(mine, { x: "x", y1: (p) => p.ends[1], y2: (p) => p.ends[2], dx: shift, stroke: colour, strokeWidth: 1.5 }),
        Plot.dot(mine, { ...at, symbol, fill: colour, r: 5, title: (p) => `${name}, ${network(group, p.n)}\n${told(p.ends, unit.unit)}\n${p.runs} runs` }),
      );
    }
    const axis = bits
      ? { type: "point", domain: group.networks, label: group.axis }
      : { type: "log", reverse: true, label: group.axis };
    marks.push(Plot.axisX(group.networks, { text: String, label: group.axis, labelAnchor: "center", labelArrow: "none" }));
    const chart = Plot.plot({
      width: wide, height: Math.min(420, 0.62 * wide + 60), marginLeft: 48, marginTop: 30, marginBottom: 44, marginRight: 24, style: STYLE, marks,
      x: { ...axis, inset: 14, axis: null },
      y: { nice: true, label: `${unit.label}, ${unit.unit}`, labelArrow: "none", tickFormat: number },
    });
    chart.setAttribute("aria-hidden", "true"); // the sentence and the table say the same
    chart.addEventListener("click", (event) => {
      const from = event.clientX - chart.getBoundingClientRect().left;
      const far = group.networks.map((x) => Math.abs(chart.scale("x").apply(x) - from));
      form.elements.network.value = String(far.indexOf(Math.min(...far)));
      changed();
    });
    box.replaceChildren(chart);
    part("legend").replaceChildren(...shown.map((method) => {
      const item = document.createElement("span");
      item.className = `explorer-${method}`;
      item.textContent = METHODS[method].name;
      return item;
    }));
  }

  function detail({ group, shown, points, chosen, place }) {
    const names = Object.keys(data.metrics);
    const value = (p, name) => p.numbers[names.indexOf(name)];
    const boxes = shown.map((method) => {
      const at = points.find((p) => p.method === method && p.n === chosen);
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = `${METHODS[method].name}, ${network(group, chosen)}`;
      figure.append(caption);
      if (!at?.bins) {
        const none = document.createElement("p");
        none.textContent = at ? "Choose a single task of a study with one chain of networks." : "Not measured.";
        figure.append(none);
        return figure;
      }
      const width = Math.min(330, Math.max(250, part("detail").clientWidth / 2 - 16));
      const bars = at.bins.map(([n, share, confidence, accuracy]) => ({ low: (100 * n) / 15, share, confidence, accuracy }));
      const { colour } = METHODS[method];
      const diagram = Plot.plot({
        width, height: width, marginLeft: 44, marginTop: 30, marginBottom: 40, style: STYLE,
        x: { domain: [0, 100], label: "confidence, %", labelAnchor: "center", labelArrow: "none" },
        y: { domain: [0, 100], label: "accuracy, %", labelArrow: "none" },
        marks: [
          Plot.rect(bars, { x1: "low", x2: (b) => b.low + 100 / 15, y1: 0, y2: "accuracy", fill: colour, fillOpacity: (b) => 0.25 + 0.75 * Math.min(1, b.share / 150), inset: 0.5 }),
          Plot.ruleY(bars, { x1: "low", x2: (b) => b.low + 100 / 15, y: "confidence", stroke: "currentColor", strokeWidth: 2 }),
          Plot.line([[0, 0], [100, 100]], { stroke: "currentColor", strokeDasharray: "4 3", strokeOpacity: 0.6 }),
        ],
      });
      const ece = value(at, "ece");
      diagram.setAttribute("role", "img");
      diagram.setAttribute("aria-label", `Reliability diagram, ECE ${told(ece, "%")}: ` + at.bins.map(([, , c, a]) => `confidence ${c} %, accuracy ${a} %`).join("; "));
      const dense = points.find((p) => p.method === method && p.n === 0);
      const sizes = [["dense", dense], ["this network", at]].filter(([, p]) => p && value(p, "set_size").length);
      const line = document.createElement("p");
      line.textContent = `ECE ${told(ece, "%")}. ` + (sizes.length
        ? `Classes in a conformal set: ${sizes.map(([who, p]) => `${who} ${number(value(p, "set_size")[0])}`).join(", ")}.`
        : "The records of this study hold no conformal sets.");
      figure.append(diagram, line);
      return figure;
    });
    part("detail").replaceChildren(...boxes);
  }

  function rows(head, lines) {
    const made = document.createElement("table");
    made.className = "table";
    const add = (into, cells, tag) => into.insertRow().append(...cells.map((text, n) => {
      const cell = document.createElement(n ? tag : "th");
      if (cell.tagName === "TH") cell.scope = tag === "th" ? "col" : "row";
      cell.textContent = text;
      return cell;
    }));
    add(made.createTHead(), head, "th");
    lines.forEach((line) => add(made.tBodies[0] ?? made.createTBody(), line, "td"));
    return made;
  }

  function table({ group, shown, unit }, some) {
    const lines = group.networks.map((_, n) => [network(group, n), ...shown.map((method) => {
      const at = some.find((p) => p.method === method && p.n === n);
      return at ? told(at.ends, unit.unit) : "";
    })]);
    part("table").replaceChildren(rows(["network", ...shown.map((method) => METHODS[method].name)], lines));
  }

  function mapping({ group, points, chosen }) {
    const of = (n) => points.find((p) => p.method === "vp" && p.n === n)?.mapped;
    const [dense, mine] = [of(0), of(chosen)];
    const classes = group.classes[group.tasks.indexOf(form.elements.task.value)];
    if (!dense || !mine) {
      part("mapping").textContent = "Choose a single task and visual prompting, of a study with one chain of networks.";
      return;
    }
    const same = dense.filter((name, n) => name === mine[n]).length;
    const told = document.createElement("p");
    told.textContent = `${same} of ${dense.length} target classes have the same source class on both networks (first seed).`;
    const lines = classes.map((name, n) => [name, group.names[dense[n]], group.names[mine[n]]]);
    part("mapping").replaceChildren(told, rows(["target class", "on the dense network", `with ${network(group, chosen)}`], lines));
  }

  function changed() {
    offer(choice());
    history.replaceState(null, "", `#${new URLSearchParams(choice())}`);
    draw();
  }

  const linked = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const start = () => { offer({ ...linked() }); draw(); };
  form.addEventListener("change", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", start);
  let width = 0;
  new ResizeObserver(() => {
    if (part("curve").clientWidth !== width) { width = part("curve").clientWidth; draw(); }
  }).observe(part("curve"));
  start();
})();
