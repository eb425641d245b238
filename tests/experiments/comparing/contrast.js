// [what, its text, its contrast, the least that WCAG AA wants] of every text, control and line that is seen.
() => {
  const parts = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, two) => {
    const [a, b] = [light(one), light(two)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility() || node.closest("noscript")) continue;
    const style = getComputedStyle(node);
    const control = node.matches("button, select, input[type=search]");
    const text = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.textContent.trim());
    const on = behind(node instanceof SVGElement ? node.closest("svg").parentElement : node);
    const ink = parts(node instanceof SVGElement ? style.fill : style.color);
    if (control || (text && !node.matches("option, title"))) {
      found.push([node.tagName, node.textContent.slice(0, 30), ratio(ink, on), 4.5]);
    }
    if (control && !node.closest("th")) {
      found.push([node.tagName, "its border", ratio(parts(style.borderTopColor), behind(node.parentElement)), 3]);
    }
    if (node.matches(".swatch line")) found.push(["line", node.className.baseVal, ratio(parts(style.stroke), on), 3]);
  }
  return found;
}
