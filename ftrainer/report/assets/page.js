"use strict";
// Show or hide what carries a tag: the lines of one group, or all raw values.
(() => {
  const boxes = [...document.querySelectorAll(".bar input")];
  const plots = () => Bokeh.documents.flatMap((each) => each.roots());
  const apply = () => {
    const hidden = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
    for (const plot of plots())
      for (const drawn of plot.renderers) drawn.visible = !drawn.tags.some((tag) => hidden.has(tag));
  };
  for (const box of boxes) box.addEventListener("change", apply);
  for (const button of document.querySelectorAll(".bar button"))
    button.addEventListener("click", () => {
      for (const box of boxes) if (box.value.startsWith("group-")) box.checked = button.value === "all";
      apply();
    });
  // A finger that drags over a plot scrolls the page.
  if (matchMedia("(pointer: coarse)").matches)
    addEventListener("load", () => { for (const plot of plots()) plot.toolbar.gestures.pan.active = null; });
})();
