// Draws the figures of class "chart" with uPlot from the JSON beside them; a table of the same values is one step away.
(() => {
  const COLORS = ["blue", "orange", "green", "purple", "red", "teal", "pink", "cyan"];
  // Of limits, the first one first: what a canvas knows, and the legend's name of it.
  const DASHES = [{ line: [8, 4], legend: "dashed" }, { line: [2, 4], legend: "dotted" }];
  const drawn = new Map(); // by element: the plot, and the text that it was drawn from

  const probe = document.createElement("span");
  let rem = 0; // of the letters beside the charts: larger on very wide screens

  const letters = () => parseFloat(getComputedStyle(document.documentElement).fontSize);
  const height = () => 14.375 * rem;
  const font = () => `${0.75 * rem}px system-ui, sans-serif`;

  // A canvas knows no custom properties: the browser says which colour one is now.
  function color(name) {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  }

  const faded = (colour) => (colour.startsWith("rgb(") ? colour.replace("rgb(", "rgba(").replace(")", ", 0.45)") : colour.replace(")", " / 0.45)"));
  const short = new Intl.NumberFormat(document.documentElement.lang, { maximumSignificantDigits: 4 });
  const number = (value) => (value === null || value === undefined ? "–" : short.format(value));
  const time = (seconds) => `${new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;
  const text = (figure) => figure.querySelector("script[type='application/json']").textContent;
  const given = (figure) => JSON.parse(text(figure));

  // Hours and minutes, with the day where one begins; all of it UTC.
  function moments(_, splits, __, ___, step) {
    return splits.map((seconds) => {
      const moment = new Date(seconds * 1000).toISOString();
      return step >= 86400 || moment.slice(11, 16) === "00:00" ? moment.slice(5, 10) : moment.slice(11, 16);
    });
  }

  // Of texts on an axis: closer to each other than this they would run into one.
  function widest(texts) {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.font = font();
    return Math.ceil(Math.max(...texts.map((text) => canvas.measureText(text).width)));
  }

  function axis(extra) {
    return { font: font(), stroke: color("--tblr-body-color"), grid: { stroke: color("--tblr-border-color"), width: 1 }, ticks: { stroke: color("--tblr-border-color") }, ...extra };
  }

  function series(line, index, chart) {
    const stroke = color(`--tblr-${COLORS[index % COLORS.length]}`);
    const common = { label: line.label, stroke, width: rem / 8, spanGaps: false, value: (_, value) => number(value) };
    const alone = chart.x.length === 1 || line.values.filter((value) => value !== null).length < 3;
    if (chart.kind !== "bars") return { ...common, dash: index >= COLORS.length ? [6, 4] : undefined, points: { show: alone, size: 0.375 * rem } };
    // Two stand side by side, more are laid over each other.
    const bars = chart.lines.length === 2 ? { size: [0.44, 2.5 * rem], align: index ? 1 : -1 } : { size: [0.9, 3.75 * rem] };
    return { ...common, width: 1, fill: faded(stroke), paths: uPlot.paths.bars(bars), points: { show: false } };
  }

  // A limit is a dashed line over the whole width; the legend tells its value also while nothing is pointed at.
  function limits(chart) {
    const stroke = color("--tblr-secondary");
    return (chart.limits || []).map((limit, index) => ({ label: limit.label, stroke, width: rem / 12, dash: dashes(index).line.map((length) => (length * rem) / 16), points: { show: false }, value: () => number(limit.value) }));
  }

  const dashes = (index) => DASHES[index % DASHES.length];

  // Of what place of the legend: x is the first, then come lines, then limits.
  const inLegend = (chart, place) => (place > chart.lines.length ? dashes(place - chart.lines.length - 1).legend : "solid");

  // The part of a chart that somebody looks at, as long as there is something of it.
  function lookedAt(plot, x) {
    const { min, max } = plot.scales.x;
    const was = plot.data[0];
    const isPart = min > was[0] || max < was.at(-1);
    return isPart && min < x.at(-1) && max > x[0] ? { min, max } : null;
  }

  function draw(element) {
    const chart = given(element.closest(".chart"));
    const before = drawn.get(element)?.plot;
    const isTime = chart.kind === "time";
    const options = {
      width: element.clientWidth,
      height: height(),
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { x: { time: isTime, range: isTime ? undefined : (_, low, high) => widened(chart, low, high) }, y: { range: (_, low, high) => (low === null ? [0, 1] : [Math.min(0, low), high <= 0 ? 1 : high * 1.08]) } },
      axes: [axis(isTime ? { values: moments, space: 3.5 * rem } : { values: (_, splits) => splits.map((x) => (named(chart) ? begin(chart.labels[x] ?? "") : number(x))), space: widest(named(chart) ? chart.labels.map(begin) : chart.x.map(number)) + rem, ...(named(chart) ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] } : {}) }), axis({ size: 4 * rem, space: 1.875 * rem, values: (_, values) => values.map(number) })],
      series: [{ label: nameOfX(element.closest(".chart"), isTime), value: (_, x) => (x === null ? "–" : place(chart, x)) }, ...chart.lines.map((line, index) => series(line, index, chart)), ...limits(chart)],
      cursor: { drag: { x: true, y: false } },
      legend: { markers: { dash: (_, place) => inLegend(chart, place) } },
    };
    if (chart.fit) options.scales.y = {}; // values whose distance from 0 says nothing
    const data = [chart.x, ...chart.lines.map((line) => line.values), ...(chart.limits || []).map((limit) => chart.x.map(() => limit.value))];
    // What a reader made of it stays: lines that are hidden, and the part that is looked at.
    for (const line of options.series) line.show = !before?.series.some(({ label, show }) => label === line.label && !show);
    before?.destroy();
    const plot = new uPlot(options, data, element);
    const part = before && lookedAt(before, chart.x);
    if (part) plot.setScale("x", part);
    drawn.set(element, { plot, text: text(element.closest(".chart")) });
  }

  const nameOfX = (figure, isTime) => (isTime ? figure.dataset.time : figure.dataset.value);
  const begin = (label) => label.split(" … ")[0]; // of a bin, where it is marked
  const named = (chart) => chart.labels?.length > 0;
  const place = (chart, x) => (chart.kind === "time" ? time(x) : named(chart) ? chart.labels[x] : number(x));

  // Half a bar more at both ends, so that none is cut; a part in between is as it was chosen.
  function widened(chart, low, high) {
    const half = chart.x.length > 1 ? (chart.x[1] - chart.x[0]) / 2 : 0.5;
    const [first, last] = [chart.x[0], chart.x.at(-1)];
    return [low > first ? low : first - half, high < last ? high : last + half];
  }

  function tabulate(figure) {
    const chart = given(figure);
    const table = document.createElement("table");
    table.className = "table table-sm";
    const head = table.createTHead().insertRow();
    for (const label of [nameOfX(figure, chart.kind === "time"), ...chart.lines.map((line) => line.label)]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = label;
      head.append(cell);
    }
    const body = table.createTBody();
    chart.x.forEach((x, index) => {
      if (chart.lines.every((line) => !line.values[index])) return; // nothing happened then
      const row = body.insertRow();
      row.insertCell().textContent = place(chart, x);
      for (const line of chart.lines) row.insertCell().textContent = number(line.values[index]);
    });
    figure.querySelector("[data-chart-table] .table-scroll").replaceChildren(table);
  }

  const sizes = new ResizeObserver((changes) => {
    if (letters() !== rem) return anew();
    for (const change of changes) drawn.get(change.target)?.plot.setSize({ width: change.contentRect.width, height: height() });
    return undefined;
  });

  // Draws what is not drawn yet, or from other values: a chart that did not change stays, with the part that is looked at.
  function all() {
    rem = letters();
    document.body.append(probe);
    for (const [element, { plot }] of drawn) {
      if (element.isConnected) continue;
      plot.destroy();
      sizes.unobserve(element);
      drawn.delete(element);
    }
    for (const element of document.querySelectorAll("[data-chart]")) {
      if (drawn.get(element)?.text === text(element.closest(".chart"))) continue;
      draw(element);
      sizes.observe(element);
    }
    probe.remove();
  }

  function anew() {
    for (const one of drawn.values()) one.text = null;
    all();
  }

  document.addEventListener("toggle", (event) => event.target.matches?.("[data-chart-table][open]") && tabulate(event.target.closest(".chart")), true);
  document.addEventListener("htmx:after:swap", all);
  new MutationObserver(anew).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
  all();
})();
