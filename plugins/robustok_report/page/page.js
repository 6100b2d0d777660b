"use strict";
(() => {
  const config = { displaylogo: false, responsive: true, displayModeBar: "hover", modeBarButtonsToRemove: ["select2d", "lasso2d"] };

  // plotly.js is compiled for the first figure, and figures are drawn when they come into view: a report opens at once.
  const compile = () => {
    if (window.Plotly) return;
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  };
  const drawn = new Set();
  const draw = (plot) => {
    if (drawn.has(plot)) return;
    drawn.add(plot);
    compile();
    const figure = JSON.parse(plot.parentElement.querySelector('script[type="application/json"]').textContent);
    plot.original = figure.data.map(({ x, y, meta }) => ({ drawn: { x, y }, means: meta ?? { x, y } }));
    const wanted = settings(plot);
    apply(plot, figure.data, figure.layout, wanted);
    Plotly.newPlot(plot, figure.data, figure.layout, config);
  };
  const settings = (plot) => {
    const group = plot.hasAttribute("data-curves") && plot.closest("section").querySelector("[data-switches]");
    if (!group) return null;
    return {
      log: group.querySelector('[data-switch="log"]').checked,
      smoothing: Number(group.querySelector('[data-switch="smoothing"]').value),
    };
  };
  const apply = (plot, data, layout, wanted) => {
    if (!wanted) return;
    layout.yaxis.type = wanted.log ? "log" : "linear";
    layout.yaxis.autorange = true;
    data.forEach((trace, number) => {
      // A long curve is drawn by its extremes, but only the means of its points may be averaged further.
      const { x, y } = wanted.smoothing ? plot.original[number].means : plot.original[number].drawn;
      Object.assign(trace, { x, y: smoothed(y, wanted.smoothing) });
    });
  };
  // An exponential moving average, without a bias towards zero at its start.
  const smoothed = (values, weight) => {
    let sum = 0, total = 0;
    return weight === 0 ? values : values.map((value) => {
      if (value === null) return null;
      sum = weight * sum + (1 - weight) * value;
      total = weight * total + (1 - weight);
      return sum / total;
    });
  };

  const plots = [...document.querySelectorAll("[data-plot]")];
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "400px" });
  plots.forEach((plot) => watcher.observe(plot));
  addEventListener("beforeprint", () => plots.forEach(draw));

  for (const group of document.querySelectorAll("[data-switches]")) {
    group.addEventListener("input", () => {
      for (const plot of group.closest("section").querySelectorAll("[data-curves]")) {
        if (!drawn.has(plot)) continue;
        apply(plot, plot.data, plot.layout, settings(plot));
        Plotly.redraw(plot);
      }
    });
  }
  for (const figure of document.querySelectorAll("[data-compared]")) {
    const slider = figure.querySelector("[data-slider]");
    const move = () => figure.style.setProperty("--place", `${slider.value}%`);
    slider.addEventListener("input", move);
    move();
  }

  // The link of the section that is being read.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.getAttribute("href").slice(1), link]));
  const reading = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      links.forEach((link) => { link.classList.remove("here"); link.removeAttribute("aria-current"); });
      const link = links.get(entry.target.id);
      link.classList.add("here");
      link.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  links.forEach((_, id) => reading.observe(document.getElementById(id)));
})();
