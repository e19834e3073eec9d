// What a browser can find wrong with a page, each as a list of complaints: empty where all is well.
window.checks = (() => {
  const seen = element => {
    if (!element.checkVisibility({visibilityProperty: true})) return false;
    return !element.closest(".unseen, .skip") && element.getClientRects().length > 0;
  };
  const words = text => text.trim().replace(/\s+/g, " ").slice(0, 60);
  const texts = () => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const owner = node.parentElement;
      if (node.data.trim() && !owner.closest("title, style, script") && seen(owner)) found.push([node, owner]);
    }
    return found;
  };
  const boxes = node => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return [...range.getClientRects()];
  };
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, ground) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * ground[i]);
  const ground = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const luminance = colour => {
    const [r, g, b] = colour.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };

  return {
    unfold() { document.querySelectorAll("details").forEach(each => { each.open = true; }); },

    sideways() {
      const root = document.documentElement, wider = root.scrollWidth - root.clientWidth;
      return wider > 0 ? [`the page is ${wider} px wider than the screen`] : [];
    },

    cut() {
      const found = [];
      for (const [node, owner] of texts()) {
        if (owner.closest(".scroll")) continue;  // moves within its own box
        for (const box of boxes(node)) {
          if (box.width && (box.left < -0.5 || box.right > innerWidth + 0.5)) {
            found.push(`"${words(node.data)}" leaves the screen`);
            break;
          }
        }
      }
      for (const element of document.querySelectorAll("body *")) {
        if (!seen(element) || element instanceof SVGElement) continue;
        const style = getComputedStyle(element);
        const hides = ["hidden", "clip"].includes(style.overflowX) || style.textOverflow === "ellipsis";
        if (hides && element.scrollWidth > element.clientWidth + 1) found.push(`"${words(element.textContent)}" is cut`);
      }
      return found;
    },

    uncuedScrolling() {
      return [...document.querySelectorAll("body *")].filter(element => {
        if (!seen(element) || element instanceof SVGElement) return false;
        const style = getComputedStyle(element);
        if (!["auto", "scroll"].includes(style.overflowX) || element.scrollWidth <= element.clientWidth + 1) return false;
        return element.tabIndex !== 0 || !element.getAttribute("aria-label") || style.backgroundImage === "none";
      }).map(element => `"${words(element.textContent)}" scrolls without a sign of it`);
    },

    faint() {
      const found = [];
      for (const [node, owner] of texts()) {
        const style = getComputedStyle(owner), drawn = owner instanceof SVGElement;
        const below = ground(owner);
        const ratio = contrast(over(rgba(drawn ? style.fill : style.color), below), below);
        const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        if (ratio < (large ? 3 : 4.5)) found.push(`"${words(node.data)}" has a contrast of ${ratio.toFixed(2)}`);
      }
      return [...new Set(found)];
    },

    overlapping() {
      const found = [];
      for (const plane of document.querySelectorAll("svg[role=img]")) {
        const labels = [...plane.querySelectorAll("text")].filter(text => seen(text) && !text.getAttribute("transform"));
        const places = labels.map(text => [text.textContent, text.getBoundingClientRect()]);
        places.forEach(([one, a], i) => places.slice(i + 1).forEach(([other, b]) => {
          const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
          const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          if (across > 1 && down > 3) found.push(`"${words(one)}" and "${words(other)}" overlap`);
        }));
      }
      return found;
    },

    headings() {
      const levels = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(head => +head.tagName[1]);
      const found = levels.filter((level, i) => level > (i ? levels[i - 1] : 0) + 1).map(level => `h${level} skips a level`);
      return levels.filter(level => level === 1).length === 1 ? found : [...found, "there is not one h1"];
    },

    pictures() {
      const found = [...document.images].filter(image => !image.alt.trim() || !image.naturalWidth)
        .map(image => `a picture is broken or has no alt: "${image.alt}"`);
      const drawings = [...document.querySelectorAll("svg:not(svg svg)")].filter(each => !each.closest("[aria-hidden]"));
      return found.concat(drawings.filter(each => !each.querySelector(":scope > title")?.textContent.trim())
        .map(() => "a drawing has no title"));
    },

    tables() {
      return [...document.querySelectorAll("table")].filter(table =>
        !table.caption?.textContent.trim() || [...table.querySelectorAll("th")].some(head => !head.scope))
        .map(table => `"${words(table.textContent)}" lacks a caption or a scope`);
    },

    links() {
      return [...document.querySelectorAll("a[href^='#']")].filter(link => !document.getElementById(link.hash.slice(1)))
        .map(link => `${link.hash} leads nowhere`);
    },
  };
})();
