// The search of the site, in the place of Fuse: smalldocs.js makes the index and shows what is found.
// Every word of a query must begin some word of an entry. Titles weigh most, then what a page is looked for by
// (words.yml), then headings, then text.
window.Fuse = class {
  constructor(entries) {
    const plain = text => ` ${text.toLowerCase().normalize('NFKD').replace(/[^\p{L}\p{N}_]+/gu, ' ')} `
    this.entries = entries.map(item => {
      const page = item.section ? '' : item.title // a page stands for its title; its sections for their headings
      return { item, title: plain(page), words: plain(item.words), section: plain(item.section), text: plain(item.text), of: plain(item.title) }
    })
    this.plain = plain
  }

  score(entry, phrase) {
    let sum = 0
    for (const word of phrase.trim().split(' ')) {
      const times = entry.text.split(` ${word}`).length - 1
      const found = 20*entry.title.includes(` ${word}`) + 16*entry.words.includes(` ${word}`) + 10*entry.section.includes(` ${word}`)
        + Math.min(times, 4) + 2*entry.of.includes(` ${word}`)
      if (!found) return 0
      sum += found
    }
    const whole = phrase.trimEnd()
    for (const [key, value] of Object.entries({ title: 60, words: 50, section: 40, text: 3 })) {
      if (entry[key].includes(whole)) sum += value
      if (entry[key] === phrase) sum += 10
    }
    return entry.item.href.startsWith('internals/') ? .6*sum : sum
  }

  search(query, { limit }) {
    const phrase = this.plain(query), of = {}
    if (!phrase.trim()) return []
    return this.entries.map(entry => ({ item: entry.item, score: this.score(entry, phrase) }))
      .filter(o => o.score).sort((a, b) => b.score - a.score)
      .filter(({ item: { title } }) => (of[title] = (of[title] ?? 0) + 1) <= 3).slice(0, limit)
  }
}
