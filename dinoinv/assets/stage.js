// Two pictures in one place: a wipe, a pair or an error map, with one zoom. The gallery and the page `try` use it.

export const clamp = (value, low, high) => Math.max(low, Math.min(high, value))

export function el(tag, props, ...children) {
  const e = Object.assign(document.createElement(tag), props)
  e.append(...children)
  return e
}

// ---- pictures ----

export async function pixels(address) {
  const img = new Image()
  img.src = address
  await img.decode()
  const canvas = el('canvas', { width: img.naturalWidth, height: img.naturalHeight })
  const context = canvas.getContext('2d', { willReadFrequently: true })
  context.drawImage(img, 0, 0)
  return context.getImageData(0, 0, canvas.width, canvas.height)
}

export function canvasOf(image, canvas = el('canvas')) {
  canvas.width = image.width
  canvas.height = image.height
  canvas.getContext('2d').putImageData(image, 0, 0)
  return canvas
}

// The mean absolute error over the channels, pixel by pixel, in the colours (numbers, from 0 to `top`)
export function errorOf(a, b, colours, top) {
  const out = new ImageData(a.width, a.height)
  for (let i = 0; i < a.data.length; i += 4) {
    let sum = 0
    for (let c = i; c < i + 3; c++) sum += Math.abs(a.data[c] - b.data[c])
    const colour = colours[Math.min(colours.length - 1, Math.floor(sum/765/top*colours.length))]
    out.data.set([colour >> 16, colour >> 8 & 255, colour & 255, 255], i)
  }
  return out
}

export function legend(host, colours, top) { // colours as rrggbb
  host.querySelector('i').style.background = `linear-gradient(90deg, ${colours.map(c => `#${c}`)})`
  host.querySelector('span').textContent = `≥ ${top}`
}

// ---- the stage ----

// state: { view, at, zoom, x, y }: what is shown, the border of the wipe in percent, the zoom and where its corner is.
// `two` pictures beside each other, or one over the other; `ratio` is width to height of one.
export function place(stage, state, ratio, two) {
  const { view, zoom } = state
  const zoomed = zoom > 2.5 ? 'zoomed sharp' : zoom > 1 ? 'zoomed' : ''
  stage.className = `stage ${view} ${two ? 'two' : 'one'} ${zoomed}`
  stage.style.cssText = `max-width: calc(var(--tall, 80vh)*${ratio*(two ? 2 : 1)}); --zoom: ${zoom}; --at: ${state.at};` +
    `--x: ${-100*state.x}%; --y: ${-100*state.y}%`
}

// Drag to wipe or, once zoomed, to pan; pinch or double-click to zoom. `change` gets what is new of the state.
export function hands(stage, state, change) {
  const fingers = new Map()
  let held

  function zoomTo(zoom, x = .5, y = .5) { // keep what is at (x, y) of the pane where it is
    zoom = clamp(zoom, 1, 12)
    const keep = (from, at) => clamp(from + at/state.zoom - at/zoom, 0, 1 - 1/zoom)
    change({ x: keep(state.x, x), y: keep(state.y, y), zoom })
  }

  function pan(dx, dy) {
    const go = (from, by) => clamp(from - by/state.zoom, 0, 1 - 1/state.zoom)
    change({ x: go(state.x, dx), y: go(state.y, dy) })
  }

  function paneBox(e) {
    const boxes = [...stage.querySelectorAll('.pane')].filter(p => !p.hidden).map(p => p.getBoundingClientRect())
    return boxes.find(box => e.clientX >= box.left && e.clientX <= box.right) ?? boxes[0]
  }

  function placeIn(e) {
    const box = paneBox(e)
    return [(e.clientX - box.left)/box.width, (e.clientY - box.top)/box.height]
  }

  function wipe(e) {
    const box = stage.getBoundingClientRect()
    change({ at: clamp(100*(e.clientX - box.left)/box.width, 0, 100) })
  }

  stage.onpointerdown = e => {
    stage.setPointerCapture(e.pointerId)
    fingers.set(e.pointerId, e)
    held = e.target.matches('.handle') || state.zoom === 1 ? 'wipe' : 'pan'
    if (held === 'wipe' && state.view === 'wipe') wipe(e)
  }
  stage.onpointerup = stage.onpointercancel = e => fingers.delete(e.pointerId)
  stage.onpointermove = e => {
    const last = fingers.get(e.pointerId)
    if (!last) return
    const second = [...fingers.values()].find(o => o.pointerId !== e.pointerId)
    const apart = o => Math.hypot(o.clientX - second.clientX, o.clientY - second.clientY)
    const box = paneBox(e)
    if (second) zoomTo(state.zoom*apart(e)/Math.max(apart(last), 1), ...placeIn(e))
    else if (held === 'pan') pan((e.clientX - last.clientX)/box.width, (e.clientY - last.clientY)/box.height)
    else if (state.view === 'wipe') wipe(e)
    fingers.set(e.pointerId, e)
  }
  stage.ondblclick = e => zoomTo(state.zoom > 1 ? 1 : 4, ...placeIn(e))
  stage.addEventListener('wheel', e => {
    if (!e.ctrlKey) return
    e.preventDefault()
    zoomTo(state.zoom*Math.exp(-e.deltaY/150), ...placeIn(e))
  }, { passive: false })

  return { zoomTo, pan }
}

// Light or dark, as whatever `host` stands on: a notebook or a site may have been switched by hand
export function followTheme(host) {
  function theme() {
    let behind = host
    const colour = () => getComputedStyle(behind).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0, 0]
    while (behind && colour()[3] === 0) behind = behind.parentElement
    const [r, g, b] = behind ? colour() : []
    const dark = behind ? .3*r + .6*g + .1*b < 128 : matchMedia('(prefers-color-scheme: dark)').matches
    host.style.colorScheme = dark ? 'dark' : 'light'
  }
  theme()
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', theme)
  for (const e of [document.documentElement, document.body]) {
    const attributeFilter = ['class', 'data-jp-theme-light', 'data-bs-theme']
    new MutationObserver(() => setTimeout(theme, 50)).observe(e, { attributes: true, attributeFilter })
  }
}
