// At slider value v, between run k and run k + 1, the left share v - k of each image shows run k + 1.
document.documentElement.classList.add("js");
for (const gallery of document.querySelectorAll(".gallery")) {
  const slider = gallery.querySelector("input");
  if (!slider) continue;
  const show = () => {
    const v = Number(slider.value), k = Math.min(Math.floor(v), Number(slider.max) - 1), share = v - k;
    for (const stack of gallery.querySelectorAll(".stack")) {
      stack.querySelectorAll(".layer").forEach((layer, i) => {
        const left = i === k ? share : 0, right = i === k + 1 ? 1 - share : 0;
        layer.style.display = i === k || i === k + 1 ? "block" : "none";
        layer.style.clipPath = `inset(0 ${100 * right}% 0 ${100 * left}%)`;
      });
      const edge = stack.querySelector(".edge");
      edge.style.display = share > 0 && share < 1 ? "block" : "none";
      edge.style.left = `${100 * share}%`;
    }
    for (const button of gallery.querySelectorAll("button")) {
      const i = Number(button.value), shown = (i === k && share < 1) || (i === k + 1 && share > 0);
      button.setAttribute("aria-pressed", String(shown));
    }
  };
  slider.addEventListener("input", show);
  for (const button of gallery.querySelectorAll("button")) {
    button.addEventListener("click", () => { slider.value = button.value; show(); });
  }
  show();
}
