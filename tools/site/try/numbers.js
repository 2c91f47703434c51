// What the package computes in Python, computed here: scores of a picture, principal components of tokens.
// Pictures are Float32Arrays in [0,1], colour by colour, as the networks take them. Tokens are channel by channel.

// ---- scores, as `image_metrics` defines them ----

const TAPS = 11, REACH = 5, SIGMA = 1.5
const gauss = Float32Array.from({ length: TAPS }, (_, i) => Math.exp(-((i - REACH)**2)/(2*SIGMA**2)))
const total = gauss.reduce((a, b) => a + b)

// The mean around each pixel of a square `plane`, by a Gaussian, mirrored at the edges
function smooth(plane, side) {
  const mirrored = Int32Array.from({ length: side + 2*REACH }, (_, i) => {
    const at = Math.abs(i - REACH)
    return at < side ? at : 2*(side - 1) - at
  })
  const rows = new Float32Array(side*side), out = new Float32Array(side*side)
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {
    let sum = 0
    for (let k = 0; k < TAPS; k++) sum += gauss[k]*plane[y*side + mirrored[x + k]]
    rows[y*side + x] = sum/total
  }
  for (let y = 0; y < side; y++) for (let k = 0; k < TAPS; k++) {
    const from = mirrored[y + k]*side, weight = gauss[k]/total
    for (let x = 0; x < side; x++) out[y*side + x] += weight*rows[from + x]
  }
  return out
}

const times = (a, b) => a.map((v, i) => v*b[i])
const colours = picture => [0, 1, 2].map(c => picture.subarray(c*picture.length/3, (c + 1)*picture.length/3))

// What the scores need of a target, so that it is computed once
export function prepare(target, side) {
  const planes = colours(target).map(t => ({ t, mean: smooth(t, side), square: smooth(times(t, t), side) }))
  return { target, side, planes }
}

export function scoresOf(picture, { target, side, planes }) {
  let squares = 0, ssim = 0
  for (let i = 0; i < picture.length; i++) squares += (picture[i] - target[i])**2
  colours(picture).forEach((p, c) => {
    const { t, mean, square } = planes[c]
    const pm = smooth(p, side), pp = smooth(times(p, p), side), pt = smooth(times(p, t), side)
    for (let i = 0; i < p.length; i++) {
      const spread = Math.max(pp[i] - pm[i]**2, 0) + Math.max(square[i] - mean[i]**2, 0)
      const means = pm[i]*mean[i]
      ssim += (2*means + 1e-4)*(2*(pt[i] - means) + 9e-4)/((pm[i]**2 + mean[i]**2 + 1e-4)*(spread + 9e-4))
    }
  })
  const n = picture.length
  return { psnr: -10*Math.log10(squares/n), ssim: ssim/n }
}

// ---- principal components ----

// All eigenvectors of a symmetric matrix (n×n), the largest eigenvalue first: Jacobi's rotations
function eigenvectors(matrix, n) {
  const a = Float64Array.from(matrix), v = new Float64Array(n*n) // v: one vector in each row
  for (let i = 0; i < n; i++) v[i*n + i] = 1
  const size = a.reduce((sum, x) => sum + x*x, 0)
  for (let sweep = 0; sweep < 20; sweep++) {
    let off = 0
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) {
      const apq = a[p*n + q]
      off += 2*apq*apq
      if (apq*apq < 1e-20*size) continue
      const theta = (a[q*n + q] - a[p*n + p])/(2*apq)
      const t = (theta < 0 ? -1 : 1)/(Math.abs(theta) + Math.sqrt(theta*theta + 1))
      const cos = 1/Math.sqrt(t*t + 1), sin = t*cos
      const turn = (m, i, j) => { // two numbers of `m`, as the axes p and q turn
        const x = m[i], y = m[j]
        m[i] = cos*x - sin*y
        m[j] = sin*x + cos*y
      }
      for (let i = 0; i < n; i++) turn(a, p*n + i, q*n + i)
      for (let i = 0; i < n; i++) turn(a, i*n + p, i*n + q)
      for (let i = 0; i < n; i++) turn(v, p*n + i, q*n + i)
    }
    if (off < 1e-12*size) break
  }
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => a[j*n + j] - a[i*n + i])
  return order.map(i => v.slice(i*n, (i + 1)*n))
}

// Tokens (channels×places) as their mean and what they are along each direction of the greatest spread
export function componentsOf(tokens, channels) {
  const places = tokens.length/channels
  const mean = new Float32Array(channels), centred = new Float32Array(tokens.length)
  for (let c = 0; c < channels; c++) {
    const row = tokens.subarray(c*places, (c + 1)*places)
    mean[c] = row.reduce((a, b) => a + b)/places
    for (let i = 0; i < places; i++) centred[c*places + i] = row[i] - mean[c]
  }
  const covariance = new Float64Array(channels*channels)
  for (let c = 0; c < channels; c++) for (let d = 0; d <= c; d++) {
    let sum = 0
    for (let i = 0; i < places; i++) sum += centred[c*places + i]*centred[d*places + i]
    covariance[c*channels + d] = covariance[d*channels + c] = sum/places
  }
  const vectors = eigenvectors(covariance, channels)
  const along = vectors.map(vector => {
    const values = new Float32Array(places)
    for (let c = 0; c < channels; c++) for (let i = 0; i < places; i++) values[i] += vector[c]*centred[c*places + i]
    return values
  })
  return { channels, places, mean, vectors, along }
}

// The tokens again, from the `keep` strongest components; `order` says which token stands at each place, −1: the mean
export function rebuilt({ channels, places, mean, vectors, along }, keep, order) {
  const out = new Float32Array(channels*places)
  for (let c = 0; c < channels; c++) {
    const sums = new Float32Array(places).fill(mean[c])
    for (let k = 0; k < keep; k++) for (let i = 0; i < places; i++) sums[i] += vectors[k][c]*along[k][i]
    for (let i = 0; i < places; i++) out[c*places + i] = order[i] < 0 ? mean[c] : sums[order[i]]
  }
  return out
}

// The three strongest components as colours, as `pca_rgb` has them: [r, g, b] of each place, in [0,1]
export function pcaColours({ places, along }) {
  const quantile = (sorted, q) => {
    const at = q*(places - 1), low = Math.floor(at), high = Math.min(low + 1, places - 1)
    return sorted[low] + (at - low)*(sorted[high] - sorted[low])
  }
  const scaled = along.slice(0, 3).map(values => {
    const sorted = values.slice().sort()
    const low = quantile(sorted, .01), high = quantile(sorted, .99)
    return values.map(v => Math.max(0, Math.min(1, (v - low)/Math.max(high - low, 1e-8))))
  })
  return Array.from({ length: places }, (_, i) => scaled.map(values => values[i]))
}
